/*
 * change_query.c
 *		What changed since an LSN: summaries and live map together.
 *
 * Coverage is worked out anew for each query.  It ends at the current end of
 * WAL.  The live map knows everything from some redo point on; a summary that
 * ends just there, on this server's timeline history, undamaged, extends that
 * back to where it starts; and so on.  Where no such summary is found, coverage
 * begins.  A session without the library, a damaged file, a data directory
 * that was rolled back all show as an LSN at which nothing ends: nobody has to
 * notice them when they happen.
 *
 * Besides the LSNs, each summary must name the lineage that the one before it
 * ends with, and the newest one must be of the very checkpoint that the server
 * started from: so files of another history are not taken for this one's.
 *
 * The answer itself is a merge of all inputs, each in order of keys, of which
 * one item at a time is in memory.
 */
#include "postgres.h"

#include "compat.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "change_query.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "ptrack_map.h"
#include "publish.h"
#include "summary_store.h"
#include "utils/memutils.h"

/* One input of a merge, a snapshot or a summary, at its current item. */
typedef struct ChangeSource
{
	MapSnapshot *snapshot;		/* NULL: a summary */
	StoreReader *summary;
	ChangeItem	item;
} ChangeSource;

struct ChangeQuery
{
	MapSnapshot frozen;
	MapSnapshot running;
	ChangeSource *sources;
	int			nsources;
	StoreReader *readers;
	int			nreaders;
	binaryheap *heap;			/* of pointers to sources, least key first */
	MemoryContextCallback cleanup;
};

/*
 * Coverage
 */

/* The end of WAL that counts, and the timeline it is on. */
static XLogRecPtr
current_end(TimeLineID *tli)
{
	if (RecoveryInProgress())
		return GetXLogReplayRecPtr(tli);
	*tli = GetWALInsertionTimeLine();
	return GetXLogInsertRecPtr();
}

/*
 * Is that where this server's history was when the summary ended?  A timeline
 * only counts up to the point where the history left it.
 */
static bool
in_history(const StoredSummary *summary, List *history)
{
	ListCell   *lc;

	foreach(lc, history)
	{
		TimeLineHistoryEntry *entry = lfirst(lc);

		if (entry->tli == summary->tli)
			return XLogRecPtrIsInvalid(entry->end) || summary->end <= entry->end;
	}
	return false;
}

/* A walk over the summaries, from the newest back. */
typedef struct ChainWalk
{
	const StoreList *list;
	List	   *history;
	int			next;			/* candidate to look at, going down */
	XLogRecPtr	reached;		/* all is known from here on */
	bool		rejected;		/* some summary since the last gap was bad */
	bool		any_lineage;	/* the first link: only the LSN has to match */
	Lineage		lineage;		/* else: that the next summary must end with */
} ChainWalk;

static void
walk_begin(ChainWalk *walk, const StoreList *list, List *history, XLogRecPtr from)
{
	walk->list = list;
	walk->history = history;
	walk->next = list->count - 1;
	walk->reached = from;
	walk->rejected = false;
	walk->any_lineage = true;
}

static bool
fits(const ChainWalk *walk, const SummaryHeader *header)
{
	static const Lineage unknown = {{0}};

	if (walk->any_lineage)
		return publish_fits_start(header);
	return memcmp(&walk->lineage, &unknown, sizeof(Lineage)) != 0 &&
		memcmp(&walk->lineage, &header->end_lineage, sizeof(Lineage)) == 0;
}

/*
 * Finds the summary that ends where the walk has come to, and goes on to where
 * it starts.  Returns NULL when there is none that can be trusted.
 */
static const StoredSummary *
walk_back(ChainWalk *walk)
{
	for (; walk->next >= 0; walk->next--)
	{
		const StoredSummary *summary = &walk->list->summaries[walk->next];
		SummaryHeader header;

		CHECK_FOR_INTERRUPTS();
		if (summary->end > walk->reached)
			continue;
		if (summary->end < walk->reached)
			return NULL;
		if (!in_history(summary, walk->history))
			continue;
		if (!store_check(summary, &header) || !fits(walk, &header))
		{
			walk->rejected = true;
			continue;
		}
		walk->next--;
		walk->reached = header.start;
		walk->any_lineage = false;
		walk->lineage = header.start_lineage;
		return summary;
	}
	return NULL;
}

