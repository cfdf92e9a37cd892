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
 * - Marks are made with a WAL insertion lock held, or in the startup process.
 *   They take no lock, allocate nothing and cannot fail.  A slot is claimed by
 *   setting the two words of its key, each by compare-and-exchange; whoever
 *   finds the first word set and the second not may claim the second for
 *   another key that shares the first.  A key, once whole, stays until the
 *   half is cleared, and a probe only passes slots that can never hold its
 *   key, so that no key gets two slots and nobody waits for anybody.
 * - map_cut runs with all WAL insertion locks held, or while nothing can
 *   insert.  It swaps halves and moves nothing.  That all insertion locks are
 *   held orders it against marks.
 * - Whoever copies a half holds the map's LWLock shared; whoever clears one,
 *   or moves the start of a running one, holds it exclusively, and is the
 *   process that makes checkpoints.  All of them pass a second lock, the gate,
 *   on their way to the first: so one copy after another cannot keep that
 *   process waiting.
 * - A cut may come at any moment in between, so a copy reads the cycle number
 *   first: the half that it says is running holds, running or just frozen, all
 *   marks whose insertion lock had been released by then.
 * - A bit is visible to others when the record's insertion lock is released.
 *
 * - Besides, each half adds up fingerprints of the records in it, in a slot for
 *   each process, which alone writes to it.  They are only read of a frozen
 *   half, or with all insertion locks held.
 *
 * A crash loses the map.  Redo starts at the redo point that the running cycle
 * began at, or at an earlier one, and marks the same blocks again.
 */
#include "postgres.h"

#include "compat.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "ptrack_map.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

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

typedef struct MapPiece
{
	pg_atomic_uint32 words[PIECE_WORDS];
} MapPiece;

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

/* The sums of fingerprints of a process, for each half. */
typedef union RecordSums
{
	pg_atomic_uint64 half[2];
	char		pad[PG_CACHE_LINE_SIZE];
} RecordSums;

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

typedef struct SnapshotItem
{
	ChangeKey	key;
	union
	{
		BlockNumber limit;
		uint32		piece;		/* index into the snapshot's bits */
	}			u;
} SnapshotItem;

/*
 * The pieces that this process marked lately, so that the next mark of the
 * same piece needs no probing.  A cut makes all of them stale at once.
 */
typedef struct CachedPiece
{
	uint64		where;
	uint64		what;
	uint64		cycle;
	MapPiece   *piece;			/* NULL: it had to be noted in a coarser way */
} CachedPiece;

#define CACHED_PIECES	64

static MapShared *shared;
static LWLock *map_lock;
static LWLock *map_gate;
static MapHalf halves[2];
static RecordSums *sums;
static Size map_size;
static CachedPiece cache[CACHED_PIECES];

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

/* Processes that may insert WAL. */
static int
process_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
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
	shared = ShmemInitStruct("ptrack map", map_size, &found);
	map_lock = lock;
	map_gate = gate;
	memory = (char *) TYPEALIGN(PG_CACHE_LINE_SIZE, (char *) shared + sizeof(MapShared));

	for (int i = 0; i < 2; i++)
		memory = half_attach(&halves[i], &shared->half[i].state, memory, half_bytes);
	sums = (RecordSums *) memory;

	if (!found)
	{
		/*
		 * Fresh shared memory is all zero, which is what empty tables are and
		 * what all atomics here start from.  Leaving it untouched keeps the
		 * server's start independent of the map's size.
		 */
		memset(shared, 0, sizeof(MapShared));
		pg_atomic_write_u32(&halves[0].state->state, HALF_RUNNING);
	}
}

/*
 * Tables
 */

static inline uint32
first_slot(uint64 where, uint64 what, uint32 slots)
{
	uint64		h = what * UINT64CONST(0x9e3779b97f4a7c15);

	h ^= (where + (h >> 29)) * UINT64CONST(0xbf58476d1ce4e5b9);
	h ^= h >> 32;
	return (uint32) ((h & 0xffffffff) * slots >> 32);
}

/*
 * Is the slot the key's, after claiming it for the key if it was free?  Sets
 * *claimed when it was this call that claimed it.
 */
static inline bool
slot_is_for(MapKey *key, uint64 where, uint64 what, bool *claimed)
{
	uint64		seen_where = pg_atomic_read_u64(&key->where);
	uint64		seen_what;

	if (seen_where == 0 &&
		pg_atomic_compare_exchange_u64(&key->where, &seen_where, where))
		seen_where = where;
	if (seen_where != where)
		return false;

	seen_what = pg_atomic_read_u64(&key->what);
	if (seen_what == 0 &&
		pg_atomic_compare_exchange_u64(&key->what, &seen_what, what))
	{
		*claimed = true;
		return true;
	}
	return seen_what == what;
}

