/*
 * wait_events.h
 *		Names of what ptrack waits for, as pg_stat_activity shows them.
 *
 * Where PostgreSQL has a name that fits, as for reading WAL or the files of a
 * backup, that is used instead.
 */
#ifndef PTRACK_WAIT_EVENTS_H
#define PTRACK_WAIT_EVENTS_H

typedef enum PtrackWait
{
	WAIT_WORKER_MAIN,			/* the worker has nothing to do */
	WAIT_START,					/* for what is known from before the start */
	WAIT_SUMMARY_READY,			/* for a summary to be written by another */
	WAIT_SUMMARY_READ,
	WAIT_SUMMARY_WRITE,
	WAIT_SUMMARY_SYNC,
	WAIT_SCAN_THROTTLE,			/* ptrack.scan_rate */
} PtrackWait;

extern void wait_events_init(void);
extern uint32 wait_event(PtrackWait wait);

#endif							/* PTRACK_WAIT_EVENTS_H */
