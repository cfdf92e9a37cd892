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
 * Only the process that makes checkpoints writes here; anyone may read at any
 * time.  What is called by the former reports its problems as warnings and
 * returns, for it must not fail a checkpoint.
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

#define SUMMARY_SUFFIX		".summary"
#define SUMMARY_NAME_LEN	(8 + 16 + 16 + sizeof(SUMMARY_SUFFIX) - 1)
#define TEMPORARY_SUFFIX	".tmp"

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

/*
 * Lists the summaries by their names, in palloc'd memory.  A directory that
 * does not exist holds none.  Files that do not belong there are warned of.
 */
void
store_list(StoreList *list)
{
	int			room = 64;
	DIR		   *dir = AllocateDir(STORE_DIRECTORY);
	struct dirent *de;

	list->summaries = palloc_array(StoredSummary, room);
	list->count = 0;
	if (dir == NULL && errno == ENOENT)
		return;
	while ((de = ReadDir(dir, STORE_DIRECTORY)) != NULL)
	{
		StoredSummary summary;

		if (parse_summary_name(de->d_name, &summary))
			add_summary(list, &summary, &room);
		else if (de->d_name[0] != '.' && !has_suffix(de->d_name, TEMPORARY_SUFFIX))
			ereport(WARNING,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("ignoring file \"%s/%s\": its name is not that of a change summary",
							STORE_DIRECTORY, de->d_name)));
	}
	FreeDir(dir);
	qsort(list->summaries, list->count, sizeof(StoredSummary), summary_cmp);
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
		pgstat_report_wait_start(WAIT_EVENT_COPY_FILE_WRITE);
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

/* Writes a whole summary and makes it durable; errno says why it could not. */
static bool
write_summary(const char *path, const SummaryHeader *header,
			  store_next_fn next, void *arg)
{
	StoreWriter target = {0};
	SummaryWriter writer;
	ChangeItem	item;
	bool		written;

	target.fd = BasicOpenFile(path, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	if (target.fd < 0)
		return false;
	summary_write_begin(&writer, store_write, &target, header);
	while (!writer.failed && next(arg, &item))
		summary_write_item(&writer, &item);
	written = summary_write_end(&writer);
	if (written && pg_fsync(target.fd) != 0)
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
		return fsync_fname_ext(".", true, false, WARNING) == 0;
	if (errno == EEXIST)
		return true;
	ereport(WARNING,
			(errcode_for_file_access(),
			 errmsg("could not create directory \"%s\": %m", STORE_DIRECTORY)));
	return false;
}

/*
 * Publishes one summary, atomically and durably.  Returns false after a
 * warning when that failed; then there is no such summary, and no other file.
 *
 * The caller has made sure that WAL is durable up to the end of its range.
 */
bool
store_publish(const SummaryHeader *header, store_next_fn next, void *arg)
{
	StoredSummary summary = {header->tli, header->start, header->end};
	char		path[STORE_PATH_LEN];
	char		temporary[STORE_PATH_LEN + sizeof(TEMPORARY_SUFFIX)];

	summary_path(path, &summary);
	snprintf(temporary, sizeof(temporary), "%s%s", path, TEMPORARY_SUFFIX);
	if (!make_store_directory())
		return false;
	if (!write_summary(temporary, header, next, arg))
	{
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not write change summary \"%s\": %m", temporary)));
		unlink(temporary);
		return false;
	}
	if (durable_rename(temporary, path, WARNING) != 0)
	{
		unlink(temporary);
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

static void
remove_file(const char *path)
{
	if (unlink(path) == 0)
		ereport(DEBUG1, (errmsg_internal("removed \"%s\"", path)));
	else if (errno != ENOENT)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
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

	store_list(&list);
	for (int i = 0; i < list.count; i++)
	{
		const StoredSummary *summary = &list.summaries[i];
		char		path[STORE_PATH_LEN];

		if (summary->tli != by->tli || summary->start < by->start ||
			summary->end > by->end || summary_cmp(summary, by) == 0)
			continue;
		summary_path(path, summary);
		remove_file(path);
	}
	pfree(list.summaries);
}

/*
 * Removes summaries that were published longer ago than that, oldest first, so
 * that what is left has no gap that was not there before.
 */
void
store_expire(int keep_minutes)
{
	StoreList	list;
	time_t		horizon = time(NULL) - (time_t) keep_minutes * 60;

	if (keep_minutes == 0)
		return;
	store_list(&list);
	for (int i = 0; i < list.count; i++)
	{
		char		path[STORE_PATH_LEN];
		struct stat st;

		summary_path(path, &list.summaries[i]);
		if (stat(path, &st) != 0 || st.st_mtime >= horizon)
			break;
		remove_file(path);
	}
	pfree(list.summaries);
}

/* Removes the files of the store that have that suffix; NULL means all. */
static void
remove_files(const char *suffix)
{
	DIR		   *dir = AllocateDir(STORE_DIRECTORY);
	struct dirent *de;

	if (dir == NULL && errno == ENOENT)
		return;
	while ((de = ReadDirExtended(dir, STORE_DIRECTORY, WARNING)) != NULL)
	{
		char		path[MAXPGPATH];

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
			(suffix && !has_suffix(de->d_name, suffix)))
			continue;
		snprintf(path, sizeof(path), "%s/%s", STORE_DIRECTORY, de->d_name);
		remove_file(path);
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
	remove_files(NULL);
	if (rmdir(STORE_DIRECTORY) != 0 && errno != ENOENT)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove directory \"%s\": %m", STORE_DIRECTORY)));
}

