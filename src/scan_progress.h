/*
 * scan_progress.h
 *		How far long scans of WAL have come.
 */
#ifndef PTRACK_SCAN_PROGRESS_H
#define PTRACK_SCAN_PROGRESS_H

#include "access/xlogdefs.h"
#include "port/atomics.h"

typedef enum ScanPurpose
{
	SCAN_QUERY,					/* a query reads what is not yet marked */
	SCAN_GAP,					/* the worker reads WAL from before the start, */
	SCAN_OVERFLOW,				/* or of a cycle that the live map had no room
								 * for */
} ScanPurpose;

/* One scan, of which processes that take part count the bytes that they read. */
typedef struct ScanProgress
{
	pg_atomic_uint32 pid;		/* 0: free */
	Oid			database;
	ScanPurpose purpose;
	XLogRecPtr	start;
	XLogRecPtr	end;
	pg_atomic_uint64 bytes;
	pg_atomic_uint32 processes;
} ScanProgress;

extern Size scan_progress_shmem_size(void);
extern void scan_progress_shmem_init(void);

extern ScanProgress *scan_progress_begin(ScanPurpose purpose, XLogRecPtr start,
										 XLogRecPtr end);
extern void scan_progress_end(ScanProgress *progress);
extern ScanProgress *scan_progress_slot(int number);
extern int	scan_progress_number(const ScanProgress *progress);
extern int	scan_progress_slots(void);

#endif							/* PTRACK_SCAN_PROGRESS_H */
