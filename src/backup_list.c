/*
 * backup_list.c
 *		What a base backup takes of the data directory.
 *
 * The same that PostgreSQL's own base backup takes: everything but what a server
 * makes anew when it starts, temporary files and relations, all forks but the
 * init fork of unlogged relations, and WAL, which is a matter of its own.  What
 * vanishes while it is looked at is left out, since WAL says so too.
 */
#include "postgres.h"

#include "compat.h"

#include <sys/stat.h>
#include <unistd.h>

#include "backup_list.h"
#include "common/file_utils.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "relation_files.h"
#include "storage/fd.h"
#include "summary_store.h"

/* Directories of which only the fact is taken that they are there. */
static const char *const empty_directories[] = {
	"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots",
	"pg_stat_tmp", "pg_subtrans", "pg_wal/archive_status", "pg_wal/summaries",
};

/* Files that are left out, wherever they are. */
static const char *const excluded_names[] = {
	".DS_Store", "backup_label", "backup_manifest", "current_logfiles.tmp",
	"postgresql.auto.conf.tmp", "postmaster.opts", "postmaster.pid", "tablespace_map",
};

/* The same, by how their names begin. */
static const char *const excluded_prefixes[] = {
	PG_TEMP_FILE_PREFIX, "pg_internal.init",
};

typedef struct Listing
{
	backup_list_fn add;
	void	   *arg;
} Listing;

static bool
is_one_of(const char *name, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/* Is that directory a tablespace?  Other servers' directories may be in it. */
static bool
is_tablespace(const char *path)
{
	return strncmp(path, "pg_tblspc/", 10) == 0 && strchr(path + 10, '/') == NULL;
}

static bool
is_excluded(const char *directory, const char *name)
{
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		(is_tablespace(directory) && strcmp(name, TABLESPACE_VERSION_DIRECTORY) != 0) ||
		is_one_of(name, excluded_names, lengthof(excluded_names)))
		return true;
	for (size_t i = 0; i < lengthof(excluded_prefixes); i++)
	{
		if (strncmp(name, excluded_prefixes[i], strlen(excluded_prefixes[i])) == 0)
			return true;
	}
	return strcmp(directory, STORE_DIRECTORY) == 0 && !store_is_summary_name(name);
}

/* Does a directory hold files of relations: "global", or one of a database? */
static bool
holds_relations(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;

	if (strcmp(path, "global") == 0)
		return true;
	return (strncmp(path, "base/", 5) == 0 || strncmp(path, "pg_tblspc/", 10) == 0) &&
		strspn(name, "0123456789") == strlen(name);
}

/*
 * Is it a file of a relation that is temporary, or of one that is unlogged and
 * will be emptied?
 */
static bool
is_transient_relation(const char *directory, const char *name)
{
	char		init[MAXPGPATH];
	size_t		digits = strspn(name, "0123456789");

	if (name[0] == 't' && looks_like_temp_rel_name(name))
		return true;
	if (digits == 0 || (name[digits] != '\0' && name[digits] != '_' && name[digits] != '.') ||
		strncmp(name + digits, "_init", 5) == 0)
		return false;
	snprintf(init, sizeof(init), "%s/%.*s_init", directory, (int) digits, name);
	return access(init, F_OK) == 0;
}

static void
add_entry(const Listing *listing, BackupKind kind, const char *path, const struct stat *st,
		  const char *target)
{
	BackupEntry entry = {0};

	entry.kind = kind;
	entry.path = path;
	entry.size = kind == BACKUP_FILE ? (int64) st->st_size : 0;
	entry.modified = (int64) st->st_mtime;
	entry.target = target;
	listing->add(listing->arg, &entry);
}

static void list_directory(const Listing *listing, const char *path);

static void
list_link(const Listing *listing, const char *path, const struct stat *st)
{
	char		target[MAXPGPATH];
	ssize_t		len = readlink(path, target, sizeof(target) - 1);

	if (len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read symbolic link \"%s\": %m", path)));
	target[len] = '\0';
	add_entry(listing, BACKUP_LINK, path, st, target);
	list_directory(listing, path);
}

static void
list_entry(const Listing *listing, const char *directory, const char *name)
{
	char		path[MAXPGPATH];
	struct stat st;
	bool		top = strcmp(directory, ".") == 0;

	if (snprintf(path, sizeof(path), "%s%s%s", top ? "" : directory, top ? "" : "/", name) >=
		(int) sizeof(path))
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("path of file \"%s\" in \"%s\" is too long", name, directory)));
	if (!stat_existing(path, &st, lstat))
		return;
	if (S_ISLNK(st.st_mode) && strcmp(directory, "pg_tblspc") == 0)
		list_link(listing, path, &st);
	else if (S_ISDIR(st.st_mode) || (S_ISLNK(st.st_mode) && strcmp(path, "pg_wal") == 0))
	{
		add_entry(listing, BACKUP_DIRECTORY, path, &st, NULL);
		list_directory(listing, path);
	}
	else if (!S_ISREG(st.st_mode))
		ereport(WARNING,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("skipping special file or directory \"%s\"", path)));
	else if (strcmp(directory, "pg_wal") != 0)
		add_entry(listing, BACKUP_FILE, path, &st, NULL);
}

static void
list_directory(const Listing *listing, const char *path)
{
	DIR		   *dir;
	struct dirent *de;
	bool		relations = holds_relations(path);

	check_stack_depth();
	if (is_one_of(path, empty_directories, lengthof(empty_directories)))
		return;
	if (is_tablespace(path))
		require_tablespace(path);
	dir = AllocateDir(path);
	if (dir == NULL && errno == ENOENT)
		return;
	while ((de = ReadDir(dir, path)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (!is_excluded(path, de->d_name) &&
			!(relations && is_transient_relation(path, de->d_name)))
			list_entry(listing, path, de->d_name);
	}
	FreeDir(dir);
}

/*
 * Lists everything: a directory or link before what is in it.  ERROR if something
 * cannot be read.
 */
void
backup_list(backup_list_fn add, void *arg)
{
	Listing		listing = {add, arg};

	list_directory(&listing, ".");
}
