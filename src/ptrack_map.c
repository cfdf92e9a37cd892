/*
 * ptrack_map.c
 *		The live map of changed blocks, in shared memory.
 *
 * The map has two halves.  One holds the running cycle; the other is free, or
 * frozen: it holds a cycle that has ended and whose summary is not yet
 * durable.  Each half has three open-addressing tables:
 *
 *		pieces		a bitmap of PIECE_BLOCKS blocks of a relation fork
 *		relations	the limit blocks of a relation's forks
 *		databases	presence means that (tablespace, database) was reset
 *
 * When a table is full, a mark goes into the next one: instead of the block,
 * the whole fork (limit block 0), then the whole database, then a flag that
 * says that everything changed.  So a mark is never lost, and what is coarse
 * needs no notion of its own anywhere else.
 *
 * Locks and memory ordering
 *
 * - Marks are made with a WAL insertion lock held; or, where insertion marks
 *   nothing, by the one process that replays WAL, or that follows it: the startup
 *   process, or ptrack's worker.  They take no lock, allocate nothing and cannot
 *   fail.  A slot is claimed by setting the two words of its key, each by
 *   compare-and-exchange; whoever finds the first word set and the second not may
 *   claim the second for another key that shares the first.  A key, once whole,
 *   stays until the half is cleared, and a probe only passes slots that can never
 *   hold its key, so that no key gets two slots and nobody waits for anybody.
 * - map_cut runs with all WAL insertion locks held, which orders it against
 *   marks; or in the one process that marks.  It swaps halves and moves nothing.
 * - Whoever copies a half holds the map's LWLock shared; whoever clears one,
 *   or moves the start of a running one, holds it exclusively, and before that
 *   publish.c's lock, so that it is one process at a time: mostly the one that
 *   makes checkpoints.  All of them pass a second lock, the gate, on their way
 *   to the first: so one copy after another cannot keep that process waiting.
 * - A cut may come at any moment in between, so a copy reads the cycle number
 *   first: the half that it says is running holds, running or just frozen, all
 *   marks whose insertion lock had been released by then.
 * - A bit is visible to others when the record's insertion lock is released.
 * - Besides, each half adds up fingerprints of the records in it, in a slot for
 *   each process, which alone writes to it.  They are only read of a frozen
 *   half, or while nobody else adds to them: with all insertion locks held, or
 *   where WAL is replayed or followed.
 *
 * A crash loses the map.  Redo starts at the redo point that the running cycle
 * began at, or at an earlier one, and marks the same blocks again.
 */
#include "postgres.h"

#include "compat.h"

#include "map_shared.h"
#include "storage/shmem.h"

MapShared  *map_shared;
MapHalf		map_halves[2];
LWLock	   *map_lock;

static LWLock *map_gate;
static Size map_size;

/*
 * Layout
 */

static void
half_layout(Size bytes, uint32 slots[MAP_TABLES])
{
	Size		per_relation = sizeof(MapKey) + sizeof(MapLimits);
	Size		per_piece = sizeof(MapKey) + sizeof(MapPiece);

	/* The shares suit a relation with a few changed pieces on the average. */
	slots[TABLE_DATABASES] = (uint32) (bytes / 512 / sizeof(MapKey));
	slots[TABLE_RELATIONS] = (uint32) (bytes / 8 / per_relation);
	slots[TABLE_PIECES] = (uint32) ((bytes - bytes / 512 - bytes / 8) / per_piece);
}

/*
 * Shared memory for a map of that size, both halves together.
 */
Size
map_shmem_size(int megabytes)
{
	Size		size = MAXALIGN(sizeof(MapShared)) + PG_CACHE_LINE_SIZE;

	size = add_size(size, mul_size(process_count(), sizeof(RecordSums)));
	return add_size(size, mul_size((Size) megabytes, 1024 * 1024));
}

/* Returns where the half ends. */
static char *
half_attach(MapHalf *half, HalfHeader *state, char *memory, Size bytes)
{
	char	   *p = memory;

	half->state = state;
	half_layout(bytes, half->slots);
	half->pieces = (MapPiece *) p;
	p += half->slots[TABLE_PIECES] * sizeof(MapPiece);
	for (int t = 0; t < MAP_TABLES; t++)
	{
		half->keys[t] = (MapKey *) p;
		p += half->slots[t] * sizeof(MapKey);

		/*
		 * Beyond this, probes get long.  They end at a free slot, of which
		 * more are left than there are WAL insertion locks.
		 */
		half->room[t] = half->slots[t] - Max(half->slots[t] / 8, 24);
	}
	half->limits = (MapLimits *) p;
	p += half->slots[TABLE_RELATIONS] * sizeof(MapLimits);
	Assert(p <= memory + bytes);
	return memory + bytes;
}

/*
 * Creates the map, or attaches to it.  Called with AddinShmemInitLock held.
 * The first half runs from a redo point that map_note_start or the first cut
 * tells.
 */
void
map_shmem_init(int megabytes, LWLock *lock, LWLock *gate)
{
	bool		found;
	Size		half_bytes = (Size) megabytes * 1024 * 1024 / 2;
	char	   *memory;

	map_size = map_shmem_size(megabytes);
	map_shared = ShmemInitStruct("ptrack map", map_size, &found);
	map_lock = lock;
	map_gate = gate;
	memory = (char *) TYPEALIGN(PG_CACHE_LINE_SIZE, (char *) map_shared + sizeof(MapShared));

	for (int i = 0; i < 2; i++)
		memory = half_attach(&map_halves[i], &map_shared->half[i].state, memory, half_bytes);
	map_sums = (RecordSums *) memory;
	map_cycle = &map_shared->running.cycle;

	if (!found)
	{
		/*
		 * Fresh shared memory is all zero, which is what empty tables are and
		 * what all atomics here start from.  Leaving it untouched keeps the
		 * server's start independent of the map's size.
		 */
		memset(map_shared, 0, sizeof(MapShared));
		pg_atomic_write_u32(&map_halves[0].state->state, HALF_RUNNING);
	}
}

/*
 * Takes the map's lock, by way of the gate.  It is released as map_lock.
 */
void
map_lock_acquire(LWLockMode mode)
{
	LWLockAcquire(map_gate, mode);
	LWLockAcquire(map_lock, mode);
	LWLockRelease(map_gate);
}

/*
 * The redo point that what the map knows begins at.
 */
XLogRecPtr
map_get_start(void)
{
	uint64		cycle;
	XLogRecPtr	start;

	map_lock_acquire(LW_SHARED);
	start = pg_atomic_read_u64(&oldest_half(&cycle)->state->start);
	LWLockRelease(map_lock);
	return start;
}

/*
 * What pg_stat_ptrack shows of the map.
 */
void
map_get_stats(MapStats *stats)
{
	static const Size slot_size[MAP_TABLES] = {
		sizeof(MapKey) + sizeof(MapPiece),
		sizeof(MapKey) + sizeof(MapLimits),
		sizeof(MapKey)
	};
	uint64		cycle;

	map_lock_acquire(LW_SHARED);
	stats->start = pg_atomic_read_u64(&oldest_half(&cycle)->state->start);
	stats->size = map_size;
	stats->used = 0;
	for (int i = 0; i < 2; i++)
		for (int t = 0; t < MAP_TABLES; t++)
			stats->used += pg_atomic_read_u32(&map_halves[i].state->used[t]) * slot_size[t];
	stats->overflows = pg_atomic_read_u64(&map_shared->overflows);
	LWLockRelease(map_lock);
}
