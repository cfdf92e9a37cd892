/*
 * publish.h
 *		Making the cycles of the live map durable as change summaries.
 */
#ifndef PTRACK_PUBLISH_H
#define PTRACK_PUBLISH_H

#include "common/summary_format.h"
#include "ptrack_map.h"
#include "storage/lwlock.h"

/* What pg_stat_ptrack shows of publishing, since the server started. */
typedef struct PublishStats
{
	uint64		published;		/* summaries */
	uint64		failures;		/* checkpoints that could not publish */
	uint64		last_usec;		/* time that the latest one took */
} PublishStats;

extern Size publish_shmem_size(void);
extern void publish_shmem_init(LWLock *lock);

extern void publish_note_redo(void);
extern bool publish_may_cut_redo(XLogRecPtr redo);
extern XLogRecPtr publish_beyond_wal(void);
extern void publish_check_start(void);
extern void publish_flush_wal(XLogRecPtr lsn);
extern void publish_at_checkpoint(XLogRecPtr redo);
extern void publish_in_background(bool all);
extern void publish_begin_anew(XLogRecPtr redo);
extern XLogRecPtr publish_coarse_start(void);
extern void publish_forget_coarse(void);

extern bool publish_lineage(XLogRecPtr lsn, Lineage *lineage);
extern bool publish_live_lineage(const MapSnapshot *frozen,
								 const MapSnapshot *running,
								 const Lineage *start, XLogRecPtr lsn,
								 Lineage *lineage);

extern Lineage publish_running_lineage(const MapSnapshot *frozen,
									   const MapSnapshot *running,
									   const Lineage *start, uint64 sum);

extern Lineage lineage_after(const Lineage *before, uint64 sum);
extern void publish_describe(SummaryHeader *header, XLogRecPtr start,
							 const Lineage *start_lineage, const RedoPoint *end);
extern void publish_note_worker(void);
extern bool publish_fill_start(void);

extern void publish_get_stats(PublishStats *stats);

#endif							/* PTRACK_PUBLISH_H */
