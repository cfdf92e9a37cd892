/*
 * decoder.c
 *		The WAL decoder against records that are made here, byte by byte.
 *
 * Above all such as not every supported server writes any more: 15, and releases
 * before 17.11 and 18.6, clear bits of the visibility map without registering its
 * block, and their WAL may be replayed.  Every record goes through both front ends,
 * and its main data is cut into chunks in several ways; the effects must be the same.
 *
 * Prints TAP.
 */
#include "../../src/wal_records.c"

#include "catalog/pg_control.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* What the library takes from the server. */
int			wal_level = WAL_LEVEL_REPLICA;
bool		InRecovery;

void
ExceptionalCondition(EXCEPTIONAL_CONDITION_PARAMETERS)
{
	printf("Bail out! %s:%d: %s\n", file, line, condition);
	exit(1);
}

/* The effects of a record, as text. */
static char effects_seen[4096];

static void
note(const char *format,...)
{
	size_t		used = strlen(effects_seen);
	va_list		args;

	va_start(args, format);
	vsnprintf(effects_seen + used, sizeof(effects_seen) - used, format, args);
	va_end(args);
}

static void
note_mark(void *arg, const RelFileLocator *r, ForkNumber fork, BlockNumber block)
{
	note("mark %u/%u/%u.%d:%u ", r->spcOid, r->dbOid, r->relNumber, fork, block);
}

static void
note_limit(void *arg, const RelFileLocator *r, ForkNumber fork, BlockNumber block)
{
	note("limit %u/%u/%u.%d:%u ", r->spcOid, r->dbOid, r->relNumber, fork, block);
}

static void
note_reset(void *arg, Oid tablespace, Oid database)
{
	note("reset %u/%u ", tablespace, database);
}

static void
note_unknown(void *arg)
{
	note("unknown ");
}

static const WalEffects noted = {note_mark, note_limit, note_reset, note_unknown, NULL};

/* A record under construction. */
typedef struct TestBlock
{
	int			id;
	RelFileLocator rlocator;
	int			fork;
	BlockNumber block;
	bool		same_relation;
	int			image;			/* 0: none, 1: plain, 2: compressed with a
								 * hole */
	int			data;			/* bytes of data */
} TestBlock;

static TestBlock blocks[8];
static int	nblocks;
static char main_data[4096];
static uint32 main_len;
static RmgrId rmid;
static uint8 info;

static void
begin(RmgrId record_rmid, uint8 record_info)
{
	rmid = record_rmid;
	info = record_info;
	nblocks = 0;
	main_len = 0;
}

static TestBlock *
block(Oid relation, int fork, BlockNumber number)
{
	TestBlock  *b = &blocks[nblocks];

	memset(b, 0, sizeof(*b));
	b->id = nblocks++;
	b->rlocator.spcOid = 1663;
	b->rlocator.dbOid = 5;
	b->rlocator.relNumber = relation;
	b->fork = fork;
	b->block = number;
	return b;
}

static void
data(const void *bytes, size_t len)
{
	memcpy(main_data + main_len, bytes, len);
	main_len += len;
}

static void
data_u32(uint32 value)
{
	data(&value, sizeof(value));
}

/* The redo front end asks this of the decoded record. */
bool
XLogRecGetBlockTagExtended(XLogReaderState *reader, uint8 id, RelFileLocator *rlocator,
						   ForkNumber *fork, BlockNumber *number, Buffer *prefetch)
{
	for (int i = 0; i < nblocks; i++)
	{
		if (blocks[i].id != id)
			continue;
		*rlocator = blocks[i].rlocator;
		*fork = (ForkNumber) blocks[i].fork;
		*number = blocks[i].block;
		return true;
	}
	return false;
}

static char *
put(char *p, const void *bytes, size_t len)
{
	memcpy(p, bytes, len);
	return p + len;
}

static char *
put_block(char *p, const TestBlock *b, uint32 *total)
{
	XLogRecordBlockHeader header = {b->id, b->fork | (b->same_relation ? BKPBLOCK_SAME_REL : 0) |
	(b->image ? BKPBLOCK_HAS_IMAGE : 0) | (b->data ? BKPBLOCK_HAS_DATA : 0), b->data};
	XLogRecordBlockImageHeader image = {100, 0,
	b->image == 2 ? BKPIMAGE_HAS_HOLE | BKPIMAGE_COMPRESS_PGLZ : 0};
	uint16		hole = 500;

	p = put(p, &header, SizeOfXLogRecordBlockHeader);
	*total += b->data;
	if (b->image)
	{
		p = put(p, &image, SizeOfXLogRecordBlockImageHeader);
		if (b->image == 2)
			p = put(p, &hole, SizeOfXLogRecordBlockCompressHeader);
		*total += image.length;
	}
	if (!b->same_relation)
		p = put(p, &b->rlocator, sizeof(RelFileLocator));
	return put(p, &b->block, sizeof(BlockNumber));
}

