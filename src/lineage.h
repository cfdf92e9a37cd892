/*
 * lineage.h
 *		Identifiers of histories: of redo points, and of places in between.
 */
#ifndef PTRACK_LINEAGE_H
#define PTRACK_LINEAGE_H

#include "common/summary_format.h"
#include "ptrack_map.h"

extern Size lineage_shmem_size(void);
extern void lineage_shmem_init(void);

extern Lineage lineage_new(void);
extern Lineage lineage_after(const Lineage *before, uint64 sum);

extern void lineage_remember(XLogRecPtr lsn, const Lineage *lineage);
extern bool lineage_recent(XLogRecPtr lsn, Lineage *lineage);

extern bool lineage_in_map(const MapSnapshot *frozen, const MapSnapshot *running,
						   const Lineage *start, XLogRecPtr lsn,
						   Lineage *lineage);
extern Lineage lineage_of_running(const MapSnapshot *frozen,
								  const MapSnapshot *running,
								  const Lineage *start, uint64 sum);

#endif							/* PTRACK_LINEAGE_H */
