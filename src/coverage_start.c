/*
 * coverage_start.c
 *		Where what is known of this run begins, and with which lineage.
 *
 * That is decided once, before anything is published or answered: coverage goes
 * on from a redo point of an earlier run, or begins anew.  What was done to the
 * files without WAL since is noticed here.  If WAL from before the server's start
 * may lead there from a summary, ptrack's worker reads it first.
 *
 * The decision is made with publish.c's lock held exclusively.  What others look
 * at meanwhile is atomic.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "change_merge.h"
#include "coverage_start.h"
#include "engine.h"
#include "lineage.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "ptrack_map.h"
#include "server_start.h"
#include "storage/shmem.h"
#include "summary_store.h"
#include "utils/timestamp.h"
#include "wal_fill.h"
#include "wal_follow.h"

/*
 * For so many checkpoints, an I/O error on the summary before the server's
 * start is taken for something that passes.
 */
#define MAX_START_MISSES	10

/* What WAL may tell of a gap before the server's start. */
typedef enum FillState
{
	FILL_UNKNOWN,
	FILL_WANTED,				/* the worker should have a look */
	FILL_DONE,					/* it has, or will not */
} FillState;

typedef struct CoverageShared
{
	pg_atomic_uint32 checked;	/* coverage_begin has decided */
	int			misses;			/* checkpoints at which it had not, counted by
								 * who makes them */
	pg_atomic_uint32 worker_there;	/* ptrack's worker has been seen */
	pg_atomic_uint32 fill;		/* a FillState */
} CoverageShared;

static CoverageShared *shared;

Size
coverage_shmem_size(void)
{
	return MAXALIGN(sizeof(CoverageShared));
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
coverage_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("ptrack start of coverage", coverage_shmem_size(), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(CoverageShared));
		pg_atomic_init_u32(&shared->checked, 0);
		pg_atomic_init_u32(&shared->worker_there, 0);
		pg_atomic_init_u32(&shared->fill, FILL_UNKNOWN);
	}
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

	if (!checksums && !server_start->minimal)
		return;
	if (start->fit == FIT_NOT ||
		(checksums && (start->point.flags & POINT_CHECKSUMS) == 0))
	{
		/* The first cycle may begin before the server was down. */
		if (engine_follows())
			server_start->rewritten = Max(server_start->rewritten, server_start->redo);
		map_note_everything();
	}
	else if (server_start->minimal)
		carry_from(&start->before);
}

/*
 * Checksums were disabled on a standby, which starts again from the redo point that
 * says that there were some.  If they are enabled once more before the next one is
 * durable, that one would be believed, and what pg_checksums then writes would not be
 * known.  So what says it goes, and with it what is known of the time before.  False
 * if a summary cannot be removed.
 */
static bool
forget_checksums(const StartKnowledge *start)
{
	if (DataChecksumsEnabled() || !server_start->standby || start->fit == FIT_NOT ||
		(start->point.flags & POINT_CHECKSUMS) == 0)
		return true;
	return store_remove_around(start->point.lsn);
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
		start_note_redo();
		if (pg_atomic_read_u32(&server_start->redo_tli) == 0)
			return false;
	}
	if (XLogRecPtrIsInvalid(map_get_start()) && !engine_follows())
		map_note_start(GetRedoRecPtr());
	return engine_follows() || !XLogRecPtrIsInvalid(map_get_start());
}

/*
 * WAL from before the server's start is going to be followed.  Does it go over a
 * session that may have been without checksums?
 */
