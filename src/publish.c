/*
 * publish.c
 *		Making the cycles of the live map durable as change summaries.
 *
 * Runs in the process that makes checkpoints and restartpoints, after the
 * buffers were written and before the checkpoint record is: a crash after that
 * record does not replay what the cycle holds, a crash before it does.
 *
 * Nothing here may fail the checkpoint.  When a summary cannot be published,
 * there is a warning, the map keeps what it holds, and the next checkpoint
 * tries again.  If the server goes down before one succeeds, the summary is
 * missing, and coverage begins anew after it.
 *
 * This file also knows where the server started from: the checkpoint that
 * pg_control named then.  The chain of summaries of earlier runs is attached
 * there, and what was done to the files without WAL since is noticed there.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "ptrack_map.h"
#include "publish.h"
#include "storage/shmem.h"
#include "summary_store.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * The lineage at the end of what was published last.  Written by the process
 * that makes checkpoints, of which there is one at a time; the statistics are
 * atomic because anyone reads them.
 */
typedef struct PublishShared
{
	/* The checkpoint that the server started from; set once. */
	XLogRecPtr	start_redo;		/* invalid: not known */
	TimeLineID	start_tli;
	pg_time_t	start_time;		/* when it was made */
	pg_atomic_uint32 start_checked; /* publish_check_start has run */

	XLogRecPtr	end;			/* invalid: nothing published so far */
	Lineage		lineage;		/* at that redo point */
	pg_atomic_uint64 published;
	pg_atomic_uint64 failures;
	pg_atomic_uint64 last_usec;
} PublishShared;

static PublishShared *shared;

/* Emptied after each use; made early, so that nothing can fail later. */
static MemoryContext publish_context;

Size
publish_shmem_size(void)
{
	return MAXALIGN(sizeof(PublishShared));
}

static void
note_start(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (crc_ok)
	{
		shared->start_redo = control->checkPointCopy.redo;
		shared->start_tli = control->checkPointCopy.ThisTimeLineID;
		shared->start_time = control->checkPointCopy.time;
	}
	pfree(control);
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
publish_shmem_init(void)
{
	bool		found;

	if (publish_context == NULL)
		publish_context = AllocSetContextCreate(TopMemoryContext, "ptrack publishing",
												ALLOCSET_DEFAULT_SIZES);
	shared = ShmemInitStruct("ptrack publishing", publish_shmem_size(), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(PublishShared));
		pg_atomic_init_u64(&shared->published, 0);
		pg_atomic_init_u64(&shared->failures, 0);
		pg_atomic_init_u64(&shared->last_usec, 0);
		pg_atomic_init_u32(&shared->start_checked, 0);
		note_start();
	}
}

/*
 * The start of the server
 */

/*
 * Can that summary be what comes before the present run of the server?  If it
 * ends at the redo point that the server started from, it must have been made
 * for the same checkpoint.  A data directory that was rolled back, while the
 * store was not, may have come to another checkpoint at the same LSN.
 *
 * pg_control has the time of a checkpoint in whole seconds, taken a moment
 * after ours.  In a backup that is being restored it names a later checkpoint,
 * and restartpoints do not know when theirs was made: then the LSN must do.
 */
bool
publish_fits_start(const SummaryHeader *header)
{
	if (header->end != shared->start_redo)
		return true;
	return header->tli == shared->start_tli &&
		(header->end_time == 0 ||
		 (shared->start_time >= header->end_time &&
		  shared->start_time <= header->end_time + 1));
}

/* The summary that ends at that redo point, if there is one to be trusted. */
static bool
find_summary_before(XLogRecPtr redo, SummaryHeader *header)
{
	StoreList	list;
	bool		found = false;

	store_list(&list);
	for (int i = list.count - 1; i >= 0 && !found; i--)
		found = list.summaries[i].end == redo &&
			store_check(&list.summaries[i], header) &&
			publish_fits_start(header);
	pfree(list.summaries);
	return found;
}

/*
 * Notices what was done to the files while the server was down.  To be called
 * before the first answer is given or summary published; it does something the
 * first time only.
 *
 * pg_checksums writes every page without a trace in the WAL: then everything
 * counts as changed in all cycles that are not durable yet.  When checksums are
 * disabled, no page is written.
 */
void
publish_check_start(void)
{
	SummaryHeader header;

	if (pg_atomic_read_u32(&shared->start_checked) != 0)
		return;
	if (DataChecksumsEnabled() &&
		find_summary_before(shared->start_redo, &header) &&
		(header.flags & SUMMARY_CHECKSUMS) == 0)
	{
		ereport(LOG,
				(errmsg("data checksums were enabled: all blocks count as changed")));
		map_note_everything();
	}
	pg_atomic_write_u32(&shared->start_checked, 1);
}

/*
 * Publishing
 */

/*
 * Makes WAL durable up to the redo point.  A shutdown checkpoint's redo point
 * may be the first byte after a page header that is not yet written, which
 * nothing can be flushed up to; then what comes before ends with the page
 * before.
 */
static void
flush_wal(XLogRecPtr redo)
{
	uint32		header = XLogSegmentOffset(redo, wal_segment_size) < XLOG_BLCKSZ ?
		SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	if (redo % XLOG_BLCKSZ == header)
		redo -= header;
	XLogFlush(redo);
}

/*
 * The lineage at the start of a range: that at the end of the summary before
 * it.  None if there is no such summary.
 */
