/*
 * hooks.c
 *		How ptrack is attached to the server: settings, shared memory, hooks.
 *
 * Nothing is decided here but which engine is used; each hook calls the hook that
 * was there before, and the module that does the work.
 */
#include "postgres.h"

#include "compat.h"

#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "backup_progress.h"
#include "catalog/pg_control.h"
#include "core_hooks.h"
#include "coverage_start.h"
#include "engine.h"
#include "fmgr.h"
#include "hooks.h"
#include "lineage.h"
#include "map_mark.h"
#include "miscadmin.h"
#include "ptrack_map.h"
#include "publish.h"
#include "server_start.h"
#include "statistics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "summary_store.h"
#include "utils/guc.h"
#include "utils/memdebug.h"
#include "utils/timestamp.h"
#include "wait_events.h"
#include "wal_follow.h"
#include "wal_insert.h"
#include "wal_reader.h"
#include "wal_records.h"
#include "wal_scan.h"
#include "wal_slot.h"
#include "worker.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

#define LWLOCK_TRANCHE "ptrack"

/* Settings */
static int	map_size_setting = 64;

static const struct config_enum_entry engine_values[] = {
	{"auto", ENGINE_AUTO, false},
	{"hooks", ENGINE_HOOKS, false},
	{"wal", ENGINE_WAL, false},
	{NULL, 0, false}
};

/* The core patch's hook variables; NULL on a server without them. */
static xlog_insert_hook_type *insert_hook;
static redo_point_hook_type *redo_hook;
static checkpoint_hook_type *ckpt_hook;

/* What was there before us. */
static xlog_insert_hook_type previous_insert_hook;
static redo_point_hook_type previous_redo_hook;
static checkpoint_hook_type previous_ckpt_hook;
static shmem_request_hook_type previous_shmem_request_hook;
static shmem_startup_hook_type previous_shmem_startup_hook;
static void (*previous_redo[RM_MAX_ID + 1]) (XLogReaderState *record);

static bool preloaded;
static bool redo_table_taken;
static bool redo_start_noted;	/* in the startup process */

/*
 * WAL
 */

/*
 * A WAL insertion lock is held, in a critical section.  What this executes is
 * counted in bench/instructions.
 */
static void
on_insert(const XLogRecData *rdata, XLogRecPtr start, XLogRecPtr end)
{
	const XLogRecord *record = (const XLogRecord *) rdata->data;

	/* What the checksum is of may have padding in it that nobody wrote. */
	VALGRIND_MAKE_MEM_DEFINED(&record->xl_crc, sizeof(record->xl_crc));
	map_note_sum(wal_fingerprint(record->xl_rmid, record->xl_info, start,
								 record->xl_crc));
	if (!wal_insert_is_known(rdata, map_is_marked))
		wal_insert_effects(rdata, &map_effects);
}

/* The same, if there was a hook before. */
static void
on_insert_after(const XLogRecData *rdata, XLogRecPtr start, XLogRecPtr end)
{
	previous_insert_hook(rdata, start, end);
	on_insert(rdata, start, end);
}

/* All WAL insertion locks are held, in a critical section. */
static void
on_redo_point(XLogRecPtr old_redo, XLogRecPtr new_redo)
{
	MapCut		cut = {0};

	/*
	 * The checkpoint's own time was taken by time(), after it began and
	 * before this.  That clock may lag a little behind the other one.
	 */
	cut.redo = new_redo;
	cut.tli = GetWALInsertionTimeLineIfSet();
	cut.time_min = (int64) timestamptz_to_time_t(CheckpointStats.ckpt_start_t) - 1;
	cut.time_max = Max((int64) time(NULL), cut.time_min);
	cut.time = cut.time_max;
	map_cut(old_redo, &cut, true);
	if (previous_redo_hook)
		previous_redo_hook(old_redo, new_redo);
}

/* In the process that makes checkpoints; must not throw. */
static void
on_checkpoint(XLogRecPtr redo, int flags)
{
	publish_at_checkpoint(redo);
	worker_wake();
	if (previous_ckpt_hook)
		previous_ckpt_hook(redo, flags);
}

/* The time of what is being replayed, as far as it is known. */
static int64
replay_time(void)
{
	TimestampTz latest = GetLatestXTime();

	return latest ? (int64) timestamptz_to_time_t(latest) : (int64) time(NULL);
}

/*
 * Cuts the map where a server that wrote this WAL had a redo point, in the
 * startup process: at a record that says so, or at a shutdown checkpoint.
 */
