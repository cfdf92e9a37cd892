/*
 * target.c
 *		The directory that a backup is written to, and those of its tablespaces.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "paths.h"
#include "report.h"
#include "target.h"

/* A directory that is ours to remove, or to empty. */
typedef struct Root
{
	char	   *path;
	bool		made;			/* it was not there */
	struct Root *next;
} Root;

static TargetOptions options;
static Root *roots = NULL;
static bool keep = false;

/*
 * Tablespaces
 */

/* The part of OLD=NEW up to an equals sign that no backslash precedes. */
static char *
take_directory(const char **text)
{
	char	   *directory = pg_malloc(strlen(*text) + 1);
	size_t		len = 0;

	for (; **text !='\0' && **text !='='; (*text) ++)
	{
		if ((*text)[0] == '\\' && (*text)[1] == '=')
			(*text) ++;
		directory[len++] = **text;
	}
	directory[len] = '\0';
	return directory;
}

/*
 * Adds what an option -T says.
 */
void
tablespace_mapping_add(TablespaceMapping **mappings, const char *argument)
{
	TablespaceMapping *mapping = pg_malloc0(sizeof(TablespaceMapping));
	const char *rest = argument;

	mapping->old_dir = take_directory(&rest);
	if (*rest == '=')
	{
		rest++;
		mapping->new_dir = take_directory(&rest);
	}
	if (mapping->new_dir == NULL || mapping->old_dir[0] == '\0' ||
		mapping->new_dir[0] == '\0' || *rest != '\0')
		fatal("invalid tablespace mapping format \"%s\", must be \"OLDDIR=NEWDIR\"", argument);
	if (!is_absolute_path(mapping->old_dir))
		fatal("old directory is not an absolute path in tablespace mapping: %s", mapping->old_dir);
	if (!is_absolute_path(mapping->new_dir))
		fatal("new directory is not an absolute path in tablespace mapping: %s", mapping->new_dir);
	canonicalize_path(mapping->old_dir);
	canonicalize_path(mapping->new_dir);
	mapping->next = *mappings;
	*mappings = mapping;
}

static const char *
mapped_location(const char *location)
{
	char		canonical[MAXPGPATH];

	strlcpy(canonical, location, sizeof(canonical));
	canonicalize_path(canonical);
	for (TablespaceMapping *m = options.mappings; m; m = m->next)
	{
		if (strcmp(m->old_dir, canonical) == 0)
			return m->new_dir;
	}
	return location;
}

/*
 * Beginning and failing
 */

/* At exit: what was not finished goes. */
static void
clean_up(void)
{
	for (Root *root = roots; root && !keep; root = root->next)
	{
		if (options.no_clean)
			report_info("directory \"%s\" not removed at user's request", root->path);
		else
		{
			report_info("removing %s directory \"%s\"", root->made ? "the" : "contents of",
						root->path);
			if (!rmtree(root->path, root->made))
				report_error("could not remove directory \"%s\"", root->path);
		}
	}
}

/*
 * Has no other program write to that directory for as long as this one runs.  False
 * if one does already.
 */
