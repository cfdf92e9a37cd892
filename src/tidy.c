/*
 * tidy.c
 *		Making summaries exact, merging them, and removing old ones.
 *
 * Done by ptrack's worker alone.  A merged summary is published like any other,
 * and only later are those removed that it was made of: a crash in between, or
 * at any time, leaves more than is needed and never less.
 */
#include "postgres.h"

#include "compat.h"

#include <time.h>

#include "chain.h"
#include "change_merge.h"
#include "lineage.h"
#include "merge_plan.h"
#include "postmaster/interrupt.h"
#include "ptrack_map.h"
#include "storage/ipc.h"
#include "tidy.h"
#include "utils/memutils.h"
#include "wal_fill.h"

/*
 * For so many seconds after a merge, the summaries that went into it stay: for
 * queries that have begun to read them, and for tools that list the data
 * directory first and copy the files later.
 */
#define KEEP_MERGED		(24 * 60 * 60)

/* The summaries that lead back from the live map, oldest first. */
typedef struct Path
{
	ChainFile **files;
	int			count;
	ChainFile **merged;			/* all that were made of several, also those
								 * that others lead past */
	int			nmerged;
} Path;

/*
 * Searches the whole store.  False if the live map's lineage is not known, so
 * that nothing can be said.
 */
static bool
search_store(Chain *chain, Path *path)
{
	StoreList	list;
	Lineage		lineage;
	XLogRecPtr	live = map_get_start();

	if (!lineage_recent(live, &lineage))
		return false;
	store_list(&list);

	/* The worker must not read history files, which may end a process. */
	chain_begin(chain, &list, NIL, live, &lineage, false);
	(void) chain_reach(chain, InvalidXLogRecPtr);

	path->files = palloc_array(ChainFile *, chain->npoints);
	path->count = 0;
	for (int i = chain_lowest(chain); chain->points[i].file >= 0;
		 i = chain->points[i].above)
		path->files[path->count++] = &chain->files[chain->points[i].file];

	path->merged = palloc_array(ChainFile *, Max(chain->nfiles, 1));
	path->nmerged = 0;
	for (int i = 0; i < chain->nfiles; i++)
	{
		if (!XLogRecPtrIsInvalid(chain->files[i].attached) && chain->files[i].info.npoints > 1)
			path->merged[path->nmerged++] = &chain->files[i];
	}
	return true;
}

/*
 * Making exact
 */

/*
 * Reads WAL for those that the live map had no room for.  Each is tried once,
 * soon after it was published: later, WAL is not there any more.
 */
static void
make_exact(const Path *path)
{
	static XLogRecPtr tried = InvalidXLogRecPtr;

	for (int i = 0; i < path->count; i++)
	{
		SummaryHeader *header = &path->files[i]->info.header;

		if (header->end.lsn <= tried || header->flags != SUMMARY_COARSE)
			continue;
		tried = header->end.lsn;
		if (wal_fill_again(&path->files[i]->info))
			header->flags = 0;
	}
}

/*
 * Merging
 */

/* A summary that this history left at a redo point inside it stays as it is. */
static MergeSpan
span_of(const ChainFile *file)
{
	const SummaryHeader *header = &file->info.header;
	MergeSpan	span = {0, 0};

	if (file->attached == header->end.lsn)
	{
		span.start = header->start_time;
		span.end = header->end_time;
	}
	return span;
}

static bool
next_item(void *arg, ChangeItem *item)
{
	/* An unfinished file is removed when the server starts the next time. */
	if (ShutdownRequestPending)
		proc_exit(1);
	return change_merge_next(arg, item);
}

/* All redo points of these summaries but the last one, in palloc'd memory. */
static RedoPoint *
inner_points(ChainFile **files, int count, int *npoints)
{
	RedoPoint  *points;
	int			total = 0;

	for (int i = 0; i < count; i++)
		total += files[i]->info.npoints;
	points = palloc_array(RedoPoint, total);
	*npoints = 0;
	for (int i = 0; i < count; i++)
	{
		memcpy(points + *npoints, files[i]->info.points,
			   files[i]->info.npoints * sizeof(RedoPoint));
		*npoints += files[i]->info.npoints;
	}
	(*npoints)--;
	return points;
}

/* Makes one summary of several.  False if that failed, after a warning. */
static bool
merge_files(ChainFile **files, int count)
{
	SummaryHeader header = files[0]->info.header;
	const SummaryHeader *last = &files[count - 1]->info.header;
	ChangeMerge *merge = change_merge_create(count);
	RedoPoint  *points;
	int			npoints;
	bool		done;

	header.end = last->end;
	header.end_time = last->end_time;
	for (int i = 0; i < count; i++)
	{
		header.flags |= files[i]->info.header.flags;
		if (!change_merge_add_summary(merge, &files[i]->summary))
			return false;
	}
	points = inner_points(files, count, &npoints);
	done = store_publish(&header, points, npoints, next_item, merge);
	change_merge_close(merge);
	if (done)
		ereport(DEBUG1,
				(errmsg_internal("merged %d change summaries from %X/%X to %X/%X", count,
								 LSN_FORMAT_ARGS(header.start),
								 LSN_FORMAT_ARGS(header.end.lsn))));
	return done;
}