/* The record as it is inserted. */
static char headers[1024] pg_attribute_aligned(8);
static XLogRecData chunks[4096];

/* Through the insertion front end; the main data in chunks of that length. */
static void
insert_record(uint32 chunk_len)
{
	static char payload[4096];
	XLogRecord *record = (XLogRecord *) headers;
	char	   *p = headers + SizeOfXLogRecord;
	uint32		total = 0;
	int			n = 0;
	uint16		origin = 7;
	uint32		xid = 9;

	memset(headers, 0, sizeof(headers));
	memset(payload, 0xff, sizeof(payload));
	for (int i = 0; i < nblocks; i++)
		p = put_block(p, &blocks[i], &total);
	*p++ = (char) XLR_BLOCK_ID_ORIGIN;
	p = put(p, &origin, sizeof(origin));
	*p++ = (char) XLR_BLOCK_ID_TOPLEVEL_XID;
	p = put(p, &xid, sizeof(xid));
	if (main_len > 255)
	{
		*p++ = (char) XLR_BLOCK_ID_DATA_LONG;
		p = put(p, &main_len, sizeof(main_len));
	}
	else if (main_len > 0)
	{
		*p++ = (char) XLR_BLOCK_ID_DATA_SHORT;
		*p++ = (char) main_len;
	}

	chunks[n].data = headers;
	chunks[n++].len = p - headers;
	/* Blocks' data, in two chunks, the second of which may be empty. */
	for (int i = 0; total > 0 && i < 2; i++)
	{
		chunks[n].data = payload;
		chunks[n++].len = i == 0 ? total / 2 : total - total / 2;
	}
	for (uint32 at = 0; at < main_len; at += chunk_len)
	{
		chunks[n].data = main_data + at;
		chunks[n++].len = Min(chunk_len, main_len - at);
	}
	for (int i = 0; i < n; i++)
		chunks[i].next = i + 1 < n ? &chunks[i + 1] : NULL;

	record->xl_rmid = rmid;
	record->xl_info = info;
	record->xl_tot_len = chunks[0].len + total + main_len;
	wal_insert_effects(chunks, &noted);
}

static void
redo_record_here(void)
{
	static DecodedXLogRecord decoded;
	static XLogReaderState reader;

	memset(&decoded, 0, sizeof(decoded));
	decoded.header.xl_rmid = rmid;
	decoded.header.xl_info = info;
	decoded.main_data = main_data;
	decoded.main_data_len = main_len;
	decoded.max_block_id = nblocks > 0 ? blocks[nblocks - 1].id : -1;
	reader.record = &decoded;
	wal_redo_effects(&reader, &noted);
}

/* What wal_insert_is_known() looks at. */
static bool
look_at(const char *rlocator, uint32 fork, BlockNumber block)
{
	RelFileLocator aligned;

	memcpy(&aligned, rlocator, sizeof(aligned));
	if (fork != FSM_FORKNUM)
		note_mark(NULL, &aligned, (ForkNumber) fork, block);
	return true;
}

/*
 * Whether the record that was inserted is known, if all that wal_insert_is_known()
 * looks at is.  Then these must be all its effects.
 */
static bool
inserted_is_known(bool *wrong)
{
	char		effects[sizeof(effects_seen)];

	memcpy(effects, effects_seen, sizeof(effects));
	effects_seen[0] = '\0';
	if (!wal_insert_is_known(chunks, look_at))
		return false;
	*wrong |= strcmp(effects_seen, effects) != 0;
	return true;
}

static int	tests;
static int	known;			/* records that wal_insert_is_known() knows */
static bool passed_over;		/* has it said so of one with other effects? */

static void
expect(const char *name, const char *effects)
{
	static const uint32 chunk_lens[] = {4096, 1, 3, 8};
	bool		good;

	effects_seen[0] = '\0';
	redo_record_here();
	good = strcmp(effects_seen, effects) == 0;
	printf("%s %d - %s, redo\n", good ? "ok" : "not ok", ++tests, name);
	if (!good)
		printf("# got:      %s\n# expected: %s\n", effects_seen, effects);
	for (size_t i = 0; i < lengthof(chunk_lens); i++)
	{
		effects_seen[0] = '\0';
		insert_record(chunk_lens[i]);
		good = strcmp(effects_seen, effects) == 0;
		printf("%s %d - %s, inserted in chunks of %u\n", good ? "ok" : "not ok",
			   ++tests, name, chunk_lens[i]);
		if (!good)
			printf("# got:      %s\n# expected: %s\n", effects_seen, effects);
		known += inserted_is_known(&passed_over);
	}
}

