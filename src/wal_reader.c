/*
 * wal_reader.c
 *		Reading the records of a range of WAL.
 *
 * Decoding is PostgreSQL's own (xlogreader.c), which follows records over pages
 * and segments, checks them, and knows of records that were begun and never
 * completed.  What is here finds the segments: in pg_wal, or else by
 * ptrack.restore_command or restore_command; and reads them in large requests.
 *
 * A range that cannot be read to its end is no shorter range: callers get a
 * status that says why, and the segment that it is about.
 *
 * Nothing is ever read past the limit that the caller sets, which must not be
 * past what is durable: there, segments may hold anything.
 */
#include "postgres.h"

#include "compat.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/archive.h"
#include "common/file_perm.h"
#include "common/file_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "wait_events.h"
#include "wal_reader.h"

/* Bytes of WAL in one request; divides the size of a segment. */
#define CHUNK_SIZE		(256 * 1024)

/* Where restored segments go: what a crash leaves there is removed at start. */
#define RESTORE_DIRECTORY	"base/" PG_TEMP_FILES_DIR

struct WalReader
{
	XLogReaderState *xlog;
	List	   *history;		/* timelines up to the one to be read, newest
								 * first */
	XLogRecPtr	limit;

	/* The segment that is open. */
	XLogSegNo	segno;
	TimeLineID	tli;
	XLogRecPtr	end;			/* up to where it tells of this history */
	int			fd;				/* -1: none */

	/* What was read of it last. */
	char	   *chunk;
	XLogRecPtr	chunk_start;
	uint32		chunk_len;

	/* What is wrong. */
	WalStatus	status;
	char		problem[256];
	char		segment[MAXPGPATH]; /* the name of the segment that it is with */
	int			error;			/* errno */
	MemoryContextCallback cleanup;

	ScanProgress *progress;		/* NULL: nobody counts */
};

char	   *wal_restore_command = "";
int			wal_reader_rate = 0;

/*
 * Where the record that follows on that LSN begins: not before the page header,
 * if there is one.
 */
XLogRecPtr
wal_record_start(XLogRecPtr lsn)
{
	if (XLogSegmentOffset(lsn, wal_segment_size) == 0)
		return lsn + SizeOfXLogLongPHD;
	return lsn % XLOG_BLCKSZ == 0 ? lsn + SizeOfXLogShortPHD : lsn;
}

/*
 * Segments
 */

static WalStatus
fail(WalReader *reader, WalStatus status, int error, const char *problem)
{
	reader->status = status;
	reader->error = error;
	strlcpy(reader->problem, problem, sizeof(reader->problem));
	return status;
}

static void
close_segment(WalReader *reader)
{
	if (reader->fd >= 0)
		close(reader->fd);
	reader->fd = -1;
	reader->chunk_len = 0;
}

/* The command that fetches segments: if there is none of ours, the server's. */
static const char *
restore_command(void)
{
	return wal_restore_command[0] != '\0' ? wal_restore_command : recoveryRestoreCommand;
}

/*
 * Has the restore command fetch a segment, and opens it.  The file needs no
 * name once it is open.
 */
static int
restore_segment(const char *name)
{
	char		path[MAXPGPATH];
	char	   *command;
	int			result;
	int			fd;

	if (MakePGDirectory(RESTORE_DIRECTORY) < 0 && errno != EEXIST)
		return -1;
	snprintf(path, sizeof(path), "%s/%s_ptrack_%d_%s", RESTORE_DIRECTORY,
			 PG_TEMP_FILE_PREFIX, MyProcPid, name);
	command = BuildRestoreCommand(restore_command(), path, name, name);
	fflush(NULL);
	pgstat_report_wait_start(WAIT_EVENT_RESTORE_COMMAND);
	result = system(command);
	pgstat_report_wait_end();
	pfree(command);
	if (result != 0)
	{
		unlink(path);
		errno = ENOENT;
		return -1;
	}
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	unlink(path);
	return fd;
}

/* Is there all of a segment?  One that is too short is no segment. */
static bool
is_complete(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size == wal_segment_size;
}

static bool
open_one(WalReader *reader, TimeLineID tli, XLogSegNo segno)
{
	char		path[MAXPGPATH];
	char		name[MAXFNAMELEN];

	XLogFilePath(path, tli, segno, wal_segment_size);
	XLogFileName(name, tli, segno, wal_segment_size);
	reader->fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (reader->fd < 0 && errno == ENOENT && restore_command()[0] != '\0')
		reader->fd = restore_segment(name);
	reader->tli = tli;
	reader->segno = segno;
	return reader->fd >= 0;
}

/*
 * Opens a segment.  The one that a timeline begins in has a copy of what the
 * timeline before had there, so the newest that there is tells most.  What another
 * one has past the end of its timeline is of a history that was left.
 */
