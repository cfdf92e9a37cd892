/*
 * wait_events.c
 *		Names of what ptrack waits for, as pg_stat_activity shows them.
 */
#include "postgres.h"

#include "compat.h"

#include "wait_events.h"

static const char *const names[] = {
	[WAIT_WORKER_MAIN] = "PtrackWorkerMain",
	[WAIT_START] = "PtrackStart",
	[WAIT_SUMMARY_READY] = "PtrackSummaryReady",
	[WAIT_SUMMARY_READ] = "PtrackSummaryRead",
	[WAIT_SUMMARY_WRITE] = "PtrackSummaryWrite",
	[WAIT_SUMMARY_SYNC] = "PtrackSummarySync",
	[WAIT_SCAN_THROTTLE] = "PtrackScanThrottle",
};

static uint32 events[lengthof(names)];

/*
 * Has the server know the names.  That allocates, takes a lock and may throw, so
 * it is done when shared memory is set up, each time, and not at a checkpoint.
 */
void
wait_events_init(void)
{
	for (size_t i = 0; i < lengthof(names); i++)
		events[i] = WaitEventExtensionNew(names[i]);
}

/*
 * What to report, or to pass to a function that waits.
 */
uint32
wait_event(PtrackWait wait)
{
	return events[wait];
}
