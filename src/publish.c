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
 */
#include "postgres.h"

#include "compat.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "ptrack_map.h"
#include "publish.h"
#include "storage/shmem.h"
#include "summary_store.h"
#include "utils/memutils.h"

/*
 * The lineage at the end of what was published last.  Written by the process
 * that makes checkpoints, of which there is one at a time; the statistics are
 * atomic because anyone reads them.
 */
typedef struct PublishShared
{
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
	}
}

/*
 * Makes WAL durable up to the redo point.  A shutdown checkpoint's redo point
 * may be the first byte after a page header that is not yet written, which
 * nothing can be flushed up to; then what comes before ends with the page
 * before.
 *
 * In recovery there is nothing to do: what was replayed had been durable.
 */
static void
flush_wal(XLogRecPtr redo)
{
	uint32		header = XLogSegmentOffset(redo, wal_segment_size) < XLOG_BLCKSZ ?
		SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	if (RecoveryInProgress())
		return;
	if (redo % XLOG_BLCKSZ == header)
		redo -= header;
	XLogFlush(redo);
}

/*
 * The timeline that a redo point is on: the one that WAL is inserted on, since
 * cuts are made where it is inserted.  In recovery, the redo point may be older
 * than the latest switch of timelines that was replayed.
 */
static TimeLineID
timeline_of(XLogRecPtr redo)
{
	TimeLineID	tli = GetWALInsertionTimeLineIfSet();

	if (tli != 0)
		return tli;
	GetXLogReplayRecPtr(&tli);
	return tliOfPointInHistory(redo, readTimeLineHistory(tli));
}

/*
 * The lineage at the start of a range: that at the end of the summary before
 * it.  None if there is no such summary.
 */
static Lineage
lineage_before(XLogRecPtr start)
{
	Lineage		none = {{0}};
	StoreList	list;

	if (shared->end == start)
		return shared->lineage;
	store_list(&list);
	for (int i = list.count - 1; i >= 0; i--)
	{
		SummaryHeader header;

		if (list.summaries[i].end == start && store_check(&list.summaries[i], &header))
			return header.end_lineage;
	}
	return none;
}

static bool
next_item(void *arg, ChangeItem *item)
{
	return map_snapshot_next(arg, item);
}

/* Publishes a copy of a half as the summary of [its start, end). */
static bool
publish_snapshot(MapSnapshot *snapshot, XLogRecPtr end)
{
	SummaryHeader header = {
		.system_identifier = GetSystemIdentifier(),
		.start = snapshot->start,
		.end = end,
		.tli = timeline_of(end),
		.block_size = BLCKSZ,
		.segment_blocks = RELSEG_SIZE,
		.flags = snapshot->coarse ? SUMMARY_COARSE : 0,
		.start_lineage = lineage_before(snapshot->start),
	};

	if (!pg_strong_random(header.end_lineage.id, LINEAGE_LEN))
	{
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random lineage identifier")));
		return false;
	}
	if (!store_publish(&header, next_item, snapshot))
		return false;
	shared->end = end;
	shared->lineage = header.end_lineage;
	pg_atomic_fetch_add_u64(&shared->published, 1);
	store_remove_covered(&header);
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
publish_frozen(void)
{
	MapSnapshot snapshot;

	if (!map_snapshot_frozen(&snapshot))
		return XLogRecPtrIsInvalid(snapshot.start) || no_memory();
	if (!publish_snapshot(&snapshot, snapshot.end))
		return false;
	map_release_frozen();
	return true;
}

/*
 * Publishes what the running half holds from before the redo point.  That is
 * so when no cut was made there: because the other half was still frozen then,
 * or in recovery.  The marks that came after the redo point go along.
 */
static bool
publish_running(XLogRecPtr redo)
{
	MapStats	stats;
	MapSnapshot snapshot;

	map_get_stats(&stats);
	if (stats.start >= redo)
		return true;
	if (!map_snapshot_running(&snapshot))
		return no_memory();
	if (!publish_snapshot(&snapshot, redo))
		return false;
	map_advance_running(redo);
	return true;
}

/* May throw. */
static bool
publish_all(XLogRecPtr redo, int keep_minutes)
{
	instr_time	begin;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(begin);
	map_note_start(redo);
	flush_wal(redo);
	if (!publish_frozen() || !publish_running(redo))
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
		ErrorData  *error;

		MemoryContextSwitchTo(publish_context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s", error->message),
				 error->detail ? errdetail("%s", error->detail) : 0));
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
