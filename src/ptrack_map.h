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
 * A redo point that the map was told of.
 */
typedef struct MapCut
{
	XLogRecPtr	redo;			/* invalid: none */
	TimeLineID	tli;			/* that it is on */
	int64		time_min;		/* bounds of the time that pg_control has for */
	int64		time_max;		/* its checkpoint, in seconds since 1970; both
								 * 0: not known */
	int64		time;			/* when it was fixed; in recovery, about */
	uint64		sum;			/* fingerprints of the half's records before
								 * it; to map_cut, of those after it */
} MapCut;

/*
 * Redo points that the map was not cut at, for its other half was not yet
 * durable.  When there are more, some of the older ones are forgotten.
 */
#define MAP_PASSED_CUTS		16

/*
 * A copy of a half, as items in order.
 */
typedef struct MapSnapshot
{
	uint64		cycle;			/* of the map; its lowest bit says which half */
	XLogRecPtr	start;			/* the redo point that the half begins at */
	int64		start_time;
	uint64		start_sum;		/* fingerprints of its records before that */
	MapCut		end;			/* the redo point that it ended at; of the
								 * running half, the latest one, or none */
	MapCut		inner[MAP_PASSED_CUTS]; /* redo points between the two */
	int			ninner;
	bool		coarse;			/* the map overflowed in it */
	bool		beyond_wal;		/* WAL does not tell of all marks */
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
	uint64		overflows;		/* times that a mark had to become coarser, since
								 * the server's start: never goes back */
} MapStats;

extern const WalEffects map_effects;

extern Size map_shmem_size(int megabytes);
extern void map_shmem_init(int megabytes, LWLock *lock, LWLock *gate);

extern void map_note_start(XLogRecPtr redo);
extern void map_cut(XLogRecPtr old_redo, const MapCut *cut, bool may_swap);
extern void map_time_cut(XLogRecPtr redo, int64 time);
extern uint64 map_running_sum(uint64 *cycle);
extern void map_return_sum(uint64 sum);
extern void map_begin_anew(XLogRecPtr redo);
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
extern void map_advance(const MapSnapshot *published);

extern XLogRecPtr map_get_start(void);
extern void map_get_cuts(MapSnapshot *frozen, MapSnapshot *running);
extern void map_get_stats(MapStats *stats);

#endif							/* PTRACK_MAP_H */
