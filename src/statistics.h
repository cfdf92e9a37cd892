/*
 * statistics.h
 *		What is counted for pg_stat_ptrack, since a reset.
 */
#ifndef PTRACK_STATISTICS_H
#define PTRACK_STATISTICS_H

#include "datatype/timestamp.h"

typedef struct Statistics
{
	uint64		flushes;		/* summaries of cycles that were published */
	uint64		flush_failures; /* checkpoints that could not */
	uint64		overflows;		/* marks that had to become coarser */
	TimestampTz since;			/* when these were zero */
} Statistics;

extern Size statistics_shmem_size(void);
extern void statistics_shmem_init(void);

extern void statistics_get(Statistics *statistics);
extern void statistics_reset(void);

#endif							/* PTRACK_STATISTICS_H */
