/*
 * statistics.c
 *		What is counted for pg_stat_ptrack, since a reset.
 *
 * The modules count from the server's start on, and their counters never go
 * back: some of them go by whether a counter has moved.  A reset only notes what
 * the counters are at, which is subtracted from then on.  So nothing but the view
 * depends on it.
 */
#include "postgres.h"

#include "compat.h"

#include "ptrack_map.h"
#include "publish.h"
#include "statistics.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

typedef struct StatisticsShared
{
	slock_t		mutex;
	Statistics	base;			/* protected by it */
} StatisticsShared;

static StatisticsShared *shared;

Size
statistics_shmem_size(void)
{
	return MAXALIGN(sizeof(StatisticsShared));
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
statistics_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("ptrack statistics", statistics_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(StatisticsShared));
	SpinLockInit(&shared->mutex);
	shared->base.since = GetCurrentTimestamp();
}

/* What the counters are at. */
static void
read_counters(Statistics *counters)
{
	MapStats	map;
	PublishStats publish;

	map_get_stats(&map);
	publish_get_stats(&publish);
	counters->flushes = publish.published;
	counters->flush_failures = publish.failures;
	counters->overflows = map.overflows;
}

/*
 * What was counted since the latest reset, or since the server started.  The base
 * is read first, so that no counter can be below it.
 */
void
statistics_get(Statistics *statistics)
{
	Statistics	base;

	SpinLockAcquire(&shared->mutex);
	base = shared->base;
	SpinLockRelease(&shared->mutex);
	read_counters(statistics);
	statistics->flushes -= base.flushes;
	statistics->flush_failures -= base.flush_failures;
	statistics->overflows -= base.overflows;
	statistics->since = base.since;
}

/*
 * Has everything be counted from now on.
 */
void
statistics_reset(void)
{
	Statistics	base;

	base.since = GetCurrentTimestamp();
	read_counters(&base);
	SpinLockAcquire(&shared->mutex);
	shared->base = base;
	SpinLockRelease(&shared->mutex);
}
