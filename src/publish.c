/*
 * publish.c
 *		Making the cycles of the live map durable as change summaries.
 *
 * On a primary this is done by the process that makes checkpoints, after the
 * buffers were written and before the checkpoint record is: a crash after that
 * record does not replay what the cycle holds, a crash before it does.  In
 * recovery, ptrack's worker publishes cycles as soon as they end; what it has
 * not done by then, a restartpoint does.  On servers without hooks it is the
 * worker, too, once WAL tells that the checkpoint is complete.  One lock keeps
 * them apart.
 *
 * Nothing here may fail the checkpoint.  When a summary cannot be published,
 * there is a warning, the map keeps what it holds, and the worker and the next
 * checkpoint try again.  If the server goes down before one succeeds, the
 * summary is missing, and coverage begins anew after it.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "coverage_start.h"
#include "engine.h"
#include "lineage.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "ptrack_map.h"
#include "publish.h"
#include "server_start.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "summary_store.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "wait_events.h"

typedef struct PublishShared
{
	pg_atomic_uint32 failed;	/* the latest attempt has */

	/* Statistics, which anyone reads. */
	pg_atomic_uint64 published;
	pg_atomic_uint64 failures;
	pg_atomic_uint64 last_time; /* a TimestampTz; 0: never */
	pg_atomic_uint64 last_usec;
} PublishShared;

static PublishShared *shared;

/*
 * Held exclusively while something is published, before the map's locks.  What
 * holds it does I/O, and cannot be interrupted.
 */
static LWLock *publish_lock;

/*
 * Where the first cycle begins that overflowed, was published by this process,
 * and may be made exact by WAL; invalid: there is none.
 */
static XLogRecPtr coarse_start = InvalidXLogRecPtr;

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
publish_shmem_init(LWLock *lock)
{
	bool		found;

	if (publish_context == NULL)
		publish_context = AllocSetContextCreate(TopMemoryContext, "ptrack publishing",
												ALLOCSET_DEFAULT_SIZES);
	publish_lock = lock;
	shared = ShmemInitStruct("ptrack publishing", publish_shmem_size(), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(PublishShared));
		pg_atomic_init_u64(&shared->published, 0);
		pg_atomic_init_u64(&shared->failures, 0);
		pg_atomic_init_u64(&shared->last_time, 0);
		pg_atomic_init_u64(&shared->last_usec, 0);
		pg_atomic_init_u32(&shared->failed, 0);
	}
}

/*
 * To be called before the first answer is given; does something the first time
 * only.  It gives ptrack's worker some time to read WAL from before the start.
 */
#define START_WAIT_MS	10000
#define START_NAP_MS	10
#define START_MAX_NAP_MS	320

