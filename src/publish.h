/*
 * publish.h
 *		Making the cycles of the live map durable as change summaries.
 */
#ifndef PTRACK_PUBLISH_H
#define PTRACK_PUBLISH_H

#include "common/summary_format.h"
#include "datatype/timestamp.h"
#include "storage/lwlock.h"

/*
 * What pg_stat_ptrack shows of publishing.  The counters begin at the server's
 * start, and never go back.
 */
typedef struct PublishStats
{
	uint64		published;		/* summaries */
	uint64		failures;		/* checkpoints that could not publish */
	TimestampTz last_time;		/* when the latest one was done; 0: never */
	uint64		last_usec;		/* time that it took */
} PublishStats;

extern Size publish_shmem_size(void);
extern void publish_shmem_init(LWLock *lock);

extern void publish_check_start(void);
extern void publish_at_checkpoint(XLogRecPtr redo);
extern void publish_in_background(bool all);
extern void publish_begin_anew(XLogRecPtr redo);
extern XLogRecPtr publish_coarse_start(void);
extern void publish_forget_coarse(void);

/* Steps that others take, too. */
extern void publish_flush_wal(XLogRecPtr lsn);
extern void publish_describe(SummaryHeader *header, XLogRecPtr start,
							 const Lineage *start_lineage, const RedoPoint *end);

extern void publish_get_stats(PublishStats *stats);

#endif							/* PTRACK_PUBLISH_H */