/*
 * Merges what is to be merged by now.  False if nothing was, after a warning if
 * that failed.  What results may have to be merged again.
 */
static bool
merge_some(const Path *path)
{
	MergeSpan  *spans = palloc_array(MergeSpan, Max(path->count, 1));
	MemoryContext old = CurrentMemoryContext;
	MemoryContext merging = AllocSetContextCreate(old, "ptrack merging", ALLOCSET_DEFAULT_SIZES);
	int64		now = (int64) time(NULL);
	bool		done = true;
	bool		any = false;
	int			from = 0;
	int			first;
	int			count;

	for (int i = 0; i < path->count; i++)
		spans[i] = span_of(path->files[i]);
	while (done && (count = merge_plan(spans + from, path->count - from, now, &first)) > 0)
	{
		MemoryContextSwitchTo(merging);
		done = merge_files(path->files + from + first, count);
		MemoryContextSwitchTo(old);
		MemoryContextReset(merging);
		any |= done;
		from += first + count;
	}
	MemoryContextDelete(merging);
	return done && any;
}

/*
 * Removing
 */

/* The one of the path that may cover what starts there: no other can. */
static const ChainFile *
path_at(const Path *path, XLogRecPtr start)
{
	int			low = 0;
	int			high = path->count;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (path->files[middle]->summary.start <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 ? path->files[low - 1] : NULL;
}

static bool
covers(const ChainFile *file, const ChainFile *other)
{
	return file->summary.start <= other->summary.start &&
		file->attached >= other->summary.end;
}

/*
 * Does another one, of the path, tell all that this one does, and has one that
 * does been there for long enough?  That need not be the same: what is merged
 * again may have taken this one's place long ago.
 */
static bool
is_merged(const Path *path, const ChainFile *file)
{
	const ChainFile *by = path_at(path, file->summary.start);

	if (by == NULL || !covers(by, file))
		return false;
	for (int i = 0; i < path->nmerged; i++)
	{
		const ChainFile *other = path->merged[i];

		if (other != file && covers(other, file) &&
			store_age(&other->summary) >= KEEP_MERGED)
			return true;
	}
	return false;
}

/* How old the newest of its changes is, in seconds. */
static int64
age_of(const ChainFile *file)
{
	if (file->read && file->verdict == STORE_GOOD && file->info.header.end_time > 0)
		return (int64) time(NULL) - file->info.header.end_time;
	return store_age(&file->summary);
}

/*
 * Removes what was merged, and what is older than that.  Summaries that lead
 * back from the live map go oldest first, so that what is left has no gap that
 * was not there before.
 */
static void
remove_old(const Chain *chain, const Path *path, int keep_minutes)
{
	int64		keep = (int64) keep_minutes * 60;

	for (int i = 0; i < chain->nfiles; i++)
	{
		const ChainFile *file = &chain->files[i];

		if (file == path_at(path, file->summary.start))
			continue;
		if (!XLogRecPtrIsInvalid(file->attached) ? is_merged(path, file) :
			keep > 0 && store_age(&file->summary) > keep)
			(void) store_remove(&file->summary);
	}
	for (int i = 0; keep > 0 && i < path->count; i++)
	{
		if (age_of(path->files[i]) <= keep ||
			!store_remove(&path->files[i]->summary))
			break;
	}
}

/*
 * Makes exact, merges and removes what is due, in the current memory context, which
 * is reset for each look at the store: there may be many summaries.
 */
static bool
tidy_in_rounds(int keep_minutes)
{
	Chain		chain;
	Path		path;
	int			count = INT_MAX;

	/* A merged summary that cannot be read would be merged again and again. */
	do
	{
		MemoryContextReset(CurrentMemoryContext);
		if (ShutdownRequestPending || !search_store(&chain, &path) ||
			chain.vanished || path.count >= count)
			return false;
		count = path.count;
		make_exact(&path);
	} while (merge_some(&path));
	remove_old(&chain, &path, keep_minutes);
	return true;
}

/*
 * Makes exact, merges and removes what is due.  Returns false if it is too early to
 * tell, or if the store changed meanwhile.  Problems are warnings, or errors that
 * leave the store as useful as before.
 */
bool
tidy_store(int keep_minutes)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext rounds = AllocSetContextCreate(old, "ptrack tidying", ALLOCSET_DEFAULT_SIZES);
	bool		done;

	MemoryContextSwitchTo(rounds);
	done = tidy_in_rounds(keep_minutes);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(rounds);
	return done;
}
