/*
 * publish.h
 *		Making the cycles of the live map durable as change summaries.
 */
#ifndef PTRACK_PUBLISH_H
#define PTRACK_PUBLISH_H

#include "access/xlogreader.h"
#include "common/summary_format.h"

/* What pg_stat_ptrack shows of publishing, since the server started. */
typedef struct PublishStats
{
	uint64		published;		/* summaries */
	uint64		failures;		/* checkpoints that could not publish */
	uint64		last_usec;		/* time that the latest one took */
} PublishStats;

extern Size publish_shmem_size(void);
extern void publish_shmem_init(void);

extern void publish_check_start(void);
extern void publish_note_replayed(XLogReaderState *record);
extern bool publish_fits_start(const SummaryHeader *header);
extern void publish_cycles(XLogRecPtr redo, int keep_minutes);
extern void publish_get_stats(PublishStats *stats);

#endif							/* PTRACK_PUBLISH_H */
