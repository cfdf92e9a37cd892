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
 *
 * This file also knows where the server started from: the checkpoint that
 * pg_control named then.  The chain of summaries of earlier runs is attached
 * there, and what was done to the files without WAL since is noticed there.
 *
 * Lineage
 *
 * A redo point's identifier is 8 random bytes, chosen where coverage began, and
 * a sum over all WAL records since then, of their places and checksums.  So it
 * is the same wherever the same WAL was replayed, and another one as soon as
 * two servers that were one have written anything of their own.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "change_merge.h"
#include "common/controldata_utils.h"
#include "engine.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bswap.h"
#include "portability/instr_time.h"
#include "ptrack_map.h"
#include "publish.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "summary_store.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "wal_fill.h"
#include "wal_follow.h"
#include "wal_records.h"

/*
 * For so many checkpoints, an I/O error on the summary before the server's
 * start is taken for something that passes.
 */
#define MAX_START_MISSES	10

/* The redo points that were published last, so that readers may lag a bit. */
#define RECENT_POINTS	4

typedef struct RecentPoint
{
	XLogRecPtr	lsn;			/* invalid: none */
	Lineage		lineage;
} RecentPoint;

/* What WAL may tell of a gap before the server's start. */
typedef enum FillState
{
	FILL_UNKNOWN,
	FILL_WANTED,				/* the worker should have a look */
	FILL_DONE,					/* it has, or will not */
} FillState;

typedef struct PublishShared
{
	/* The checkpoint that the server started from; set before anyone reads. */
	XLogRecPtr	start_redo;		/* invalid: not known */
	TimeLineID	start_tli;
	pg_time_t	start_time;		/* when it was made */
	bool		was_minimal;	/* WAL before is of wal_level minimal, */
	bool		start_minimal;	/* and has to be replayed */
	XLogRecPtr	start_rewritten;	/* pg_checksums may have been run there,
									 * on a standby; invalid: not so */

	pg_atomic_uint32 redo_tli;	/* where redo started; 0: there was none */
	pg_atomic_uint32 start_checked; /* publish_check_start has succeeded */
	pg_atomic_uint32 failed;	/* the latest attempt has */
	int			start_misses;	/* checkpoints at which it had not succeeded */
	pg_atomic_uint32 worker_there;	/* ptrack's worker has been seen */
	pg_atomic_uint32 fill;		/* a FillState */

	slock_t		mutex;			/* protects what follows */
	RecentPoint recent[RECENT_POINTS];
	int			nrecent;		/* all that were ever put there */

	/* Statistics, which anyone reads. */
	pg_atomic_uint64 published;
	pg_atomic_uint64 failures;
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
		shared->was_minimal = control->wal_level == WAL_LEVEL_MINIMAL;
		shared->start_minimal = shared->was_minimal && control->state != DB_SHUTDOWNED;
		wal_crashed_minimal = shared->start_minimal;
		if (control->state == DB_SHUTDOWNED_IN_RECOVERY &&
			control->data_checksum_version != 0)
			shared->start_rewritten = control->minRecoveryPoint;
	}
	pfree(control);
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
		pg_atomic_init_u64(&shared->last_usec, 0);
		pg_atomic_init_u32(&shared->start_checked, 0);
		pg_atomic_init_u32(&shared->redo_tli, 0);
		pg_atomic_init_u32(&shared->failed, 0);
		pg_atomic_init_u32(&shared->worker_there, 0);
		pg_atomic_init_u32(&shared->fill, FILL_UNKNOWN);
		SpinLockInit(&shared->mutex);
		note_start();
	}
}

/*
 * Lineage
 */

/*
 * The identifier after records with that sum of fingerprints.
 */
Lineage
lineage_after(const Lineage *before, uint64 sum)
{
	Lineage		after = *before;
	uint64		position;

	memcpy(&position, after.id + LINEAGE_LEN / 2, sizeof(position));
	position = pg_hton64(pg_ntoh64(position) + sum);
	memcpy(after.id + LINEAGE_LEN / 2, &position, sizeof(position));
	return after;
}