static WalStatus
open_segment(WalReader *reader, XLogSegNo segno)
{
	XLogRecPtr	start;
	XLogRecPtr	end;
	ListCell   *lc;

	close_segment(reader);
	XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, start);
	end = start + wal_segment_size;
	reader->segment[0] = '\0';
	foreach(lc, reader->history)
	{
		const TimeLineHistoryEntry *entry = lfirst(lc);

		if (entry->begin >= end)
			continue;
		if (reader->segment[0] == '\0')
			XLogFileName(reader->segment, entry->tli, segno, wal_segment_size);
		if (open_one(reader, entry->tli, segno))
		{
			reader->end = end;
			if (!XLogRecPtrIsInvalid(entry->end))
				reader->end = Min(end, entry->end);
			if (reader->end == end)
				XLogFileName(reader->segment, entry->tli, segno, wal_segment_size);
			if (is_complete(reader->fd))
				return WAL_RECORD;
			XLogFileName(reader->segment, entry->tli, segno, wal_segment_size);
			close_segment(reader);
			return fail(reader, WAL_DAMAGED, 0, "The file has not the size of a segment.");
		}
		if (errno != ENOENT)
			return fail(reader, WAL_UNREADABLE, errno, "");
		if (entry->begin <= start)
			break;
	}
	return fail(reader, WAL_MISSING, 0, "");
}

/* Waits until that many more bytes may be read. */
static void
throttle(uint32 len)
{
	static TimestampTz next = 0;
	TimestampTz now;

	if (wal_reader_rate == 0)
		return;
	now = GetCurrentTimestamp();
	while (next > now)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (next - now) / 1000 + 1, wait_event(WAIT_SCAN_THROTTLE));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		now = GetCurrentTimestamp();
	}
	next = now + (int64) len * USECS_PER_SEC / ((int64) wal_reader_rate * 1024);
}

/* Reads the chunk that holds that page, as far as there is a limit for it. */
static WalStatus
read_chunk(WalReader *reader, XLogRecPtr page)
{
	XLogSegNo	segno;
	uint32		offset;
	uint32		len;

	XLByteToSeg(page, segno, wal_segment_size);
	if (reader->fd < 0 || reader->segno != segno)
	{
		WalStatus	status = open_segment(reader, segno);

		if (status != WAL_RECORD)
			return status;
	}
	offset = XLogSegmentOffset(page, wal_segment_size);
	len = CHUNK_SIZE - offset % CHUNK_SIZE;
	len = (uint32) Min((XLogRecPtr) len, reader->limit - page);
	throttle(len);
	if (reader->progress)
		pg_atomic_fetch_add_u64(&reader->progress->bytes, len);
	reader->chunk_start = page;
	reader->chunk_len = 0;
	while (reader->chunk_len < len)
	{
		ssize_t		got;

		pgstat_report_wait_start(WAIT_EVENT_WAL_READ);
		got = pg_pread(reader->fd, reader->chunk + reader->chunk_len,
					   len - reader->chunk_len, offset + reader->chunk_len);
		pgstat_report_wait_end();
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(reader, WAL_UNREADABLE, errno, "");
		if (got == 0)
			return fail(reader, WAL_DAMAGED, 0, "The file ends early.");
		reader->chunk_len += got;
	}
	return WAL_RECORD;
}

/* Called by xlogreader.c: gives it so many bytes of a page, or more. */
static int
read_page(XLogReaderState *xlog, XLogRecPtr page, int need,
		  XLogRecPtr record, char *buffer)
{
	WalReader  *reader = xlog->private_data;
	uint32		len;

	if (page + need > reader->limit)
	{
		reader->status = WAL_END;
		return -1;
	}
	len = (uint32) Min((XLogRecPtr) XLOG_BLCKSZ, reader->limit - page);
	if ((page < reader->chunk_start ||
		 page + len > reader->chunk_start + reader->chunk_len) &&
		read_chunk(reader, page) != WAL_RECORD)
		return -1;
	if (page + need > reader->end)
	{
		(void) fail(reader, WAL_MISSING, 0, "");
		return -1;
	}
	len = (uint32) Min((XLogRecPtr) len, reader->end - page);
	memcpy(buffer, reader->chunk + (page - reader->chunk_start), len);
	xlog->seg.ws_tli = reader->tli;
	xlog->seg.ws_segno = reader->segno;
	return (int) len;
}

/*
 * Records
 */

static void
close_on_reset(void *arg)
{
	wal_reader_close(arg);
}

/*
 * Creates a reader of WAL up to that timeline, in the current memory context,
 * with which its file is closed.  May read a timeline history file.
 */
WalReader *
wal_reader_create(TimeLineID tli)
{
	WalReader  *reader = palloc0_object(WalReader);

	reader->fd = -1;
	reader->history = readTimeLineHistory(tli);
	reader->chunk = palloc(CHUNK_SIZE);
	reader->xlog = XLogReaderAllocate(wal_segment_size, NULL,
									  XL_ROUTINE(.page_read = read_page), reader);
	if (reader->xlog == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while allocating a WAL reading processor.")));
	reader->xlog->system_identifier = GetSystemIdentifier();
	reader->cleanup.func = close_on_reset;
	reader->cleanup.arg = reader;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &reader->cleanup);
	return reader;
}

/*
 * Has what is read counted there, if that is not NULL.
 */
