/*
 * wal_records.c
 *		What a WAL record changes, for every producer of changes.
 *
 * A record names most of the blocks that it changes: those are marked, of all
 * forks but the free space map, which is not WAL-logged and which backups copy
 * whole.  The rest follows from what the record means:
 *
 * - heap records that clear bits of the visibility map.  15 does not register
 *   the map's block, nor do releases before 17.11 and 18.6, whose WAL may be
 *   replayed here; so the flags in the record decide, not the registered
 *   blocks;
 * - creation and truncation of a fork, and the visibility-map page that a
 *   truncation changes in place;
 * - relations dropped by a commit or abort, of a prepared transaction too;
 * - creation and removal of databases.
 *
 * PostgreSQL flags records that change relations beyond their registered blocks
 * with XLR_SPECIAL_REL_UPDATE, except those heap records and the creation of a
 * database by logging its blocks.  One that is so flagged and not known here,
 * from a custom resource manager say, is reported as unknown, never passed
 * over.
 *
 * There are two front ends, which bring a record into one form: one for the
 * chain of chunks that a record is assembled in for insertion, one for the
 * decoded record that redo and WAL scans have.  The first runs inside a
 * critical section with a WAL insertion lock held: nothing here allocates,
 * reports or waits.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecord.h"
#include "access/xlogutils.h"
#include "catalog/pg_control.h"
#include "catalog/storage_xlog.h"
#include "commands/dbcommands_xlog.h"
#include "storage/bufpage.h"
#include "wal_insert.h"
#include "wal_records.h"

/*
 * Heap blocks that one page of the visibility map describes, at two bits
 * each; visibilitymap.c keeps this to itself.
 */
#define VM_HEAP_BLOCKS \
	((BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) * BITS_PER_BYTE / 2)

typedef struct WalBlock
{
	RelFileLocator rlocator;
	ForkNumber	fork;
	BlockNumber block;
} WalBlock;

/*
 * A record that changes more than the blocks that it registers, whichever way
 * it was come by.  The front ends have marked those blocks; only the first ones
 * matter here, the pages of a heap record.  The main data is a chain of chunks.
 */
typedef struct WalRecord
{
	RmgrId		rmid;
	uint8		info;			/* all of xl_info */
	uint32		nblocks;		/* registered, which may be more than are here */
	uint32		data_skip;		/* bytes of the chain before the main data */
	uint32		data_len;		/* bytes of main data */
	const XLogRecData *data;
	WalBlock	blocks[2];
} WalRecord;

/*
 * Reading main data, which may be spread over several chunks.
 */
typedef struct DataCursor
{
	const XLogRecData *chunk;
	uint32		offset;			/* of the next byte in the chunk */
	uint32		left;			/* bytes of main data that are left */
} DataCursor;

static void
cursor_advance(DataCursor *cursor, uint32 len, char *copy)
{
	while (len > 0 && cursor->chunk)
	{
		uint32		here = Min(len, cursor->chunk->len - cursor->offset);

		if (copy)
		{
			memcpy(copy, (const char *) cursor->chunk->data + cursor->offset, here);
			copy += here;
		}
		cursor->offset += here;
		len -= here;
		if (cursor->offset == cursor->chunk->len)
		{
			cursor->chunk = cursor->chunk->next;
			cursor->offset = 0;
		}
	}
}

static void
cursor_begin(DataCursor *cursor, const WalRecord *record)
{
	cursor->chunk = record->data;
	cursor->offset = 0;
	cursor_advance(cursor, record->data_skip, NULL);
	cursor->left = record->data_len;
}

/* Copies the next len bytes to dst, or passes over them if it is NULL. */
static bool
cursor_read(DataCursor *cursor, void *dst, uint64 len)
{
	if (len > cursor->left)
		return false;
	cursor->left -= (uint32) len;
	cursor_advance(cursor, (uint32) len, dst);
	return true;
}

/* The byte at that place in the main data; NULL: there is none. */
static inline const uint8 *
byte_at(const WalRecord *record, uint32 offset)
{
	const XLogRecData *chunk = record->data;

	if (offset >= record->data_len)
		return NULL;
	for (offset += record->data_skip; chunk && offset >= chunk->len; chunk = chunk->next)
		offset -= chunk->len;
	return chunk ? (const uint8 *) chunk->data + offset : NULL;
}

