/*
 * change_gather.c
 *		Gathering a set of changes in the memory of one process.
 *
 * This is where the effects of WAL records go when they are not for the live
 * map.  Nothing overflows here: memory is taken as needed, some 170 bytes for
 * each eight megabytes of relations that have a changed block.  A terabyte
 * of them comes to 22 MB.
 */
#include "postgres.h"

#include "compat.h"

#include "change_gather.h"
#include "utils/memutils.h"

/* Bitmaps are allocated so many at a time, and never moved. */
#define CHUNK_PIECES	1024

typedef struct GatherItem
{
	ChangeKey	key;
	uint32		value;			/* of an entry: its limit block; of a piece:
								 * the number of its bitmap */
	char		status;			/* for the hash table */
} GatherItem;

static inline uint32
key_hash(const ChangeKey *key)
{
	uint64		h = key->what * UINT64CONST(0x9e3779b97f4a7c15);

	h ^= (key->where + (h >> 29)) * UINT64CONST(0xbf58476d1ce4e5b9);
	return (uint32) (h >> 32);
}

#define SH_PREFIX gathered
#define SH_ELEMENT_TYPE GatherItem
#define SH_KEY_TYPE ChangeKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) key_hash(&(key))
#define SH_EQUAL(tb, a, b) ((a).where == (b).where && (a).what == (b).what)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The pieces that were marked lately, so that their next mark is cheap. */
typedef struct GatherCached
{
	ChangeKey	key;
	uint32	   *bits;			/* NULL: none */
} GatherCached;

#define CACHED_PIECES	64

struct ChangeGather
{
	MemoryContext context;
	gathered_hash *items;
	uint32	  **chunks;
	uint32		pieces;			/* in use */
	uint32		room;			/* chunks that the array has room for */
	GatherCached cache[CACHED_PIECES];
	GatherItem *sorted;			/* NULL: not yet */
	size_t		nsorted;
	size_t		next;			/* for change_gather_next */
};

/*
 * Creates an empty set in the current memory context, with which it goes.
 */
ChangeGather *
change_gather_create(void)
{
	ChangeGather *gather = palloc0_object(ChangeGather);

	gather->context = CurrentMemoryContext;
	gather->items = gathered_create(CurrentMemoryContext, 1024, NULL);
	gather->room = 64;
	gather->chunks = palloc_array(uint32 *, gather->room);
	return gather;
}

static inline uint32 *
piece_bits(const ChangeGather *gather, uint32 piece)
{
	return gather->chunks[piece / CHUNK_PIECES] +
		(size_t) (piece % CHUNK_PIECES) * PIECE_WORDS;
}

static uint32
new_piece(ChangeGather *gather)
{
	uint32		piece = gather->pieces;

	if (piece % CHUNK_PIECES == 0)
	{
		if (piece / CHUNK_PIECES == gather->room)
		{
			gather->room *= 2;
			gather->chunks = repalloc_array(gather->chunks, uint32 *, gather->room);
		}
		gather->chunks[piece / CHUNK_PIECES] =
			MemoryContextAllocZero(gather->context,
								   CHUNK_PIECES * PIECE_WORDS * sizeof(uint32));
	}
	gather->pieces++;
	return piece;
}

static void
lower_limit(ChangeGather *gather, const ChangeKey *entry, BlockNumber limit)
{
	bool		found;
	GatherItem *item = gathered_insert(gather->items, *entry, &found);

	item->value = found ? Min(item->value, limit) : limit;
}

/* The bitmap of a piece, which is added, with an entry of its fork, if need be. */
static uint32 *
find_piece(ChangeGather *gather, const ChangeKey *key)
{
	GatherItem *item = gathered_lookup(gather->items, *key);
	bool		found;

	if (item == NULL)
	{
		ChangeKey	entry = change_entry_key(key);
		uint32		piece = new_piece(gather);

		lower_limit(gather, &entry, InvalidBlockNumber);
		item = gathered_insert(gather->items, *key, &found);
		item->value = piece;
	}
	return piece_bits(gather, item->value);
}

static void
gather_mark(void *arg, const RelFileLocator *rlocator, ForkNumber fork,
			BlockNumber block)
{
	ChangeGather *gather = arg;
	ChangeKey	key = {change_where(rlocator->spcOid, rlocator->dbOid),
	change_piece(rlocator->relNumber, fork, block / PIECE_BLOCKS)};
	GatherCached *cached = &gather->cache[(key.what ^ key.what >> 32) % CACHED_PIECES];

	if (cached->bits == NULL || change_key_cmp(&cached->key, &key) != 0)
	{
		cached->key = key;
		cached->bits = find_piece(gather, &key);
	}
	cached->bits[block / 32 % PIECE_WORDS] |= (uint32) 1 << (block % 32);
}

static void
gather_limit(void *arg, const RelFileLocator *rlocator, ForkNumber fork,
			 BlockNumber limit)
{
	ChangeKey	key = {change_where(rlocator->spcOid, rlocator->dbOid),
	change_entry(rlocator->relNumber, fork)};

	lower_limit(arg, &key, limit);
}

static void
gather_reset(void *arg, Oid tablespace, Oid database)
{
	ChangeKey	key = {change_where(tablespace, database), CHANGE_RESET_WHAT};

	lower_limit(arg, &key, 0);
}

static void
gather_unknown(void *arg)
{
	ChangeKey	key = {CHANGE_EVERYTHING_WHERE, CHANGE_RESET_WHAT};

	lower_limit(arg, &key, 0);
}

/*
 * The set as the destination of effects.
 */
WalEffects
change_gather_effects(ChangeGather *gather)
{
	WalEffects	effects = {
		.mark = gather_mark,
		.limit = gather_limit,
		.reset = gather_reset,
		.unknown = gather_unknown,
		.arg = gather,
	};

	return effects;
}

/*
 * Adds what an item of another set says.
 */
void
change_gather_add(ChangeGather *gather, const ChangeItem *item)
{
	uint32	   *bits;

	if (change_is_entry(&item->key))
	{
		lower_limit(gather, &item->key, item->limit);
		return;
	}
	bits = find_piece(gather, &item->key);
	for (int w = 0; w < PIECE_WORDS; w++)
		bits[w] |= item->bits[w];
}

static int
item_cmp(const void *a, const void *b)
{
	return change_key_cmp(&((const GatherItem *) a)->key,
						  &((const GatherItem *) b)->key);
}

/*
 * Puts the items in order for change_gather_next.  Nothing can be added after
 * that.
 */
void
change_gather_sort(ChangeGather *gather)
{
	gathered_iterator iterator;
	GatherItem *item;

	gather->sorted = MemoryContextAllocHuge(gather->context,
											sizeof(GatherItem) *
											Max(gather->items->members, 1));
	gathered_start_iterate(gather->items, &iterator);
	while ((item = gathered_iterate(gather->items, &iterator)) != NULL)
		gather->sorted[gather->nsorted++] = *item;
	qsort(gather->sorted, gather->nsorted, sizeof(GatherItem), item_cmp);
}

/*
 * Returns the next item, or false at the end.
 */
bool
change_gather_next(void *arg, ChangeItem *item)
{
	ChangeGather *gather = arg;
	const GatherItem *next = &gather->sorted[gather->next];

	if (gather->next == gather->nsorted)
		return false;
	item->key = next->key;
	item->limit = InvalidBlockNumber;
	if (change_is_entry(&next->key))
		item->limit = next->value;
	else
		memcpy(item->bits, piece_bits(gather, next->value), sizeof(item->bits));
	gather->next++;
	return true;
}