/*
 * Heap records; 32672 heap blocks share a page of the visibility map.
 */

static void
heap_update_flags(uint8 op, uint8 flags)
{
	xl_heap_update update = {.flags = flags};

	begin(RM_HEAP_ID, op);
	data(&update, SizeOfHeapUpdate);
}

static void
test_heap(void)
{
	xl_heap_insert insert = {.flags = XLH_INSERT_ALL_VISIBLE_CLEARED};
	xl_heap_insert plain = {.flags = XLH_INSERT_CONTAINS_NEW_TUPLE};
	xl_heap_delete delete = {.flags = XLH_DELETE_ALL_VISIBLE_CLEARED};
	xl_heap_lock lock = {.flags = XLH_LOCK_ALL_FROZEN_CLEARED};
	xl_heap_lock_updated lock_updated = {.flags = XLH_LOCK_ALL_FROZEN_CLEARED};
	xl_heap_multi_insert multi = {.flags = XLH_INSERT_ALL_VISIBLE_CLEARED};

	begin(RM_HEAP_ID, XLOG_HEAP_INSERT);
	block(100, 0, 32671)->data = 30;
	data(&insert, SizeOfHeapInsert);
	expect("insert", "mark 1663/5/100.0:32671 mark 1663/5/100.2:0 ");

	begin(RM_HEAP_ID, XLOG_HEAP_INSERT | XLOG_HEAP_INIT_PAGE);
	block(100, 0, 32672)->image = 2;
	data(&insert, SizeOfHeapInsert);
	expect("insert, with an image", "mark 1663/5/100.0:32672 mark 1663/5/100.2:1 ");

	begin(RM_HEAP_ID, XLOG_HEAP_INSERT);
	block(100, 0, 3)->data = 30;
	data(&plain, SizeOfHeapInsert);
	expect("insert that clears nothing", "mark 1663/5/100.0:3 ");

	begin(RM_HEAP_ID, XLOG_HEAP_DELETE);
	block(100, 0, 3)->image = 1;
	data(&delete, SizeOfHeapDelete);
	expect("delete", "mark 1663/5/100.0:3 mark 1663/5/100.2:0 ");

	begin(RM_HEAP_ID, XLOG_HEAP_LOCK);
	block(100, 0, 65344);
	data(&lock, SizeOfHeapLock);
	expect("lock", "mark 1663/5/100.0:65344 mark 1663/5/100.2:2 ");

	begin(RM_HEAP2_ID, XLOG_HEAP2_LOCK_UPDATED);
	block(100, 0, 7);
	data(&lock_updated, SizeOfHeapLockUpdated);
	expect("lock updated", "mark 1663/5/100.0:7 mark 1663/5/100.2:0 ");

	begin(RM_HEAP2_ID, XLOG_HEAP2_MULTI_INSERT);
	block(100, 0, 7)->data = 2000;
	data(&multi, SizeOfHeapMultiInsert);
	expect("multi-insert", "mark 1663/5/100.0:7 mark 1663/5/100.2:0 ");

	begin(RM_HEAP_ID, XLOG_HEAP_INSERT);
	data(&insert, SizeOfHeapInsert);
	expect("insert without a block", "unknown ");

	begin(RM_HEAP_ID, XLOG_HEAP_INSERT);
	block(100, 0, 7);
	data(&insert, 1);
	expect("insert cut short", "mark 1663/5/100.0:7 unknown ");
}

