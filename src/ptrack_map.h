/*
 * ptrack_map.h
 *		The live map: blocks changed in the running checkpoint cycle, and in
 *		the one before it until its summary is durable.
 */
#ifndef PTRACK_MAP_H
#define PTRACK_MAP_H

#include "access/xlogdefs.h"
#include "common/change_item.h"
#include "storage/lwlock.h"
#include "wal_records.h"

/*
 * A redo point that the map was cut at, and bounds of the time that pg_control
 * has, or will have, for its checkpoint, in seconds since 1970.
 */
typedef struct MapCut
{
	XLogRecPtr	redo;			/* invalid: none */
	int64		time_min;
	int64		time_max;
} MapCut;

/*
 * A copy of the changes of one cycle, as items in order.
 */
typedef struct MapSnapshot
{
	XLogRecPtr	start;			/* the redo point that the cycle began at */
	MapCut		end;			/* the one it ended at; invalid: still running */
	bool		coarse;			/* the map overflowed in it */
	size_t		nitems;
	size_t		next;			/* for map_snapshot_next */
	ChangeKey	entry;			/* likewise: the latest entry returned */
	struct SnapshotItem *items;
	uint32	   *bits;			/* PIECE_WORDS for each piece */
} MapSnapshot;

/* What pg_stat_ptrack shows of the map. */
typedef struct MapStats
{
	XLogRecPtr	start;			/* where what the map knows begins */
	uint64		size;			/* bytes of shared memory */
	uint64		used;			/* bytes of it that hold marks */
	uint64		overflows;		/* times that a mark had to become coarser */
} MapStats;

extern const WalEffects map_effects;

extern Size map_shmem_size(int megabytes);
extern void map_shmem_init(int megabytes, LWLock *lock, LWLock *gate);

extern void map_note_start(XLogRecPtr redo);
extern void map_cut(XLogRecPtr old_redo, const MapCut *cut);
extern void map_get_last_cut(MapCut *cut);
extern void map_note_everything(void);
extern void map_note_carried(const ChangeItem *item);
extern void map_carry_new_relations(const MapSnapshot *ended);

extern bool map_snapshot_frozen(MapSnapshot *snapshot);
extern bool map_snapshot_running(MapSnapshot *snapshot);
extern void map_snapshot_both(MapSnapshot *frozen, bool *have_frozen,
							  MapSnapshot *running);
extern bool map_snapshot_next(MapSnapshot *snapshot, ChangeItem *item);
extern void map_snapshot_free(MapSnapshot *snapshot);

extern void map_release_frozen(void);
extern void map_advance_running(XLogRecPtr redo);

extern void map_get_stats(MapStats *stats);

#endif							/* PTRACK_MAP_H */
