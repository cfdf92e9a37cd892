/*
 * wal_follow.h
 *		Following WAL: marking what was written on servers without hooks.
 */
#ifndef PTRACK_WAL_FOLLOW_H
#define PTRACK_WAL_FOLLOW_H

#include "common/summary_format.h"
#include "storage/lwlock.h"

/* What the live map knows everything before, and how it was come to. */
typedef struct FollowPosition
{
	XLogRecPtr	lsn;			/* where the next record begins, or the page
								 * header before it */
	uint64		cycle;			/* of the map that was running then */
	uint64		sum;			/* fingerprints of that cycle's records before */
} FollowPosition;

extern Size follow_shmem_size(void);
extern void follow_shmem_init(void);

extern void follow_note_replayed(XLogRecPtr end);
extern int	follow_shutdowns(const RedoPoint *point, XLogRecPtr start, TimeLineID tli);
extern bool follow_from(const RedoPoint *point, XLogRecPtr start, TimeLineID tli);
extern void follow_begin(XLogRecPtr lsn);
extern bool follow_begun(void);
extern bool follow_position(FollowPosition *position);
extern XLogRecPtr follow_end(TimeLineID *tli);
extern uint64 follow_lag(void);
extern bool follow_wal(void);

#endif							/* PTRACK_WAL_FOLLOW_H */