static void
test_heap_update(void)
{
	heap_update_flags(XLOG_HEAP_UPDATE, XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED);
	block(100, 0, 40000)->data = 50;
	block(100, 0, 1)->same_relation = true;
	expect("update, new page", "mark 1663/5/100.0:40000 mark 1663/5/100.0:1 mark 1663/5/100.2:1 ");

	heap_update_flags(XLOG_HEAP_UPDATE, XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED);
	block(100, 0, 40000)->image = 1;
	block(100, 0, 1)->same_relation = true;
	expect("update, old page", "mark 1663/5/100.0:40000 mark 1663/5/100.0:1 mark 1663/5/100.2:0 ");

	heap_update_flags(XLOG_HEAP_UPDATE,
					  XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED | XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED);
	block(100, 0, 40000);
	block(100, 0, 1)->same_relation = true;
	expect("update, both pages",
		   "mark 1663/5/100.0:40000 mark 1663/5/100.0:1 mark 1663/5/100.2:1 mark 1663/5/100.2:0 ");

	heap_update_flags(XLOG_HEAP_HOT_UPDATE, XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED);
	block(100, 0, 40000);
	expect("update within a page", "mark 1663/5/100.0:40000 mark 1663/5/100.2:1 ");

	/* As 17.11 writes it: the second block registered is the map's. */
	heap_update_flags(XLOG_HEAP_HOT_UPDATE, XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED);
	block(100, 0, 40000);
	block(100, 2, 1)->id = 3;
	expect("update within a page, map registered",
		   "mark 1663/5/100.0:40000 mark 1663/5/100.2:1 mark 1663/5/100.2:1 ");

	heap_update_flags(XLOG_HEAP_UPDATE, XLH_UPDATE_CONTAINS_NEW_TUPLE);
	block(100, 0, 40000);
	block(100, 0, 1)->same_relation = true;
	expect("update that clears nothing", "mark 1663/5/100.0:40000 mark 1663/5/100.0:1 ");
}