static void
remember_point(XLogRecPtr lsn, const Lineage *lineage)
{
	RecentPoint point = {lsn, *lineage};

	SpinLockAcquire(&shared->mutex);
	shared->recent[shared->nrecent++ % RECENT_POINTS] = point;
	SpinLockRelease(&shared->mutex);
}

/*
 * The lineage at a redo point that the map's knowledge began at a moment ago.
 * False if that is too long ago, or not known yet.
 */
bool
publish_lineage(XLogRecPtr lsn, Lineage *lineage)
{
	bool		found = false;

	SpinLockAcquire(&shared->mutex);
	for (int i = 0; i < RECENT_POINTS && !found; i++)
	{
		found = shared->recent[i].lsn == lsn && !XLogRecPtrIsInvalid(lsn);
		*lineage = shared->recent[i].lineage;
	}
	SpinLockRelease(&shared->mutex);
	return found;
}

static bool
find_cut(const MapSnapshot *half, XLogRecPtr lsn, const Lineage *start,
		 Lineage *lineage)
{
	const MapCut *cut = &half->end;

	for (int i = 0; i < half->ninner && cut->redo != lsn; i++)
		cut = &half->inner[i];
	if (cut->redo != lsn)
		return false;
	*lineage = lineage_after(start, cut->sum - half->start_sum);
	return true;
}

/*
 * The lineage at one of the redo points that the live map knows, given that at
 * its start.  False if there is none at that LSN.
 */
bool
publish_live_lineage(const MapSnapshot *frozen, const MapSnapshot *running,
					 const Lineage *start, XLogRecPtr lsn, Lineage *lineage)
{
	Lineage		between = *start;

	if (!XLogRecPtrIsInvalid(frozen->start))
	{
		if (find_cut(frozen, lsn, start, lineage))
			return true;
		between = lineage_after(start, frozen->end.sum - frozen->start_sum);
	}
	return find_cut(running, lsn, &between, lineage);
}

/*
 * The lineage after so many fingerprints of the running cycle, given that at the
 * start of the live map.
 */
Lineage
publish_running_lineage(const MapSnapshot *frozen, const MapSnapshot *running,
						const Lineage *start, uint64 sum)
{
	sum -= running->start_sum;
	if (!XLogRecPtrIsInvalid(frozen->start))
		sum += frozen->end.sum - frozen->start_sum;
	return lineage_after(start, sum);
}

/*
 * The start of the server
 */

/*
 * Notes the timeline that redo starts on.  The startup process does that before
 * it replays its first record; if another one is earlier, it sees the same.
 */
void
publish_note_redo(void)
{
	uint32		unknown = 0;
	TimeLineID	tli;

	(void) GetXLogReplayRecPtr(&tli);
	pg_atomic_compare_exchange_u32(&shared->redo_tli, &unknown, tli);
}

/*
 * May a cycle end at that redo point, which is going to be replayed?
 *
 * - WAL of wal_level = minimal does not tell all that a transaction does after a
 *   redo point: its cycles must stay together.
 * - If pg_checksums was run on a standby, all its pages changed where it was shut
 *   down.  That is noted in the first cycle, which begins earlier, and so must
 *   last until there.
 */
bool
publish_may_cut_redo(XLogRecPtr redo)
{
	return !shared->start_minimal && redo > shared->start_rewritten;
}

/*
 * Up to that LSN, the map knows of changes that WAL does not tell; invalid: of
 * none.
 */
XLogRecPtr
publish_beyond_wal(void)
{
	return shared->start_rewritten;
}

/*
 * Can that redo point be where the present run of the server began?  If it is
 * the one in pg_control, it must be of the same checkpoint.  A data directory
 * that was rolled back, while the store was not, may have come to another
 * checkpoint at the same LSN.
 *
 * In a backup that is being restored, pg_control names a later checkpoint, and
 * in recovery the time of a checkpoint is not known at its redo point: then the
 * LSN and the timeline must do.
 */
typedef enum Fit
{
	FIT_NOT,
	FIT_PERHAPS,				/* there is no time to compare */
	FIT_SURE,
} Fit;