/*
 * The slot of a key, which is added unless the table is full: then -1.  Sets
 * *added when it was not there before.  The table always has free slots, since
 * only holders of insertion locks, who are few, can overrun its limit together.
 */
static int64
table_slot(MapHalf *half, MapTable table, uint64 where, uint64 what, bool *added)
{
	uint32		slots = half->slots[table];
	uint32		slot = first_slot(where, what, slots);
	bool		full = pg_atomic_read_u32(&half->state->used[table]) >= half->room[table];

	*added = false;
	for (;;)
	{
		MapKey	   *key = &half->keys[table][slot];

		if (full && pg_atomic_read_u64(&key->where) == 0)
			return -1;
		if (slot_is_for(key, where, what, added))
		{
			if (*added)
				pg_atomic_fetch_add_u32(&half->state->used[table], 1);
			return slot;
		}
		if (++slot == slots)
			slot = 0;
	}
}

/*
 * Marks
 */

static void
note_overflow(MapHalf *half)
{
	pg_atomic_fetch_add_u64(&shared->overflows, 1);
	pg_atomic_write_u32(&half->state->coarse, 1);
}

static void
half_set_everything(MapHalf *half)
{
	if (pg_atomic_exchange_u32(&half->state->everything, 1) == 0)
		note_overflow(half);
}

/* Returns whether that was news. */
static bool
half_reset_database(MapHalf *half, uint64 where)
{
	bool		added;

	if (table_slot(half, TABLE_DATABASES, where, 1, &added) < 0)
		half_set_everything(half);
	return added;
}

/* Returns whether that lowered the limit. */
static bool
half_set_limit(MapHalf *half, uint64 where, RelFileNumber relation,
			   ForkNumber fork, BlockNumber limit)
{
	bool		added;
	int64		slot = table_slot(half, TABLE_RELATIONS, where,
								  change_entry(relation, MAIN_FORKNUM) | 1, &added);
	uint32		inverted = ~limit;
	uint32		seen;

	if (slot < 0)
	{
		if (half_reset_database(half, where))
			note_overflow(half);
		return false;
	}
	seen = pg_atomic_read_u32(&half->limits[slot].inverted[fork]);
	while (seen < inverted)
	{
		if (pg_atomic_compare_exchange_u32(&half->limits[slot].inverted[fork],
										   &seen, inverted))
			return true;
	}
	return false;
}

static inline MapHalf *
running_half(uint64 *cycle)
{
	*cycle = pg_atomic_read_u64(&shared->running.cycle);
	return &halves[*cycle & 1];
}

/* The piece to mark, or NULL when it had to be noted in a coarser way. */
static MapPiece *
half_piece(MapHalf *half, uint64 where, uint64 what)
{
	ChangeKey	key = {where, what};
	int64		slot;
	bool		added;

	if (pg_atomic_read_u32(&half->state->everything) != 0)
		return NULL;
	slot = table_slot(half, TABLE_PIECES, where, what, &added);
	if (slot >= 0)
		return &half->pieces[slot];
	if (half_set_limit(half, where, change_relation(&key), change_fork(&key), 0))
		note_overflow(half);
	return NULL;
}

static inline void
mark_piece(MapPiece *piece, BlockNumber block)
{
	pg_atomic_uint32 *word = &piece->words[block / 32 % PIECE_WORDS];
	uint32		bit = (uint32) 1 << (block % 32);

	/* Most marks find their bit set: then the cache line stays shared. */
	if ((pg_atomic_read_u32(word) & bit) == 0)
		pg_atomic_fetch_or_u32(word, bit);
}

/* A mark of a piece that is not cached. */
static pg_noinline void
mark_slowly(CachedPiece *cached, uint64 where, uint64 what, BlockNumber block)
{
	MapHalf    *half = running_half(&cached->cycle);

	cached->where = where;
	cached->what = what;
	cached->piece = half_piece(half, where, what);
	if (cached->piece)
		mark_piece(cached->piece, block);
}

