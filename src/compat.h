/*
 * compat.h
 *		What differs between the major versions of PostgreSQL.
 *
 * All version tests live here.  The rest of the code is written against the
 * newest interface and includes this file.
 */
#ifndef PTRACK_COMPAT_H
#define PTRACK_COMPAT_H

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000 || \
	(PG_VERSION_NUM >= 160000 && PG_VERSION_NUM < 170000)
#error "ptrack supports PostgreSQL 15, 17 and 18"
#endif

#include "common/relpath.h"

/* 16 gave a type of its own to the number of a relation's file. */
#if PG_VERSION_NUM < 160000
typedef Oid RelFileNumber;

#define InvalidRelFileNumber	InvalidOid
#endif

#ifdef FRONTEND

/* 17 added the database to what may be said of the connection for recovery. */
#if PG_VERSION_NUM >= 170000
#define generate_recovery_config(conn)	GenerateRecoveryConfig(conn, NULL, NULL)
#else
#define generate_recovery_config(conn)	GenerateRecoveryConfig(conn, NULL)
#endif

#else							/* !FRONTEND */

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "port/atomics.h"
#include "storage/proc.h"
#include "utils/wait_event.h"

#ifdef PG_HAVE_ATOMIC_U64_SIMULATION
#error "ptrack needs native 64-bit atomic operations: simulated ones take locks"
#endif

/* 16 gave all of these new names, and a header of its own to variable lengths. */
#if PG_VERSION_NUM >= 160000
#include "storage/relfilelocator.h"
#include "varatt.h"
#else
#include "storage/relfilenode.h"

#define RelFileLocator			RelFileNode
#define spcOid					spcNode
#define dbOid					dbNode
#define relNumber				relNode
#define rlocator				rnode
#define XACT_XINFO_HAS_RELFILELOCATORS	XACT_XINFO_HAS_RELFILENODES
#endif

/* 16 added the allocation of objects by type, as did minor releases of 15. */
#ifndef palloc_object
#define palloc_object(type)		((type *) palloc(sizeof(type)))
#define palloc0_object(type)	((type *) palloc0(sizeof(type)))
#define palloc_array(type, count) \
	((type *) palloc(sizeof(type) * (count)))
#define palloc0_array(type, count) \
	((type *) palloc0(sizeof(type) * (count)))
#define repalloc_array(pointer, type, count) \
	((type *) repalloc(pointer, sizeof(type) * (count)))
#endif

/* 16 dropped the type of a failed assertion; for tests, which stand in for it. */
#if PG_VERSION_NUM >= 160000
#define EXCEPTIONAL_CONDITION_PARAMETERS \
	const char *condition, const char *file, int line
#else
#define EXCEPTIONAL_CONDITION_PARAMETERS \
	const char *condition, const char *type, const char *file, int line
#endif

/* 17 took a process's number out of its PGPROC. */
#if PG_VERSION_NUM < 170000
#define MyProcNumber	(MyProc->pgprocno)
#endif

/*
 * From 17 on, the redo point of an online checkpoint is where a record of its
 * own is.  Before, only the checkpoint's own record tells, which comes later.
 */
#if PG_VERSION_NUM >= 170000
#define REDO_POINTS_IN_WAL	true
#else
#define REDO_POINTS_IN_WAL	false
#define XLOG_CHECKPOINT_REDO	0xE0	/* no such record: free before 17 */
#endif

/*
 * 17 tells the timeline of WAL that is inserted as soon as it is set.  Before,
 * that cannot be asked for while the checkpoint at the end of recovery is
 * made.  That checkpoint is on the timeline that was replayed, unless WAL came
 * from an archive: then its summary is of the wrong timeline, and does not count.
 */
#if PG_VERSION_NUM < 170000
static inline TimeLineID
GetWALInsertionTimeLineIfSet(void)
{
	TimeLineID	tli;

	if (!RecoveryInProgress())
		return GetWALInsertionTimeLine();
	(void) GetXLogReplayRecPtr(&tli);
	return tli;
}
#endif

/* 18 has this before the declaration, and not after it. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn		pg_attribute_noreturn()
#endif

/* 18 returns paths by value. */
#if PG_VERSION_NUM < 180000
typedef struct RelPathStr
{
	char		str[MAXPGPATH];
} RelPathStr;

static inline RelPathStr
relpathperm_by_value(RelFileLocator locator, ForkNumber fork)
{
	RelPathStr	path;
	char	   *allocated = relpathperm(locator, fork);

	strlcpy(path.str, allocated, sizeof(path.str));
	pfree(allocated);
	return path;
}

#undef relpathperm
#define relpathperm(locator, fork)	relpathperm_by_value(locator, fork)
#endif

/* 17 gave names to what extensions wait for. */
#if PG_VERSION_NUM < 170000
#define WaitEventExtensionNew(name)	((void) (name), PG_WAIT_EXTENSION)
#endif

/*
 * Replication slots: 17 added failover and synchronization to what is to be said
 * of a new one, 18 whether an invalidated one may be acquired.
 */
#if PG_VERSION_NUM >= 170000
#define replication_slot_create(name) \
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false, false, false)
#else
#define replication_slot_create(name) \
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false)
#endif
#if PG_VERSION_NUM >= 180000
#define replication_slot_acquire(name)	ReplicationSlotAcquire(name, true, true)
#else
#define replication_slot_acquire(name)	ReplicationSlotAcquire(name, true)
#endif

/* The background worker that was registered last, or NULL; 18 has another list. */
#if PG_VERSION_NUM >= 180000
#define last_registered_worker() \
	(dlist_is_empty(&BackgroundWorkerList) ? NULL : \
	 dlist_head_element(RegisteredBgWorker, rw_lnode, &BackgroundWorkerList))
#else
#define last_registered_worker() \
	(slist_is_empty(&BackgroundWorkerList) ? NULL : \
	 slist_head_element(RegisteredBgWorker, rw_lnode, &BackgroundWorkerList))
#endif

/*
 * Not to be seen outside of the library: what is executed for each WAL record
 * reaches such a variable without a look into a table of addresses, as if it were
 * static.
 */
#if __has_attribute(visibility)
#define LIBRARY_ONLY __attribute__((visibility("hidden")))
#else
#define LIBRARY_ONLY
#endif

#endif							/* !FRONTEND */

#endif							/* PTRACK_COMPAT_H */
