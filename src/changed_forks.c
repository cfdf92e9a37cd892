/*
 * changed_forks.c
 *		From changed blocks to relation forks, and how many each has.
 *
 * Blocks are counted and never listed, so that an answer is as long as there are
 * forks that changed, however large they are.
 */
#include "postgres.h"

#include "compat.h"

#include "changed_forks.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "relation_files.h"

struct ForkScan
{
	ChangeQuery *query;
	ChangeItem	item;			/* the next item of the query */
	bool		have_item;
	int			nregions;

	/* The latest entry that stands for more than a fork. */
	bool		any_whole;
	uint64		whole;			/* its key's where */
};

static void
next_item(ForkScan *scan)
{
	scan->have_item = change_query_next(scan->query, &scan->item);
}

/*
 * Begins a scan of the forks that WAL in [start, end) changed; see
 * change_query_begin.  So many regions of each are counted by themselves; 0:
 * none, MAX_REGIONS at most.
 */
ForkScan *
fork_scan_begin(XLogRecPtr start, XLogRecPtr end, const Lineage *lineage, int nregions)
{
	ForkScan   *scan = palloc0_object(ForkScan);

	scan->nregions = nregions;
	scan->query = change_query_begin(start, end, lineage);
	next_item(scan);
	return scan;
}

/*
 * Lengths
 */

/* Of a fork; false if it does not exist. */
static bool
fork_length(const ChangeKey *key, uint64 *blocks)
{
	RelationFile file;
	char		path[MAXPGPATH];
	BlockNumber some;

	file.rlocator.spcOid = change_tablespace(key);
	file.rlocator.dbOid = change_database(key);
	file.rlocator.relNumber = change_relation(key);
	file.fork = change_fork(key);
	*blocks = 0;
	for (file.segment = 0;; file.segment++)
	{
		relation_file_path(&file, path);
		if (!relation_file_blocks(path, &some))
			return file.segment > 0;
		*blocks += some;

		/* A fork's segments have no holes: a short one is the last. */
		if (some < RELSEG_SIZE)
			return true;
	}
}

/* Of all files that an entry of more than a fork stands for. */
static uint64
whole_length(const ChangeKey *key)
{
	RelationFiles list = {0};
	char		path[MAXPGPATH];
	BlockNumber some;
	uint64		blocks = 0;

	if (key->where == CHANGE_EVERYTHING_WHERE)
		relation_files_of_cluster(&list);
	else
		relation_files_of_database(change_tablespace(key), change_database(key), &list);
	for (int i = 0; i < list.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		relation_file_path(&list.files[i], path);
		if (relation_file_blocks(path, &some))
			blocks += some;
	}
	if (list.files)
		pfree(list.files);
	return blocks;
}

/*
 * Counting
 */

/* Makes regions twice as wide, and half as many of them in use. */
static void
widen_regions(ChangedFork *fork)
{
	for (int i = 0; i < fork->nregions; i++)
	{
		uint64		sum = 0;

		for (int part = 2 * i; part < Min(2 * i + 2, fork->nregions); part++)
			sum += fork->regions[part];
		fork->regions[i] = sum;
	}
	fork->region_shift++;
}

static void
count_in_region(ChangedFork *fork, BlockNumber block, uint64 count)
{
	while (block >> fork->region_shift >= (BlockNumber) fork->nregions)
		widen_regions(fork);
	fork->regions[block >> fork->region_shift] += count;
}

/* Counts 32 blocks in their regions, which are powers of two, as 32 is. */
static void
count_word_in_regions(ChangedFork *fork, BlockNumber first, uint32 bits)
{
	if (fork->region_shift >= 5)
	{
		count_in_region(fork, first, pg_popcount32(bits));
		return;
	}
	for (; bits != 0; bits &= bits - 1)
		count_in_region(fork, first + pg_rightmost_one_pos32(bits), 1);
}

/* Marks at or past end are not for the increment, or counted for it already. */
static void
count_piece(ChangedFork *fork, const ChangeItem *item, uint64 end)
{
	for (int w = 0; w < PIECE_WORDS; w++)
	{
		uint32		bits = item->bits[w];
		BlockNumber first = change_first_block(&item->key) + 32 * w;

		if (bits == 0)
			continue;
		fork->changed += pg_popcount32(bits);
		if (fork->nregions > 0)
			count_word_in_regions(fork, first, bits);
		if (first >= end)
			continue;
		if (end - first < 32)
			bits &= ((uint32) 1 << (end - first)) - 1;
		fork->increment += pg_popcount32(bits);
	}
}

/* Which blocks are there, and what of them is past the limit. */
static void
measure_fork(ChangedFork *fork, uint64 *marks_end)
{
	RelFileLocator rlocator;

	fork->exists = fork_length(&fork->key, &fork->blocks);
	while (fork->nregions > 0 &&
		   (uint64) fork->nregions << fork->region_shift < fork->blocks)
		fork->region_shift++;
	*marks_end = fork->blocks;
	if (fork->limit == InvalidBlockNumber || fork->limit >= fork->blocks)
		return;

	/* A new relation may be unlogged, whose blocks nobody wants. */
	rlocator.spcOid = change_tablespace(&fork->key);
	rlocator.dbOid = change_database(&fork->key);
	rlocator.relNumber = change_relation(&fork->key);
	if (fork->limit == 0 && change_fork(&fork->key) != INIT_FORKNUM &&
		relation_is_unlogged(&rlocator))
		return;
	fork->increment = fork->blocks - fork->limit;
	*marks_end = fork->limit;
}

/*
 * Returns the next fork, or false at the end.
 */
bool
fork_scan_next(ForkScan *scan, ChangedFork *fork)
{
	uint64		marks_end;

	if (!scan->have_item)
		return false;
	memset(fork, 0, sizeof(*fork));
	fork->key = scan->item.key;
	fork->limit = scan->item.limit;
	fork->is_in_whole = scan->any_whole &&
		(scan->whole == CHANGE_EVERYTHING_WHERE || scan->whole == fork->key.where);
	fork->is_whole = change_relation(&fork->key) == InvalidRelFileNumber;
	next_item(scan);
	if (fork->is_whole)
	{
		if (!fork->is_in_whole)
			scan->whole = fork->key.where;
		scan->any_whole = true;
		fork->exists = true;
		fork->blocks = fork->increment = whole_length(&fork->key);
		return true;
	}
	fork->nregions = scan->nregions;
	measure_fork(fork, &marks_end);
	for (; scan->have_item && !change_is_entry(&scan->item.key); next_item(scan))
		count_piece(fork, &scan->item, marks_end);
	return true;
}
