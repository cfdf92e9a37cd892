/*
 * summary_store.c
 *		The directory of change summaries.
 *
 * Summaries live in ptrack/ at the top of the data directory, so that every
 * file-level backup takes them along.  A file is named by the timeline and the
 * range that it covers, all in hexadecimal:
 *
 *		TTTTTTTTSSSSSSSSSSSSSSSSEEEEEEEEEEEEEEEE.summary
 *
 * It appears under that name complete and durable, or not at all, and is never
 * written again.  Nothing else tells what is known: coverage is worked out
 * from the names, and from the contents that confirm them, each time.
 *
 * The process that makes checkpoints and ptrack's worker write here; anyone may
 * read at any time, and must expect a file to be gone.  What the writers call
 * reports its problems as warnings and returns, for it must not fail a
 * checkpoint.
 */
#include "postgres.h"

#include "compat.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "summary_store.h"
#include "utils/wait_event.h"
#include "wait_events.h"

#define SUMMARY_SUFFIX		".summary"
#define SUMMARY_NAME_LEN	(8 + 16 + 16 + sizeof(SUMMARY_SUFFIX) - 1)
#define TEMPORARY_SUFFIX	".tmp"

/* Files by which a backup of pg_ptrack says which history it is of. */
#define LINEAGE_PREFIX		"lineage"

/*
 * Names
 */

static void
summary_path(char *path, const StoredSummary *summary)
{
	snprintf(path, STORE_PATH_LEN, STORE_DIRECTORY "/%08X%016llX%016llX" SUMMARY_SUFFIX,
			 summary->tli, (unsigned long long) summary->start,
			 (unsigned long long) summary->end);
}

static bool
parse_summary_name(const char *name, StoredSummary *summary)
{
	unsigned long long start;
	unsigned long long end;

	if (strlen(name) != SUMMARY_NAME_LEN ||
		strspn(name, "0123456789ABCDEF") != 8 + 16 + 16 ||
		strcmp(name + 8 + 16 + 16, SUMMARY_SUFFIX) != 0 ||
		sscanf(name, "%8X%16llX%16llX", &summary->tli, &start, &end) != 3)
		return false;
	summary->start = start;
	summary->end = end;
	return true;
}

static bool
has_suffix(const char *name, const char *suffix)
{
	size_t		len = strlen(name);

	return len > strlen(suffix) && strcmp(name + len - strlen(suffix), suffix) == 0;
}

/*
 * Listing
 */

static int
summary_cmp(const void *a, const void *b)
{
	const StoredSummary *x = a;
	const StoredSummary *y = b;

	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->tli < y->tli ? -1 : x->tli > y->tli;
}

static void
add_summary(StoreList *list, const StoredSummary *summary, int *room)
{
	if (list->count == *room)
	{
		*room *= 2;
		list->summaries = repalloc_array(list->summaries, StoredSummary, *room);
	}
	list->summaries[list->count++] = *summary;
}

/* Is it of no use to a server that starts with it? */
static bool
is_left_behind(const char *name)
{
	return has_suffix(name, TEMPORARY_SUFFIX) ||
		strncmp(name, LINEAGE_PREFIX, strlen(LINEAGE_PREFIX)) == 0;
}

static void
add_file(StoreList *list, const char *name, int *room)
{
	StoredSummary summary;

	if (parse_summary_name(name, &summary))
		add_summary(list, &summary, room);
	else if (name[0] != '.' && !is_left_behind(name))
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ignoring file \"%s/%s\": its name is not that of a change summary",
						STORE_DIRECTORY, name),
				 errhint("Move it out of that directory.")));
}

/* Adds what a directory holds; false, with errno, if it cannot be read. */
static bool
add_files(StoreList *list, DIR *dir)
{
	int			room = 64;
	struct dirent *de;

	list->summaries = palloc_array(StoredSummary, room);
	while (errno = 0, (de = readdir(dir)) != NULL)
		add_file(list, de->d_name, &room);
	return errno == 0;
}