static void
map_mark(void *arg, const RelFileLocator *rlocator, ForkNumber fork,
		 BlockNumber block)
{
	uint64		what = change_piece(rlocator->relNumber, fork, block / PIECE_BLOCKS);
	uint64		where = change_where(rlocator->spcOid, rlocator->dbOid);
	CachedPiece *cached = &cache[(what ^ what >> 32) % CACHED_PIECES];

	if (likely(cached->what == what && cached->where == where &&
			   cached->cycle == pg_atomic_read_u64(&shared->running.cycle) &&
			   cached->piece != NULL))
		mark_piece(cached->piece, block);
	else
		mark_slowly(cached, where, what, block);
}

static void
map_limit(void *arg, const RelFileLocator *rlocator, ForkNumber fork,
		  BlockNumber limit)
{
	uint64		cycle;

	half_set_limit(running_half(&cycle),
				   change_where(rlocator->spcOid, rlocator->dbOid),
				   rlocator->relNumber, fork, limit);
}

static void
map_reset(void *arg, Oid tablespace, Oid database)
{
	uint64		cycle;

	half_reset_database(running_half(&cycle), change_where(tablespace, database));
}

static void
map_unknown(void *arg)
{
	uint64		cycle;

	half_set_everything(running_half(&cycle));
}

/*
 * The live map as the destination of effects: usable wherever a WAL insertion
 * lock is held, and in the startup process.
 */
const WalEffects map_effects = {
	.mark = map_mark,
	.limit = map_limit,
	.reset = map_reset,
	.unknown = map_unknown,
};

/*
 * Cycles
 */

static bool
is_frozen(const MapHalf *half)
{
	return pg_atomic_read_u32(&half->state->state) == HALF_FROZEN;
}

/* The half that is not running; the caller has seen that cycle number. */
static MapHalf *
other_half(uint64 cycle)
{
	pg_read_barrier();
	return &halves[(cycle + 1) & 1];
}

/*
 * Says that the first cycle since the server started began at that redo
 * point.  Only the first call counts.
 */
void
map_note_start(XLogRecPtr redo)
{
	uint64		unknown = InvalidXLogRecPtr;

	if (pg_atomic_read_u64(&shared->running.cycle) == 0)
		pg_atomic_compare_exchange_u64(&halves[0].state->start, &unknown, redo);
}

/*
 * A record was inserted, is about to be replayed, or was read: adds its
 * fingerprint.  With a WAL insertion lock held, or in the one process that marks.
 * The order of records does not matter.
 */
void
map_note_sum(uint64 fingerprint)
{
	uint64		cycle = pg_atomic_read_u64(&shared->running.cycle);
	pg_atomic_uint64 *sum = &sums[MyProcNumber].half[cycle & 1];

	pg_atomic_write_u64(sum, pg_atomic_read_u64(sum) + fingerprint);
}

static uint64
half_sum(const MapHalf *half)
{
	uint64		sum = 0;

	for (int i = 0; i < process_count(); i++)
		sum += pg_atomic_read_u64(&sums[i].half[half - halves]);
	return sum;
}

static void
half_clear_sum(const MapHalf *half)
{
	for (int i = 0; i < process_count(); i++)
		pg_atomic_write_u64(&sums[i].half[half - halves], 0);
}

static void
write_cut(SharedCut *to, const MapCut *cut)
{
	pg_atomic_write_u64(&to->field[0], cut->redo);
	pg_atomic_write_u64(&to->field[1], cut->tli);
	pg_atomic_write_u64(&to->field[2], (uint64) cut->time_min);
	pg_atomic_write_u64(&to->field[3], (uint64) cut->time_max);
	pg_atomic_write_u64(&to->field[4], (uint64) cut->time);
	pg_atomic_write_u64(&to->field[5], cut->sum);
}

static void
read_cut(SharedCut *from, MapCut *cut)
{
	cut->redo = pg_atomic_read_u64(&from->field[0]);
	cut->tli = (TimeLineID) pg_atomic_read_u64(&from->field[1]);
	cut->time_min = (int64) pg_atomic_read_u64(&from->field[2]);
	cut->time_max = (int64) pg_atomic_read_u64(&from->field[3]);
	cut->time = (int64) pg_atomic_read_u64(&from->field[4]);
	cut->sum = pg_atomic_read_u64(&from->field[5]);
}

/* The half that the map's knowledge begins with. */
static const MapHalf *
oldest_half(uint64 *cycle)
{
	const MapHalf *half = running_half(cycle);

	return is_frozen(other_half(*cycle)) ? other_half(*cycle) : half;
}

/*
 * Makes room for one more.  Those go that became durable; if none did, every
 * other one of the older half.  The latest stay, for restartpoints use them.
 */
