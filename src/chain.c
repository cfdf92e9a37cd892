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

static void
add_point(Chain *chain, const ChainPoint *point)
{
	for (int i = 0; i < chain->npoints; i++)
	{
		if (chain->points[i].lsn != point->lsn || point->any_lineage)
			continue;

		/*
		 * A way that is found later comes from a lower point: in shorter
		 * steps.
		 */
		if (chain->finest && !chain->points[i].done)
			chain->points[i] = *point;
		return;
	}
	if (chain->npoints == chain->room)
	{
		chain->room *= 2;
		chain->points = repalloc_array(chain->points, ChainPoint, chain->room);
	}
	chain->points[chain->npoints++] = *point;
}

/*
 * Begins a search at the redo point that the live map begins at, with its
 * lineage; or at any LSN, if that is NULL.  All memory is of the current
 * context.
 */
void
chain_begin(Chain *chain, const StoreList *list, List *history,
			XLogRecPtr live, const Lineage *lineage)
{
	ChainPoint	first = {0};

	first.lsn = live;
	first.file = first.above = -1;
	if (lineage)
		first.lineage = *lineage;
	else
		first.any_lineage = true;
	memset(chain, 0, sizeof(*chain));
	chain->history = history;
	chain->files = palloc0_array(ChainFile, Max(list->count, 1));
	chain->nfiles = list->count;
	for (int i = 0; i < list->count; i++)
		chain->files[i].summary = list->summaries[i];
	chain->room = 64;
	chain->points = palloc_array(ChainPoint, chain->room);
	add_point(chain, &first);
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

/* What the summary has for that redo point; NULL if nothing that fits. */
static const RedoPoint *
fitting_point(const Chain *chain, const ChainFile *file, const ChainPoint *at)
{
	for (int i = 0; i < file->info.npoints; i++)
	{
		const RedoPoint *point = &file->info.points[i];

		if (point->lsn == at->lsn)
			return in_history(point, chain->history) &&
				(at->any_lineage ||
				 memcmp(&point->lineage, &at->lineage, sizeof(Lineage)) == 0) ?
				point : NULL;
	}
	return NULL;
}

/* Goes on from a point by one summary, if that fits. */
static void
attach(Chain *chain, int above, int n)
{
	ChainFile  *file = &chain->files[n];
	ChainPoint	next = {0};
	XLogRecPtr	lsn = chain->points[above].lsn;

	if (!file->read)
	{
		file->verdict = store_check(&file->summary, &file->info);
		file->read = true;
	}
	if (file->verdict == STORE_GONE)
		chain->vanished = true;
	else if (file->verdict == STORE_GOOD &&
			 fitting_point(chain, file, &chain->points[above]))
	{
		file->attached = lsn;
		next.file = n;
		next.above = above;
		next.lsn = file->info.header.start;
		next.lineage = file->info.header.start_lineage;
		add_point(chain, &next);
	}
	else if (file->summary.end == lsn &&
			 (file->verdict != STORE_GOOD ||
			  in_history(&file->info.header.end, chain->history)))
		chain->rejected = lsn;
}

/* The highest point that was not gone on from; -1 if there is none. */
static int
highest_undone(const Chain *chain)
{
	int			highest = -1;

	for (int i = 0; i < chain->npoints; i++)
	{
		if (!chain->points[i].done &&
			(highest < 0 || chain->points[i].lsn > chain->points[highest].lsn))
			highest = i;
	}
	return highest;
}

/*
 * Searches until it comes to a redo point at or before that LSN, and returns
 * the number of that point; or -1 if what is known begins after it.
 */
int
chain_reach(Chain *chain, XLogRecPtr start)
{
	int			point;

	while ((point = highest_undone(chain)) >= 0)
	{
		XLogRecPtr	lsn = chain->points[point].lsn;

		if (lsn <= start)
			return point;
		for (int i = 0; i < chain->nfiles; i++)
		{
			const ChainFile *file = &chain->files[i];

			CHECK_FOR_INTERRUPTS();
			if (file->summary.start < lsn && lsn <= file->summary.end &&
				XLogRecPtrIsInvalid(file->attached))
				attach(chain, point, i);
		}
		chain->points[point].done = true;
	}
	return -1;
}

/*
 * The lowest point that was come to.
 */
int
chain_lowest(const Chain *chain)
{
	int			lowest = 0;

	for (int i = 1; i < chain->npoints; i++)
	{
		if (chain->points[i].lsn < chain->points[lowest].lsn)
			lowest = i;
	}
	return lowest;
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
	XLogRecPtr	lowest = chain->points[chain_lowest(chain)].lsn;
	bool		rejected = chain->rejected == lowest;

	next.any_lineage = true;
	next.file = next.above = -1;
	chain->rejected = InvalidXLogRecPtr;
	for (int i = 0; i < chain->nfiles; i++)
	{
		const StoredSummary *summary = &chain->files[i].summary;

		if (summary->end < lowest && summary->end > next.lsn)
			next.lsn = summary->end;
	}
	if (!XLogRecPtrIsInvalid(next.lsn))
		add_point(chain, &next);
	return rejected || !XLogRecPtrIsInvalid(next.lsn);
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