bool
target_try_lock(const char *path)
{
	int			fd = open(path, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		fatal("could not open directory \"%s\": %m", path);
	/* Not all file systems can do that. */
	return flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

/*
 * The same for a directory that a backup is to be written to; gives up if another
 * program writes to it.
 */
void
target_lock(const char *path)
{
	if (!target_try_lock(path))
		fatal("another program is writing a backup to directory \"%s\"", path);
}

/*
 * Makes a directory, or takes one that is empty; or one that is known to be ours,
 * which is locked.
 */
static void
take_root(const char *path, bool ours)
{
	Root	   *root = pg_malloc0(sizeof(Root));

	for (const Root *other = roots; other; other = other->next)
	{
		if (strcmp(other->path, path) == 0)
			fatal("directory \"%s\" cannot be used twice", path);
	}
	root->path = pg_strdup(path);
	switch (pg_check_dir(path))
	{
		case 0:
			if (pg_mkdir_p(root->path, pg_dir_create_mode) != 0)
				fatal("could not create directory \"%s\": %m", path);
			root->made = true;
			break;
		case 1:
			break;
		case -1:
			fatal("could not access directory \"%s\": %m", path);
		default:
			if (!ours)
				fatal("directory \"%s\" exists but is not empty", path);
	}
	if (!ours)
		target_lock(path);
	/* Another program may have been there first. */
	if (!ours && pg_check_dir(path) > 1)
		fatal("directory \"%s\" exists but is not empty", path);
	root->next = roots;
	roots = root;
}

/*
 * Makes the directory of a backup, or takes one that is empty.  Gives up if it
 * cannot be used.
 */
void
target_create(const TargetOptions *given)
{
	options = *given;
	if (options.group_access)
		SetDataDirectoryCreatePerm(PG_DIR_MODE_GROUP);
	umask(pg_mode_mask);
	atexit(clean_up);
	take_root(options.directory, options.go_on);
}

/*
 * From now on, everything stays: the backup is complete.
 */
void
target_keep(void)
{
	keep = true;
}

/*
 * Files
 */

/*
 * The path of a file of the backup, in MAXPGPATH bytes; that of the backup for "".
 */
void
target_path(char *to, const char *path)
{
	if (path[0] != '\0' && !path_is_safe(path))
		fatal("file name \"%s\" leads outside of the backup", path);
	if (snprintf(to, MAXPGPATH, "%s%s%s", options.directory, path[0] ? "/" : "", path) >= MAXPGPATH)
		fatal("path of file \"%s\" is too long", path);
}

/*
 * Makes a directory, whose parent is there; it may be there, too.
 */
void
target_make_directory(const char *path)
{
	char		full[MAXPGPATH];

	target_path(full, path);
	if (mkdir(full, pg_dir_create_mode) != 0 && errno != EEXIST)
		fatal("could not create directory \"%s\": %m", full);
}

static bool
links_to(const char *link, const char *target)
{
	char		found[MAXPGPATH];
	ssize_t		len = readlink(link, found, sizeof(found) - 1);

	if (len < 0)
		return false;
	found[len] = '\0';
	return strcmp(found, target) == 0;
}

/*
 * Makes a tablespace, of which the name in pg_tblspc and the location on the
 * server are given.
 */
void
target_make_tablespace(const char *path, const char *location)
{
	const char *here = mapped_location(location);
	char		full[MAXPGPATH];
	bool		linked;

	if (!is_absolute_path(here))
		fatal("location \"%s\" of tablespace \"%s\" is not an absolute path", here, path);
	target_path(full, path);
	/* What is not empty is only ours if it was when this link was made. */
	linked = options.go_on && links_to(full, here);
	take_root(here, linked);
	if (!linked && symlink(here, full) != 0)
		fatal("could not create symbolic link \"%s\": %m", full);
}

/*
 * Opens a file, with flags as O_CREAT | O_WRONLY.
 */
int
target_open(const char *path, int flags)
{
	char		full[MAXPGPATH];
	int			fd;

	target_path(full, path);
	fd = open(full, flags | O_NOFOLLOW | PG_BINARY, pg_file_create_mode);
	if (fd < 0)
		fatal("could not %s file \"%s\": %m", flags & O_CREAT ? "create" : "open", full);
	return fd;
}

void
target_write(int fd, const char *path, const void *data, size_t len, uint64 offset)
{
	size_t		done = 0;

	while (done < len)
	{
		ssize_t		written;

		errno = 0;
		written = pg_pwrite(fd, (const char *) data + done, len - done, (off_t) (offset + done));
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
		{
			/* If nothing was said, assume that the disk is full. */
			if (errno == 0)
				errno = ENOSPC;
			fatal("could not write to file \"%s/%s\": %m", options.directory, path);
		}
		done += written;
	}
}

void
target_close(int fd, const char *path)
{
	if (close(fd) != 0)
		fatal("could not close file \"%s/%s\": %m", options.directory, path);
}

/*
 * Durability
 */

static void
sync_path(const char *full, bool directory)
{
	int			fd = open(full, O_RDONLY | PG_BINARY, 0);

	if (fd < 0)
		fatal("could not open file \"%s\": %m", full);
	/* Some systems cannot do that for directories. */
	if (fsync(fd) != 0 && !(directory && (errno == EBADF || errno == EINVAL)))
		fatal("could not fsync file \"%s\": %m", full);
	close(fd);
}

/*
 * Has the kernel begin to write a file that target_sync() is going to wait for.  If
 * that is done for many before the first is waited for, the file system makes their
 * metadata durable together.
 */
void
target_write_back(const char *path)
{
#ifdef HAVE_SYNC_FILE_RANGE
	char		full[MAXPGPATH];
	int			fd;

	target_path(full, path);
	fd = open(full, O_RDONLY | O_NOFOLLOW | PG_BINARY, 0);
	if (fd < 0)
		return;
	(void) sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	close(fd);
#endif
}

/*
 * Makes a file or directory of the backup durable, if it is not all of it at the
 * end.
 */
void
target_sync(const char *path)
{
	char		full[MAXPGPATH];
	struct stat st;

	if (options.no_sync || options.sync_file_systems)
		return;
	target_path(full, path);
	if (lstat(full, &st) != 0)
		fatal("could not stat file \"%s\": %m", full);
	if (!S_ISLNK(st.st_mode))
		sync_path(full, S_ISDIR(st.st_mode));
}

#ifdef HAVE_SYNCFS
static void
sync_file_system(const char *path)
{
	int			fd = open(path, O_RDONLY, 0);

	if (fd < 0)
		fatal("could not open file \"%s\": %m", path);
	if (syncfs(fd) != 0)
		fatal("could not synchronize file system for file \"%s\": %m", path);
	close(fd);
}
#endif

/*
 * Makes the roots and their names durable; or, if file systems are synchronized,
 * everything.
 */
void
target_sync_all(void)
{
	if (options.no_sync)
		return;
	for (Root *root = roots; root; root = root->next)
	{
		char		parent[MAXPGPATH];

#ifdef HAVE_SYNCFS
		if (options.sync_file_systems)
			sync_file_system(root->path);
#endif
		sync_path(root->path, true);
		strlcpy(parent, root->path, sizeof(parent));
		get_parent_directory(parent);
		sync_path(parent[0] == '\0' ? "." : parent, true);
	}
}
