/*
 * wal_scan.h
 *		What a range of WAL changes, read at once.
 */
#ifndef PTRACK_WAL_SCAN_H
#define PTRACK_WAL_SCAN_H

#include "access/xlogdefs.h"
#include "change_gather.h"

/* Up to so many processes read a long range. */
extern int	wal_scan_workers;

extern ChangeGather *wal_scan_changes(XLogRecPtr start, XLogRecPtr since,
									  XLogRecPtr end, TimeLineID tli);
extern bool wal_scan_redo_point(XLogRecPtr start, XLogRecPtr redo, XLogRecPtr end,
								TimeLineID tli, uint64 *sum);

#endif							/* PTRACK_WAL_SCAN_H */
