/*
 * scan_progress.c
 *		How far long scans of WAL have come, in shared memory.
 *
 * For pg_stat_progress_ptrack.  A scan that finds no place is not shown.  A place
 * is taken and given back by its process identifier, so that no lock is needed;
 * whoever looks may see a scan that ends at this moment.
 */
#include "postgres.h"

#include "compat.h"

#include "miscadmin.h"
#include "scan_progress.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#define SLOTS	64

static ScanProgress *slots;

Size
scan_progress_shmem_size(void)
{
	return SLOTS * sizeof(ScanProgress);
}

void
scan_progress_shmem_init(void)
{
	bool		found;

	slots = ShmemInitStruct("ptrack scans", scan_progress_shmem_size(), &found);
	if (found)
		return;
	for (int i = 0; i < SLOTS; i++)
	{
		pg_atomic_init_u32(&slots[i].pid, 0);
		pg_atomic_init_u64(&slots[i].bytes, 0);
		pg_atomic_init_u32(&slots[i].processes, 0);
	}
}

static void
end_on_reset(void *arg)
{
	scan_progress_end(arg);
}

/*
 * Begins to show a scan of that range, until it ends, or until the current
 * memory context does.  Returns NULL if there is no place for it.
 */
ScanProgress *
scan_progress_begin(ScanPurpose purpose, XLogRecPtr start, XLogRecPtr end)
{
	for (int i = 0; i < SLOTS; i++)
	{
		ScanProgress *progress = &slots[i];
		MemoryContextCallback *cleanup;
		uint32		nobody = 0;

		if (pg_atomic_read_u32(&progress->pid) != 0)
			continue;
		cleanup = palloc0_object(MemoryContextCallback);
		if (!pg_atomic_compare_exchange_u32(&progress->pid, &nobody, (uint32) MyProcPid))
			continue;
		progress->database = MyDatabaseId;
		progress->purpose = purpose;
		progress->start = start;
		progress->end = end;
		pg_atomic_write_u64(&progress->bytes, 0);
		pg_atomic_write_u32(&progress->processes, 1);
		cleanup->func = end_on_reset;
		cleanup->arg = progress;
		MemoryContextRegisterResetCallback(CurrentMemoryContext, cleanup);
		return progress;
	}
	return NULL;
}

/*
 * Ends it, unless it has ended.
 */
void
scan_progress_end(ScanProgress *progress)
{
	uint32		me = (uint32) MyProcPid;

	if (progress)
		pg_atomic_compare_exchange_u32(&progress->pid, &me, 0);
}

/*
 * Places by their numbers, for other processes; -1 and NULL stand for none.
 */
int
scan_progress_slots(void)
{
	return SLOTS;
}

ScanProgress *
scan_progress_slot(int number)
{
	return number < 0 ? NULL : &slots[number];
}

int
scan_progress_number(const ScanProgress *progress)
{
	return progress ? (int) (progress - slots) : -1;
}
