/*
 * wal_slot.c
 *		The replication slot that holds back WAL until it was followed.
 *
 * A physical slot like any other, which ptrack's worker creates, keeps for
 * itself while it runs, advances, and drops when WAL is not followed any more.
 * It is there so that a crash, or a time without the worker, does no harm;
 * nothing depends on it while WAL is there.  So whatever fails here is a warning.
 */
#include "postgres.h"

#include "compat.h"

#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "wal_slot.h"

char	   *wal_slot_name;
int			wal_slot_max_lag = 16 * 1024;	/* MB */

/*
 * Checks a new value of ptrack.slot_name.
 */
bool
wal_slot_check_name(char **name, void **extra, GucSource source)
{
	return ReplicationSlotValidateName(*name, WARNING);
}

/*
 * The slot of that name, if it can be ours: NULL if there is none.  ERROR if it
 * is another one.
 */
static ReplicationSlot *
find_slot(void)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(wal_slot_name, true);
	int			owner;

	if (slot == NULL)
		return NULL;
	SpinLockAcquire(&slot->mutex);
	owner = slot->active_pid;
	SpinLockRelease(&slot->mutex);
	if (SlotIsLogical(slot) || (owner != 0 && owner != MyProcPid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("replication slot \"%s\" belongs to something else", wal_slot_name),
				 errhint("Set \"ptrack.slot_name\" to another name.")));
	return slot;
}

/* Has this process own the slot, which is created if need be. */
static void
acquire_slot(void)
{
	ReplicationSlot *slot = find_slot();

	/* The server lets go of a slot by taking away its place. */
	if (slot && XLogRecPtrIsInvalid(slot->data.restart_lsn))
	{
		ReplicationSlotDrop(wal_slot_name, true);
		slot = NULL;
	}
	if (slot)
	{
		replication_slot_acquire(wal_slot_name);
		return;
	}
	replication_slot_create(wal_slot_name);
	ReplicationSlotReserveWal();
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	ereport(LOG,
			(errmsg("created replication slot \"%s\", which holds back WAL until ptrack has read it",
					wal_slot_name)));
}

static void
move_slot(XLogRecPtr lsn)
{
	ReplicationSlot *slot = MyReplicationSlot;

	if (slot->data.restart_lsn == lsn)
		return;
	SpinLockAcquire(&slot->mutex);
	slot->data.restart_lsn = lsn;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredLSN();
	ReplicationSlotSave();
}

/* What is to be held back of the WAL from start to end, within the bound. */
static XLogRecPtr
bounded_start(XLogRecPtr start, XLogRecPtr end)
{
	static bool warned = false;
	uint64		bound = (uint64) wal_slot_max_lag * 1024 * 1024;

	if (wal_slot_max_lag == 0 || end - start <= bound)
	{
		warned = false;
		return start;
	}
	if (!warned)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("WAL from %X/%X on is not held back any more until ptrack has read it",
						LSN_FORMAT_ARGS(start)),
				 errdetail("That would be more than \"ptrack.max_wal_lag\", which is %d MB.",
						   wal_slot_max_lag),
				 errhint("If there is room for more WAL, increase \"ptrack.max_wal_lag\"; if WAL is archived, set \"ptrack.restore_command\".")));
	warned = true;
	return end - bound;
}

/*
 * Runs one of these, and makes its error a warning, once until it succeeds.  It
 * has a hint that says which setting to change.
 */
static void
run_caught(void (*run) (XLogRecPtr), XLogRecPtr lsn)
{
	static bool warned = false;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		run(lsn);
		warned = false;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		LWLockReleaseAll();
		ConditionVariableCancelSleep();
		if (MyReplicationSlot)
			ReplicationSlotRelease();
		if (!warned)
			ereport(WARNING,
					(errcode(error->sqlerrcode),
					 errmsg("ptrack cannot hold back WAL: %s", error->message),
					 errdetail("If WAL is removed before it was read, its changes are not known."),
					 error->hint ? errhint("%s", error->hint) : 0));
		warned = true;
		FreeErrorData(error);
	}
	PG_END_TRY();
}

static void
hold(XLogRecPtr lsn)
{
	if (MyReplicationSlot == NULL)
		acquire_slot();
	move_slot(lsn);
}

static void
drop(XLogRecPtr unused)
{
	if (find_slot() == NULL)
		return;
	ReplicationSlotDrop(wal_slot_name, true);
	ereport(LOG,
			(errmsg("dropped replication slot \"%s\"", wal_slot_name)));
}

/*
 * Has the server keep WAL from start on, of which the end is given.
 */
void
wal_slot_hold(XLogRecPtr start, XLogRecPtr end)
{
	run_caught(hold, bounded_start(start, end));
}

/*
 * Drops the slot, if there is one.
 */
void
wal_slot_drop(void)
{
	run_caught(drop, InvalidXLogRecPtr);
}
