/*
 * worker.c
 *		ptrack's background worker.
 *
 * It does what need not be done by anyone else: on servers without hooks it
 * follows WAL; it publishes cycles that ended in recovery, or could not be
 * published when they did; and it merges and removes old summaries.  Nothing
 * depends on it but how many files there are, how exact a standby's summaries
 * are, and how much WAL queries have to read.
 *
 * It is there from the start of the server on, during recovery too, and has
 * no database.  What fails is reported, and tried again a little later.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "coverage_start.h"
#include "engine.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/bgworker_internals.h"
#include "postmaster/interrupt.h"
#include "ptrack_map.h"
#include "publish.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "tidy.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "wait_events.h"
#include "wal_follow.h"
#include "wal_slot.h"
#include "worker.h"

PGDLLEXPORT void ptrack_worker_main(Datum arg);
PGDLLEXPORT void ptrack_cleanup_main(Datum arg);

/* How long to wait when nobody wakes the worker, and before it is restarted. */
#define NAP_MS			10000

/* How long to wait for more WAL, at least and at most. */
#define FOLLOW_NAP_MS	100
#define FOLLOW_MAX_NAP_MS	2000

/* How long until something may be possible that is not yet, at the start, */
#define SHORT_NAP_MS	500

/* and how often to look for that. */
#define SHORT_NAPS		20

/* From one look at the store to the next: after something was published, */
#define TIDY_PAUSE_MS	5000

/* and if nothing was. */
#define TIDY_INTERVAL_MS	(10 * 60 * 1000)

typedef struct WorkerShared
{
	pg_atomic_uint32 proc;		/* 1 + number of its process; 0: none */
} WorkerShared;

int			worker_keep_minutes = 10 * 24 * 60;

static WorkerShared *shared;

Size
worker_shmem_size(void)
{
	return MAXALIGN(sizeof(WorkerShared));
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
worker_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("ptrack worker", worker_shmem_size(), &found);
	if (!found)
		pg_atomic_init_u32(&shared->proc, 0);
}

/* PostgreSQL only logs that there was no room, and not what that comes to. */
static void
warn_if_unregistered(const char *name)
{
	const RegisteredBgWorker *last = last_registered_worker();

	if (last == NULL || strcmp(last->rw_worker.bgw_name, name) != 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there is no room for ptrack's background worker"),
				 errdetail("Change summaries are not merged or removed, and queries read by themselves what WAL has to tell."),
				 errhint("Increase \"max_worker_processes\", which is %d.", max_worker_processes)));
}

/*
 * Registers the worker, while the library is preloaded.  If tracking is off, it
 * only sees to it that nothing stays behind.
 */
