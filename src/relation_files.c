/*
 * relation_files.c
 *		The files that relations are stored in, and their names.
 *
 * Only files of permanent relations are known here, of all forks but the free
 * space map, which backups copy whole.  Names are relative to the data
 * directory, as they are on disk.
 */
#include "postgres.h"

#include "compat.h"

#include <sys/stat.h>

#include "catalog/pg_tablespace_d.h"
#include "miscadmin.h"
#include "relation_files.h"
#include "storage/fd.h"

#define TABLESPACES_DIRECTORY	"pg_tblspc"

/* How long a tablespace may lack its directory while it is being dropped. */
#define DROP_WAIT_MS	10
#define DROP_WAITS		100

/*
 * The path of a file.  There is room for MAXPGPATH bytes.
 */
void
relation_file_path(const RelationFile *file, char *path)
{
	RelPathStr	first = relpathperm(file->rlocator, file->fork);

	if (file->segment == 0)
		strlcpy(path, first.str, MAXPGPATH);
	else
		snprintf(path, MAXPGPATH, "%s.%u", first.str, file->segment);
}

/*
 * Parses a number without leading zeroes, as in file names.  Returns what
 * follows it, or NULL.
 */
static const char *
parse_number(const char *p, uint32 *number)
{
	unsigned long value;
	char	   *end;

	if (*p < '1' || *p > '9')
		return NULL;
	errno = 0;
	value = strtoul(p, &end, 10);
	if (errno != 0 || value > PG_UINT32_MAX)
		return NULL;
	*number = (uint32) value;
	return end;
}

/* The name within a database's directory: relation, fork, segment. */
static bool
parse_file_name(const char *name, RelationFile *file)
{
	const char *p = parse_number(name, &file->rlocator.relNumber);
	int			len;

	if (p == NULL)
		return false;
	file->fork = MAIN_FORKNUM;
	file->segment = 0;
	if (*p == '_')
	{
		len = forkname_chars(p + 1, &file->fork);
		if (len <= 0)
			return false;
		p += len + 1;
	}
	if (*p == '.')
		p = parse_number(p + 1, &file->segment);
	return p != NULL && *p == '\0';
}

/* Everything before that name; returns what follows. */
static const char *
parse_directory(const char *path, RelationFile *file)
{
	const char *version = "/" TABLESPACE_VERSION_DIRECTORY;

	if (strncmp(path, "global/", 7) == 0)
	{
		file->rlocator.spcOid = GLOBALTABLESPACE_OID;
		file->rlocator.dbOid = InvalidOid;
		return path + 7;
	}
	if (strncmp(path, "base/", 5) == 0)
	{
		file->rlocator.spcOid = DEFAULTTABLESPACE_OID;
		path += 5;
	}
	else if (strncmp(path, TABLESPACES_DIRECTORY "/", 10) == 0)
	{
		path = parse_number(path + 10, &file->rlocator.spcOid);
		if (path == NULL || strncmp(path, version, strlen(version)) != 0)
			return NULL;
		path += strlen(version);
		if (*path++ != '/')
			return NULL;
	}
	else
		return NULL;
	path = parse_number(path, &file->rlocator.dbOid);
	return path && *path == '/' ? path + 1 : NULL;
}

/*
 * Is that the path of a relation file?  Any fork counts.
 */
bool
relation_file_is(const char *path, RelationFile *file)
{
	const char *name = parse_directory(path, file);

	return name != NULL && parse_file_name(name, file);
}

/*
 * Parses a path, as in a page map.  ERROR unless it is the path of a relation
 * file: so nothing outside of the data directory and its tablespaces can be
 * named, and nothing else inside.
 */
void
relation_file_parse(const char *path, RelationFile *file)
{
	if (!relation_file_is(path, file))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not the path of a relation file", path),
				 errdetail("Paths are relative to the data directory, as in \"base/5/16384.1\".")));
}

/*
 * Missing files
 */

/*
 * Looks at a file by stat() or lstat().  Returns false if it does not exist; any other
 * failure is an ERROR, since it does not mean that.
 */
bool
stat_existing(const char *path, struct stat *st, int (*how) (const char *, struct stat *))
{
	if (how(path, st) == 0)
		return true;
	if (errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	return false;
}

/*
 * ERROR if the directory of the tablespace that a path is of, or in, is missing, as
 * when a file system is not mounted: that a file is not there does not mean then that
 * it was dropped.  Dropping a tablespace removes the server's directory in it a moment
 * before the link in pg_tblspc; on a standby, no lock says that this goes on.
 */
void
require_tablespace(const char *path)
{
	const char *name = path + sizeof(TABLESPACES_DIRECTORY);
	char		link[MAXPGPATH];
	char		directory[MAXPGPATH];
	struct stat st;
	const char *rest;
	uint32		tablespace;

	if (strncmp(path, TABLESPACES_DIRECTORY "/", sizeof(TABLESPACES_DIRECTORY)) != 0)
		return;
	rest = parse_number(name, &tablespace);
	if (rest == NULL || (*rest != '\0' && *rest != '/'))
		return;
	snprintf(link, sizeof(link), "%s/%u", TABLESPACES_DIRECTORY, tablespace);
	snprintf(directory, sizeof(directory), "%s/%s", link, TABLESPACE_VERSION_DIRECTORY);
	for (int i = 0; i < DROP_WAITS; i++)
	{
		if (stat_existing(directory, &st, stat) || !stat_existing(link, &st, lstat))
			return;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(DROP_WAIT_MS * 1000L);
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FILE),
			 errmsg("directory \"%s\" of a tablespace is missing", directory),
			 errhint("Mount or restore it, or drop the tablespace.")));
}

