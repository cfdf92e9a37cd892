/*
 * change_merge.c
 *		The union of several sets of changes, as one sequence of items.
 *
 * Each input gives its items in order of keys, so that one item of each is in
 * memory at a time, however large they are.
 */
#include "postgres.h"

#include "compat.h"

#include "change_merge.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* One input at its current item. */
typedef struct ChangeSource
{
	store_next_fn next;
	void	   *arg;
	ChangeItem	item;
} ChangeSource;

struct ChangeMerge
{
	ChangeSource *sources;
	int			nsources;
	StoreReader **readers;
	int			nreaders;
	bool		begun;
	binaryheap *heap;			/* of pointers to sources, least key first */
	MemoryContextCallback cleanup;
};

/* binaryheap keeps the greatest first. */
static int
source_cmp(Datum a, Datum b, void *arg)
{
	return change_key_cmp(&((ChangeSource *) DatumGetPointer(b))->item.key,
						  &((ChangeSource *) DatumGetPointer(a))->item.key);
}

static void
close_on_reset(void *arg)
{
	change_merge_close(arg);
}

/*
 * Creates a merge of up to so many inputs, in the current memory context: its
 * files are closed with that, also after an error.
 */
ChangeMerge *
change_merge_create(int max_sources)
{
	ChangeMerge *merge = palloc0_object(ChangeMerge);

	merge->sources = palloc0_array(ChangeSource, Max(max_sources, 1));
	merge->readers = palloc_array(StoreReader *, Max(max_sources, 1));
	merge->heap = binaryheap_allocate(Max(max_sources, 1), source_cmp, NULL);
	merge->cleanup.func = close_on_reset;
	merge->cleanup.arg = merge;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &merge->cleanup);
	return merge;
}

static bool
source_advance(ChangeSource *source)
{
	return source->next(source->arg, &source->item);
}

/*
 * Adds anything that gives items in order, and lives as long as the merge.
 */
void
change_merge_add(ChangeMerge *merge, store_next_fn next, void *arg)
{
	ChangeSource *source = &merge->sources[merge->nsources++];

	source->next = next;
	source->arg = arg;
	if (source_advance(source))
		binaryheap_add_unordered(merge->heap, PointerGetDatum(source));
}

static bool
next_of_summary(void *arg, ChangeItem *item)
{
	return store_next(arg, item);
}

static bool
next_of_snapshot(void *arg, ChangeItem *item)
{
	return map_snapshot_next(arg, item);
}

/*
 * Adds a summary.  Returns false if it does not exist any more.
 */
bool
change_merge_add_summary(ChangeMerge *merge, const StoredSummary *summary)
{
	StoreReader *reader = palloc0_object(StoreReader);

	reader->file = -1;
	merge->readers[merge->nreaders++] = reader;
	if (!store_open(reader, summary))
		return false;
	change_merge_add(merge, next_of_summary, reader);
	return true;
}

/*
 * Adds a copy of the map, which must live as long as the merge.
 */
void
change_merge_add_snapshot(ChangeMerge *merge, MapSnapshot *snapshot)
{
	change_merge_add(merge, next_of_snapshot, snapshot);
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

static const ChangeSource *
first_source(const ChangeMerge *merge)
{
	return (const ChangeSource *) DatumGetPointer(binaryheap_first(merge->heap));
}

/* Takes the least item off the heap. */
static void
take_first(ChangeMerge *merge)
{
	ChangeSource *source = (ChangeSource *) DatumGetPointer(binaryheap_first(merge->heap));

	if (source_advance(source))
		binaryheap_replace_first(merge->heap, PointerGetDatum(source));
	else
		(void) binaryheap_remove_first(merge->heap);
}

/*
 * Returns the next item, of which no key comes twice, or false at the end.  All
 * inputs have been added by then.
 */
bool
change_merge_next(ChangeMerge *merge, ChangeItem *item)
{
	CHECK_FOR_INTERRUPTS();
	if (!merge->begun)
		binaryheap_build(merge->heap);
	merge->begun = true;
	if (binaryheap_empty(merge->heap))
		return false;
	*item = first_source(merge)->item;
	take_first(merge);
	while (!binaryheap_empty(merge->heap) &&
		   change_key_cmp(&first_source(merge)->item.key, &item->key) == 0)
	{
		merge_item(item, &first_source(merge)->item);
		take_first(merge);
	}
	return true;
}

/*
 * Closes the files.  The memory is the context's.
 */
void
change_merge_close(ChangeMerge *merge)
{
	for (int i = 0; i < merge->nreaders; i++)
		store_close(merge->readers[i]);
	merge->nreaders = 0;
}