void
publish_check_start(void)
{
	long		nap = START_NAP_MS;

	if (coverage_has_begun())
		return;
	for (long waited = 0;; waited += nap)
	{
		bool		checked;

		LWLockAcquire(publish_lock, LW_EXCLUSIVE);
		checked = coverage_begin();
		LWLockRelease(publish_lock);
		if (checked)
			return;
		if (waited >= START_WAIT_MS)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("changes are not known yet"),
					 errdetail("Recovery has not begun, or what is known of the time before the server's start is still being looked for."),
					 errhint("Try again in a moment.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 nap, wait_event(WAIT_START));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		nap = Min(2 * nap, START_MAX_NAP_MS);
	}
}

/*
 * Publishing
 */

/*
 * Makes WAL durable up to that LSN, and so has all records before it inserted;
 * in recovery it is.  An LSN where the next record will begin may be the first
 * byte after a page header that is not yet written, which nothing can be flushed
 * up to; then what comes before ends with the page before.
 */
void
publish_flush_wal(XLogRecPtr lsn)
{
	uint32		header = XLogSegmentOffset(lsn, wal_segment_size) < XLOG_BLCKSZ ?
		SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	if (!XLogInsertAllowed())
		return;
	if (lsn % XLOG_BLCKSZ == header)
		lsn -= header;
	XLogFlush(lsn);
}

/*
 * Will a server that starts from there know all that changed besides WAL?  Not if
 * everything did, after that redo point or where it is: so long as the marks of
 * what follows are not durable, they are only made again if the redo point says
 * that there were no checksums.
 */
static bool
has_checksums(const MapCut *cut, const MapSnapshot *snapshot)
{
	return DataChecksumsEnabled() &&
		!(snapshot->beyond_wal && cut->redo <= start_beyond_wal());
}

static RedoPoint
redo_point(const MapCut *cut, const MapSnapshot *snapshot, const Lineage *start)
{
	RedoPoint	point;

	point.lsn = cut->redo;
	point.tli = cut->tli;
	point.flags = (has_checksums(cut, snapshot) ? POINT_CHECKSUMS : 0) |
		(XLogIsNeeded() ? 0 : POINT_MINIMAL);
	point.lineage = lineage_after(start, cut->sum - snapshot->start_sum);
	point.time_min = cut->time_min;
	point.time_max = cut->time_max;

	/* WAL went on and did not tell of it: no server starts from there. */
	if (engine_follows() && cut->time_max == 0)
		point.time_min = point.time_max = 1;
	return point;
}

static bool
next_item(void *arg, ChangeItem *item)
{
	return map_snapshot_next(arg, item);
}

/*
 * What a summary of a range says of itself, besides times.
 */
void
publish_describe(SummaryHeader *header, XLogRecPtr start,
				 const Lineage *start_lineage, const RedoPoint *end)
{
	memset(header, 0, sizeof(*header));
	header->system_identifier = GetSystemIdentifier();
	header->start = start;
	header->start_lineage = *start_lineage;
	header->end = *end;
	header->block_size = BLCKSZ;
	header->segment_blocks = RELSEG_SIZE;
}

/* Publishes a copy of a half as the summary of [its start, its end). */
static bool
publish_snapshot(MapSnapshot *snapshot, StoredSummary *published)
{
	RedoPoint	inner[MAP_PASSED_CUTS];
	SummaryHeader header;
	Lineage		start;
	RedoPoint	end;

	if (!lineage_recent(snapshot->start, &start))
		elog(ERROR, "lineage at %X/%X is not known", LSN_FORMAT_ARGS(snapshot->start));
	end = redo_point(&snapshot->end, snapshot, &start);
	for (int i = 0; i < snapshot->ninner; i++)
		inner[i] = redo_point(&snapshot->inner[i], snapshot, &start);
	publish_describe(&header, snapshot->start, &start, &end);
	header.flags = (snapshot->coarse ? SUMMARY_COARSE : 0) |
		(snapshot->beyond_wal || server_start->was_minimal || !XLogIsNeeded() ? SUMMARY_BEYOND_WAL : 0);
	header.start_time = snapshot->start_time ? snapshot->start_time : server_start->time;
	header.end_time = snapshot->end.time;

	publish_flush_wal(header.end.lsn);
	if (!store_publish(&header, inner, snapshot->ninner, next_item, snapshot))
		return false;
	if (header.flags == SUMMARY_COARSE && XLogRecPtrIsInvalid(coarse_start))
		coarse_start = header.start;
	lineage_remember(header.end.lsn, &header.end.lineage);
	pg_atomic_fetch_add_u64(&shared->published, 1);
	*published = (StoredSummary)
	{
		header.end.tli, header.start, header.end.lsn
	};
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
	StoredSummary published;

	if (!map_snapshot_frozen(&snapshot))
		return XLogRecPtrIsInvalid(snapshot.start) || no_memory();
	if (snapshot.start >= snapshot.end.redo)
	{
		/* It was frozen while it was published as the running one. */
		map_release_frozen();
		return true;
	}
	if (!XLogIsNeeded())
		map_carry_new_relations(&snapshot);
	if (!publish_snapshot(&snapshot, &published))
		return false;
	map_release_frozen();
	store_remove_covered(&published);
	map_snapshot_free(&snapshot);
	return true;
}

/*
 * Publishes what the running half holds from before its latest redo point, at
 * which it was not cut because the other half was still frozen then.  The marks
 * that came later go along.
 */
static bool
publish_running(XLogRecPtr redo)
{
	MapSnapshot snapshot;
	StoredSummary published;

	if (!map_snapshot_running(&snapshot))
		return no_memory();
	if (snapshot.start != map_get_start())
	{
		/* It was cut meanwhile, so that there is a frozen half again. */
		map_snapshot_free(&snapshot);
		return true;
	}
	if (snapshot.end.redo < redo)
		elog(ERROR, "the map of changed blocks was not told of redo point %X/%X",
			 LSN_FORMAT_ARGS(redo));
	if (!publish_snapshot(&snapshot, &published))
		return false;
	map_advance(&snapshot);
	store_remove_covered(&published);
	map_snapshot_free(&snapshot);
	return true;
}

/*
 * Publishes all cycles that end at or before that redo point.  The startup
 * process may make cuts meanwhile.
 */
static bool
publish_before(XLogRecPtr redo)
{
	for (;;)
	{
		if (!publish_frozen())
			return false;
		if (map_get_start() >= redo)
			return true;
		if (!publish_running(redo))
			return false;
	}
}

/*
 * With the lock held; may throw.  True: nothing is left to be done.  The redo
 * point may be invalid: then this only looks at the start.
 */
static bool
publish_locked(XLogRecPtr redo)
{
	instr_time	begin;
	instr_time	end;
	bool		done;
	uint64		before = pg_atomic_read_u64(&shared->published);

	INSTR_TIME_SET_CURRENT(begin);
	if (!coverage_begin())
		return XLogRecPtrIsInvalid(redo);
	done = publish_before(redo);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, begin);
	if (pg_atomic_read_u64(&shared->published) != before)
	{
		pg_atomic_write_u64(&shared->last_usec, INSTR_TIME_GET_MICROSEC(end));
		pg_atomic_write_u64(&shared->last_time, (uint64) GetCurrentTimestamp());
	}
	return done;
}