/*
 * Heap records.  The functions for kinds of record return false when the
 * record is not of the shape that they know.
 */

const WalHeapFlags wal_heap_flags[2][WAL_HEAP_OPS] = {
	[RM_HEAP_ID - RM_HEAP2_ID] = {
		[WAL_HEAP_OP(XLOG_HEAP_INSERT)] = {offsetof(xl_heap_insert, flags),
		XLH_INSERT_ALL_VISIBLE_CLEARED},
		[WAL_HEAP_OP(XLOG_HEAP_DELETE)] = {offsetof(xl_heap_delete, flags),
		XLH_DELETE_ALL_VISIBLE_CLEARED},
		[WAL_HEAP_OP(XLOG_HEAP_UPDATE)] = {offsetof(xl_heap_update, flags),
		XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED | XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED},
		[WAL_HEAP_OP(XLOG_HEAP_HOT_UPDATE)] = {offsetof(xl_heap_update, flags),
		XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED | XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED},
		[WAL_HEAP_OP(XLOG_HEAP_LOCK)] = {offsetof(xl_heap_lock, flags),
		XLH_LOCK_ALL_FROZEN_CLEARED},
	},
	[0] = {
		[WAL_HEAP_OP(XLOG_HEAP2_MULTI_INSERT)] = {offsetof(xl_heap_multi_insert, flags),
		XLH_INSERT_ALL_VISIBLE_CLEARED},
		[WAL_HEAP_OP(XLOG_HEAP2_LOCK_UPDATED)] = {offsetof(xl_heap_lock_updated, flags),
		XLH_LOCK_ALL_FROZEN_CLEARED},
	},
};

/* A bit of the visibility map was cleared for the heap block of that number. */
static bool
clear_vm(const WalRecord *record, uint32 n, const WalEffects *effects)
{
	const WalBlock *heap = &record->blocks[n];

	if (n >= record->nblocks)
		return false;
	effects->mark(effects->arg, &heap->rlocator, VISIBILITYMAP_FORKNUM,
				  heap->block / VM_HEAP_BLOCKS);
	return true;
}

/*
 * An update names its new page first, and the old one second if it is another
 * one.  The second block may also be the map's own: it is of another fork.
 */
static bool
heap_update(const WalRecord *record, uint8 flags, const WalEffects *effects)
{
	bool		other_page = record->nblocks > 1 &&
		record->blocks[1].fork == MAIN_FORKNUM;

	if ((flags & XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED) != 0 &&
		!clear_vm(record, 0, effects))
		return false;
	return (flags & XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED) == 0 ||
		clear_vm(record, other_page ? 1 : 0, effects);
}

static bool
heap_effects(const WalRecord *record, const WalEffects *effects)
{
	const WalHeapFlags *op = wal_heap_op(record->rmid, record->info);
	const uint8 *flags;

	if (op->cleared == 0)
		return true;
	flags = byte_at(record, op->offset);
	if (flags == NULL)
		return false;
	if (op == wal_heap_op(RM_HEAP_ID, XLOG_HEAP_UPDATE) ||
		op == wal_heap_op(RM_HEAP_ID, XLOG_HEAP_HOT_UPDATE))
		return heap_update(record, *flags, effects);
	return (*flags & op->cleared) == 0 || clear_vm(record, 0, effects);
}

/*
 * Storage records.
 */

bool		wal_crashed_minimal = false;

static bool
smgr_create(DataCursor *cursor, const WalEffects *effects)
{
	xl_smgr_create create;

	if (!cursor_read(cursor, &create, sizeof(create)) ||
		create.forkNum < 0 || create.forkNum > MAX_FORKNUM)
		return false;
	if (create.forkNum != FSM_FORKNUM)
		effects->limit(effects->arg, &create.rlocator, create.forkNum, 0);

	/* With wal_level = minimal, no record need tell of its visibility map. */
	if (create.forkNum == MAIN_FORKNUM &&
		(!XLogIsNeeded() || (InRecovery && wal_crashed_minimal)))
		effects->limit(effects->arg, &create.rlocator, VISIBILITYMAP_FORKNUM, 0);
	return true;
}

