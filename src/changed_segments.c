/*
 * changed_segments.c
 *		From changed blocks to the segment files that hold them.
 *
 * For each file that exists: the marked blocks below its present length, and
 * every block at or past the limit block of its fork.  What does not exist any
 * more needs no backup.  That a file is missing is only believed if the
 * operating system says just that.
 */
#include "postgres.h"

#include "compat.h"

#include "changed_segments.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"

struct SegmentScan
{
	MemoryContext context;
	ChangeQuery *query;
	ChangeItem	item;			/* the next item of the query */
	bool		have_item;

	/* Files to be taken whole, of a database or of the cluster. */
	RelationFiles whole;
	int			next_whole;

	/* The fork that is being looked at. */
	bool		in_fork;
	RelationFile file;			/* the segment is the one to begin with past
								 * the limit */
	BlockNumber limit;
	bool		past_end;		/* no more segments past the limit */
	uint32		bit;			/* of item's bits, if that is a piece */
};

static void
next_item(SegmentScan *scan)
{
	scan->have_item = change_query_next(scan->query, &scan->item);
	scan->bit = 0;
}

/*
 * Begins a scan of everything that changed since that LSN.  ERROR if that is
 * not known.
 */
SegmentScan *
segment_scan_begin(XLogRecPtr start, const Lineage *lineage)
{
	SegmentScan *scan = palloc0_object(SegmentScan);

	scan->context = CurrentMemoryContext;
	scan->query = change_query_begin(start, InvalidXLogRecPtr, lineage);
	next_item(scan);
	return scan;
}

/*
 * Bits of a segment
 */

static void
clear_segment(ChangedSegment *segment)
{
	memset(segment->bits, 0, sizeof(segment->bits));
	segment->changed = 0;
	segment->bytes = 0;
}

static void
set_range(ChangedSegment *segment, BlockNumber first, BlockNumber end)
{
	for (; first < end && first % 8 != 0; first++)
		segment->bits[first / 8] |= 1 << first % 8;
	if (first < end)
		memset(segment->bits + first / 8, 0xff, (end - first) / 8);
	for (first = Max(first, end - end % 8); first < end; first++)
		segment->bits[first / 8] |= 1 << first % 8;
}

/* Drops what is past the file's end, and counts what is left. */
static void
finish_segment(ChangedSegment *segment)
{
	uint32		bytes = (segment->blocks + 7) / 8;

	if (segment->blocks % 8 != 0)
		segment->bits[bytes - 1] &= (1 << segment->blocks % 8) - 1;
	while (bytes > 0 && segment->bits[bytes - 1] == 0)
		bytes--;
	segment->bytes = bytes;
	segment->changed = (BlockNumber) pg_popcount((char *) segment->bits, bytes);
}

/*
 * Whole files
 */

static void
take_whole(SegmentScan *scan, bool cluster)
{
	MemoryContext caller = MemoryContextSwitchTo(scan->context);
	ChangeKey	key = scan->item.key;

	scan->whole.count = 0;
	scan->next_whole = 0;
	if (cluster)
		relation_files_of_cluster(&scan->whole);
	else
		relation_files_of_database(change_tablespace(&key), change_database(&key),
								   &scan->whole);
	MemoryContextSwitchTo(caller);

	/* Whatever else is said of these relations adds nothing. */
	while (scan->have_item && (cluster || scan->item.key.where == key.where))
		next_item(scan);
}

static bool
next_whole_file(SegmentScan *scan, ChangedSegment *segment)
{
	while (scan->next_whole < scan->whole.count)
	{
		CHECK_FOR_INTERRUPTS();
		segment->file = scan->whole.files[scan->next_whole++];
		relation_file_path(&segment->file, segment->path);
		if (!relation_file_blocks(segment->path, &segment->blocks) ||
			segment->blocks == 0)
			continue;
		clear_segment(segment);
		set_range(segment, 0, segment->blocks);
		finish_segment(segment);
		return true;
	}
	return false;
}