/* After a gap, the chain may go on at the next older summary's end. */
static void
walk_over_gap(ChainWalk *walk)
{
	while (walk->next >= 0 &&
		   walk->list->summaries[walk->next].end >= walk->reached)
		walk->next--;
	if (walk->next >= 0)
		walk->reached = walk->list->summaries[walk->next].end;
	walk->rejected = false;
	walk->any_lineage = true;
}

/*
 * Works out the coverage, which reads all of the store.
 */
void
coverage_get(Coverage *coverage)
{
	MapStats	stats;
	StoreList	list;
	ChainWalk	walk;
	TimeLineID	tli;

	publish_check_start();

	/* The map first: what it gives up is in the store by then. */
	map_get_stats(&stats);
	store_list(&list);
	coverage->end = current_end(&tli);
	coverage->summaries = list.count;
	coverage->bytes = store_bytes(&list);
	coverage->gaps = 0;

	walk_begin(&walk, &list, readTimeLineHistory(tli), stats.start);
	while (walk_back(&walk) != NULL)
		 /* nothing but to get there */ ;
	coverage->start = walk.reached;
	while (walk.next >= 0 || walk.rejected)
	{
		coverage->gaps++;
		walk_over_gap(&walk);
		while (walk_back(&walk) != NULL)
			 /* likewise */ ;
	}
	pfree(list.summaries);
}

/*
 * Queries
 */

static void refuse(const char *what, int sqlstate, XLogRecPtr lsn,
				   XLogRecPtr start, XLogRecPtr end,
				   const char *hint) pg_attribute_noreturn();
static void refuse_future(XLogRecPtr lsn, XLogRecPtr now) pg_attribute_noreturn();

static void
refuse(const char *what, int sqlstate, XLogRecPtr lsn, XLogRecPtr start,
	   XLogRecPtr end, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("LSN %X/%X is %s", LSN_FORMAT_ARGS(lsn), what),
			 errdetail("Changes are known from %X/%X to %X/%X.",
					   LSN_FORMAT_ARGS(start), LSN_FORMAT_ARGS(end)),
			 errhint("%s", hint)));
}

static void
refuse_future(XLogRecPtr lsn, XLogRecPtr now)
{
	Coverage	coverage;

	coverage_get(&coverage);
	refuse("in the future of this server", ERRCODE_INVALID_PARAMETER_VALUE, lsn,
		   coverage.start, now,
		   "The prior backup may belong to another server, or to another history of this one.");
}

static bool
source_advance(ChangeSource *source)
{
	if (source->snapshot)
		return map_snapshot_next(source->snapshot, &source->item);
	return store_next(source->summary, &source->item);
}

/* binaryheap keeps the greatest first. */
static int
source_cmp(Datum a, Datum b, void *arg)
{
	return change_key_cmp(&((ChangeSource *) DatumGetPointer(b))->item.key,
						  &((ChangeSource *) DatumGetPointer(a))->item.key);
}

static void
add_source(ChangeQuery *query, MapSnapshot *snapshot, StoreReader *summary)
{
	ChangeSource *source = &query->sources[query->nsources++];

	source->snapshot = snapshot;
	source->summary = summary;
	if (source_advance(source))
		binaryheap_add_unordered(query->heap, PointerGetDatum(source));
}

/* Also when the query ends early, or by an error. */
static void
close_readers(void *arg)
{
	ChangeQuery *query = arg;

	for (int i = 0; i < query->nreaders; i++)
		store_close(&query->readers[i]);
}

/* The summaries that are needed for [start, end), in an array. */
static StoredSummary *
choose_summaries(XLogRecPtr start, XLogRecPtr end, XLogRecPtr live,
				 XLogRecPtr now, TimeLineID tli, int *count)
{
	StoreList	list;
	ChainWalk	walk;
	StoredSummary *chosen;

	store_list(&list);
	chosen = palloc_array(StoredSummary, Max(list.count, 1));
	*count = 0;
	walk_begin(&walk, &list, readTimeLineHistory(tli), live);
	while (walk.reached > start)
	{
		const StoredSummary *summary = walk_back(&walk);

		if (summary == NULL)
			refuse("before the changes that are known",
				   ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, start, walk.reached, now,
				   "Take a full backup, or use a prior backup that starts at or after the first of these.");
		if (summary->start < end)
			chosen[(*count)++] = *summary;
	}
	pfree(list.summaries);
	return chosen;
}