static void
test_smgr(void)
{
	xl_smgr_create create = {{1663, 5, 200}, MAIN_FORKNUM};
	xl_smgr_truncate truncate = {10, {1663, 5, 200}, SMGR_TRUNCATE_ALL};

	begin(RM_SMGR_ID, XLOG_SMGR_CREATE | XLR_SPECIAL_REL_UPDATE);
	data(&create, sizeof(create));
	expect("create", "limit 1663/5/200.0:0 ");
	wal_level = WAL_LEVEL_MINIMAL;
	expect("create, wal_level minimal", "limit 1663/5/200.0:0 limit 1663/5/200.2:0 ");
	wal_level = WAL_LEVEL_REPLICA;

	create.forkNum = INIT_FORKNUM;
	begin(RM_SMGR_ID, XLOG_SMGR_CREATE | XLR_SPECIAL_REL_UPDATE);
	data(&create, sizeof(create));
	expect("create init fork", "limit 1663/5/200.3:0 ");
	create.forkNum = FSM_FORKNUM;
	begin(RM_SMGR_ID, XLOG_SMGR_CREATE | XLR_SPECIAL_REL_UPDATE);
	data(&create, sizeof(create));
	expect("create free space map", "");
	create.forkNum = 9;
	begin(RM_SMGR_ID, XLOG_SMGR_CREATE | XLR_SPECIAL_REL_UPDATE);
	data(&create, sizeof(create));
	expect("create a fork that does not exist", "unknown ");

	begin(RM_SMGR_ID, XLOG_SMGR_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
	data(&truncate, sizeof(truncate));
	expect("truncate", "limit 1663/5/200.0:10 limit 1663/5/200.2:1 mark 1663/5/200.2:0 ");
	truncate.blkno = 32672 * 2;
	begin(RM_SMGR_ID, XLOG_SMGR_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
	data(&truncate, sizeof(truncate));
	expect("truncate at a border", "limit 1663/5/200.0:65344 limit 1663/5/200.2:2 ");
	truncate.blkno = 0;
	begin(RM_SMGR_ID, XLOG_SMGR_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
	data(&truncate, sizeof(truncate));
	expect("truncate to nothing", "limit 1663/5/200.0:0 limit 1663/5/200.2:0 ");
	truncate.flags = SMGR_TRUNCATE_FSM;
	begin(RM_SMGR_ID, XLOG_SMGR_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
	data(&truncate, sizeof(truncate));
	expect("truncate the free space map", "");
	begin(RM_SMGR_ID, 0x30);
	expect("another storage record", "unknown ");
}

static void
transaction(uint8 op, uint32 xinfo, int subxacts, int dropped)
{
	uint64		time = 1;

	begin(RM_XACT_ID, op | XLOG_XACT_HAS_INFO | (dropped ? XLR_SPECIAL_REL_UPDATE : 0));
	data(&time, sizeof(time));
	data_u32(xinfo);
	if (xinfo & XACT_XINFO_HAS_DBINFO)
	{
		data_u32(5);
		data_u32(1663);
	}
	if (xinfo & XACT_XINFO_HAS_SUBXACTS)
	{
		data_u32(subxacts);
		for (int i = 0; i < subxacts; i++)
			data_u32(1000 + i);
	}
	if (xinfo & XACT_XINFO_HAS_RELFILELOCATORS)
	{
		data_u32(dropped);
		for (int i = 0; i < dropped; i++)
		{
			data_u32(1663);
			data_u32(5);
			data_u32(300 + i);
		}
	}
}

static void
test_xact(void)
{
	const char *two = "limit 1663/5/300.0:0 limit 1663/5/300.2:0 limit 1663/5/300.3:0 "
		"limit 1663/5/301.0:0 limit 1663/5/301.2:0 limit 1663/5/301.3:0 ";
	uint32		rels = XACT_XINFO_HAS_RELFILELOCATORS;

	transaction(XLOG_XACT_COMMIT, rels, 0, 2);
	expect("commit", two);
	transaction(XLOG_XACT_COMMIT, rels | XACT_XINFO_HAS_DBINFO | XACT_XINFO_HAS_SUBXACTS, 100, 2);
	expect("commit with subtransactions", two);
	transaction(XLOG_XACT_ABORT, rels | XACT_XINFO_HAS_SUBXACTS, 3, 2);
	expect("abort", two);
	transaction(XLOG_XACT_COMMIT_PREPARED, rels | XACT_XINFO_HAS_DBINFO, 0, 2);
	expect("commit prepared", two);
	transaction(XLOG_XACT_ABORT_PREPARED, rels, 0, 2);
	expect("abort prepared", two);
	transaction(XLOG_XACT_COMMIT, XACT_XINFO_HAS_SUBXACTS, 3, 0);
	expect("commit that drops nothing", "");
	transaction(XLOG_XACT_COMMIT, rels, 0, 2);
	main_len -= 5;
	expect("commit cut short", "limit 1663/5/300.0:0 limit 1663/5/300.2:0 limit 1663/5/300.3:0 unknown ");
	transaction(XLOG_XACT_COMMIT, rels, 0, -1);
	expect("commit with a count out of range", "unknown ");
}

static void
test_dbase(void)
{
	xl_dbase_create_file_copy_rec copy = {16500, 1663, 1, 1663};
	xl_dbase_create_wal_log_rec log = {16500, 1700};

	begin(RM_DBASE_ID, XLOG_DBASE_CREATE_FILE_COPY | XLR_SPECIAL_REL_UPDATE);
	data(&copy, sizeof(copy));
	expect("create database by copy", "reset 1663/16500 ");
	/* This one is not flagged as special. */
	begin(RM_DBASE_ID, XLOG_DBASE_CREATE_WAL_LOG);
	data(&log, sizeof(log));
	expect("create database by log", "reset 1700/16500 ");
	begin(RM_DBASE_ID, XLOG_DBASE_DROP | XLR_SPECIAL_REL_UPDATE);
	data_u32(16500);
	data_u32(2);
	data_u32(1663);
	data_u32(1700);
	expect("drop database", "reset 1663/16500 reset 1700/16500 ");
	begin(RM_DBASE_ID, XLOG_DBASE_DROP | XLR_SPECIAL_REL_UPDATE);
	data_u32(16500);
	data_u32(2);
	data_u32(1663);
	expect("drop database cut short", "reset 1663/16500 unknown ");
}

static void
test_others(void)
{
	TestBlock  *b;

	begin(RM_BTREE_ID, 0);
	block(400, 0, 1)->data = 10;
	block(400, 0, 2)->same_relation = true;
	b = block(401, 0, 3);
	b->image = 2;
	b->data = 7;
	block(401, 1, 4)->same_relation = true;
	block(401, 3, 5)->same_relation = true;
	blocks[4].id = 32;
	data_u32(0);
	expect("any record: registered blocks, but for the free space map",
		   "mark 1663/5/400.0:1 mark 1663/5/400.0:2 mark 1663/5/401.0:3 mark 1663/5/401.3:5 ");
	begin(RM_EXPERIMENTAL_ID, XLR_SPECIAL_REL_UPDATE);
	block(400, 0, 1);
	expect("a custom record that is special", "mark 1663/5/400.0:1 unknown ");
	begin(RM_EXPERIMENTAL_ID, 0);
	expect("a custom record that is not", "");
	begin(RM_HEAP_ID, XLOG_HEAP_TRUNCATE);
	expect("a logical truncation", "");
	begin(RM_XLOG_ID, XLOG_FPI_FOR_HINT);
	block(400, 0, 1)->image = 1;
	expect("an image for hint bits", "mark 1663/5/400.0:1 ");
}

int
main(void)
{
	test_heap();
	test_heap_update();
	test_smgr();
	test_xact();
	test_dbase();
	test_others();
	printf("%s %d - nothing that a record does is passed over\n", passed_over ? "not ok" : "ok", ++tests);
	printf("%s %d - records that need no more than a look: %d\n", known > 0 ? "ok" : "not ok", ++tests, known);
	printf("1..%d\n", tests);
	return 0;
}