/*
 * A truncation cuts the visibility map at a length of its own, and clears the
 * bits past the new end in the map's last page.  That page is not registered,
 * and not WAL-logged otherwise without checksums or wal_log_hints.
 */
static bool
smgr_truncate(DataCursor *cursor, const WalEffects *effects)
{
	xl_smgr_truncate truncate;

	if (!cursor_read(cursor, &truncate, sizeof(truncate)))
		return false;
	if (truncate.flags & SMGR_TRUNCATE_HEAP)
		effects->limit(effects->arg, &truncate.rlocator, MAIN_FORKNUM,
					   truncate.blkno);
	if (truncate.flags & SMGR_TRUNCATE_VM)
	{
		BlockNumber last = truncate.blkno / VM_HEAP_BLOCKS;
		bool		partial = truncate.blkno % VM_HEAP_BLOCKS != 0;

		effects->limit(effects->arg, &truncate.rlocator, VISIBILITYMAP_FORKNUM,
					   last + (partial ? 1 : 0));
		if (partial)
			effects->mark(effects->arg, &truncate.rlocator,
						  VISIBILITYMAP_FORKNUM, last);
	}
	return true;
}

static bool
smgr_effects(const WalRecord *record, const WalEffects *effects)
{
	DataCursor	cursor;

	cursor_begin(&cursor, record);
	switch (record->info & ~XLR_INFO_MASK)
	{
		case XLOG_SMGR_CREATE:
			return smgr_create(&cursor, effects);
		case XLOG_SMGR_TRUNCATE:
			return smgr_truncate(&cursor, effects);
		default:
			return false;
	}
}

/*
 * Transaction records.  Commits and aborts share their layout as far as the
 * dropped relations.
 */

static bool
xact_dropped_relations(DataCursor *cursor, const WalEffects *effects)
{
	int32		count;
	RelFileLocator rlocator;

	if (!cursor_read(cursor, &count, sizeof(count)) || count < 0)
		return false;
	for (int32 i = 0; i < count; i++)
	{
		if (!cursor_read(cursor, &rlocator, sizeof(rlocator)))
			return false;
		for (int fork = 0; fork <= MAX_FORKNUM; fork++)
		{
			if (fork != FSM_FORKNUM)
				effects->limit(effects->arg, &rlocator, (ForkNumber) fork, 0);
		}
	}
	return true;
}

static bool
xact_end(const WalRecord *record, const WalEffects *effects)
{
	DataCursor	cursor;
	uint32		xinfo;
	int32		count;

	if ((record->info & XLOG_XACT_HAS_INFO) == 0)
		return true;
	cursor_begin(&cursor, record);
	if (!cursor_read(&cursor, NULL, MinSizeOfXactCommit) ||
		!cursor_read(&cursor, &xinfo, sizeof(xinfo)))
		return false;
	if ((xinfo & XACT_XINFO_HAS_DBINFO) != 0 &&
		!cursor_read(&cursor, NULL, sizeof(xl_xact_dbinfo)))
		return false;
	if ((xinfo & XACT_XINFO_HAS_SUBXACTS) != 0 &&
		(!cursor_read(&cursor, &count, sizeof(count)) || count < 0 ||
		 !cursor_read(&cursor, NULL, (uint64) count * sizeof(TransactionId))))
		return false;
	return (xinfo & XACT_XINFO_HAS_RELFILELOCATORS) == 0 ||
		xact_dropped_relations(&cursor, effects);
}

static bool
xact_effects(const WalRecord *record, const WalEffects *effects)
{
	StaticAssertDecl(MinSizeOfXactCommit == MinSizeOfXactAbort,
					 "commit and abort records begin alike");

	switch (record->info & XLOG_XACT_OPMASK)
	{
		case XLOG_XACT_COMMIT:
		case XLOG_XACT_ABORT:
		case XLOG_XACT_COMMIT_PREPARED:
		case XLOG_XACT_ABORT_PREPARED:
			return xact_end(record, effects);
		default:
			return false;
	}
}

/*
 * Database records.
 */