static int
thin_out(MapCut *cuts, int count, XLogRecPtr durable)
{
	int			kept = 0;
	bool		full;

	for (int i = 0; i < count; i++)
	{
		if (cuts[i].redo > durable)
			cuts[kept++] = cuts[i];
	}
	full = kept == MAP_PASSED_CUTS;
	count = kept;
	kept = 0;
	for (int i = 0; i < count; i++)
	{
		if (!full || i % 2 == 0 || i > MAP_PASSED_CUTS / 2)
			cuts[kept++] = cuts[i];
	}
	return kept;
}

/* Keeps a redo point that the map is not cut at. */
static void
pass_cut(uint64 cycle, const MapCut *cut)
{
	PassedCuts *passed = &shared->passed;
	uint32		version = pg_atomic_read_u32(&passed->version);
	int			count = (int) pg_atomic_read_u32(&passed->count);
	MapCut		cuts[MAP_PASSED_CUTS];

	for (int i = 0; i < count; i++)
		read_cut(&passed->cuts[i], &cuts[i]);
	count = thin_out(cuts, count, pg_atomic_read_u64(&oldest_half(&cycle)->state->start));
	cuts[count] = *cut;
	cuts[count++].sum = half_sum(&halves[cycle & 1]) - cut->sum;

	pg_atomic_write_u32(&passed->version, version + 1);
	pg_write_barrier();
	for (int i = 0; i < count; i++)
		write_cut(&passed->cuts[i], &cuts[i]);
	pg_atomic_write_u32(&passed->count, (uint32) count);
	pg_write_barrier();
	pg_atomic_write_u32(&passed->version, version + 2);
}

/* Copies the passed cuts, and returns their number. */
static int
read_passed_cuts(MapCut *cuts)
{
	PassedCuts *passed = &shared->passed;
	uint32		version;
	int			count;

	do
	{
		version = pg_atomic_read_u32(&passed->version);
		pg_read_barrier();
		count = (int) pg_atomic_read_u32(&passed->count);
		for (int i = 0; i < count; i++)
			read_cut(&passed->cuts[i], &cuts[i]);
		pg_read_barrier();
	} while (version % 2 != 0 || version != pg_atomic_read_u32(&passed->version));
	return count;
}

/*
 * A new redo point was fixed: what follows belongs to a new cycle.  Called with
 * all WAL insertion locks held, inside a critical section, by the process that
 * makes checkpoints; or in the startup process, before the record at the redo
 * point is replayed.
 *
 * If the other half is still frozen, because a checkpoint failed after its
 * redo point was fixed or could not publish, or because publishing is slower
 * than replay, then the running cycle simply goes on across this redo point:
 * its summary will say a little too much, and nothing is lost.  The same if the
 * caller says that the cycle must go on.  The sum in the cut is of records that
 * were added and come after it.
 */
void
map_cut(XLogRecPtr old_redo, const MapCut *cut, bool may_swap)
{
	uint64		cycle;
	HalfHeader *running = running_half(&cycle)->state;
	HalfHeader *other = halves[(cycle + 1) & 1].state;

	map_note_start(old_redo);

	/* Recovery begins with the record at its redo point: no cycle ends. */
	if (cut->redo <= pg_atomic_read_u64(&running->start))
		return;
	if (!may_swap || pg_atomic_read_u32(&other->state) != HALF_FREE)
	{
		pass_cut(cycle, cut);
		return;
	}

	pg_atomic_write_u64(&other->start, cut->redo);
	pg_atomic_write_u64(&other->start_time, (uint64) cut->time);
	pg_atomic_write_u64(&other->start_sum, 0);
	pg_atomic_write_u32(&other->state, HALF_RUNNING);
	write_cut(&running->end, cut);
	pg_write_barrier();
	pg_atomic_write_u32(&running->state, HALF_FROZEN);

	/* A copy that sees the new cycle number must see all of the above. */
	pg_write_barrier();
	pg_atomic_write_u64(&shared->running.cycle, cycle + 1);
}

/*
 * The checkpoint of a redo point that the map was told of is complete, and was
 * made at that time.  For the process that cuts.
 */
