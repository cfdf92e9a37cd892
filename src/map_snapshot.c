/*
 * map_snapshot.c
 *		Copies of the live map, and of what it knows of redo points.
 *
 * A half is copied with the map's lock held shared, while marks and cuts go on,
 * and sorted after that; the rules that make such a copy complete are in the
 * opening comment of ptrack_map.c.
 */
#include "postgres.h"

#include "compat.h"

#include "map_shared.h"
#include "utils/memutils.h"

typedef struct SnapshotItem
{
	ChangeKey	key;
	union
	{
		BlockNumber limit;
		uint32		piece;		/* index into the snapshot's bits */
	}			u;
} SnapshotItem;

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
	int			count = map_read_passed_cuts(passed);

	snapshot->cycle = cycle;
	snapshot->start = pg_atomic_read_u64(&half->state->start);
	snapshot->start_time = (int64) pg_atomic_read_u64(&half->state->start_time);
	snapshot->start_sum = pg_atomic_read_u64(&half->state->start_sum);
	snapshot->end.redo = frozen ? PG_UINT64_MAX : InvalidXLogRecPtr;
	if (frozen)
	{
		pg_read_barrier();
		map_read_cut(&half->state->end, &snapshot->end);
		snapshot->end.sum = map_half_sum(half);
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
	map_lock_acquire(LW_SHARED);
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

	map_lock_acquire(LW_SHARED);
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

	map_lock_acquire(LW_SHARED);
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
 * The redo points that the map knows, without its marks.  If no half is frozen,
 * frozen->start is invalid.
 */
void
map_get_cuts(MapSnapshot *frozen, MapSnapshot *running)
{
	uint64		cycle;
	const MapHalf *half;

	map_lock_acquire(LW_SHARED);
	half = running_half(&cycle);
	pg_read_barrier();
	snapshot_cuts(half, cycle, running);
	frozen->start = InvalidXLogRecPtr;
	if (is_frozen(other_half(cycle)))
		snapshot_cuts(other_half(cycle), cycle - 1, frozen);
	LWLockRelease(map_lock);
}