/* The checkpoint goes on, so the error is no more than a warning. */
static void
report_as_warning(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(publish_context);
	error = CopyErrorData();
	FlushErrorState();
	error->elevel = WARNING;
	ThrowErrorData(error);
}

/*
 * Publishes, and never throws: errors become warnings.  What is thrown resets
 * the count of reasons to hold off interrupts, of which the lock is one.
 */
static bool
publish_caught(XLogRecPtr redo)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool done = false;
	uint32		holdoff;

	LWLockAcquire(publish_lock, LW_EXCLUSIVE);
	holdoff = InterruptHoldoffCount;
	PG_TRY();
	{
		MemoryContextSwitchTo(publish_context);
		done = publish_locked(redo);
	}
	PG_CATCH();
	{
		InterruptHoldoffCount = holdoff;
		report_as_warning();
	}
	PG_END_TRY();
	LWLockRelease(publish_lock);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(publish_context);
	pg_atomic_write_u32(&shared->failed, done ? 0 : 1);
	return done;
}

static void
report_not_durable(XLogRecPtr redo)
{
	pg_atomic_fetch_add_u64(&shared->failures, 1);
	ereport(WARNING,
			(errcode(ERRCODE_IO_ERROR),
			 errmsg("changed blocks up to %X/%X are not durable",
					LSN_FORMAT_ARGS(redo)),
			 engine_follows() ?
			 errdetail("They are kept in memory, and ptrack tries again to publish them. WAL that tells of them is held back until that succeeds.") :
			 errdetail("They are kept in memory, and ptrack tries again to publish them. If the server stops before that succeeds, changes before its next start are not known."),
			 errhint("See the messages before this one for the reason. Make sure that \"%s\" can be read and written, and that its disk has room.",
					 STORE_DIRECTORY)));
}