static Lineage
lineage_before(XLogRecPtr start)
{
	Lineage		none = {{0}};
	SummaryHeader header;

	if (shared->end == start)
		return shared->lineage;
	return find_summary_before(start, &header) ? header.end_lineage : none;
}

static bool
next_item(void *arg, ChangeItem *item)
{
	return map_snapshot_next(arg, item);
}

/*
 * Publishes a copy of a half as the summary of [its start, its end) on that
 * timeline, and returns its header.
 */
static bool
publish_snapshot(MapSnapshot *snapshot, TimeLineID tli, SummaryHeader *header)
{
	*header = (SummaryHeader)
	{
		.system_identifier = GetSystemIdentifier(),
			.start = snapshot->start,
			.end = snapshot->end,
			.tli = tli,
			.block_size = BLCKSZ,
			.segment_blocks = RELSEG_SIZE,
			.flags = (snapshot->coarse ? SUMMARY_COARSE : 0) |
			(DataChecksumsEnabled() ? SUMMARY_CHECKSUMS : 0),
			.start_lineage = lineage_before(snapshot->start),
			.end_time = snapshot->end_time == 0 ? 0 :
			(int64) timestamptz_to_time_t(snapshot->end_time),
	};

	if (!pg_strong_random(header->end_lineage.id, LINEAGE_LEN))
	{
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random lineage identifier")));
		return false;
	}
	if (!store_publish(header, next_item, snapshot))
		return false;
	shared->end = header->end;
	shared->lineage = header->end_lineage;
	pg_atomic_fetch_add_u64(&shared->published, 1);
	return true;
}

static bool
no_memory(void)
{
	ereport(WARNING,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("not enough memory to copy the map of changed blocks")));
	return false;
}

/* Publishes the cycle that ended, if there is one.  True: nothing is left. */
static bool
publish_frozen(TimeLineID tli)
{
	MapSnapshot snapshot;
	SummaryHeader header;

	if (!map_snapshot_frozen(&snapshot))
		return XLogRecPtrIsInvalid(snapshot.start) || no_memory();
	if (!XLogIsNeeded())
		map_carry_new_relations(&snapshot);
	if (!publish_snapshot(&snapshot, tli, &header))
		return false;
	map_release_frozen();
	store_remove_covered(&header);
	return true;
}

/*
 * Publishes what the running half holds from before the redo point.  That is
 * so when the map was not cut there: because the other half was still frozen
 * then, or in recovery.  The marks that came after the redo point go along.
 */
static bool
publish_running(XLogRecPtr redo, TimeLineID tli, TimestampTz time)
{
	MapStats	stats;
	MapSnapshot snapshot;
	SummaryHeader header;

	map_get_stats(&stats);
	if (stats.start >= redo)
		return true;
	if (!map_snapshot_running(&snapshot))
		return no_memory();
	snapshot.end = redo;
	snapshot.end_time = time;
	if (!publish_snapshot(&snapshot, tli, &header))
		return false;
	map_advance_running(redo);
	store_remove_covered(&header);
	return true;
}

/*
 * At a checkpoint, the redo point is that of the latest cut, and on the
 * timeline that WAL is inserted on.
 */
static bool
publish_at_checkpoint(XLogRecPtr redo)
{
	TimeLineID	tli = GetWALInsertionTimeLineIfSet();

	flush_wal(redo);
	return publish_frozen(tli) &&
		publish_running(redo, tli, CheckpointStats.ckpt_start_t);
}

/*
 * At a restartpoint, the redo point is one of the primary's, which was replayed
 * some time ago; all WAL up to it is durable.  It may be on another timeline
 * than the one that is replayed now.  To find out would take reading a history
 * file, whose failure would end this process.  So on a server that has seen a
 * promotion the map keeps what it holds, and a crash in recovery is a gap.
 */
static bool
publish_at_restartpoint(XLogRecPtr redo)
{
	TimeLineID	tli;

	GetXLogReplayRecPtr(&tli);
	if (tli != 1 || GetWALInsertionTimeLineIfSet() != 0)
		return true;
	return publish_running(redo, tli, 0);
}

/* May throw. */
static bool
publish_all(XLogRecPtr redo, int keep_minutes)
{
	instr_time	begin;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(begin);
	map_note_start(redo);
	publish_check_start();
	if (redo == map_last_cut() ? !publish_at_checkpoint(redo) :
		!publish_at_restartpoint(redo))
		return false;
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, begin);
	pg_atomic_write_u64(&shared->last_usec, INSTR_TIME_GET_MICROSEC(end));
	store_expire(keep_minutes);
	return true;
}

/*
 * Publishes everything that the map holds from before the redo point of the
 * checkpoint or restartpoint that is being made.  Never throws.
 */
void
publish_cycles(XLogRecPtr redo, int keep_minutes)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		MemoryContextSwitchTo(publish_context);
		done = publish_all(redo, keep_minutes);
	}
	PG_CATCH();
	{
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextReset(publish_context);

	if (!done)
	{
		pg_atomic_fetch_add_u64(&shared->failures, 1);
		ereport(WARNING,
				(errmsg("changed blocks up to %X/%X are not durable",
						LSN_FORMAT_ARGS(redo)),
				 errdetail("They are kept in memory, and the next checkpoint tries again to publish them. If the server stops before that succeeds, changes before its next start are not known.")));
	}
}

void
publish_get_stats(PublishStats *stats)
{
	stats->published = pg_atomic_read_u64(&shared->published);
	stats->failures = pg_atomic_read_u64(&shared->failures);
	stats->last_usec = pg_atomic_read_u64(&shared->last_usec);
}