/*
 * Is that the name of a summary?
 */
bool
store_is_summary_name(const char *name)
{
	StoredSummary summary;

	return parse_summary_name(name, &summary);
}

/*
 * Lists the summaries, or reports at that level that it cannot be done; then
 * the list is empty.  The directory is closed before: the callers include
 * processes that have no transaction to clean up after them.
 */
static bool
list_summaries(StoreList *list, int elevel)
{
	DIR		   *dir = AllocateDir(STORE_DIRECTORY);
	bool		good = dir != NULL || errno == ENOENT;
	int			error = errno;

	list->summaries = NULL;
	list->count = 0;
	if (dir)
	{
		good = add_files(list, dir);
		error = errno;
		FreeDir(dir);
		qsort(list->summaries, list->count, sizeof(StoredSummary), summary_cmp);
	}
	if (good)
		return true;
	list->count = 0;
	errno = error;
	ereport(elevel,
			(errcode_for_file_access(),
			 errmsg("could not read directory \"%s\": %m", STORE_DIRECTORY)));
	return false;
}

/*
 * Lists the summaries by their names, in palloc'd memory.  A directory that
 * does not exist holds none.  Files that do not belong there are warned of.
 */
void
store_list(StoreList *list)
{
	(void) list_summaries(list, ERROR);
}

/*
 * The size of all summaries of a list in bytes, without those that vanished.
 */
uint64
store_bytes(const StoreList *list)
{
	uint64		bytes = 0;

	for (int i = 0; i < list->count; i++)
	{
		char		path[STORE_PATH_LEN];
		struct stat st;

		summary_path(path, &list->summaries[i]);
		if (stat(path, &st) == 0)
			bytes += st.st_size;
		else if (errno != ENOENT)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not stat file \"%s\": %m", path)));
	}
	return bytes;
}

/*
 * How many seconds ago a summary was published; 0 if that cannot be told.
 */
time_t
store_age(const StoredSummary *summary)
{
	char		path[STORE_PATH_LEN];
	struct stat st;
	time_t		now = time(NULL);

	summary_path(path, summary);
	return stat(path, &st) == 0 && st.st_mtime < now ? now - st.st_mtime : 0;
}

/*
 * Publishing
 */

typedef struct StoreWriter
{
	int			fd;
	int			error;			/* errno of the first failure */
} StoreWriter;

static bool
store_write(void *arg, const void *data, size_t len)
{
	StoreWriter *writer = arg;

	while (len > 0)
	{
		ssize_t		written;

		errno = 0;
		pgstat_report_wait_start(wait_event(WAIT_SUMMARY_WRITE));
		written = write(writer->fd, data, len);
		pgstat_report_wait_end();
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
		{
			/* A write that stops short without saying why: the disk is full. */
			writer->error = errno ? errno : ENOSPC;
			return false;
		}
		data = (const char *) data + written;
		len -= written;
	}
	return true;
}

static int
sync_file(int fd)
{
	int			result;

	pgstat_report_wait_start(wait_event(WAIT_SUMMARY_SYNC));
	result = pg_fsync(fd);
	pgstat_report_wait_end();
	return result;
}

/* Warns if that fails. */
static int
sync_directory(const char *path)
{
	int			result;

	pgstat_report_wait_start(wait_event(WAIT_SUMMARY_SYNC));
	result = fsync_fname_ext(path, true, false, WARNING);
	pgstat_report_wait_end();
	return result;
}

/* Writes what a summary consists of; false if that failed. */
static bool
write_contents(StoreWriter *target, const SummaryHeader *header,
			   const RedoPoint *points, int npoints,
			   store_next_fn next, void *arg)
{
	SummaryWriter writer;
	ChangeItem	item;

	summary_write_begin(&writer, store_write, target, header);
	for (int i = 0; i < npoints; i++)
		summary_write_point(&writer, &points[i]);
	while (!writer.failed && next(arg, &item))
		summary_write_item(&writer, &item);
	return summary_write_end(&writer);
}

