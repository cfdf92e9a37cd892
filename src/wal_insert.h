/*
 * wal_insert.h
 *		Whether a WAL record that is being inserted changes anything that is not
 *		known yet.
 *
 * Most records change blocks that were changed in the same cycle before.  This
 * tells so, with little more than a look at each block's header, and without calling
 * anything: it is executed for each record that this server writes.  For all
 * others there is wal_insert_effects().  The headers come from this very server and
 * are not doubted, unlike what is read from a disk.
 */
#ifndef PTRACK_WAL_INSERT_H
#define PTRACK_WAL_INSERT_H

#include "access/xlogrecord.h"
#include "wal_records.h"

/*
 * Is that block known to be changed?  rlocator: where its relation stands, perhaps
 * not aligned.
 */
typedef bool (*WalIsKnown) (const char *rlocator, uint32 fork, BlockNumber block);

/* Is there a block's header at p, before the end of the headers? */
static inline bool
wal_at_block(const char *p, const char *end)
{
	return p < end && (uint8) *p <= XLR_MAX_BLOCK_ID;
}

/*
 * Does a heap record clear bits of the visibility map?  Its main data begins at
 * that place in the chain.
 */
static inline bool
wal_clears_vm(const WalHeapFlags *flags, const XLogRecData *chunk, uint32 place)
{
	if (flags->cleared == 0)
		return false;
	place += flags->offset;
	for (; chunk && place >= chunk->len; chunk = chunk->next)
		place -= chunk->len;
	return chunk == NULL ||
		(((const uint8 *) chunk->data)[place] & flags->cleared) != 0;
}

/*
 * Does a record that is being inserted change nothing but blocks that are known?
 * If it says no, that may be so nevertheless.
 */
static pg_attribute_always_inline bool
wal_insert_is_known(const XLogRecData *rdata, WalIsKnown is_known)
{
	const XLogRecord *header = (const XLogRecord *) rdata->data;
	const char *p = (const char *) rdata->data + SizeOfXLogRecord;
	const char *end = (const char *) rdata->data + rdata->len;
	const char *rlocator = NULL;
	uint32		data_skip = 0;

	while (wal_at_block(p, end))
	{
		uint8		fork_flags = (uint8) p[1];
		uint16		data_length;
		BlockNumber block;

		memcpy(&data_length, p + 2, sizeof(data_length));
		data_skip += data_length;
		p += SizeOfXLogRecordBlockHeader;
		if (unlikely((fork_flags & BKPBLOCK_HAS_IMAGE) != 0))
			return false;
		if ((fork_flags & BKPBLOCK_SAME_REL) == 0)
		{
			rlocator = p;
			p += sizeof(RelFileLocator);
		}
		memcpy(&block, p, sizeof(block));
		p += sizeof(block);
		if (unlikely(!is_known(rlocator, fork_flags & BKPBLOCK_FORK_MASK, block)))
			return false;
	}
	if (header->xl_rmid == RM_HEAP_ID || header->xl_rmid == RM_HEAP2_ID)
		return !wal_clears_vm(wal_heap_op(header->xl_rmid, header->xl_info), rdata->next, data_skip);
	return !wal_record_has_data(header->xl_rmid, header->xl_info);
}

#endif							/* PTRACK_WAL_INSERT_H */