/* Opens everything that changes in [start, end) can be found in. */
static void
open_sources(ChangeQuery *query, XLogRecPtr end, bool have_frozen,
			 const StoredSummary *summaries, int count)
{
	query->sources = palloc0_array(ChangeSource, count + 2);
	query->readers = palloc0_array(StoreReader, Max(count, 1));
	query->heap = binaryheap_allocate(count + 2, source_cmp, NULL);
	for (int i = 0; i < count; i++)
	{
		query->readers[i].file = -1;
		query->nreaders = i + 1;
		store_open(&query->readers[i], &summaries[i]);
		add_source(query, NULL, &query->readers[i]);
		CHECK_FOR_INTERRUPTS();
	}
	if (have_frozen && query->frozen.start < end)
		add_source(query, &query->frozen, NULL);
	if (query->running.start < end)
		add_source(query, &query->running, NULL);
	binaryheap_build(query->heap);
}

/*
 * Begins a query for the changes that were made by WAL in [start, end), or
 * from start on if end is invalid; then it includes everything up to now.  The
 * range is widened to redo points at both ends.
 *
 * ERROR if any of that is unknown.  The query lives in the current memory
 * context, and is cleaned up with it.
 */
ChangeQuery *
change_query_begin(XLogRecPtr start, XLogRecPtr end)
{
	ChangeQuery *query = palloc0_object(ChangeQuery);
	TimeLineID	tli;
	XLogRecPtr	now = current_end(&tli);
	XLogRecPtr	live;
	StoredSummary *summaries;
	bool		have_frozen;
	int			count;

	if (start > now)
		refuse_future(start, now);
	if (XLogRecPtrIsInvalid(end))
		end = PG_UINT64_MAX;
	else if (end > now)
		refuse_future(end, now);

	publish_check_start();

	/* The map first: what it gives up afterwards is in the store by then. */
	map_snapshot_both(&query->frozen, &have_frozen, &query->running);
	live = have_frozen ? query->frozen.start : query->running.start;
	summaries = choose_summaries(start, end, live, now, tli, &count);

	query->cleanup.func = close_readers;
	query->cleanup.arg = query;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &query->cleanup);
	open_sources(query, end, have_frozen && query->frozen.end.redo > start,
				 summaries, count);
	pfree(summaries);
	return query;
}

static void
merge_item(ChangeItem *into, const ChangeItem *item)
{
	if (change_is_entry(&into->key))
		into->limit = Min(into->limit, item->limit);
	else
	{
		for (int w = 0; w < PIECE_WORDS; w++)
			into->bits[w] |= item->bits[w];
	}
}

/* Takes the least item off the heap. */
static void
take_first(ChangeQuery *query)
{
	ChangeSource *source = (ChangeSource *) DatumGetPointer(binaryheap_first(query->heap));

	if (source_advance(source))
		binaryheap_replace_first(query->heap, PointerGetDatum(source));
	else
		(void) binaryheap_remove_first(query->heap);
}

/*
 * Returns the next item, of which no key comes twice, or false at the end.
 */
bool
change_query_next(ChangeQuery *query, ChangeItem *item)
{
	const ChangeSource *first;

	CHECK_FOR_INTERRUPTS();
	if (binaryheap_empty(query->heap))
		return false;
	first = (const ChangeSource *) DatumGetPointer(binaryheap_first(query->heap));
	*item = first->item;
	take_first(query);
	while (!binaryheap_empty(query->heap))
	{
		first = (const ChangeSource *) DatumGetPointer(binaryheap_first(query->heap));
		if (change_key_cmp(&first->item.key, &item->key) != 0)
			break;
		merge_item(item, &first->item);
		take_first(query);
	}
	return true;
}