/*
 * How many whole blocks a segment file has.  Returns false if it does not exist; any
 * other failure is an ERROR, since it does not mean that.
 */
bool
relation_file_blocks(const char *path, BlockNumber *blocks)
{
	struct stat st;

	if (!stat_existing(path, &st, stat))
	{
		require_tablespace(path);
		return false;
	}
	if (!S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", path)));
	*blocks = (BlockNumber) Min(st.st_size / BLCKSZ, RELSEG_SIZE);
	return true;
}

/*
 * Is the relation unlogged?  Then only its init fork is ever backed up.
 */
bool
relation_is_unlogged(const RelFileLocator *rlocator)
{
	RelationFile init = {*rlocator, INIT_FORKNUM, 0};
	char		path[MAXPGPATH];
	BlockNumber blocks;

	relation_file_path(&init, path);
	return relation_file_blocks(path, &blocks);
}

/*
 * Lists
 */

static int
file_cmp(const void *a, const void *b)
{
	const RelationFile *x = a;
	const RelationFile *y = b;

	if (x->rlocator.relNumber != y->rlocator.relNumber)
		return x->rlocator.relNumber < y->rlocator.relNumber ? -1 : 1;
	if (x->fork != y->fork)
		return x->fork < y->fork ? -1 : 1;
	return x->segment < y->segment ? -1 : x->segment > y->segment;
}

static void
add_file(RelationFiles *list, const RelationFile *file)
{
	if (list->count == list->room)
	{
		list->room = Max(64, list->room * 2);
		list->files = list->files ?
			repalloc_array(list->files, RelationFile, list->room) :
			palloc_array(RelationFile, list->room);
	}
	list->files[list->count++] = *file;
}

/* Of files in order, drops the main and VM forks of unlogged relations. */
static void
drop_unlogged(RelationFiles *list, int first)
{
	int			kept = first;

	for (int i = first; i < list->count;)
	{
		RelFileNumber relation = list->files[i].rlocator.relNumber;
		int			next = i;
		bool		unlogged = false;

		for (; next < list->count &&
			 list->files[next].rlocator.relNumber == relation; next++)
			unlogged |= list->files[next].fork == INIT_FORKNUM;
		for (; i < next; i++)
		{
			if (!unlogged || list->files[i].fork == INIT_FORKNUM)
				list->files[kept++] = list->files[i];
		}
	}
	list->count = kept;
}

/* Opens a directory; returns NULL if there is none. */
static DIR *
open_directory(const char *path)
{
	DIR		   *dir = AllocateDir(path);

	if (dir == NULL && errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open directory \"%s\": %m", path)));
	if (dir == NULL)
		require_tablespace(path);
	return dir;
}

/*
 * Adds the files of all relations of that database in that tablespace.
 */
void
relation_files_of_database(Oid tablespace, Oid database, RelationFiles *list)
{
	char	   *path = GetDatabasePath(database, tablespace);
	DIR		   *dir = open_directory(path);
	struct dirent *de;
	RelationFile file;
	int			first = list->count;

	if (dir == NULL)
		return;
	file.rlocator.spcOid = tablespace;
	file.rlocator.dbOid = database;
	while ((de = ReadDir(dir, path)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (parse_file_name(de->d_name, &file) && file.fork != FSM_FORKNUM)
			add_file(list, &file);
	}
	FreeDir(dir);
	pfree(path);
	if (list->count > first)
		qsort(list->files + first, list->count - first, sizeof(RelationFile), file_cmp);
	drop_unlogged(list, first);
}

/* All databases that have a directory in a tablespace. */
static void
files_of_tablespace(Oid tablespace, const char *path, RelationFiles *list)
{
	DIR		   *dir = open_directory(path);
	struct dirent *de;
	uint32		database;
	const char *rest;

	if (dir == NULL)
		return;
	while ((de = ReadDir(dir, path)) != NULL)
	{
		rest = parse_number(de->d_name, &database);
		if (rest && *rest == '\0')
			relation_files_of_database(tablespace, database, list);
	}
	FreeDir(dir);
}

/*
 * Adds the files of all relations of the cluster.
 */
void
relation_files_of_cluster(RelationFiles *list)
{
	DIR		   *dir;
	struct dirent *de;

	relation_files_of_database(GLOBALTABLESPACE_OID, InvalidOid, list);
	files_of_tablespace(DEFAULTTABLESPACE_OID, "base", list);
	dir = open_directory(TABLESPACES_DIRECTORY);
	if (dir == NULL)
		return;
	while ((de = ReadDir(dir, TABLESPACES_DIRECTORY)) != NULL)
	{
		uint32		tablespace;
		const char *rest = parse_number(de->d_name, &tablespace);
		char		path[MAXPGPATH];

		if (rest == NULL || *rest != '\0')
			continue;
		snprintf(path, sizeof(path), "%s/%s/%s", TABLESPACES_DIRECTORY, de->d_name,
				 TABLESPACE_VERSION_DIRECTORY);
		files_of_tablespace(tablespace, path, list);
	}
	FreeDir(dir);
}
