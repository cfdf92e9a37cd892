/*
 * wal_fill.c
 *		Filling a gap between summaries from WAL.
 *
 * When the server starts and no summary ends there, for the library was absent
 * or a summary could not be written, WAL may still lead there from one that
 * does.  Then one summary is made of it, with the redo points that it came by.
 * At the first start there is none, and WAL leads there from its oldest redo point.
 *
 * Where the live map had no room for what changed in a cycle, its summary says
 * too much.  If WAL of the cycle is still there, it is read for an exact one.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "change_gather.h"
#include "lineage.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "publish.h"
#include "server_start.h"
#include "storage/ipc.h"
#include "wal_fill.h"
#include "wal_reader.h"

/* A range of WAL that is being read. */
typedef struct Fill
{
	WalReader  *reader;
	ChangeGather *changes;
	WalEffects	effects;
	const RedoPoint *start;
	uint64		sum;			/* fingerprints so far */
	int			shutdowns;		/* so far */
	RedoPoint  *points;			/* redo points so far */
	int			npoints;
	int			room;
} Fill;

static void
add_point(Fill *fill, XLogRecPtr redo, uint64 sum, int64 time)
{
	RedoPoint	point = {0};

	if (fill->npoints == fill->room)
	{
		fill->room *= 2;
		fill->points = repalloc_array(fill->points, RedoPoint, fill->room);
	}
	point.lsn = redo;
	point.tli = wal_reader_timeline(fill->reader, redo);
	point.flags = fill->start->flags;
	point.lineage = lineage_after(&fill->start->lineage, sum);
	point.time_min = point.time_max = time;
	fill->points[fill->npoints++] = point;
}

static XLogRecPtr
last_point(const Fill *fill)
{
	return fill->npoints > 0 ? fill->points[fill->npoints - 1].lsn : fill->start->lsn;
}

/*
 * Notes the redo points that a record tells of.  One whose checkpoint is never
 * completed has a time that no checkpoint has.
 */
static void
note_redo_point(Fill *fill, XLogRecPtr lsn, const WalCheckpoint *checkpoint)
{
	if (checkpoint->at_redo && lsn > last_point(fill))
		add_point(fill, lsn, fill->sum, checkpoint->time ? checkpoint->time : 1);
	for (int i = fill->npoints - 1; i >= 0; i--)
	{
		if (fill->points[i].lsn == checkpoint->redo)
			fill->points[i].time_min = fill->points[i].time_max = checkpoint->time;
	}
}

static void
begin_fill(Fill *fill, const RedoPoint *start, XLogRecPtr end, TimeLineID tli,
		   ScanPurpose purpose)
{
	memset(fill, 0, sizeof(*fill));
	fill->start = start;
	fill->reader = wal_reader_create(tli);
	wal_reader_count(fill->reader, scan_progress_begin(purpose, start->lsn, end));
	wal_reader_begin(fill->reader, start->lsn, end);
	fill->changes = change_gather_create();
	fill->effects = change_gather_effects(fill->changes);
	fill->room = 16;
	fill->points = palloc_array(RedoPoint, fill->room);
}