/*
 * Writes a whole summary and makes it durable; errno says why it could not.
 * What next throws goes on from here, after the file is closed and removed.
 */
static bool
write_summary(const char *path, const SummaryHeader *header,
			  const RedoPoint *points, int npoints,
			  store_next_fn next, void *arg)
{
	StoreWriter target = {0};
	volatile bool written = false;

	target.fd = BasicOpenFile(path, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	if (target.fd < 0)
		return false;
	PG_TRY();
	{
		written = write_contents(&target, header, points, npoints, next, arg);
	}
	PG_CATCH();
	{
		close(target.fd);
		unlink(path);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (written && sync_file(target.fd) != 0)
	{
		target.error = errno;
		written = false;
	}
	if (close(target.fd) != 0 && written)
	{
		target.error = errno;
		written = false;
	}
	errno = target.error;
	return written;
}

static bool
make_store_directory(void)
{
	if (MakePGDirectory(STORE_DIRECTORY) == 0)
		return sync_directory(".") == 0;
	if (errno == EEXIST)
		return true;
	ereport(WARNING,
			(errcode_for_file_access(),
			 errmsg("could not create directory \"%s\": %m", STORE_DIRECTORY)));
	return false;
}

/*
 * Publishes one summary, atomically and durably, with the redo points inside
 * its range.  Returns false after a warning when that failed; then there is no
 * such summary, unless there was one, and no other file.  What next throws is
 * passed on.
 *
 * The caller has made sure that WAL is durable up to the end of its range.  Two
 * processes may publish at the same time.
 */
bool
store_publish(const SummaryHeader *header, const RedoPoint *points, int npoints,
			  store_next_fn next, void *arg)
{
	StoredSummary summary = {header->end.tli, header->start, header->end.lsn};
	char		path[STORE_PATH_LEN];
	char		temporary[STORE_PATH_LEN + 16];
	bool		replaces;

	summary_path(path, &summary);
	snprintf(temporary, sizeof(temporary), "%s.%d" TEMPORARY_SUFFIX, path, MyProcPid);
	replaces = access(path, F_OK) == 0;
	if (!make_store_directory())
		return false;
	if (!write_summary(temporary, header, points, npoints, next, arg))
	{
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not write change summary \"%s\": %m", temporary)));
		unlink(temporary);
		return false;
	}
	if (rename(temporary, path) != 0)
	{
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not rename file \"%s\" to \"%s\": %m", temporary, path)));
		unlink(temporary);
		return false;
	}
	if (sync_directory(STORE_DIRECTORY) != 0)
	{
		/* Whichever of the two is there after a crash, it is whole and right. */
		if (!replaces)
			unlink(path);
		return false;
	}
	ereport(DEBUG1,
			(errmsg_internal("published change summary \"%s\"", path)));
	return true;
}

/*
 * Removing
 */

/* Returns whether it is gone. */
static bool
remove_file(const char *path)
{
	if (unlink(path) == 0)
		ereport(DEBUG1, (errmsg_internal("removed \"%s\"", path)));
	else if (errno != ENOENT)
	{
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
		return false;
	}
	return true;
}

/*
 * Removes a summary.  Returns whether it is gone.
 */
bool
store_remove(const StoredSummary *summary)
{
	char		path[STORE_PATH_LEN];

	summary_path(path, summary);
	return remove_file(path);
}

/*
 * Removes the summaries of this timeline whose whole range another one covers.
 * They are left behind when the server crashed between publishing and the end
 * of the checkpoint: recovery made the same marks again.
 */