static Fit
fits_start(const RedoPoint *point, XLogRecPtr start)
{
	TimeLineID	tli = pg_atomic_read_u32(&shared->redo_tli);

	if (point->lsn != start || point->tli != (tli ? tli : shared->start_tli))
		return FIT_NOT;
	if (start != shared->start_redo || point->time_max == 0)
		return FIT_PERHAPS;
	return shared->start_time >= point->time_min &&
		shared->start_time <= point->time_max ? FIT_SURE : FIT_NOT;
}

/* What the summaries say about the redo point that the server started from. */
typedef struct StartKnowledge
{
	bool		unreadable;		/* a summary that may know could not be read */
	bool		ambiguous;		/* several fit as well, of different lineages */
	Fit			fit;			/* FIT_NOT: the rest is not set */
	RedoPoint	point;
	StoredSummary before;		/* the summary that it is in */
} StartKnowledge;

/* Of two redo points that both may be it, the one that fits better counts. */
static void
learn_point(const RedoPoint *point, Fit fit, const StoredSummary *summary,
			StartKnowledge *knowledge)
{
	if (fit == FIT_NOT || fit < knowledge->fit)
		return;
	if (fit == knowledge->fit)
	{
		if (memcmp(&point->lineage, &knowledge->point.lineage, sizeof(Lineage)) != 0)
			knowledge->ambiguous = true;
		return;
	}
	knowledge->ambiguous = false;
	knowledge->fit = fit;
	knowledge->point = *point;
	knowledge->before = *summary;
}

static void
learn_from(const StoredSummary *summary, XLogRecPtr start, StartKnowledge *knowledge)
{
	SummaryInfo info;
	StoreVerdict verdict;

	if (summary->start >= start || summary->end < start)
		return;
	verdict = store_check(summary, &info);
	knowledge->unreadable |= verdict == STORE_UNREADABLE;
	if (verdict != STORE_GOOD)
		return;
	for (int i = 0; i < info.npoints; i++)
		learn_point(&info.points[i], fits_start(&info.points[i], start), summary,
					knowledge);
	pfree(info.points);
}

static void
learn_start(XLogRecPtr start, StartKnowledge *knowledge)
{
	StoreList	list;

	memset(knowledge, 0, sizeof(*knowledge));
	store_list(&list);
	for (int i = 0; i < list.count; i++)
		learn_from(&list.summaries[i], start, knowledge);
	if (knowledge->ambiguous)
		knowledge->fit = FIT_NOT;
}

/*
 * Where to look for what leads to the server's start, if nothing ends there: so
 * many redo points are tried, the latest first.
 */
#define MAX_FOLLOW_TRIES	8

typedef struct FollowChoice
{
	RedoPoint	point;
	StoredSummary summary;
} FollowChoice;

/* Keeps the latest redo points, in descending order. */
static int
add_choice(FollowChoice *choices, int count, const RedoPoint *point,
		   const StoredSummary *summary)
{
	int			at = count;

	while (at > 0 && choices[at - 1].point.lsn < point->lsn)
		at--;
	if (at == MAX_FOLLOW_TRIES)
		return count;
	if (count < MAX_FOLLOW_TRIES)
		count++;
	memmove(&choices[at + 1], &choices[at], (count - at - 1) * sizeof(FollowChoice));
	choices[at].point = *point;
	choices[at].summary = *summary;
	return count;
}

static int
list_choices(FollowChoice *choices, XLogRecPtr start)
{
	StoreList	list;
	SummaryInfo info;
	int			count = 0;

	store_list(&list);
	for (int i = 0; i < list.count; i++)
	{
		if (list.summaries[i].start >= start ||
			store_check(&list.summaries[i], &info) != STORE_GOOD)
			continue;
		for (int n = 0; n < info.npoints; n++)
		{
			if (info.points[n].lsn < start && (info.points[n].flags & POINT_MINIMAL) == 0)
				count = add_choice(choices, count, &info.points[n], &list.summaries[i]);
		}
		pfree(info.points);
	}
	return count;
}