static bool
dbase_drop(DataCursor *cursor, const WalEffects *effects)
{
	Oid			database;
	int32		count;
	Oid			tablespace;

	if (!cursor_read(cursor, &database, sizeof(database)) ||
		!cursor_read(cursor, &count, sizeof(count)) || count < 0)
		return false;
	for (int32 i = 0; i < count; i++)
	{
		if (!cursor_read(cursor, &tablespace, sizeof(tablespace)))
			return false;
		effects->reset(effects->arg, tablespace, database);
	}
	return true;
}

/* Both creation records begin with the database and then the tablespace. */
static bool
dbase_create(DataCursor *cursor, const WalEffects *effects)
{
	Oid			database;
	Oid			tablespace;

	StaticAssertDecl(offsetof(xl_dbase_create_file_copy_rec, tablespace_id) ==
					 offsetof(xl_dbase_create_wal_log_rec, tablespace_id),
					 "both database creation records begin alike");

	if (!cursor_read(cursor, &database, sizeof(database)) ||
		!cursor_read(cursor, &tablespace, sizeof(tablespace)))
		return false;
	effects->reset(effects->arg, tablespace, database);
	return true;
}

static bool
dbase_effects(const WalRecord *record, const WalEffects *effects)
{
	DataCursor	cursor;

	cursor_begin(&cursor, record);
	switch (record->info & ~XLR_INFO_MASK)
	{
		case XLOG_DBASE_CREATE_FILE_COPY:
		case XLOG_DBASE_CREATE_WAL_LOG:
			return dbase_create(&cursor, effects);
		case XLOG_DBASE_DROP:
			return dbase_drop(&cursor, effects);
		default:
			return false;
	}
}

static bool
special_effects(const WalRecord *record, const WalEffects *effects)
{
	switch (record->rmid)
	{
		case RM_HEAP_ID:
		case RM_HEAP2_ID:
			return heap_effects(record, effects);
		case RM_SMGR_ID:
			return smgr_effects(record, effects);
		case RM_XACT_ID:
			return xact_effects(record, effects);
		case RM_DBASE_ID:
			return dbase_effects(record, effects);
		default:
			return false;
	}
}

/*
 * The effects of a record beyond the blocks that it registers.
 */
static inline void
wal_record_effects(const WalRecord *record, const WalEffects *effects)
{
	if (wal_record_has_data(record->rmid, record->info) &&
		!special_effects(record, effects))
		effects->unknown(effects->arg);
}

static inline void
mark_block(const WalBlock *block, const WalEffects *effects)
{
	if (block->fork != FSM_FORKNUM)
		effects->mark(effects->arg, &block->rlocator, block->fork, block->block);
}

static inline void
add_block(WalRecord *record, const WalBlock *block)
{
	if (record->nblocks < lengthof(record->blocks))
		record->blocks[record->nblocks] = *block;
	record->nblocks++;
}

/*
 * The front end for insertion: parses the headers that the first chunk of an
 * assembled record consists of.  They come from this very server and are not
 * doubted, unlike what is read from a disk.
 */

/* Passes over the headers of a full-page image, of which it adds the length. */
static pg_noinline const char *
parse_image_header(const char *p, uint32 *data_skip)
{
	XLogRecordBlockImageHeader image;

	memcpy(&image, p, SizeOfXLogRecordBlockImageHeader);
	p += SizeOfXLogRecordBlockImageHeader;
	*data_skip += image.length;
	if (BKPIMAGE_COMPRESSED(image.bimg_info) &&
		(image.bimg_info & BKPIMAGE_HAS_HOLE) != 0)
		p += SizeOfXLogRecordBlockCompressHeader;
	return p;
}

/*
 * Reads the header of a block, whose relation may be that of the block before;
 * adds the bytes that it has in the chain to *data_skip, and returns what
 * follows the header.
 */