/*
 * Publishes everything that the map holds from before the redo point of the
 * checkpoint or restartpoint that is being made.  Never throws.
 */
void
publish_at_checkpoint(XLogRecPtr redo)
{
	if (publish_caught(redo))
		return;

	/* The worker publishes it when it has read WAL from before. */
	if (coverage_note_miss())
		return;
	report_not_durable(redo);
}

/*
 * Up to which redo point there are cycles that the worker should publish; if
 * there is none, invalid.  In recovery these are all, also those that the map could
 * not be cut at, and when WAL is followed, those whose checkpoint is complete.
 * Otherwise they are checkpoints', which see to it themselves unless the latest
 * attempt failed.
 *
 * all: no more is to be learned of the checkpoint.
 */
static XLogRecPtr
left_over(bool all)
{
	MapSnapshot frozen;
	MapSnapshot running;
	const MapCut *cut = &frozen.end;
	bool		follows = engine_follows();
	bool		failed = pg_atomic_read_u32(&shared->failed) != 0;

	if (!RecoveryInProgress() && !follows && !failed)
		return InvalidXLogRecPtr;
	map_get_cuts(&frozen, &running);
	if (!RecoveryInProgress() && !follows && !XLogRecPtrIsInvalid(running.end.redo))
		return running.end.redo;
	if (XLogRecPtrIsInvalid(frozen.start))
	{
		/* The map could not be cut there: what was before was in the way. */
		if (running.end.redo <= running.start)
			return InvalidXLogRecPtr;
		cut = &running.end;
	}
	return follows && !all && cut->time_max == 0 ? InvalidXLogRecPtr : cut->redo;
}

/*
 * For ptrack's worker: publishes cycles that ended in recovery, or in WAL that
 * it follows, or that could not be published before.  Also does what
 * publish_check_start does, as soon as that is possible.  Whatever wakes the
 * worker, it does not try more often than once in that time.  Never throws.
 */
#define RETRY_MS		1000

void
publish_in_background(bool all)
{
	static TimestampTz failed_at = 0;
	static XLogRecPtr reported = InvalidXLogRecPtr;
	XLogRecPtr	redo = left_over(all);

	if (XLogRecPtrIsInvalid(redo) && coverage_has_begun())
		return;
	if (coverage_has_begun() && pg_atomic_read_u32(&shared->failed) != 0 &&
		!TimestampDifferenceExceeds(failed_at, GetCurrentTimestamp(), RETRY_MS))
		return;
	if (publish_caught(redo) || !coverage_has_begun())
		return;
	failed_at = GetCurrentTimestamp();

	/* Elsewhere, who made the checkpoint has said so. */
	if (engine_follows() && redo > reported)
	{
		report_not_durable(redo);
		reported = redo;
	}
}

/*
 * What was known is of no use any more, since something after it is not: begins
 * a new history at that redo point.  For ptrack's worker.
 */
void
publish_begin_anew(XLogRecPtr redo)
{
	Lineage		lineage = lineage_new();

	LWLockAcquire(publish_lock, LW_EXCLUSIVE);
	map_begin_anew(redo);
	lineage_remember(redo, &lineage);
	LWLockRelease(publish_lock);
}

/*
 * For ptrack's worker: from where on WAL is of use to make cycles exact that it
 * published while they were not; invalid: there are none.
 */
XLogRecPtr
publish_coarse_start(void)
{
	return coarse_start;
}

void
publish_forget_coarse(void)
{
	coarse_start = InvalidXLogRecPtr;
}

void
publish_get_stats(PublishStats *stats)
{
	stats->published = pg_atomic_read_u64(&shared->published);
	stats->failures = pg_atomic_read_u64(&shared->failures);
	stats->last_time = (TimestampTz) pg_atomic_read_u64(&shared->last_time);
	stats->last_usec = pg_atomic_read_u64(&shared->last_usec);
}