void
worker_register(bool tracking)
{
	BackgroundWorker worker = {0};

	strlcpy(worker.bgw_name, "ptrack worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "ptrack worker", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "ptrack", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name,
			tracking ? "ptrack_worker_main" : "ptrack_cleanup_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = tracking ? BgWorkerStart_PostmasterStart :
		BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = tracking ? NAP_MS / 1000 : BGW_NEVER_RESTART;
	RegisterBackgroundWorker(&worker);
	if (tracking && IsPostmasterEnvironment)
		warn_if_unregistered(worker.bgw_name);
}

/*
 * Wakes the worker, if there is one: a cycle ended, or was published.  Cheap,
 * and cannot fail.
 */
void
worker_wake(void)
{
	uint32		proc = pg_atomic_read_u32(&shared->proc);

	if (proc != 0)
		SetLatch(&GetPGProcByNumber(proc - 1)->procLatch);
}

/*
 * Its process identifier, and the wait event that it reports; 0: there is no
 * worker, or it does not wait.
 */
int
worker_get_pid(uint32 *wait_event_info)
{
	uint32		proc = pg_atomic_read_u32(&shared->proc);

	*wait_event_info = 0;
	if (proc == 0)
		return 0;
	*wait_event_info = GetPGProcByNumber(proc - 1)->wait_event_info;
	return GetPGProcByNumber(proc - 1)->pid;
}

static void
forget_proc(int code, Datum arg)
{
	pg_atomic_write_u32(&shared->proc, 0);
}

/*
 * Runs one of the worker's tasks in that memory context, and returns what it
 * does.  An error is reported; all that it may have left is memory and open
 * files, and both are the context's.
 */
static bool
run_caught(MemoryContext context, bool (*task) (void), bool if_failed)
{
	volatile bool result = if_failed;

	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		result = task();
	}
	PG_CATCH();
	{
		LWLockReleaseAll();
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(context);
	return result;
}

/* Merges and removes what is due.  Returns false if it is too early for that. */
static bool
tidy(void)
{
	return tidy_store(worker_keep_minutes);
}

/*
 * Looks at the store if that is due, and returns how long to nap.  It reads
 * all of the store, so that is not done for nothing.
 */
static long
tidy_when_due(MemoryContext context)
{
	static TimestampTz tidied = 0;
	static uint64 published = 0;
	static int	early = 0;
	TimestampTz now = GetCurrentTimestamp();
	PublishStats stats;

	publish_get_stats(&stats);
	if (!TimestampDifferenceExceeds(tidied, now, TIDY_INTERVAL_MS))
	{
		if (stats.published == published)
			return NAP_MS;
		if (!TimestampDifferenceExceeds(tidied, now, TIDY_PAUSE_MS))
			return TIDY_PAUSE_MS;
	}
	if (!run_caught(context, tidy, true))
		return early++ < SHORT_NAPS ? SHORT_NAP_MS : NAP_MS;
	publish_forget_coarse();
	tidied = now;
	published = stats.published;
	return NAP_MS;
}

static void
handle_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (ShutdownRequestPending)
		proc_exit(1);			/* so that it is started again, if the server
								 * goes on */
}

/*
 * Follows WAL, or reads what is needed of it.  Returns how long to nap: the
 * longer, the longer there was nothing to be read.
 */
static long
follow_caught(MemoryContext context)
{
	static long nap = 0;
	bool		busy = run_caught(context, coverage_fill_start, false);

	/* Whoever asks first may want a gap to be filled, and waits for that. */
	if (!engine_follows())
		return busy ? 0 : coverage_has_begun() ? NAP_MS : FOLLOW_MAX_NAP_MS;
	busy |= run_caught(context, follow_wal, false);
	nap = busy ? FOLLOW_NAP_MS : Min(2 * Max(nap, FOLLOW_NAP_MS), FOLLOW_MAX_NAP_MS);
	return nap;
}

/* Has the server keep what was not yet read, or made durable, or made exact. */
static void
hold_wal(void)
{
	TimeLineID	tli;
	XLogRecPtr	start = map_get_start();
	XLogRecPtr	coarse = publish_coarse_start();

	if (!XLogRecPtrIsInvalid(coarse))
		start = Min(start, coarse);
	if (!engine_follows())
	{
		static bool dropped = false;

		if (!dropped && engine_has_hooks() && !RecoveryInProgress())
		{
			wal_slot_drop();
			dropped = true;
		}
	}
	else if (follow_begun() && !XLogRecPtrIsInvalid(start))
		wal_slot_hold(start, Max(start, follow_end(&tli)));
}

void
ptrack_worker_main(Datum arg)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "ptrack worker",
												  ALLOCSET_DEFAULT_SIZES);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	before_shmem_exit(forget_proc, (Datum) 0);
	pg_atomic_write_u32(&shared->proc, (uint32) MyProcNumber + 1);
	coverage_note_worker();
	if (engine_lacks_wal())
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ptrack cannot follow WAL when \"wal_level\" is \"minimal\""),
				 errhint("Set \"wal_level\" to \"replica\" or \"logical\" and restart the server.")));

	for (;;)
	{
		long		nap;
		long		follow_nap;

		handle_interrupts();
		nap = follow_nap = NAP_MS;
		if (!engine_lacks_wal())
		{
			publish_in_background(false);
			hold_wal();
			follow_nap = follow_caught(context);
			nap = tidy_when_due(context);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(nap, follow_nap), wait_event(WAIT_WORKER_MAIN));
		ResetLatch(MyLatch);
	}
}

/*
 * In place of the worker when tracking is off: drops the replication slot that
 * it may have left.
 */
void
ptrack_cleanup_main(Datum arg)
{
	BackgroundWorkerUnblockSignals();
	wal_slot_drop();
}