static inline const char *
parse_block(const char *p, WalBlock *block, uint32 *data_skip)
{
	uint8		fork_flags = (uint8) p[1];
	uint16		data_length;

	memcpy(&data_length, p + 2, sizeof(data_length));
	p += SizeOfXLogRecordBlockHeader;
	*data_skip += data_length;
	if (unlikely((fork_flags & BKPBLOCK_HAS_IMAGE) != 0))
	{
		uint32		image = 0;

		p = parse_image_header(p, &image);
		*data_skip += image;
	}
	if ((fork_flags & BKPBLOCK_SAME_REL) == 0)
	{
		memcpy(&block->rlocator, p, sizeof(RelFileLocator));
		p += sizeof(RelFileLocator);
	}
	block->fork = fork_flags & BKPBLOCK_FORK_MASK;
	memcpy(&block->block, p, sizeof(BlockNumber));
	return p + sizeof(BlockNumber);
}

/*
 * The effects of a record that is being inserted.
 */
void
wal_insert_effects(const XLogRecData *rdata, const WalEffects *effects)
{
	const XLogRecord *header = (const XLogRecord *) rdata->data;
	const char *p = (const char *) rdata->data + SizeOfXLogRecord;
	const char *end = (const char *) rdata->data + rdata->len;
	WalRecord	record;
	WalBlock	block;

	record.rmid = header->xl_rmid;
	record.info = header->xl_info;
	record.nblocks = 0;
	record.data_skip = 0;
	while (wal_at_block(p, end))
	{
		p = parse_block(p, &block, &record.data_skip);
		mark_block(&block, effects);
		add_block(&record, &block);
	}

	/* The main data comes last, after what belongs to the blocks. */
	record.data = rdata->next;
	record.data_len = header->xl_tot_len - rdata->len - record.data_skip;
	wal_record_effects(&record, effects);
}

/*
 * The effects of a decoded record.
 */
void
wal_redo_effects(XLogReaderState *reader, const WalEffects *effects)
{
	WalRecord	record;
	WalBlock	block;
	XLogRecData data;

	record.rmid = XLogRecGetRmid(reader);
	record.info = XLogRecGetInfo(reader);
	record.nblocks = 0;
	for (int id = 0; id <= XLogRecMaxBlockId(reader); id++)
	{
		if (XLogRecGetBlockTagExtended(reader, id, &block.rlocator,
									   &block.fork, &block.block, NULL))
		{
			/* Readers of WAL take any fork number that the header has room for. */
			if (block.fork > MAX_FORKNUM)
			{
				effects->unknown(effects->arg);
				return;
			}
			mark_block(&block, effects);
			add_block(&record, &block);
		}
	}
	data.next = NULL;
	data.data = XLogRecGetData(reader);
	data.len = XLogRecGetDataLen(reader);
	record.data = &data;
	record.data_skip = 0;
	record.data_len = data.len;
	wal_record_effects(&record, effects);
}

/*
 * Is this a record that tells of redo points or of wal_level?
 */
bool
wal_checkpoint(XLogReaderState *reader, WalCheckpoint *checkpoint)
{
	CheckPoint	completed;
	xl_parameter_change change;
	int			level;

	if (XLogRecGetRmid(reader) != RM_XLOG_ID)
		return false;
	memset(checkpoint, 0, sizeof(*checkpoint));
	switch (XLogRecGetInfo(reader) & ~XLR_INFO_MASK)
	{
		case XLOG_CHECKPOINT_SHUTDOWN:
		case XLOG_CHECKPOINT_ONLINE:
			memcpy(&completed, XLogRecGetData(reader), sizeof(completed));
			checkpoint->redo = completed.redo;
			checkpoint->time = completed.time;
			checkpoint->at_redo = completed.redo == reader->ReadRecPtr;
			checkpoint->shutdown =
				(XLogRecGetInfo(reader) & ~XLR_INFO_MASK) == XLOG_CHECKPOINT_SHUTDOWN;
			return true;
		case XLOG_CHECKPOINT_REDO:
			memcpy(&level, XLogRecGetData(reader), sizeof(level));
			checkpoint->at_redo = true;
			checkpoint->minimal = level < WAL_LEVEL_REPLICA;
			return true;
		case XLOG_PARAMETER_CHANGE:
			memcpy(&change, XLogRecGetData(reader), sizeof(change));
			checkpoint->minimal = change.wal_level < WAL_LEVEL_REPLICA;
			checkpoint->level = true;
			return true;
		default:
			return false;
	}
}