/*
 * Finds the latest redo point before the server's start from which WAL leads
 * there.
 */
static void
learn_before_start(XLogRecPtr start, StartKnowledge *knowledge)
{
	FollowChoice choices[MAX_FOLLOW_TRIES];
	TimeLineID	tli = pg_atomic_read_u32(&shared->redo_tli);
	int			count = shared->was_minimal ? 0 : list_choices(choices, start);

	for (int i = 0; i < count; i++)
	{
		const RedoPoint *point = &choices[i].point;

		if (knowledge->fit != FIT_NOT && point->lsn < knowledge->point.lsn)
			break;
		if (follow_from(point, start, tli ? tli : shared->start_tli))
			learn_point(point, FIT_SURE, &choices[i].summary, knowledge);
	}
	if (knowledge->ambiguous)
		knowledge->fit = FIT_NOT;
}

/* What was new in a summary's range counts as new in the first cycle, too. */
static void
carry_from(const StoredSummary *summary)
{
	ChangeMerge *only = change_merge_create(1);
	ChangeItem	item;

	if (!change_merge_add_summary(only, summary))
		elog(ERROR, "a change summary is gone");
	while (change_merge_next(only, &item))
		map_note_carried(&item);
	change_merge_close(only);
}

/*
 * Completes the first cycle since the server started by what WAL does not tell.
 *
 * - pg_checksums writes every page without a trace in the WAL.  If there were
 *   no checksums at the server's start, or that is not known, everything counts
 *   as changed.  When checksums are disabled, no page is written.
 * - With wal_level = minimal, what was carried over from the cycle before was
 *   lost in a crash, and replay does not bring it back.
 */
static void
complete_first_cycle(const StartKnowledge *start)
{
	bool		checksums = DataChecksumsEnabled();

	if (!checksums && !shared->start_minimal)
		return;
	if (start->fit == FIT_NOT ||
		(checksums && (start->point.flags & POINT_CHECKSUMS) == 0))
	{
		/* The first cycle may begin before the server was down. */
		if (engine_follows())
			shared->start_rewritten = Max(shared->start_rewritten, shared->start_redo);
		map_note_everything();
	}
	else if (shared->start_minimal)
		carry_from(&start->before);
}

/*
 * Has the map know the redo point that the server started from, if nobody did
 * that so far.  Until a record is replayed or inserted after one that this
 * server made, it is the one in shared memory.
 */
static bool
have_start(void)
{
	if (RecoveryInProgress())
	{
		if (engine_follows() && GetRecoveryState() == RECOVERY_STATE_CRASH)
			return false;
		publish_note_redo();
		if (pg_atomic_read_u32(&shared->redo_tli) == 0)
			return false;
	}
	if (XLogRecPtrIsInvalid(map_get_start()) && !engine_follows())
		map_note_start(GetRedoRecPtr());
	return engine_follows() || !XLogRecPtrIsInvalid(map_get_start());
}

/*
 * Where what is known of this run begins: at the server's start, or where WAL
 * leads there from, when that is followed and was not replayed already.
 */
static XLogRecPtr
find_start(StartKnowledge *knowledge)
{
	XLogRecPtr	start = map_get_start();

	if (!XLogRecPtrIsInvalid(start))
	{
		learn_start(start, knowledge);
		return start;
	}
	start = XLogRecPtrIsInvalid(shared->start_redo) ? GetRedoRecPtr() : shared->start_redo;
	learn_start(start, knowledge);
	if (knowledge->fit == FIT_NOT && !knowledge->unreadable)
		learn_before_start(start, knowledge);
	return knowledge->fit == FIT_NOT ? start : knowledge->point.lsn;
}

static bool
store_is_empty(void)
{
	StoreList	list;

	store_list(&list);
	return list.count == 0;
}

/* Up to where WAL from before the server's start is to be read. */
static XLogRecPtr
fill_end(void)
{
	XLogRecPtr	start = map_get_start();

	return XLogRecPtrIsInvalid(start) ? shared->start_redo : start;
}