void
wal_reader_count(WalReader *reader, ScanProgress *progress)
{
	reader->progress = progress;
}

/*
 * Begins to read at that record, and goes on with all that begin before the
 * limit.
 */
void
wal_reader_begin(WalReader *reader, XLogRecPtr start, XLogRecPtr limit)
{
	reader->limit = limit;
	reader->status = WAL_RECORD;
	XLogBeginRead(reader->xlog, wal_record_start(start));
}

/*
 * Begins to read at the first record that begins at or after that LSN.  False:
 * there is none that can be read; wal_reader_report says why, unless it is that
 * none begins before the limit.
 */
bool
wal_reader_find(WalReader *reader, XLogRecPtr start, XLogRecPtr limit)
{
	XLogRecPtr	found;

	reader->limit = limit;
	reader->status = WAL_RECORD;
	reader->chunk_len = 0;
	found = XLogFindNextRecord(reader->xlog, start);
	if (XLogRecPtrIsInvalid(found))
	{
		if (reader->status == WAL_RECORD)
			(void) fail(reader, WAL_DAMAGED, 0, "No record can be found.");
		return false;
	}
	wal_reader_begin(reader, found, limit);
	return true;
}

/*
 * Reads the next record.  Anything but a record ends the reading; after WAL_END
 * it may begin again at the same place with a higher limit.
 */
WalStatus
wal_reader_next(WalReader *reader, XLogReaderState **record)
{
	char	   *message = NULL;
	XLogReaderState *xlog = reader->xlog;

	if (wal_record_start(wal_reader_position(reader)) >= reader->limit)
		return reader->status = WAL_END;
	*record = xlog;
	if (XLogReadRecord(xlog, &message) != NULL)
	{
		/* One that was never completed, and the limit was in it. */
		if (xlog->ReadRecPtr >= reader->limit)
			return reader->status = WAL_END;
		return WAL_RECORD;
	}
	if (reader->status == WAL_RECORD)
		(void) fail(reader, WAL_DAMAGED, 0, message ? message : "There is no record.");
	return reader->status;
}

/*
 * Where the next record begins, or the page header before it.
 */
XLogRecPtr
wal_reader_position(const WalReader *reader)
{
	return reader->xlog->EndRecPtr;
}

/*
 * The timeline that this server's history is on at that LSN.
 */
TimeLineID
wal_reader_timeline(const WalReader *reader, XLogRecPtr lsn)
{
	return tliOfPointInHistory(lsn, reader->history);
}

/*
 * Reports why a range could not be read.
 */
void
wal_reader_report(const WalReader *reader, int elevel)
{
	XLogRecPtr	lsn = wal_reader_position(reader);

	switch (reader->status)
	{
		case WAL_MISSING:
			ereport(elevel,
					(errcode(ERRCODE_UNDEFINED_FILE),
					 errmsg("WAL segment \"%s\" is needed and is not there any more",
							reader->segment),
					 errdetail("Changes from %X/%X on are only known from WAL.",
							   LSN_FORMAT_ARGS(lsn)),
					 restore_command()[0] == '\0' ?
					 errhint("If WAL is archived, set \"ptrack.restore_command\".") : 0));
			break;
		case WAL_DAMAGED:
			ereport(elevel,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("WAL segment \"%s\" cannot be read after %X/%X",
							reader->segment, LSN_FORMAT_ARGS(lsn)),
					 errdetail_internal("%s", reader->problem)));
			break;
		case WAL_UNREADABLE:
			errno = reader->error;
			ereport(elevel,
					(errcode_for_file_access(),
					 errmsg("could not read WAL segment \"%s\": %m", reader->segment)));
			break;
		case WAL_RECORD:
		case WAL_END:
			break;
	}
}

void
wal_reader_close(WalReader *reader)
{
	close_segment(reader);
	if (reader->xlog)
		XLogReaderFree(reader->xlog);
	reader->xlog = NULL;
}

static bool
segment_is_here(TimeLineID tli, XLogRecPtr lsn)
{
	char		path[MAXPGPATH];
	XLogSegNo	segno;
	struct stat st;

	XLByteToSeg(lsn, segno, wal_segment_size);
	XLogFilePath(path, tli, segno, wal_segment_size);
	return stat(path, &st) == 0 || errno != ENOENT;
}

/*
 * Is the segment of that LSN in pg_wal, or could it be restored?  Only a guess,
 * but one that costs nothing.
 */
bool
wal_segment_exists(TimeLineID tli, XLogRecPtr lsn)
{
	return restore_command()[0] != '\0' || segment_is_here(tli, lsn);
}

/*
 * From where pg_wal has all segments up to that LSN: the start of one.
 */
XLogRecPtr
wal_reader_oldest(const WalReader *reader, XLogRecPtr lsn)
{
	XLogRecPtr	oldest = lsn - XLogSegmentOffset(lsn, wal_segment_size);

	while (oldest >= (XLogRecPtr) wal_segment_size &&
		   segment_is_here(wal_reader_timeline(reader, oldest - 1), oldest - 1))
		oldest -= wal_segment_size;
	return oldest;
}
