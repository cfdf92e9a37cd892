/*
 * changed_forks.h
 *		From changed blocks to relation forks, and how many each has.
 */
#ifndef PTRACK_CHANGED_FORKS_H
#define PTRACK_CHANGED_FORKS_H

#include "change_query.h"

#define MAX_REGIONS		1024

/*
 * A fork that changed; or all relations of a database in a tablespace, or of the
 * cluster, for which an entry of the key stands as change_item.h says.
 */
typedef struct ChangedFork
{
	ChangeKey	key;			/* of the entry */
	BlockNumber limit;			/* InvalidBlockNumber: none */
	bool		is_whole;		/* the key is of more than a fork: changed and
								 * regions mean nothing */
	bool		is_in_whole;	/* an entry before it stands for this fork,
								 * too: increment means nothing */
	bool		exists;			/* else blocks means nothing */
	uint64		blocks;			/* its length now */
	uint64		changed;		/* blocks that are marked */
	uint64		increment;		/* blocks that are there, and marked or past
								 * the limit */
	int			nregions;		/* 0: none are wanted */
	uint32		region_shift;	/* a region has two to that power of blocks */
	uint64		regions[MAX_REGIONS];	/* marked blocks of each */
} ChangedFork;

typedef struct ForkScan ForkScan;

extern ForkScan *fork_scan_begin(XLogRecPtr start, XLogRecPtr end,
								 const Lineage *lineage, int nregions);
extern bool fork_scan_next(ForkScan *scan, ChangedFork *fork);

#endif							/* PTRACK_CHANGED_FORKS_H */