void
store_remove_covered(const StoredSummary *by)
{
	StoreList	list;

	(void) list_summaries(&list, WARNING);
	for (int i = 0; i < list.count; i++)
	{
		const StoredSummary *summary = &list.summaries[i];

		if (summary->tli == by->tli && summary->start >= by->start &&
			summary->end <= by->end && summary_cmp(summary, by) != 0)
			(void) store_remove(summary);
	}
}

/*
 * Removes the summaries that a redo point is in, or is the end of.  Returns whether
 * they are gone, and stay so if the machine crashes.
 */
bool
store_remove_around(XLogRecPtr lsn)
{
	StoreList	list;

	store_list(&list);
	for (int i = 0; i < list.count; i++)
	{
		const StoredSummary *summary = &list.summaries[i];

		if (summary->start < lsn && summary->end >= lsn && !store_remove(summary))
			return false;
	}
	return fsync_fname_ext(STORE_DIRECTORY, true, false, WARNING) == 0;
}

/* Removes the files of the store, all of them or those that are of no use. */
static void
remove_files(bool all)
{
	DIR		   *dir = AllocateDir(STORE_DIRECTORY);
	struct dirent *de;

	if (dir == NULL && errno == ENOENT)
		return;
	while ((de = ReadDirExtended(dir, STORE_DIRECTORY, WARNING)) != NULL)
	{
		char		path[MAXPGPATH];

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
			!(all || is_left_behind(de->d_name)))
			continue;
		snprintf(path, sizeof(path), "%s/%s", STORE_DIRECTORY, de->d_name);
		(void) remove_file(path);
	}
	if (dir)
		FreeDir(dir);
}

/*
 * Removes the store: tracking is disabled, and nothing must be left that could
 * be taken for coverage later.
 */
void
store_remove_all(void)
{
	remove_files(true);
	if (rmdir(STORE_DIRECTORY) != 0 && errno != ENOENT)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove directory \"%s\": %m", STORE_DIRECTORY)));
}

/*
 * Removes what a crash left of summaries that were being written, and what a
 * backup said of itself that was restored.
 */
void
store_remove_temporary(void)
{
	remove_files(false);
}

/*
 * Reading
 */

static ssize_t
store_read(void *arg, void *data, size_t len)
{
	StoreReader *reader = arg;
	int			got;

	got = FileRead(reader->file, data, len, reader->offset, wait_event(WAIT_SUMMARY_READ));
	if (got > 0)
		reader->offset += got;
	if (got < 0)
		reader->error = errno;
	return got;
}

/* Returns false, with errno, when there is no such file or it does not open. */
static bool
open_file(StoreReader *reader, const StoredSummary *summary)
{
	summary_path(reader->path, summary);
	reader->offset = 0;
	reader->file = PathNameOpenFile(reader->path, O_RDONLY | PG_BINARY);
	return reader->file >= 0;
}

static const char *
header_problem(const SummaryHeader *header, const StoredSummary *summary)
{
	if (header->system_identifier != GetSystemIdentifier())
		return "belongs to another server: its system identifier differs";
	if (header->block_size != BLCKSZ || header->segment_blocks != RELSEG_SIZE)
		return "was written by a server with another block or segment size";
	if (header->start != summary->start || header->end.lsn != summary->end ||
		header->end.tli != summary->tli)
		return "is of another range than its name says";
	if (XLogRecPtrIsInvalid(header->start))
		return "begins at LSN 0/0, where no WAL does";
	if (header->start >= header->end.lsn)
		return "has an empty range";
	return NULL;
}

static void
add_point(SummaryInfo *info, const RedoPoint *point, int *room)
{
	if (info->npoints == *room)
	{
		*room = Max(*room * 2, 4);
		info->points = info->points ?
			repalloc_array(info->points, RedoPoint, *room) :
			palloc_array(RedoPoint, *room);
	}
	info->points[info->npoints++] = *point;
}

/*
 * Reads a summary to its end.  Returns NULL if it is undamaged and what its
 * name says, else what is wrong with it; then errno says more, or is 0.
 */