/*
 * Removes what a crash left of summaries that were being written.
 */
void
store_remove_temporary(void)
{
	remove_files(TEMPORARY_SUFFIX);
}

/*
 * Reading
 */

static ssize_t
store_read(void *arg, void *data, size_t len)
{
	StoreReader *reader = arg;
	int			got;

	got = FileRead(reader->file, data, len, reader->offset, WAIT_EVENT_COPY_FILE_READ);
	if (got > 0)
		reader->offset += got;
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
	if (header->start != summary->start || header->end != summary->end ||
		header->tli != summary->tli)
		return "is of another range than its name says";
	if (header->start >= header->end)
		return "has an empty range";
	return NULL;
}

/*
 * Reads a summary to its end.  Returns NULL if it is undamaged and what its
 * name says, else what is wrong with it; then errno says more, or is 0.
 */
static const char *
read_through(StoreReader *reader, const StoredSummary *summary, SummaryHeader *header)
{
	ChangeItem	item;

	errno = 0;
	if (summary_read_begin(&reader->reader, store_read, reader, header))
		while (summary_read_item(&reader->reader, &item) == SUMMARY_ITEM)
			 /* only the end result counts */ ;
	if (reader->reader.problem == NULL)
		return header_problem(header, summary);
	if (!reader->reader.read_failed)
		errno = 0;
	return reader->reader.problem;
}

/*
 * Tells whether a summary is what its name says, and undamaged, and returns
 * its header.  If not, warns of it, unless it just does not exist any more.
 */
bool
store_check(const StoredSummary *summary, SummaryHeader *header)
{
	StoreReader reader;
	const char *problem = "cannot be opened";
	int			error;

	if (open_file(&reader, summary))
		problem = read_through(&reader, summary, header);
	error = errno;
	store_close(&reader);
	if (problem == NULL)
		return true;
	if (error != ENOENT)
	{
		errno = error;
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ignoring change summary \"%s\": it %s", reader.path, problem),
				 error ? errdetail("The operating system says: %m.") : 0));
	}
	return false;
}

/*
 * Opens a summary that store_check approved of, to read its items.  The file
 * stays open beyond an error: whoever calls this arranges for store_close.
 */
void
store_open(StoreReader *reader, const StoredSummary *summary)
{
	SummaryHeader header;

	if (!open_file(reader, summary))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", reader->path)));
	if (!summary_read_begin(&reader->reader, store_read, reader, &header))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("change summary \"%s\" %s", reader->path,
						reader->reader.problem)));
}

/*
 * Reads the next item, or returns false at the end.  What was found good
 * before is not expected to turn bad, so that is an error.
 */
bool
store_next(StoreReader *reader, ChangeItem *item)
{
	SummaryResult result = summary_read_item(&reader->reader, item);

	if (result == SUMMARY_BAD)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("change summary \"%s\" %s", reader->path,
						reader->reader.problem)));
	return result == SUMMARY_ITEM;
}

void
store_close(StoreReader *reader)
{
	if (reader->file >= 0)
		FileClose(reader->file);
	reader->file = -1;
}
