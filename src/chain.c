/*
 * chain.c
 *		Which summaries make up what is known of this server's past.
 *
 * What is known begins with the live map, which knows everything from some redo
 * point on.  A summary that this redo point is the end of, or that it is in,
 * extends that back to where the summary starts, and so on.  Several summaries
 * may do: a merged one and those that it was made of.  So this is a search,
 * which goes on from the highest redo point that it has come to; the first one
 * at or before an LSN is the closest to it that can be had.  On the way there, a
 * query takes the short summaries, so that the end of its range is as close; who
 * merges takes the long ones.
 *
 * A summary waits from when the search has come down to its end, until it fits, or
 * no redo point inside it is left that it might fit at.  Few wait at a time, and
 * what was attached is kept in a heap by where it starts: so the search takes little
 * more time for each of many summaries than for each of few.
 *
 * A summary counts if it is undamaged, if the lineage that it has for that redo
 * point is the one that was come to it with, and if this server's timelines
 * agree.  All of that says that it tells of this history up to there.  It may
 * tell more, of what was abandoned later: then it says too much, not too
 * little.
 */
#include "postgres.h"

#include "compat.h"

#include "access/timeline.h"
#include "chain.h"
#include "miscadmin.h"

/*
 * Which summary's start is gone on from first: the higher one's; and of those that
 * start together, that one's alone.  One that was attached later, was so lower
 * down: in shorter steps.
 */
static int
start_cmp(Datum a, Datum b, void *arg)
{
	const ChainFile *x = (const ChainFile *) DatumGetPointer(a);
	const ChainFile *y = (const ChainFile *) DatumGetPointer(b);
	bool		later = x->above != y->above ? x->above > y->above : x > y;

	if (x->summary.start != y->summary.start)
		return x->summary.start > y->summary.start ? 1 : -1;
	return later == ((const Chain *) arg)->finest ? 1 : -1;
}

/*
 * Begins a search at the redo point that the live map begins at, with its
 * lineage.  finest: go by many short summaries, not by few long ones.  All memory
 * is of the current context.
 */
void
chain_begin(Chain *chain, const StoreList *list, List *history,
			XLogRecPtr live, const Lineage *lineage, bool finest)
{
	ChainPoint	first = {0};

	first.lsn = live;
	first.file = first.above = -1;
	first.lineage = *lineage;
	memset(chain, 0, sizeof(*chain));
	chain->history = history;
	chain->finest = finest;
	chain->files = palloc0_array(ChainFile, Max(list->count, 1));
	chain->nfiles = chain->nbefore = list->count;
	for (int i = 0; i < list->count; i++)
		chain->files[i].summary = list->summaries[i];
	slist_init(&chain->waiting);
	chain->frontier = binaryheap_allocate(Max(list->count, 1), start_cmp, chain);

	/* At most one where each starts, and one where each ends, before a gap. */
	chain->points = palloc_array(ChainPoint, 2 * list->count + 1);
	chain->points[chain->npoints++] = first;
}

/*
 * Is that where this server's history was?  A timeline only counts up to the
 * point where the history left it.
 */
static bool
in_history(const RedoPoint *point, List *history)
{
	ListCell   *lc;

	foreach(lc, history)
	{
		TimeLineHistoryEntry *entry = lfirst(lc);

		if (entry->tli == point->tli)
			return XLogRecPtrIsInvalid(entry->end) || point->lsn <= entry->end;
	}
	return history == NIL;
}

/*
 * Does the summary have that redo point, with what it was come to?  It is asked
 * for points in descending order.
 */
static bool
fits(const Chain *chain, ChainFile *file, const ChainPoint *at)
{
	const RedoPoint *point;

	while (file->nleft > 0 && file->info.points[file->nleft - 1].lsn > at->lsn)
		file->nleft--;
	if (file->nleft == 0)
		return false;
	point = &file->info.points[file->nleft - 1];
	return point->lsn == at->lsn && in_history(point, chain->history) &&
		(at->any_lineage || memcmp(&point->lineage, &at->lineage, sizeof(Lineage)) == 0);
}

/*
 * Goes on from the lowest point by one summary, if that fits.  Returns whether
 * that is all there is to it; else, it may fit at a point further down.
 */
