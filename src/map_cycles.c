/*
 * map_cycles.c
 *		Cycles of the live map: the redo points that they begin and end at, the
 *		sums of their records, and what becomes of a half.
 *
 * A half is free, then running, then frozen by a cut, and free again when what
 * it holds is durable.  Cuts are made by one process at a time, and take no lock
 * of the map; what clears a half, or moves its start, takes it exclusively.  See
 * the opening comment of ptrack_map.c.
 */
#include "postgres.h"

#include "compat.h"

#include "map_shared.h"

/*
 * Says that the first cycle since the server started began at that redo
 * point.  Only the first call counts.
 */
void
map_note_start(XLogRecPtr redo)
{
	uint64		unknown = InvalidXLogRecPtr;

	if (pg_atomic_read_u64(&map_shared->running.cycle) == 0)
		pg_atomic_compare_exchange_u64(&map_halves[0].state->start, &unknown, redo);
}

/*
 * The sum of fingerprints in a half, over all processes.  For when that may be
 * read, see the opening comment of ptrack_map.c.
 */
uint64
map_half_sum(const MapHalf *half)
{
	uint64		sum = 0;

	for (int i = 0; i < process_count(); i++)
		sum += pg_atomic_read_u64(&map_sums[i].half[half - map_halves]);
	return sum;
}

static void
half_clear_sum(const MapHalf *half)
{
	for (int i = 0; i < process_count(); i++)
		pg_atomic_write_u64(&map_sums[i].half[half - map_halves], 0);
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

void
map_read_cut(SharedCut *from, MapCut *cut)
{
	cut->redo = pg_atomic_read_u64(&from->field[0]);
	cut->tli = (TimeLineID) pg_atomic_read_u64(&from->field[1]);
	cut->time_min = (int64) pg_atomic_read_u64(&from->field[2]);
	cut->time_max = (int64) pg_atomic_read_u64(&from->field[3]);
	cut->time = (int64) pg_atomic_read_u64(&from->field[4]);
	cut->sum = pg_atomic_read_u64(&from->field[5]);
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
	PassedCuts *passed = &map_shared->passed;
	uint32		version = pg_atomic_read_u32(&passed->version);
	int			count = (int) pg_atomic_read_u32(&passed->count);
	MapCut		cuts[MAP_PASSED_CUTS];

	for (int i = 0; i < count; i++)
		map_read_cut(&passed->cuts[i], &cuts[i]);
	count = thin_out(cuts, count, pg_atomic_read_u64(&oldest_half(&cycle)->state->start));
	cuts[count] = *cut;
	cuts[count++].sum = map_half_sum(&map_halves[cycle & 1]) - cut->sum;

	pg_atomic_write_u32(&passed->version, version + 1);
	pg_write_barrier();
	for (int i = 0; i < count; i++)
		write_cut(&passed->cuts[i], &cuts[i]);
	pg_atomic_write_u32(&passed->count, (uint32) count);
	pg_write_barrier();
	pg_atomic_write_u32(&passed->version, version + 2);
}

/*
 * Copies the passed cuts, of which there are up to MAP_PASSED_CUTS, and returns
 * their number.  Takes no lock: the copy is made again if a cut came between.
 */
int
map_read_passed_cuts(MapCut *cuts)
{
	PassedCuts *passed = &map_shared->passed;
	uint32		version;
	int			count;

	do
	{
		version = pg_atomic_read_u32(&passed->version);
		pg_read_barrier();
		count = (int) pg_atomic_read_u32(&passed->count);
		for (int i = 0; i < count; i++)
			map_read_cut(&passed->cuts[i], &cuts[i]);
		pg_read_barrier();
	} while (version % 2 != 0 || version != pg_atomic_read_u32(&passed->version));
	return count;
}

/*
 * A new redo point was fixed: what follows belongs to a new cycle.  Called with
 * all WAL insertion locks held, inside a critical section, by the process that
 * makes checkpoints; or in the startup process, before the record at the redo
 * point is replayed; or by ptrack's worker, when it comes by a redo point in WAL
 * that it follows, or learns of one.
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
	HalfHeader *other = map_halves[(cycle + 1) & 1].state;

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
	pg_atomic_write_u64(&map_shared->running.cycle, cycle + 1);
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
	map_read_cut(&half->state->end, &cut);
	if (is_frozen(half) && cut.redo == redo)
	{
		cut.time_min = cut.time_max = cut.time = time;
		write_cut(&half->state->end, &cut);
	}
	for (int i = map_read_passed_cuts(cuts) - 1; i >= 0; i--)
	{
		if (cuts[i].redo != redo)
			continue;
		pg_atomic_write_u64(&map_shared->passed.cuts[i].field[2], (uint64) time);
		pg_atomic_write_u64(&map_shared->passed.cuts[i].field[3], (uint64) time);
	}
}

/*
 * The cycle that is running, and the sum of fingerprints in it so far.
 */
uint64
map_running_sum(uint64 *cycle)
{
	return map_half_sum(running_half(cycle));
}

/*
 * Moves what was added last from the half that was just frozen: it belongs to
 * what follows.  For the process that cuts, which added it.
 */
void
map_return_sum(uint64 sum)
{
	uint64		cycle = pg_atomic_read_u64(&map_shared->running.cycle);
	pg_atomic_uint64 *frozen = &map_sums[MyProcNumber].half[(cycle + 1) & 1];

	pg_atomic_write_u64(frozen, pg_atomic_read_u64(frozen) - sum);
}

/*
 * What is durable
 */

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

	map_lock_acquire(LW_EXCLUSIVE);
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

	map_lock_acquire(LW_EXCLUSIVE);
	half = running_half(&cycle);
	half_clear(other_half(cycle));
	half_clear(half);
	pg_atomic_write_u32(&half->state->state, HALF_RUNNING);
	pg_atomic_write_u64(&half->state->start, redo);
	pg_atomic_write_u64(&half->state->start_time, 0);
	pg_atomic_write_u64(&half->state->start_sum, 0);
	pg_atomic_write_u32(&map_shared->passed.count, 0);

	/* The same half again, and no process may take a piece for one of it. */
	pg_atomic_write_u64(&map_shared->running.cycle, cycle + 2);
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
	HalfHeader *state = map_halves[published->cycle & 1].state;

	map_lock_acquire(LW_EXCLUSIVE);
	pg_atomic_write_u64(&state->start, published->end.redo);
	pg_atomic_write_u64(&state->start_time, (uint64) published->end.time);
	pg_atomic_write_u64(&state->start_sum, published->end.sum);
	LWLockRelease(map_lock);
}