void
map_time_cut(XLogRecPtr redo, int64 time)
{
	uint64		cycle;
	MapCut		cuts[MAP_PASSED_CUTS];
	MapHalf    *half;
	MapCut		cut;

	running_half(&cycle);
	half = other_half(cycle);
	read_cut(&half->state->end, &cut);
	if (is_frozen(half) && cut.redo == redo)
	{
		cut.time_min = cut.time_max = cut.time = time;
		write_cut(&half->state->end, &cut);
	}
	for (int i = read_passed_cuts(cuts) - 1; i >= 0; i--)
	{
		if (cuts[i].redo != redo)
			continue;
		pg_atomic_write_u64(&shared->passed.cuts[i].field[2], (uint64) time);
		pg_atomic_write_u64(&shared->passed.cuts[i].field[3], (uint64) time);
	}
}

/*
 * The cycle that is running, and the sum of fingerprints in it so far.
 */
uint64
map_running_sum(uint64 *cycle)
{
	return half_sum(running_half(cycle));
}

/*
 * Moves what was added last from the half that was just frozen: it belongs to
 * what follows.  For the process that cuts, which added it.
 */
void
map_return_sum(uint64 sum)
{
	uint64		cycle = pg_atomic_read_u64(&shared->running.cycle);
	pg_atomic_uint64 *frozen = &sums[MyProcNumber].half[(cycle + 1) & 1];

	pg_atomic_write_u64(frozen, pg_atomic_read_u64(frozen) - sum);
}

/* Notes a fork as new, if the item says that it was new in an earlier cycle. */
static void
half_carry(MapHalf *half, const ChangeItem *item)
{
	if (change_is_entry(&item->key) && item->limit == 0 &&
		change_relation(&item->key) != InvalidRelFileNumber)
		half_set_limit(half, item->key.where, change_relation(&item->key),
					   change_fork(&item->key), 0);
}

/*
 * Notes the relations that were new in the cycle that just ended as new in the
 * running one, too.
 *
 * This is for wal_level = minimal.  A transaction that creates a relation then
 * need not log what it puts into it, and may do so after the redo point.  What
 * it does is only known by the relation being new.
 */
void
map_carry_new_relations(const MapSnapshot *ended)
{
	uint64		cycle;
	MapHalf    *half = running_half(&cycle);
	MapSnapshot copy = *ended;
	ChangeItem	item;

	while (map_snapshot_next(&copy, &item))
		half_carry(half, &item);
}

static void
lock_map(LWLockMode mode)
{
	LWLockAcquire(map_gate, mode);
	LWLockAcquire(map_lock, mode);
	LWLockRelease(map_gate);
}

/*
 * These two are about the first cycle since the server started, and for use
 * before anything was published: then the first half holds it.
 */

/* Notes that everything changed. */
void
map_note_everything(void)
{
	pg_atomic_write_u32(&halves[0].state->beyond_wal, 1);
	half_set_everything(&halves[0]);
}

/* Notes a relation fork as new, if the item says that it was new before. */
void
map_note_carried(const ChangeItem *item)
{
	pg_atomic_write_u32(&halves[0].state->beyond_wal, 1);
	half_carry(&halves[0], item);
}

/* Empties the tables of a half; the lock is held exclusively. */
static void
half_clear(MapHalf *half)
{
	for (int t = 0; t < MAP_TABLES; t++)
	{
		for (uint32 slot = 0; slot < half->slots[t]; slot++)
		{
			MapKey	   *key = &half->keys[t][slot];

			if (pg_atomic_read_u64(&key->where) == 0)
				continue;
			if (t == TABLE_PIECES)
				memset(&half->pieces[slot], 0, sizeof(MapPiece));
			if (t == TABLE_RELATIONS)
				memset(&half->limits[slot], 0, sizeof(MapLimits));
			memset(key, 0, sizeof(*key));
		}
		pg_atomic_write_u32(&half->state->used[t], 0);
	}
	pg_atomic_write_u32(&half->state->everything, 0);
	pg_atomic_write_u32(&half->state->coarse, 0);
	pg_atomic_write_u32(&half->state->beyond_wal, 0);
	half_clear_sum(half);
	pg_atomic_write_u64(&half->state->start, InvalidXLogRecPtr);
	pg_write_barrier();
	pg_atomic_write_u32(&half->state->state, HALF_FREE);
}

/*
 * The frozen half became durable: clears it for the next cycle.
 */
void
map_release_frozen(void)
{
	uint64		cycle;
	MapHalf    *half;

	lock_map(LW_EXCLUSIVE);
	running_half(&cycle);
	half = other_half(cycle);
	Assert(is_frozen(half));
	half_clear(half);
	LWLockRelease(map_lock);
}

/*
 * Forgets everything: what the map knows begins at that redo point.  For when
 * nobody marks.
 */