static bool
attach(Chain *chain, ChainFile *file)
{
	const ChainPoint *point = &chain->points[chain_lowest(chain)];

	if (!file->read)
	{
		file->verdict = store_check(&file->summary, &file->info);
		file->nleft = file->verdict == STORE_GOOD ? file->info.npoints : 0;
		file->read = true;
	}
	if (fits(chain, file, point))
	{
		file->attached = point->lsn;
		file->above = chain_lowest(chain);
		binaryheap_add(chain->frontier, PointerGetDatum(file));
		return true;
	}
	if (file->verdict == STORE_GONE)
		chain->vanished = true;
	else if (file->summary.end == point->lsn &&
			 (file->verdict != STORE_GOOD ||
			  in_history(&file->info.header.end, chain->history)))
		chain->rejected = point->lsn;
	return file->nleft == 0;
}

/* Goes on from the lowest point by all summaries that it is the end of, or is in. */
static void
attach_all(Chain *chain)
{
	ChainPoint *lowest = &chain->points[chain_lowest(chain)];
	XLogRecPtr	lsn = lowest->lsn;
	slist_mutable_iter iter;

	if (lowest->done)
		return;
	lowest->done = true;
	while (chain->nbefore > 0 && chain->files[chain->nbefore - 1].summary.end >= lsn)
		slist_push_head(&chain->waiting, &chain->files[--chain->nbefore].waiting);
	slist_foreach_modify(iter, &chain->waiting)
	{
		ChainFile  *file = slist_container(ChainFile, waiting, iter.cur);

		CHECK_FOR_INTERRUPTS();
		if (file->summary.start >= lsn || attach(chain, file))
			slist_delete_current(&iter);
	}
}

/* Comes to the next point, where an attached summary starts; false: there is none. */
static bool
next_point(Chain *chain)
{
	while (!binaryheap_empty(chain->frontier))
	{
		const ChainFile *file = (const ChainFile *)
			DatumGetPointer(binaryheap_remove_first(chain->frontier));
		ChainPoint	next = {0};

		if (file->summary.start == chain->points[chain_lowest(chain)].lsn)
			continue;
		next.lsn = file->summary.start;
		next.lineage = file->info.header.start_lineage;
		next.file = file - chain->files;
		next.above = file->above;
		chain->points[chain->npoints++] = next;
		return true;
	}
	return false;
}

/*
 * Searches until it comes to a redo point at or before that LSN, and returns
 * the number of that point; or -1 if what is known begins after it.
 */
int
chain_reach(Chain *chain, XLogRecPtr start)
{
	do
	{
		if (chain->points[chain_lowest(chain)].lsn <= start)
			return chain_lowest(chain);
		attach_all(chain);
	} while (next_point(chain));
	return -1;
}

/*
 * The lowest point that was come to.
 */
int
chain_lowest(const Chain *chain)
{
	return chain->npoints - 1;
}

/*
 * When nothing leads on: has the search go on at the end of the newest summary
 * before the gap.  Returns false if no more is to be said: there is none, and
 * none was rejected.
 */
bool
chain_over_gap(Chain *chain)
{
	ChainPoint	next = {0};
	bool		rejected = chain->rejected == chain->points[chain_lowest(chain)].lsn;

	chain->rejected = InvalidXLogRecPtr;
	if (chain->nbefore > 0)
		next.lsn = chain->files[chain->nbefore - 1].summary.end;
	if (XLogRecPtrIsInvalid(next.lsn))
		return rejected;
	next.any_lineage = true;
	next.file = next.above = -1;
	chain->points[chain->npoints++] = next;
	return true;
}

/*
 * The lineage at a redo point that the search has come by.  False if there was
 * no such redo point.
 */
bool
chain_find_lineage(const Chain *chain, XLogRecPtr lsn, Lineage *lineage)
{
	for (int i = 0; i < chain->npoints; i++)
	{
		*lineage = chain->points[i].lineage;
		if (chain->points[i].lsn == lsn && !chain->points[i].any_lineage)
			return true;
	}
	for (int i = 0; i < chain->nfiles; i++)
	{
		const ChainFile *file = &chain->files[i];

		if (lsn > file->attached)
			continue;
		for (int n = 0; n < file->info.npoints; n++)
		{
			*lineage = file->info.points[n].lineage;
			if (file->info.points[n].lsn == lsn)
				return true;
		}
	}
	return false;
}
