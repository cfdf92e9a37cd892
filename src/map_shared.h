/*
 * map_shared.h
 *		The live map in shared memory, for the files that it consists of:
 *
 *		ptrack_map.c	the layout; how all of them fit together
 *		map_mark.c		marks
 *		map_cycles.c	where cycles begin and end, and what becomes of halves
 *		map_snapshot.c	copies
 *
 * Others use ptrack_map.h, and map_mark.h for marks.  The rules for locks and
 * memory ordering are in the opening comment of ptrack_map.c.
 */
#ifndef PTRACK_MAP_SHARED_H
#define PTRACK_MAP_SHARED_H

#include "compat.h"
#include "map_mark.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "ptrack_map.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

typedef struct MapKey
{
	pg_atomic_uint64 where;		/* 0: the slot is free */
	pg_atomic_uint64 what;		/* 0: claimed by where, not yet by what */
} MapKey;

/* Limit blocks by fork, as their complement: 0 means that there is none. */
typedef struct MapLimits
{
	pg_atomic_uint32 inverted[MAX_FORKNUM + 1];
} MapLimits;

typedef enum HalfState
{
	HALF_FREE,					/* empty */
	HALF_RUNNING,
	HALF_FROZEN,				/* no more marks; not yet durable */
} HalfState;

typedef enum MapTable
{
	TABLE_PIECES,
	TABLE_RELATIONS,
	TABLE_DATABASES,
} MapTable;

#define MAP_TABLES	(TABLE_DATABASES + 1)

/* A MapCut in shared memory, field by field. */
typedef struct SharedCut
{
	pg_atomic_uint64 field[6];
} SharedCut;

/* All fields are atomic, so that a copy may look at them during a cut. */
typedef struct HalfHeader
{
	pg_atomic_uint64 start;		/* redo point; 0: not known yet */
	pg_atomic_uint64 start_time;
	pg_atomic_uint64 start_sum;
	SharedCut	end;			/* of no meaning while it is running */
	pg_atomic_uint32 state;
	pg_atomic_uint32 everything;	/* all that can be said is "changed" */
	pg_atomic_uint32 coarse;	/* a table was full */
	pg_atomic_uint32 beyond_wal;	/* there are marks that WAL does not tell
									 * of */
	pg_atomic_uint32 used[MAP_TABLES];
} HalfHeader;

/*
 * Redo points that the map was not cut at, oldest first.  Only the process that
 * cuts writes here, and never waits: version is odd while it does, so that
 * readers know when to try again.  Those that became durable stay until then.
 */
typedef struct PassedCuts
{
	pg_atomic_uint32 version;
	pg_atomic_uint32 count;
	SharedCut	cuts[MAP_PASSED_CUTS];
} PassedCuts;

typedef struct MapShared
{
	/* Written by cuts only, read at each mark: a cache line of its own. */
	union
	{
		pg_atomic_uint64 cycle; /* its lowest bit says which half is running */
		char		pad[PG_CACHE_LINE_SIZE];
	}			running;
	union
	{
		HalfHeader	state;
		char		pad[2 * PG_CACHE_LINE_SIZE];
	}			half[2];
	PassedCuts	passed;
	pg_atomic_uint64 overflows;
} MapShared;

/* Where the tables of a half are; the same in all processes. */
typedef struct MapHalf
{
	HalfHeader *state;
	MapKey	   *keys[MAP_TABLES];
	uint32		slots[MAP_TABLES];
	uint32		room[MAP_TABLES];	/* slots that may be used */
	MapPiece   *pieces;
	MapLimits  *limits;
} MapHalf;

/* Set when the process attaches to the map, never changed after that. */
extern LIBRARY_ONLY MapShared *map_shared;
extern LIBRARY_ONLY MapHalf map_halves[2];

/* Taken by map_lock_acquire() only, which see. */
extern LIBRARY_ONLY LWLock *map_lock;

/* ptrack_map.c */
extern void map_lock_acquire(LWLockMode mode);

/* map_cycles.c */
extern uint64 map_half_sum(const MapHalf *half);
extern void map_read_cut(SharedCut *from, MapCut *cut);
extern int	map_read_passed_cuts(MapCut *cuts);

/* Processes that may insert WAL. */
static inline int
process_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

/*
 * The half that is running, and its cycle.  Without a WAL insertion lock, a cut may
 * come at any moment; the map's lock keeps the half from being cleared.
 */
static inline MapHalf *
running_half(uint64 *cycle)
{
	*cycle = pg_atomic_read_u64(&map_shared->running.cycle);
	return &map_halves[*cycle & 1];
}

static inline bool
is_frozen(const MapHalf *half)
{
	return pg_atomic_read_u32(&half->state->state) == HALF_FROZEN;
}

/* The half that is not running; the caller has seen that cycle number. */
static inline MapHalf *
other_half(uint64 cycle)
{
	pg_read_barrier();
	return &map_halves[(cycle + 1) & 1];
}

/* The half that the map's knowledge begins with. */
static inline const MapHalf *
oldest_half(uint64 *cycle)
{
	const MapHalf *half = running_half(cycle);

	return is_frozen(other_half(*cycle)) ? other_half(*cycle) : half;
}

#endif							/* PTRACK_MAP_SHARED_H */