static void
cut_at_redo_point(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	MapCut		cut = {0};

	if (info == XLOG_CHECKPOINT_SHUTDOWN)
	{
		CheckPoint	checkpoint;

		memcpy(&checkpoint, XLogRecGetData(record), sizeof(checkpoint));
		cut.time_min = cut.time_max = cut.time = checkpoint.time;
	}
	else if (info == XLOG_CHECKPOINT_REDO)
	{
		cut.time = replay_time();

		/*
		 * In crash recovery there are no restartpoints: no server will ever
		 * start from here, at least not with the time of this checkpoint.
		 */
		if (!ArchiveRecoveryRequested)
			cut.time_min = cut.time_max = 1;
	}
	else
		return;
	cut.redo = record->ReadRecPtr;
	(void) GetCurrentReplayRecPtr(&cut.tli);
	map_cut(cut.redo, &cut, start_may_cut_redo(cut.redo));
	worker_wake();
}

/*
 * Redo of a record, in the startup process.  It is marked whether or not its
 * pages turn out to need it: one that is on disk already is not dirtied again,
 * and yet belongs to the cycle.  Marked first, as it is on insertion.
 */
static void
redo_record(XLogReaderState *record)
{
	RmgrId		rmid = XLogRecGetRmid(record);

	if (!redo_start_noted)
	{
		start_note_redo();

		/* No restartpoint can have moved it yet. */
		if (engine_marks_redo())
			map_note_start(GetRedoRecPtr());
		redo_start_noted = true;
	}
	if (!engine_marks_redo())
	{
		previous_redo[rmid] (record);
		return;
	}
	if (rmid == RM_XLOG_ID)
		cut_at_redo_point(record);
	map_note_sum(wal_record_fingerprint(record));
	wal_redo_effects(record, &map_effects);
	follow_note_replayed(record->EndRecPtr);
	previous_redo[rmid] (record);
}

/*
 * Puts redo_record before the redo function of every resource manager.  Done
 * when shared memory is set up: custom ones may be registered until then.
 */
static void
take_redo_table(void)
{
	if (redo_table_taken)
		return;
	for (int rmid = 0; rmid <= RM_MAX_ID; rmid++)
	{
		if (!RmgrIdExists((RmgrId) rmid))
			continue;
		previous_redo[rmid] = RmgrTable[rmid].rm_redo;
		RmgrTable[rmid].rm_redo = redo_record;
	}
	redo_table_taken = true;
}

/*
 * Shared memory
 */

static void
on_shmem_request(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	RequestAddinShmemSpace(map_shmem_size(map_size_setting));
	RequestAddinShmemSpace(lineage_shmem_size());
	RequestAddinShmemSpace(start_shmem_size());
	RequestAddinShmemSpace(coverage_shmem_size());
	RequestAddinShmemSpace(publish_shmem_size());
	RequestAddinShmemSpace(follow_shmem_size());
	RequestAddinShmemSpace(worker_shmem_size());
	RequestAddinShmemSpace(scan_progress_shmem_size());
	RequestAddinShmemSpace(backup_progress_shmem_size());
	RequestAddinShmemSpace(statistics_shmem_size());
	RequestNamedLWLockTranche(LWLOCK_TRANCHE, 3);
}

/* Called again when the server starts anew after a crash of a backend. */
static void
on_shmem_startup(void)
{
	LWLockPadded *locks = GetNamedLWLockTranche(LWLOCK_TRANCHE);

	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	map_shmem_init(map_size_setting, &locks[0].lock, &locks[1].lock);
	lineage_shmem_init();
	start_shmem_init();
	coverage_shmem_init();
	publish_shmem_init(&locks[2].lock);
	follow_shmem_init();
	worker_shmem_init();
	scan_progress_shmem_init();
	backup_progress_shmem_init();
	statistics_shmem_init();
	LWLockRelease(AddinShmemInitLock);
	wait_events_init();
	if (!IsUnderPostmaster)
		store_remove_temporary();
	take_redo_table();
}

static void
on_shmem_startup_disabled(void)
{
	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	if (!IsUnderPostmaster)
		store_remove_all();
}

/*
 * Loading
 */