static void
learn_checksums(StartKnowledge *knowledge, XLogRecPtr start)
{
	RedoPoint  *point = &knowledge->point;

	if (knowledge->fit == FIT_NOT || (point->flags & POINT_CHECKSUMS) == 0)
		return;
	if (!start_kept_checksums(0) ||
		!start_kept_checksums(follow_shutdowns(point, start, start_timeline(start))))
		point->flags &= ~POINT_CHECKSUMS;
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
		start_learn(start, knowledge);
		return start;
	}
	start = XLogRecPtrIsInvalid(server_start->redo) ? GetRedoRecPtr() : server_start->redo;
	start_learn(start, knowledge);
	if (knowledge->fit == FIT_NOT && !knowledge->unreadable)
	{
		start_learn_before(start, knowledge);
		learn_checksums(knowledge, start);
	}
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

	return XLogRecPtrIsInvalid(start) ? server_start->redo : start;
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

	if (pg_atomic_read_u32(&shared->fill) == FILL_DONE || server_start->was_minimal)
		return false;
	if (pg_atomic_read_u32(&shared->worker_there) == 0 &&
		(max_worker_processes == 0 ||
		 TimestampDifferenceExceeds(PgStartTime, GetCurrentTimestamp(), WORKER_TIMEOUT_MS)))
		return false;
	if (pg_atomic_read_u32(&shared->fill) == FILL_WANTED)
		return true;
	if (!store_is_empty() && (XLogRecPtrIsInvalid(map_get_start()) ||
							  !start_has_earlier(map_get_start())))
		return false;
	pg_atomic_compare_exchange_u32(&shared->fill, &unknown, FILL_WANTED);
	return true;
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

	if (pg_atomic_read_u32(&shared->checked) != 0)
		return true;
	if (!have_start())
		return false;

	start = find_start(&knowledge);
	if (knowledge.fit == FIT_NOT && knowledge.unreadable &&
		shared->misses < MAX_START_MISSES)
		return false;
	if (knowledge.fit == FIT_NOT && start == fill_end() && must_fill())
		return false;
	if (!forget_checksums(&knowledge))
		return false;
	complete_first_cycle(&knowledge);
	lineage = knowledge.fit != FIT_NOT ? knowledge.point.lineage : lineage_new();
	lineage_remember(start, &lineage);
	if (engine_follows() && XLogRecPtrIsInvalid(map_get_start()))
	{
		map_note_start(start);
		follow_begin(start);
	}
	pg_write_barrier();
	pg_atomic_write_u32(&shared->checked, 1);
	return true;
}

/*
 * Decides where coverage begins, the first time that it can: false as long as it
 * cannot.  From then on WAL is followed from where redo came to, if it is to be.
 * With publish.c's lock held; may throw.
 */
bool
coverage_begin(void)
{
	if (!check_start())
		return false;
	if (engine_follows() && !follow_begun())
		follow_begin(InvalidXLogRecPtr);
	return true;
}

/*
 * Is that decided?
 */
bool
coverage_has_begun(void)
{
	bool		checked = pg_atomic_read_u32(&shared->checked) != 0;

	pg_read_barrier();
	return checked && (!engine_follows() || follow_begun());
}

/*
 * A checkpoint could not publish.  Returns whether that is because ptrack's worker
 * has still to read WAL from before the server's start.
 */
bool
coverage_note_miss(void)
{
	if (pg_atomic_read_u32(&shared->checked) != 0)
		return false;
	if (pg_atomic_read_u32(&shared->fill) == FILL_WANTED)
		return true;
	shared->misses++;
	return false;
}

/*
 * ptrack's worker is there.
 */
void
coverage_note_worker(void)
{
	pg_atomic_write_u32(&shared->worker_there, 1);
}

static void
fill_before(XLogRecPtr start)
{
	StartKnowledge knowledge = {0};
	RedoPoint	end = {0};

	start_learn_before(start, &knowledge);
	end.lsn = start;
	end.tli = start_timeline(start);
	if (start == server_start->redo)
		end.time_min = end.time_max = server_start->time;
	if (knowledge.fit == FIT_NOT && store_is_empty() &&
		wal_find_oldest(&knowledge.point, start, end.tli))
	{
		knowledge.fit = FIT_SURE;
		knowledge.point.lineage = lineage_new();
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
coverage_fill_start(void)
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