/*
 * What is known ends before the server's start, or there is nothing.  May there
 * be WAL that leads from there, which ptrack's worker should read first?  If
 * there cannot be a worker, or it does not show up for long, this goes on
 * without.
 */
#define WORKER_TIMEOUT_MS	10000

static bool
must_fill(void)
{
	uint32		unknown = FILL_UNKNOWN;
	FollowChoice choices[MAX_FOLLOW_TRIES];

	if (pg_atomic_read_u32(&shared->fill) == FILL_DONE || shared->was_minimal)
		return false;
	if (pg_atomic_read_u32(&shared->worker_there) == 0 &&
		(max_worker_processes == 0 ||
		 TimestampDifferenceExceeds(PgStartTime, GetCurrentTimestamp(), WORKER_TIMEOUT_MS)))
		return false;
	if (pg_atomic_read_u32(&shared->fill) == FILL_WANTED)
		return true;
	if (!store_is_empty() && (XLogRecPtrIsInvalid(map_get_start()) ||
							  list_choices(choices, map_get_start()) == 0))
		return false;
	pg_atomic_compare_exchange_u32(&shared->fill, &unknown, FILL_WANTED);
	return true;
}

static Lineage
new_lineage(void)
{
	Lineage		lineage;

	if (!pg_strong_random(lineage.id, LINEAGE_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random lineage identifier")));
	return lineage;
}

/*
 * False if it is too early to tell, or if what there is to be known cannot be
 * read at the moment: to go on without that would make a gap for good.  The
 * lock is held.
 */
static bool
check_start(void)
{
	StartKnowledge knowledge;
	Lineage		lineage;
	XLogRecPtr	start;

	if (pg_atomic_read_u32(&shared->start_checked) != 0)
		return true;
	if (!have_start())
		return false;

	start = find_start(&knowledge);
	if (knowledge.fit == FIT_NOT && knowledge.unreadable &&
		shared->start_misses < MAX_START_MISSES)
		return false;
	if (knowledge.fit == FIT_NOT && start == fill_end() && must_fill())
		return false;
	complete_first_cycle(&knowledge);
	lineage = knowledge.fit != FIT_NOT ? knowledge.point.lineage : new_lineage();
	remember_point(start, &lineage);
	if (engine_follows() && XLogRecPtrIsInvalid(map_get_start()))
	{
		map_note_start(start);
		follow_begin(start);
	}
	pg_write_barrier();
	pg_atomic_write_u32(&shared->start_checked, 1);
	return true;
}

/* The same, and WAL is followed from where redo came to, if it is to be. */
static bool
check_start_and_follow(void)
{
	if (!check_start())
		return false;
	if (engine_follows() && !follow_begun())
		follow_begin(InvalidXLogRecPtr);
	return true;
}

static bool
start_known(void)
{
	bool		checked = pg_atomic_read_u32(&shared->start_checked) != 0;

	pg_read_barrier();
	return checked && (!engine_follows() || follow_begun());
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

	if (start_known())
		return;
	for (long waited = 0;; waited += nap)
	{
		bool		checked;

		LWLockAcquire(publish_lock, LW_EXCLUSIVE);
		checked = check_start_and_follow();
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
						 nap, PG_WAIT_EXTENSION);
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

static RedoPoint
redo_point(const MapCut *cut, const MapSnapshot *snapshot, const Lineage *start)
{
	RedoPoint	point;

	point.lsn = cut->redo;
	point.tli = cut->tli;
	point.flags = (DataChecksumsEnabled() ? POINT_CHECKSUMS : 0) |
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

	if (!publish_lineage(snapshot->start, &start))
		elog(ERROR, "lineage at %X/%X is not known", LSN_FORMAT_ARGS(snapshot->start));
	end = redo_point(&snapshot->end, snapshot, &start);
	for (int i = 0; i < snapshot->ninner; i++)
		inner[i] = redo_point(&snapshot->inner[i], snapshot, &start);
	publish_describe(&header, snapshot->start, &start, &end);
	header.flags = (snapshot->coarse ? SUMMARY_COARSE : 0) |
		(snapshot->beyond_wal || shared->was_minimal || !XLogIsNeeded() ? SUMMARY_BEYOND_WAL : 0);
	header.start_time = snapshot->start_time ? snapshot->start_time : shared->start_time;
	header.end_time = snapshot->end.time;

	publish_flush_wal(header.end.lsn);
	if (!store_publish(&header, inner, snapshot->ninner, next_item, snapshot))
		return false;
	if (header.flags == SUMMARY_COARSE && XLogRecPtrIsInvalid(coarse_start))
		coarse_start = header.start;
	remember_point(header.end.lsn, &header.end.lineage);
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
	if (!check_start_and_follow())
		return XLogRecPtrIsInvalid(redo);
	done = publish_before(redo);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, begin);
	if (pg_atomic_read_u64(&shared->published) != before)
		pg_atomic_write_u64(&shared->last_usec, INSTR_TIME_GET_MICROSEC(end));
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
			(errmsg("changed blocks up to %X/%X are not durable",
					LSN_FORMAT_ARGS(redo)),
			 engine_follows() ?
			 errdetail("They are kept in memory, and ptrack tries again to publish them. WAL that tells of them is held back until that succeeds.") :
			 errdetail("They are kept in memory, and ptrack tries again to publish them. If the server stops before that succeeds, changes before its next start are not known.")));
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
	if (pg_atomic_read_u32(&shared->start_checked) == 0)
	{
		/* The worker publishes it when it has read WAL from before. */
		if (pg_atomic_read_u32(&shared->fill) == FILL_WANTED)
			return;
		shared->start_misses++;
	}
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

	if (XLogRecPtrIsInvalid(redo) && start_known())
		return;
	if (start_known() && pg_atomic_read_u32(&shared->failed) != 0 &&
		!TimestampDifferenceExceeds(failed_at, GetCurrentTimestamp(), RETRY_MS))
		return;
	if (publish_caught(redo) || !start_known())
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
 * ptrack's worker is there.
 */
void
publish_note_worker(void)
{
	pg_atomic_write_u32(&shared->worker_there, 1);
}

static void
fill_before(XLogRecPtr start)
{
	StartKnowledge knowledge = {0};
	RedoPoint	end = {0};

	learn_before_start(start, &knowledge);
	end.lsn = start;
	end.tli = pg_atomic_read_u32(&shared->redo_tli);
	if (end.tli == 0)
		end.tli = shared->start_tli;
	if (start == shared->start_redo)
		end.time_min = end.time_max = shared->start_time;
	if (knowledge.fit == FIT_NOT && store_is_empty() &&
		wal_find_oldest(&knowledge.point, start, end.tli))
	{
		knowledge.fit = FIT_SURE;
		knowledge.point.lineage = new_lineage();
	}
	if (knowledge.fit != FIT_NOT)
		(void) wal_fill(&knowledge.point, &end);
}

/*
 * For ptrack's worker: if what is known ends before the server's start, reads
 * what WAL has from there on; if nothing is known, from the oldest redo point.
 * Memory is of the current context.  It takes no lock: nobody publishes until
 * that is decided.  Returns whether it is, since this call.
 */
bool
publish_fill_start(void)
{
	if (pg_atomic_read_u32(&shared->fill) != FILL_WANTED)
		return false;
	PG_TRY();
	{
		fill_before(fill_end());
	}
	PG_FINALLY();
	{
		pg_atomic_write_u32(&shared->fill, FILL_DONE);
	}
	PG_END_TRY();
	return true;
}

/*
 * What was known is of no use any more, since something after it is not: begins
 * a new history at that redo point.  For ptrack's worker.
 */
void
publish_begin_anew(XLogRecPtr redo)
{
	Lineage		lineage = new_lineage();

	LWLockAcquire(publish_lock, LW_EXCLUSIVE);
	map_begin_anew(redo);
	remember_point(redo, &lineage);
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
	stats->last_usec = pg_atomic_read_u64(&shared->last_usec);
}