static void
define_settings(void)
{
	DefineCustomIntVariable("ptrack.map_size",
							"Sets the size of the map of changed blocks in shared memory.",
							"One megabyte suffices for changes scattered over some 20 GB between two checkpoints. Zero disables tracking, and removes what is known of changes so far.",
							&map_size_setting, map_size_setting, 0, 32 * 1024,
							PGC_POSTMASTER, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("ptrack.keep_time",
							"Sets the time after which change summaries are removed.",
							"Incremental backups need the summaries since the start of their prior backup. Zero keeps them forever.",
							&worker_keep_minutes, worker_keep_minutes, 0, INT_MAX / 60,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomEnumVariable("ptrack.engine",
							 "Selects how changes come to be known.",
							 "\"hooks\" needs a server with ptrack's core patch, \"wal\" follows WAL, and \"auto\" takes hooks if there are some.",
							 &engine_setting, engine_setting, engine_values,
							 PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("ptrack.slot_name",
							   "Sets the name of the replication slot that holds back WAL until it was read.",
							   "Only used when WAL is followed.",
							   &wal_slot_name, "ptrack",
							   PGC_POSTMASTER, 0, wal_slot_check_name, NULL, NULL);
	DefineCustomIntVariable("ptrack.max_wal_lag",
							"Sets the amount of WAL that is held back until it was read.",
							"Past it, WAL may be removed before its changes are known. Zero means no limit.",
							&wal_slot_max_lag, wal_slot_max_lag, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomStringVariable("ptrack.restore_command",
							   "Sets the shell command that fetches WAL which is not in pg_wal any more.",
							   "As restore_command: %f is the name of the file, and %p where it is to be put.",
							   &wal_restore_command, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("ptrack.scan_workers",
							"Sets the number of processes that read a long range of WAL for a query.",
							"The one that runs the query is one of them. The others are taken from \"max_parallel_workers\".",
							&wal_scan_workers, wal_scan_workers, 1, 1024,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("ptrack.scan_rate",
							"Sets the rate at which a process reads WAL, per second.",
							"Zero means no limit.",
							&wal_reader_rate, wal_reader_rate, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	MarkGUCPrefixReserved("ptrack");
}

/*
 * Looks up the core patch's hooks.  Returns NULL if they are there and of the
 * version that this library was written for, else what is wrong.
 */
static const char *
find_core_hooks(void)
{
	const int  *version = dlsym(RTLD_DEFAULT, "xlog_hooks_version");

	if (version == NULL)
		return "The server was built without ptrack's core patch.";
	if (*version != CORE_HOOKS_VERSION)
		return "The server was built with another version of ptrack's core patch.";
	insert_hook = dlsym(RTLD_DEFAULT, "xlog_insert_hook");
	redo_hook = dlsym(RTLD_DEFAULT, "redo_point_hook");
	ckpt_hook = dlsym(RTLD_DEFAULT, "checkpoint_hook");
	if (insert_hook == NULL || redo_hook == NULL || ckpt_hook == NULL)
	{
		insert_hook = NULL;
		return "The server's hooks for change tracking are incomplete.";
	}
	return NULL;
}

static void
install_core_hooks(void)
{
	previous_insert_hook = *insert_hook;
	*insert_hook = previous_insert_hook ? on_insert_after : on_insert;
	previous_redo_hook = *redo_hook;
	*redo_hook = on_redo_point;
	previous_ckpt_hook = *ckpt_hook;
	*ckpt_hook = on_checkpoint;
}

static bool
recovery_is_requested(void)
{
	return access(STANDBY_SIGNAL_FILE, F_OK) == 0 ||
		access(RECOVERY_SIGNAL_FILE, F_OK) == 0;
}

/*
 * Decides on the engine, for as long as this server runs.  Where redo points
 * are not in WAL, a standby has to follow it, and goes on to do so after its
 * promotion.
 */
static void
choose_engine(void)
{
	const char *problem;

	if (!REDO_POINTS_IN_WAL && recovery_is_requested())
	{
		engine_follow_recovery();
		return;
	}
	if (engine_setting == ENGINE_WAL)
		return;
	problem = find_core_hooks();
	if (problem == NULL)
		engine_use_hooks();
	else if (engine_setting == ENGINE_HOOKS || dlsym(RTLD_DEFAULT, "xlog_hooks_version"))
		ereport(WARNING,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ptrack cannot use the hooks of this server and follows WAL instead"),
				 errdetail("%s", problem),
				 errhint("Build the server with the core patch that belongs to this version of ptrack, or set \"ptrack.engine\" to \"wal\".")));
}

static void
install_shmem_hooks(void)
{
	previous_shmem_startup_hook = shmem_startup_hook;
	if (map_size_setting == 0)
	{
		shmem_startup_hook = on_shmem_startup_disabled;
		return;
	}
	shmem_startup_hook = on_shmem_startup;
	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = on_shmem_request;
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	preloaded = true;
	define_settings();
	install_shmem_hooks();
	if (map_size_setting > 0)
	{
		choose_engine();
		if (engine_has_hooks())
			install_core_hooks();
	}
	worker_register(map_size_setting > 0);
}

/*
 * For callers
 */

/*
 * Is tracking switched off by its setting?  ERROR if it is impossible for
 * another reason.
 */
bool
tracking_disabled(void)
{
	if (!preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ptrack must be loaded via \"shared_preload_libraries\""),
				 errhint("Add \"shared_preload_libraries = 'ptrack'\" to postgresql.conf, or \"ptrack\" to the libraries listed there, and restart the server.")));
	if (map_size_setting == 0)
		return true;
	if (engine_lacks_wal())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("WAL does not tell all changes when \"wal_level\" is \"minimal\""),
				 errhint("Set \"wal_level\" to \"replica\" or \"logical\" and restart the server.")));
	return false;
}

/*
 * ERROR unless changes are tracked.
 */
void
tracking_require(void)
{
	if (tracking_disabled())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("change tracking is disabled"),
				 errhint("Set \"ptrack.map_size\" to a value greater than zero and restart the server.")));
}
