/*
 * map_mark.c
 *		Marks in the live map: what a WAL record changes, and what is known to
 *		have changed without one.
 *
 * The lookup in the tables and all that a mark executes is in this file and in
 * map_mark.h.  Marks of WAL are made with a WAL insertion lock held, or in the
 * process that replays or follows WAL.  They wait for nobody and cannot fail;
 * how is in the opening comment of ptrack_map.c.
 */
#include "postgres.h"

#include "compat.h"

#include "map_shared.h"

/* For map_mark.h. */
pg_atomic_uint64 *map_cycle;
RecordSums *map_sums;
uint64		map_cached_cycle = PG_UINT64_MAX;
pg_atomic_uint64 *map_cached_sum;
CachedPiece map_cached_pieces[1 << CACHED_PIECES_BITS];

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
 * *added when it was not there before.  Only holders of insertion locks, who are
 * few, can overrun its limit together: so there are free slots, at one of which
 * the search ends.
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
	pg_atomic_fetch_add_u64(&map_shared->overflows, 1);
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

	/* Many marks find their bit set: then the cache line stays shared. */
	if ((pg_atomic_read_u32(word) & bit) == 0)
		pg_atomic_fetch_or_u32(word, bit);
}

/*
 * Stands for a piece that had to be noted in a coarser way, so that the next mark of
 * it finds its bit set and searches no full table: what was noted so stays until the
 * cycle ends.
 */
static MapPiece all_marked;

/*
 * A cycle has begun, of which this process knows nothing yet.
 */
void
map_begin_cycle(uint64 cycle)
{
	memset(&all_marked, 0xff, sizeof(all_marked));
	memset(map_cached_pieces, 0, sizeof(map_cached_pieces));
	map_cached_sum = &map_sums[MyProcNumber].half[cycle & 1];
	map_cached_cycle = cycle;
}

/* A mark of a piece that is not cached. */
static pg_noinline void
mark_slowly(CachedPiece *cached, const RelFileLocator *rlocator, ForkNumber fork,
			BlockNumber block)
{
	uint64		cycle;
	MapPiece   *piece = half_piece(running_half(&cycle),
								   change_where(rlocator->spcOid, rlocator->dbOid),
								   change_piece(rlocator->relNumber, fork, block / PIECE_BLOCKS));

	if (piece == NULL)
		piece = &all_marked;
	memcpy(&cached->space, rlocator, sizeof(cached->space));
	cached->relation = rlocator->relNumber;
	cached->part = change_part(fork, block / PIECE_BLOCKS);
	cached->piece = piece;
	mark_piece(piece, block);
}

static void
map_mark(void *arg, const RelFileLocator *rlocator, ForkNumber fork,
		 BlockNumber block)
{
	uint32		part = change_part(fork, block / PIECE_BLOCKS);
	CachedPiece *cached = map_cached_piece(rlocator->relNumber, part);

	StaticAssertDecl(offsetof(RelFileLocator, dbOid) == offsetof(RelFileLocator, spcOid) + sizeof(Oid) &&
					 offsetof(RelFileLocator, spcOid) == 0,
					 "a relation's tablespace and database are its first eight bytes");

	map_follow_cycle();
	if (cached->part == part && cached->relation == rlocator->relNumber &&
		memcmp(&cached->space, rlocator, sizeof(cached->space)) == 0)
		mark_piece(cached->piece, block);
	else
		mark_slowly(cached, rlocator, fork, block);
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
 * lock is held, and in the process that replays or follows WAL.
 */
const WalEffects map_effects = {
	.mark = map_mark,
	.limit = map_limit,
	.reset = map_reset,
	.unknown = map_unknown,
};

/*
 * Besides WAL
 */

/*
 * Notes a fork as new, if the item says that it was new in an earlier cycle.  So
 * it does with a database, or everything: that may stand for new relations which
 * there was no room for.
 */
static void
half_carry(MapHalf *half, const ChangeItem *item)
{
	if (!change_is_entry(&item->key) || item->limit != 0)
		return;
	if (change_relation(&item->key) != InvalidRelFileNumber)
		half_set_limit(half, item->key.where, change_relation(&item->key),
					   change_fork(&item->key), 0);
	else if (item->key.where != CHANGE_EVERYTHING_WHERE)
		half_reset_database(half, item->key.where);
	else
		half_set_everything(half);
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

/*
 * These two are about the first cycle since the server started, and for use
 * before anything was published: then the first half holds it.
 */

/* Notes that everything changed. */
void
map_note_everything(void)
{
	pg_atomic_write_u32(&map_halves[0].state->beyond_wal, 1);
	half_set_everything(&map_halves[0]);
}

/* Notes what the item tells of as new, if it says that it was new before. */
void
map_note_carried(const ChangeItem *item)
{
	pg_atomic_write_u32(&map_halves[0].state->beyond_wal, 1);
	half_carry(&map_halves[0], item);
}