/*
 * Forks
 */

static void
begin_fork(SegmentScan *scan)
{
	ChangeKey  *key = &scan->item.key;

	scan->file.rlocator.spcOid = change_tablespace(key);
	scan->file.rlocator.dbOid = change_database(key);
	scan->file.rlocator.relNumber = change_relation(key);
	scan->file.fork = change_fork(key);
	scan->limit = scan->item.limit;
	scan->past_end = scan->limit == InvalidBlockNumber;
	scan->file.segment = scan->past_end ? 0 : scan->limit / RELSEG_SIZE;
	scan->in_fork = true;
	next_item(scan);

	/* A new relation may be unlogged, whose blocks nobody wants. */
	if (scan->limit == 0 && scan->file.fork != INIT_FORKNUM &&
		relation_is_unlogged(&scan->file.rlocator))
		scan->past_end = true;
}

/* The next marked block of the fork, without taking it. */
static bool
peek_mark(SegmentScan *scan, BlockNumber *block)
{
	while (scan->have_item && !change_is_entry(&scan->item.key))
	{
		while (scan->bit < PIECE_BLOCKS)
		{
			uint32		rest = scan->item.bits[scan->bit / 32] >> scan->bit % 32;

			if (rest == 0)
			{
				scan->bit = (scan->bit / 32 + 1) * 32;
				continue;
			}
			scan->bit += pg_rightmost_one_pos32(rest);
			*block = change_first_block(&scan->item.key) + scan->bit;
			return true;
		}
		next_item(scan);
	}
	return false;
}

/* Sets the marked blocks of one segment, which are the next ones. */
static void
take_marks(SegmentScan *scan, ChangedSegment *segment)
{
	BlockNumber block;

	while (peek_mark(scan, &block) && block / RELSEG_SIZE == segment->file.segment)
	{
		segment->bits[block % RELSEG_SIZE / 8] |= 1 << block % RELSEG_SIZE % 8;
		scan->bit++;
	}
}

/* Which segment of the fork to look at next; false if there is none. */
static bool
next_segment_number(SegmentScan *scan, uint32 *number)
{
	BlockNumber block;
	bool		marked = peek_mark(scan, &block);

	if (!marked && scan->past_end)
		return false;
	if (marked && (scan->past_end || block / RELSEG_SIZE < scan->file.segment))
		*number = block / RELSEG_SIZE;
	else
		*number = scan->file.segment;
	return true;
}

static bool
next_segment_of_fork(SegmentScan *scan, ChangedSegment *segment)
{
	segment->file = scan->file;
	while (next_segment_number(scan, &segment->file.segment))
	{
		BlockNumber first = segment->file.segment * RELSEG_SIZE;
		bool		exists;

		clear_segment(segment);
		take_marks(scan, segment);
		relation_file_path(&segment->file, segment->path);
		exists = relation_file_blocks(segment->path, &segment->blocks);
		if (!scan->past_end && segment->file.segment == scan->file.segment)
		{
			/* A fork's segments have no holes: one missing is the end. */
			scan->file.segment++;
			if (!exists)
				scan->past_end = true;
			else
				set_range(segment, scan->limit > first ? scan->limit - first : 0,
						  segment->blocks);
		}
		if (!exists)
			continue;
		finish_segment(segment);
		if (segment->changed > 0)
			return true;
	}
	scan->in_fork = false;
	return false;
}

/*
 * Returns the next file that has changed blocks, or false at the end.
 */
bool
segment_scan_next(SegmentScan *scan, ChangedSegment *segment)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (next_whole_file(scan, segment))
			return true;
		if (scan->in_fork)
		{
			if (next_segment_of_fork(scan, segment))
				return true;
			continue;
		}
		if (!scan->have_item)
			return false;
		if (change_relation(&scan->item.key) == InvalidRelFileNumber)
			take_whole(scan, scan->item.key.where == CHANGE_EVERYTHING_WHERE);
		else
			begin_fork(scan);
	}
}