void
map_begin_anew(XLogRecPtr redo)
{
	uint64		cycle;
	MapHalf    *half;

	lock_map(LW_EXCLUSIVE);
	half = running_half(&cycle);
	half_clear(other_half(cycle));
	half_clear(half);
	pg_atomic_write_u32(&half->state->state, HALF_RUNNING);
	pg_atomic_write_u64(&half->state->start, redo);
	pg_atomic_write_u64(&half->state->start_time, 0);
	pg_atomic_write_u64(&half->state->start_sum, 0);
	pg_atomic_write_u32(&shared->passed.count, 0);

	/* The same half again, and no process may take a piece for one of it. */
	pg_atomic_write_u64(&shared->running.cycle, cycle + 2);
	LWLockRelease(map_lock);
}

/*
 * What a half held before the end of that copy became durable without a cut:
 * from now on it only answers for what follows, with a few marks that are
 * older.
 */
void
map_advance(const MapSnapshot *published)
{
	HalfHeader *state = halves[published->cycle & 1].state;

	lock_map(LW_EXCLUSIVE);
	pg_atomic_write_u64(&state->start, published->end.redo);
	pg_atomic_write_u64(&state->start_time, (uint64) published->end.time);
	pg_atomic_write_u64(&state->start_sum, published->end.sum);
	LWLockRelease(map_lock);
}

/*
 * Snapshots
 */

static int
item_cmp(const void *a, const void *b)
{
	return change_key_cmp(&((const SnapshotItem *) a)->key,
						  &((const SnapshotItem *) b)->key);
}

/* Keys in use, and some more that may be added meanwhile. */
static size_t
snapshot_room(const MapHalf *half, MapTable table)
{
	return Min(pg_atomic_read_u32(&half->state->used[table]) + 1024,
			   half->slots[table]);
}