static const char *
read_through(StoreReader *reader, const StoredSummary *summary, SummaryInfo *info)
{
	ChangeItem	item;
	SummaryResult result = SUMMARY_BAD;
	int			room = 0;

	errno = 0;
	if (summary_read_begin(&reader->reader, store_read, reader, &info->header))
	{
		while ((result = summary_read_item(&reader->reader, &item)) > SUMMARY_END)
		{
			if (result == SUMMARY_POINT)
				add_point(info, &reader->reader.point, &room);
		}
	}
	if (result == SUMMARY_END)
	{
		add_point(info, &info->header.end, &room);
		return header_problem(&info->header, summary);
	}
	if (!reader->reader.read_failed)
		errno = 0;
	return reader->reader.problem;
}

/*
 * Tells whether a summary is what its name says, and undamaged, and returns
 * what it says of itself, in palloc'd memory.  If not, warns of it, unless it
 * just does not exist any more.
 */
StoreVerdict
store_check(const StoredSummary *summary, SummaryInfo *info)
{
	StoreReader reader;
	const char *problem = "cannot be opened";
	StoreVerdict verdict;
	int			error;

	info->points = NULL;
	info->npoints = 0;
	if (open_file(&reader, summary))
		problem = read_through(&reader, summary, info);
	error = errno;
	store_close(&reader);
	if (problem == NULL)
		return STORE_GOOD;
	if (error == ENOENT)
		return STORE_GONE;
	verdict = error ? STORE_UNREADABLE : STORE_BAD;
	errno = error;
	ereport(WARNING,
			(error ? errcode_for_file_access() : errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("ignoring change summary \"%s\": it %s", reader.path, problem),
			 error ? errdetail("The operating system says: %m.") : 0,
			 error ? errhint("Make the file readable: what only it tells of is known again then.") :
			 errhint("Changes that only it tells of are not known: a backup that is relative to an older one is refused, and a full one needed.")));
	return verdict;
}

/*
 * Was the file removed?  That an open file cannot be read any more for that is so
 * when a process has more files open than it may, and opens them again to read on.
 */
static bool
vanished(const StoreReader *reader)
{
	return reader->reader.read_failed && reader->error == ENOENT;
}

pg_noreturn static void report_bad(const StoreReader *reader);

static void
report_bad(const StoreReader *reader)
{
	if (!reader->reader.read_failed)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("change summary \"%s\" %s", reader->path,
						reader->reader.problem),
				 errhint("Try again. If it stays so, take a full backup.")));
	if (vanished(reader))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("change summary \"%s\" was removed while it was read",
						reader->path),
				 errhint("Try again.")));
	errno = reader->error;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not read change summary \"%s\": %m", reader->path)));
}

/*
 * Opens a summary that store_check approved of, to read its items.  Returns
 * false if it does not exist any more.  The file stays open beyond an error:
 * whoever calls this arranges for store_close.
 */
bool
store_open(StoreReader *reader, const StoredSummary *summary)
{
	SummaryHeader header;

	if (!open_file(reader, summary))
	{
		if (errno == ENOENT)
			return false;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", reader->path)));
	}
	if (summary_read_begin(&reader->reader, store_read, reader, &header))
		return true;
	if (!vanished(reader))
		report_bad(reader);
	store_close(reader);
	return false;
}

/*
 * Reads the next item, or returns false at the end.  What was found good
 * before is not expected to turn bad, so that is an error.
 */
bool
store_next(StoreReader *reader, ChangeItem *item)
{
	SummaryResult result;

	do
	{
		result = summary_read_item(&reader->reader, item);
	} while (result == SUMMARY_POINT);
	if (result == SUMMARY_BAD)
		report_bad(reader);
	return result == SUMMARY_ITEM;
}

void
store_close(StoreReader *reader)
{
	if (reader->file >= 0)
		FileClose(reader->file);
	reader->file = -1;
}