/* Reads all of it.  False if that tells less than everything, after a message. */
static bool
read_all(Fill *fill, int elevel)
{
	XLogReaderState *record;
	WalCheckpoint checkpoint;
	WalStatus	status;

	while ((status = wal_reader_next(fill->reader, &record)) == WAL_RECORD)
	{
		/* What was read is read again after the next start. */
		if (ShutdownRequestPending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		if (wal_checkpoint(record, &checkpoint))
		{
			if (checkpoint.minimal)
				return false;
			note_redo_point(fill, record->ReadRecPtr, &checkpoint);
			fill->shutdowns += checkpoint.shutdown;
		}
		fill->sum += wal_record_fingerprint(record);
		wal_redo_effects(record, &fill->effects);
	}
	if (status != WAL_END)
		wal_reader_report(fill->reader, elevel);
	return status == WAL_END;
}

/* Whether there were checksums at its redo points is not always known. */
static void
note_checksums(Fill *fill, RedoPoint *end)
{
	if (start_kept_checksums(fill->shutdowns))
		return;
	end->flags &= ~POINT_CHECKSUMS;
	for (int i = 0; i < fill->npoints; i++)
		fill->points[i].flags &= ~POINT_CHECKSUMS;
}

/* Publishes what was read, of which the header and the redo points are given. */
static bool
publish_fill(Fill *fill, const SummaryHeader *header, const RedoPoint *points, int npoints)
{
	change_gather_sort(fill->changes);
	if (!store_publish(header, points, npoints, change_gather_next, fill->changes))
		return false;
	wal_reader_close(fill->reader);
	return true;
}

/*
 * Publishes what changed from one redo point, which a summary has, to another,
 * of which the LSN, timeline and time are given; its lineage is set here.  False
 * if WAL does not tell, or that failed, after a message.
 */
bool
wal_fill(const RedoPoint *start, RedoPoint *end)
{
	Fill		fill;
	SummaryHeader header;

	begin_fill(&fill, start, end->lsn, end->tli, SCAN_GAP);
	if (!read_all(&fill, LOG))
		return false;
	end->flags = start->flags;
	end->lineage = lineage_after(&start->lineage, fill.sum);
	note_checksums(&fill, end);

	publish_describe(&header, start->lsn, &start->lineage, end);
	header.start_time = start->time_max > 1 ? start->time_max : 0;
	header.end_time = end->time_max > 1 ? end->time_max : 0;
	if (!publish_fill(&fill, &header, fill.points, fill.npoints))
		return false;
	ereport(LOG,
			(errmsg("read from WAL what changed from %X/%X to %X/%X",
					LSN_FORMAT_ARGS(start->lsn), LSN_FORMAT_ARGS(end->lsn))));
	return true;
}

/*
 * Replaces a summary that says too much, for the live map overflowed in its
 * range.  False if WAL does not tell, which is usual where nothing holds it back,
 * or that failed, after a message; then it stays as it is.
 */
bool
wal_fill_again(const SummaryInfo *coarse)
{
	SummaryHeader header = coarse->header;
	RedoPoint	start = {.lsn = header.start,.lineage = header.start_lineage};
	Lineage		end;
	Fill		fill;

	begin_fill(&fill, &start, header.end.lsn, header.end.tli, SCAN_OVERFLOW);
	if (!read_all(&fill, DEBUG1))
		return false;
	end = lineage_after(&start.lineage, fill.sum);
	if (memcmp(&end, &header.end.lineage, sizeof(end)) != 0)
	{
		ereport(LOG,
				(errmsg("WAL from %X/%X to %X/%X is not that of which a change summary tells",
						LSN_FORMAT_ARGS(header.start), LSN_FORMAT_ARGS(header.end.lsn)),
				 errdetail("The summary stays coarse: it says that more changed than did.")));
		return false;
	}
	header.flags &= ~SUMMARY_COARSE;
	if (!publish_fill(&fill, &header, coarse->points, coarse->npoints - 1))
		return false;
	ereport(LOG,
			(errmsg("read from WAL what changed from %X/%X to %X/%X, which \"ptrack.map_size\" had no room for",
					LSN_FORMAT_ARGS(header.start), LSN_FORMAT_ARGS(header.end.lsn))));
	return true;
}

/*
 * Finds the earliest redo point that WAL in pg_wal leads from to that one, and
 * tells all changes.  Its lineage is for the caller to set.  False if there is none.
 *
 * The level of WAL is known from the last record that changed it: before that, it
 * may have been minimal.
 */
bool
wal_find_oldest(RedoPoint *point, XLogRecPtr end, TimeLineID tli)
{
	WalReader  *reader = wal_reader_create(tli);
	XLogReaderState *record;
	WalCheckpoint checkpoint;
	XLogRecPtr	since;

	memset(point, 0, sizeof(*point));
	if (!wal_reader_find(reader, wal_reader_oldest(reader, end), end))
		return false;
	since = wal_reader_position(reader);
	while (wal_reader_next(reader, &record) == WAL_RECORD)
	{
		CHECK_FOR_INTERRUPTS();
		if (!wal_checkpoint(record, &checkpoint))
			continue;
		if (checkpoint.level)
		{
			since = record->EndRecPtr;
			point->lsn = InvalidXLogRecPtr;
		}
		else if (XLogRecPtrIsInvalid(point->lsn) && checkpoint.redo >= since)
		{
			point->lsn = checkpoint.redo;
			point->tli = wal_reader_timeline(reader, checkpoint.redo);
			point->time_min = point->time_max = checkpoint.time;
		}
	}
	wal_reader_close(reader);
	return !XLogRecPtrIsInvalid(point->lsn);
}