static void *
allocate(Size size)
{
	return MemoryContextAllocExtended(CurrentMemoryContext, size,
									  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
}

/* A whole key, or false. */
static inline bool
slot_key(const MapHalf *half, MapTable table, uint32 slot, ChangeKey *key)
{
	MapKey	   *shared_key = &half->keys[table][slot];

	key->where = pg_atomic_read_u64(&shared_key->where);
	key->what = pg_atomic_read_u64(&shared_key->what);
	return key->where != 0 && key->what != 0;
}

static inline bool
any_bit(const uint32 *bits)
{
	uint32		any = 0;

	for (int w = 0; w < PIECE_WORDS; w++)
		any |= bits[w];
	return any != 0;
}

/*
 * These three add what a table holds to the snapshot.  They return false when
 * the table turned out to hold more than there is room for.
 */

static bool
copy_pieces(const MapHalf *half, MapSnapshot *snapshot, size_t room)
{
	uint32		copied = 0;

	for (uint32 slot = 0; slot < half->slots[TABLE_PIECES]; slot++)
	{
		SnapshotItem *item = &snapshot->items[snapshot->nitems];
		ChangeKey	key;

		if (!slot_key(half, TABLE_PIECES, slot, &key))
			continue;
		if (copied == room)
			return false;
		memcpy(snapshot->bits + (size_t) copied * PIECE_WORDS,
			   &half->pieces[slot], sizeof(MapPiece));

		/* A piece is added to the table before its first mark is made. */
		if (!any_bit(snapshot->bits + (size_t) copied * PIECE_WORDS))
			continue;
		item->key = key;
		item->u.piece = copied++;
		snapshot->nitems++;
	}
	return true;
}

static bool
copy_limits(const MapHalf *half, MapSnapshot *snapshot, size_t room)
{
	size_t		copied = 0;

	for (uint32 slot = 0; slot < half->slots[TABLE_RELATIONS]; slot++)
	{
		ChangeKey	key;

		if (!slot_key(half, TABLE_RELATIONS, slot, &key))
			continue;
		if (copied++ == room)
			return false;
		for (int fork = 0; fork <= MAX_FORKNUM; fork++)
		{
			uint32		inverted = pg_atomic_read_u32(&half->limits[slot].inverted[fork]);
			SnapshotItem *item = &snapshot->items[snapshot->nitems];

			if (inverted == 0)
				continue;
			item->key.where = key.where;
			item->key.what = change_entry(change_relation(&key), (ForkNumber) fork);
			item->u.limit = ~inverted;
			snapshot->nitems++;
		}
	}
	return true;
}

static void
add_whole(MapSnapshot *snapshot, uint64 where)
{
	SnapshotItem *item = &snapshot->items[snapshot->nitems++];

	item->key.where = where;
	item->key.what = CHANGE_RESET_WHAT;
	item->u.limit = 0;
}

static bool
copy_databases(const MapHalf *half, MapSnapshot *snapshot, size_t room)
{
	size_t		copied = 0;

	for (uint32 slot = 0; slot < half->slots[TABLE_DATABASES]; slot++)
	{
		ChangeKey	key;

		if (!slot_key(half, TABLE_DATABASES, slot, &key))
			continue;
		if (copied++ == room)
			return false;
		add_whole(snapshot, key.where);
	}
	return true;
}

/* Returns false when there is no memory for it. */
static bool
snapshot_allocate(MapSnapshot *snapshot, const size_t room[MAP_TABLES])
{
	snapshot->nitems = snapshot->next = 0;
	snapshot->entry.where = snapshot->entry.what = PG_UINT64_MAX;
	snapshot->items = allocate(sizeof(SnapshotItem) *
							   (room[TABLE_PIECES] +
								room[TABLE_RELATIONS] * (MAX_FORKNUM + 1) +
								room[TABLE_DATABASES] + 1));
	snapshot->bits = allocate(sizeof(MapPiece) * room[TABLE_PIECES]);
	if (snapshot->items && snapshot->bits)
		return true;
	map_snapshot_free(snapshot);
	return false;
}

/*
 * Copies a half; the lock is held.  Returns false when there is no memory for
 * that.  Marks that are made meanwhile may or may not be in the copy.  When
 * they take more room than was set aside for them, it is made again.
 */
static bool
snapshot_half(const MapHalf *half, MapSnapshot *snapshot)
{
	for (;;)
	{
		size_t		room[MAP_TABLES];

		for (int t = 0; t < MAP_TABLES; t++)
			room[t] = snapshot_room(half, (MapTable) t);
		if (!snapshot_allocate(snapshot, room))
			return false;

		pg_memory_barrier();
		if (copy_pieces(half, snapshot, room[TABLE_PIECES]) &&
			copy_limits(half, snapshot, room[TABLE_RELATIONS]) &&
			copy_databases(half, snapshot, room[TABLE_DATABASES]))
			break;
		map_snapshot_free(snapshot);
	}
	if (pg_atomic_read_u32(&half->state->everything) != 0)
		add_whole(snapshot, CHANGE_EVERYTHING_WHERE);
	snapshot->coarse = pg_atomic_read_u32(&half->state->coarse) != 0;
	snapshot->beyond_wal = pg_atomic_read_u32(&half->state->beyond_wal) != 0;
	return true;
}

/* Sorting is left until the lock is released. */
static void
snapshot_sort(MapSnapshot *snapshot)
{
	qsort(snapshot->items, snapshot->nitems, sizeof(SnapshotItem), item_cmp);
}

/*
 * What is known of a half besides its marks; the lock is held.  The end of a
 * running one is the latest redo point that it was not cut at.
 */
static void
snapshot_cuts(const MapHalf *half, uint64 cycle, MapSnapshot *snapshot)
{
	bool		frozen = is_frozen(half);
	MapCut		passed[MAP_PASSED_CUTS];
	int			count = read_passed_cuts(passed);

	snapshot->cycle = cycle;
	snapshot->start = pg_atomic_read_u64(&half->state->start);
	snapshot->start_time = (int64) pg_atomic_read_u64(&half->state->start_time);
	snapshot->start_sum = pg_atomic_read_u64(&half->state->start_sum);
	snapshot->end.redo = frozen ? PG_UINT64_MAX : InvalidXLogRecPtr;
	if (frozen)
	{
		pg_read_barrier();
		read_cut(&half->state->end, &snapshot->end);
		snapshot->end.sum = half_sum(half);
	}

	snapshot->ninner = 0;
	for (int i = 0; i < count; i++)
	{
		if (passed[i].redo > snapshot->start &&
			(!frozen || passed[i].redo < snapshot->end.redo))
			snapshot->inner[snapshot->ninner++] = passed[i];
	}
	if (!frozen && snapshot->ninner > 0)
		snapshot->end = snapshot->inner[--snapshot->ninner];
}

static bool
snapshot_of(const MapHalf *half, uint64 cycle, MapSnapshot *snapshot)
{
	snapshot_cuts(half, cycle, snapshot);
	return snapshot_half(half, snapshot);
}

/*
 * Copies the frozen half, if there is one: else, or without memory for it,
 * returns false.  The latter can be told by snapshot->start being valid.
 */
bool
map_snapshot_frozen(MapSnapshot *snapshot)
{
	uint64		cycle;
	MapHalf    *half;
	bool		done = false;

	snapshot->start = InvalidXLogRecPtr;
	lock_map(LW_SHARED);
	running_half(&cycle);
	half = other_half(cycle);
	if (is_frozen(half))
		done = snapshot_of(half, cycle - 1, snapshot);
	LWLockRelease(map_lock);
	if (done)
		snapshot_sort(snapshot);
	return done;
}

/*
 * Copies the running half.  Returns false when there is no memory for that.
 */
bool
map_snapshot_running(MapSnapshot *snapshot)
{
	uint64		cycle;
	const MapHalf *half;
	bool		done;

	lock_map(LW_SHARED);
	half = running_half(&cycle);
	pg_read_barrier();
	done = snapshot_of(half, cycle, snapshot);
	LWLockRelease(map_lock);
	if (done)
		snapshot_sort(snapshot);
	return done;
}

/*
 * Copies all that the map knows, without a gap between the halves.
 */
void
map_snapshot_both(MapSnapshot *frozen, bool *have_frozen, MapSnapshot *running)
{
	uint64		cycle;
	MapHalf    *half;
	bool		done;

	lock_map(LW_SHARED);
	half = running_half(&cycle);
	pg_read_barrier();
	done = snapshot_of(half, cycle, running);
	half = other_half(cycle);
	*have_frozen = is_frozen(half);
	if (done && *have_frozen)
		done = snapshot_of(half, cycle - 1, frozen);
	LWLockRelease(map_lock);
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed on a copy of the map of changed blocks.")));
	snapshot_sort(running);
	if (*have_frozen)
		snapshot_sort(frozen);
}

/*
 * Returns the next item of a snapshot, or false at its end.  Pieces without an
 * entry of their own get one.
 */
bool
map_snapshot_next(MapSnapshot *snapshot, ChangeItem *item)
{
	SnapshotItem *next = &snapshot->items[snapshot->next];
	ChangeKey	entry;

	if (snapshot->next >= snapshot->nitems)
		return false;

	entry = change_entry_key(&next->key);
	if (change_key_cmp(&entry, &snapshot->entry) != 0)
	{
		snapshot->entry = item->key = entry;
		item->limit = InvalidBlockNumber;
		if (change_is_entry(&next->key))
		{
			item->limit = next->u.limit;
			snapshot->next++;
		}
		return true;
	}

	item->key = next->key;
	item->limit = InvalidBlockNumber;
	memcpy(item->bits, snapshot->bits + (size_t) next->u.piece * PIECE_WORDS,
		   sizeof(item->bits));
	snapshot->next++;
	return true;
}

void
map_snapshot_free(MapSnapshot *snapshot)
{
	if (snapshot->items)
		pfree(snapshot->items);
	if (snapshot->bits)
		pfree(snapshot->bits);
	snapshot->items = NULL;
	snapshot->bits = NULL;
	snapshot->nitems = 0;
}

/*
 * The redo point that what the map knows begins at.
 */
XLogRecPtr
map_get_start(void)
{
	uint64		cycle;
	XLogRecPtr	start;

	lock_map(LW_SHARED);
	start = pg_atomic_read_u64(&oldest_half(&cycle)->state->start);
	LWLockRelease(map_lock);
	return start;
}

/*
 * The redo points that the map knows, without its marks.  If no half is frozen,
 * frozen->start is invalid.
 */
void
map_get_cuts(MapSnapshot *frozen, MapSnapshot *running)
{
	uint64		cycle;
	const MapHalf *half;

	lock_map(LW_SHARED);
	half = running_half(&cycle);
	pg_read_barrier();
	snapshot_cuts(half, cycle, running);
	frozen->start = InvalidXLogRecPtr;
	if (is_frozen(other_half(cycle)))
		snapshot_cuts(other_half(cycle), cycle - 1, frozen);
	LWLockRelease(map_lock);
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

	lock_map(LW_SHARED);
	stats->start = pg_atomic_read_u64(&oldest_half(&cycle)->state->start);
	stats->size = map_size;
	stats->used = 0;
	for (int i = 0; i < 2; i++)
		for (int t = 0; t < MAP_TABLES; t++)
			stats->used += pg_atomic_read_u32(&halves[i].state->used[t]) * slot_size[t];
	stats->overflows = pg_atomic_read_u64(&shared->overflows);
	LWLockRelease(map_lock);
}
