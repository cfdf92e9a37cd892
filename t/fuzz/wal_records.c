/*
 * wal_records.c
 *		Fuzzing of the WAL decoder: any main data in any record.
 *
 * The input describes a record:
 *
 *		u8		resource manager
 *		u8		xl_info
 *		u8		1 = wal_level is minimal, 2 = the record has an origin, 4 = and a
 *				top-level transaction, 8 = the header chunk ends there
 *		u8		number of blocks, modulo 34; then for each:
 *			u8		how far its number is from that of the block before, less 1
 *			u8		fork in bits 0-3; bits 4-5: no image, a plain one, one with a
 *					hole, a compressed one with a hole; 64 = the relation of the
 *					block before; 128 = it has data
 *			u32		block number
 *			u16		length of the data and of the image
 *			u32 * 3	tablespace, database, relation, unless as before
 *		u8		n, modulo 8, then n times u8: the lengths of the chunks that the
 *				main data is in, over and over; if n is 0, or all are, one chunk
 *		...		the main data is the rest
 *
 * Numbers are little-endian, and zero where the input is too short.  It is what
 * make_seeds.pl writes for records of real WAL.
 *
 * With -DFUZZ_INSERT the record goes through the insertion front end, as a chain
 * of chunks whose headers are as the server makes them, and through the redo
 * front end: their effects must be the same.  Without, it goes through the redo
 * front end, with all of its main data and with some cut off.  Main data lies in
 * memory of just its length; the data of blocks, where any access is a fault.
 */
#include "../../src/wal_records.c"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "harness.h"

#define MAX_MAIN		16384
#define MAX_TEST_BLOCKS	(XLR_MAX_BLOCK_ID + 1)

/* What the decoder takes from the server. */
int			wal_level;
bool		InRecovery;

void
ExceptionalCondition(const char *condition, const char *file, int line)
{
	fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
	abort();
}

/*
 * The record, as the input describes it.
 */
typedef struct TestBlock
{
	int			id;
	RelFileLocator rlocator;
	int			fork;
	BlockNumber block;
	int			image;
	bool		same_relation;
	bool		has_data;
	uint16		length;			/* of the data and of the image, in bytes */
} TestBlock;

static struct
{
	RmgrId		rmid;
	uint8		info;
	uint8		settings;
	TestBlock	blocks[MAX_TEST_BLOCKS];
	int			nblocks;
	uint8		cuts[8];
	int			ncuts;
	const uint8 *main_data;
	uint32		main_len;
} test;

static const uint8 *input;
static size_t input_left;

static uint32
take(int len)
{
	uint32		value = 0;

	for (int i = 0; i < len && input_left > 0; i++, input_left--)
		value |= (uint32) *input++ << 8 * i;
	return value;
}

/* Returns false when there is no such number left for it. */
static bool
take_block(TestBlock *b, const TestBlock *previous)
{
	uint8		flags;

	b->id = (previous ? previous->id + 1 : 0) + (int) take(1) % 4;
	if (b->id > XLR_MAX_BLOCK_ID)
		return false;
	flags = (uint8) take(1);
#ifdef FUZZ_INSERT
	b->fork = flags & MAX_FORKNUM;
#else
	b->fork = flags & BKPBLOCK_FORK_MASK;
#endif
	b->image = flags >> 4 & 3;
	b->same_relation = previous && (flags & 64) != 0;
	b->block = take(4);
	b->has_data = (flags & 128) != 0;
	b->length = (uint16) take(2);
	if (b->same_relation)
		b->rlocator = previous->rlocator;
	else
	{
		b->rlocator.spcOid = take(4);
		b->rlocator.dbOid = take(4);
		b->rlocator.relNumber = take(4);
	}
	return true;
}

static void
take_record(void)
{
	int			count;
	uint32		any = 0;

	test.rmid = (RmgrId) take(1);
	test.info = (uint8) take(1);
	test.settings = (uint8) take(1);
	wal_level = (test.settings & 1) != 0 ? WAL_LEVEL_MINIMAL : WAL_LEVEL_REPLICA;
	count = (int) take(1) % (MAX_TEST_BLOCKS + 1);
	for (test.nblocks = 0; test.nblocks < count; test.nblocks++)
	{
		TestBlock  *b = &test.blocks[test.nblocks];

		if (!take_block(b, test.nblocks > 0 ? b - 1 : NULL))
			break;
	}
	test.ncuts = (int) take(1) % lengthof(test.cuts);
	for (int i = 0; i < test.ncuts; i++)
		any |= test.cuts[i] = (uint8) take(1);
	if (any == 0)
		test.ncuts = 0;
	test.main_data = input;
	test.main_len = (uint32) Min(input_left, MAX_MAIN);
}

/*
 * The effects of a record.
 */
typedef enum EffectKind
{
	EFFECT_MARK,
	EFFECT_LIMIT,
	EFFECT_RESET,
	EFFECT_UNKNOWN,
} EffectKind;

typedef struct Effect
{
	EffectKind	kind;
	RelFileLocator rlocator;
	ForkNumber	fork;
	BlockNumber block;
} Effect;

/* At most three for each twelve bytes, or one for each four, of main data. */
typedef struct Effects
{
	int			count;
	Effect		list[MAX_MAIN / 4 + 2 * MAX_TEST_BLOCKS + 8];
} Effects;

static void
add_effect(Effects *effects, EffectKind kind, const RelFileLocator *rlocator,
		   ForkNumber fork, BlockNumber block)
{
	Effect	   *effect = &effects->list[effects->count++];

	REQUIRE(effects->count <= (int) lengthof(effects->list));
	REQUIRE(fork != FSM_FORKNUM);
	effect->kind = kind;
	effect->rlocator = *rlocator;
	effect->fork = fork;
	effect->block = block;
}

static void
note_mark(void *arg, const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	add_effect(arg, EFFECT_MARK, rlocator, fork, block);
}

static void
note_limit(void *arg, const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	REQUIRE(fork >= 0 && fork <= MAX_FORKNUM);
	add_effect(arg, EFFECT_LIMIT, rlocator, fork, block);
}

static void
note_reset(void *arg, Oid tablespace, Oid database)
{
	RelFileLocator rlocator = {tablespace, database, 0};

	add_effect(arg, EFFECT_RESET, &rlocator, MAIN_FORKNUM, 0);
}

static void
note_unknown(void *arg)
{
	RelFileLocator none = {0};

	add_effect(arg, EFFECT_UNKNOWN, &none, MAIN_FORKNUM, 0);
}

static bool
same_effects(const Effects *a, const Effects *b)
{
	return a->count == b->count &&
		memcmp(a->list, b->list, a->count * sizeof(Effect)) == 0;
}

static void *
copy_of(const void *bytes, size_t len)
{
	void	   *copy = malloc(len);

	REQUIRE(copy != NULL);
	memcpy(copy, bytes, len);
	return copy;
}

/*
 * Redo: the decoded record.
 */

bool
XLogRecGetBlockTagExtended(XLogReaderState *reader, uint8 id, RelFileLocator *rlocator,
						   ForkNumber *fork, BlockNumber *number, Buffer *prefetch)
{
	for (int i = 0; i < test.nblocks; i++)
	{
		if (test.blocks[i].id != id)
			continue;
		*rlocator = test.blocks[i].rlocator;
		*fork = (ForkNumber) test.blocks[i].fork;
		*number = test.blocks[i].block;
		return true;
	}
	return false;
}

static void
redo_record(uint32 main_len, Effects *effects)
{
	static DecodedXLogRecord decoded;
	static XLogReaderState reader;
	WalEffects	noted = {note_mark, note_limit, note_reset, note_unknown, effects};
	char	   *main_data = copy_of(test.main_data, main_len);

	effects->count = 0;
	memset(&decoded, 0, sizeof(decoded));
	decoded.header.xl_rmid = test.rmid;
	decoded.header.xl_info = test.info;
	decoded.main_data = main_len > 0 ? main_data : NULL;
	decoded.main_data_len = main_len;
	decoded.max_block_id = test.nblocks > 0 ? test.blocks[test.nblocks - 1].id : -1;
	reader.record = &decoded;
	wal_redo_effects(&reader, &noted);
	free(main_data);
}

/*
 * Registered blocks come first, as they are, all but those of the FSM; after one of a
 * fork that there is not, all is unknown.
 */
static void
check_marks(const Effects *effects)
{
	int			n = 0;

	for (int i = 0; i < test.nblocks; i++)
	{
		const TestBlock *b = &test.blocks[i];

		if (b->fork == FSM_FORKNUM)
			continue;
		if (b->fork > MAX_FORKNUM)
		{
			REQUIRE(effects->count == n + 1);
			REQUIRE(effects->list[n].kind == EFFECT_UNKNOWN);
			return;
		}
		REQUIRE(n < effects->count);
		REQUIRE(effects->list[n].kind == EFFECT_MARK);
		REQUIRE(RelFileLocatorEquals(effects->list[n].rlocator, b->rlocator));
		REQUIRE(effects->list[n].fork == (ForkNumber) b->fork);
		REQUIRE(effects->list[n].block == b->block);
		n++;
	}
}

#ifndef FUZZ_INSERT

static bool
is_unknown(const Effects *effects)
{
	return effects->count > 0 &&
		effects->list[effects->count - 1].kind == EFFECT_UNKNOWN;
}

/* Which resource managers' special records are known. */
static bool
is_known_manager(void)
{
	return test.rmid == RM_HEAP_ID || test.rmid == RM_HEAP2_ID ||
		test.rmid == RM_SMGR_ID || test.rmid == RM_XACT_ID ||
		test.rmid == RM_DBASE_ID;
}

static void
check_record(void)
{
	static Effects whole;
	static Effects part;

	redo_record(test.main_len, &whole);
	check_marks(&whole);
	if ((test.info & XLR_SPECIAL_REL_UPDATE) != 0 && !is_known_manager())
		REQUIRE(is_unknown(&whole));
	for (int i = 0; i < whole.count - 1; i++)
		REQUIRE(whole.list[i].kind != EFFECT_UNKNOWN);

	/* Cut short, it does the same, or what it does is unknown. */
	redo_record(test.main_len - test.main_len / 4 - (test.main_len > 0), &part);
	check_marks(&part);
	REQUIRE(is_unknown(&part) || same_effects(&whole, &part));
}

#else							/* FUZZ_INSERT */

/*
 * Insertion: the record in the chunks that the server assembles it in.
 */

#define MAX_HEADERS	4096

static char *forbidden;			/* 64 kB that nobody may look at */
static char headers[MAX_HEADERS] pg_attribute_aligned(8);
static XLogRecData chunks[1 + 3 * MAX_TEST_BLOCKS + MAX_MAIN];
static void *main_chunks[MAX_MAIN]; /* of them, to be freed */
static int	nchunks;
static int	nmain_chunks;
static char *
put(char *p, const void *bytes, size_t len)
{
	memcpy(p, bytes, len);
	return p + len;
}

static void
add_chunk(void *data, uint32 len)
{
	XLogRecData *chunk = &chunks[nchunks++];

	REQUIRE(nchunks <= (int) lengthof(chunks));
	chunk->next = NULL;
	chunk->data = data;
	chunk->len = len;
	if (nchunks > 1)
		chunk[-1].next = chunk;
}

/* A block's header; its image and its data become chunks. */
static char *
put_block(char *p, const TestBlock *b)
{
	static const uint8 image_flags[] = {0, 0, BKPIMAGE_HAS_HOLE,
	BKPIMAGE_HAS_HOLE | BKPIMAGE_COMPRESS_PGLZ};
	XLogRecordBlockHeader header = {0};
	XLogRecordBlockImageHeader image = {0};
	uint16		hole_length = 100;

	header.id = (uint8) b->id;
	header.fork_flags = (uint8) (b->fork | (b->same_relation ? BKPBLOCK_SAME_REL : 0));
	if (b->image != 0)
	{
		header.fork_flags |= BKPBLOCK_HAS_IMAGE;
		add_chunk(forbidden, b->length);
	}
	if (b->has_data)
	{
		header.fork_flags |= BKPBLOCK_HAS_DATA;
		header.data_length = b->length;
		add_chunk(forbidden, b->length / 2);
		add_chunk(forbidden, b->length - b->length / 2);
	}
	p = put(p, &header, SizeOfXLogRecordBlockHeader);
	if (b->image != 0)
	{
		image.length = b->length;
		image.bimg_info = image_flags[b->image];
		p = put(p, &image, SizeOfXLogRecordBlockImageHeader);
		if (b->image == 3)
			p = put(p, &hole_length, SizeOfXLogRecordBlockCompressHeader);
	}
	if (!b->same_relation)
		p = put(p, &b->rlocator, sizeof(RelFileLocator));
	return put(p, &b->block, sizeof(BlockNumber));
}

/* What follows the blocks' headers. */
static char *
put_header_end(char *p)
{
	uint16		origin = 7;
	TransactionId xid = 9;

	if (test.settings & 2)
	{
		*p++ = (char) XLR_BLOCK_ID_ORIGIN;
		p = put(p, &origin, sizeof(origin));
	}
	if (test.settings & 4)
	{
		*p++ = (char) XLR_BLOCK_ID_TOPLEVEL_XID;
		p = put(p, &xid, sizeof(xid));
	}
	if (test.main_len > 255)
	{
		*p++ = (char) XLR_BLOCK_ID_DATA_LONG;
		p = put(p, &test.main_len, sizeof(uint32));
	}
	else if (test.main_len > 0)
	{
		*p++ = (char) XLR_BLOCK_ID_DATA_SHORT;
		*p++ = (char) test.main_len;
	}
	return p;
}

/* Each chunk in memory of its own, so that a step beyond it is noticed. */
static void
add_main_data(void)
{
	uint32		at = 0;

	nmain_chunks = 0;
	while (at < test.main_len)
	{
		uint32		len = test.main_len - at;

		/* The last that there is room for takes the rest. */
		if (test.ncuts > 0 && nmain_chunks < MAX_MAIN - 1)
			len = Min(len, test.cuts[nmain_chunks % test.ncuts]);
		main_chunks[nmain_chunks] = copy_of(test.main_data + at, len);
		add_chunk(main_chunks[nmain_chunks++], len);
		at += len;
	}
}

static void
make_forbidden(void)
{
	forbidden = mmap(NULL, PG_UINT16_MAX + 1, PROT_NONE,
					 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(forbidden != MAP_FAILED);
}

/* What wal_insert_is_known() looks at. */
static Effects looked_at;

static bool
look_at(const char *rlocator, uint32 fork, BlockNumber block)
{
	RelFileLocator aligned;

	memcpy(&aligned, rlocator, sizeof(aligned));
	if (fork != FSM_FORKNUM)
		note_mark(&looked_at, &aligned, (ForkNumber) fork, block);
	return true;
}

static void
insert_record(Effects *effects)
{
	WalEffects	noted = {note_mark, note_limit, note_reset, note_unknown, effects};
	XLogRecord *record = (XLogRecord *) headers;
	char	   *p = headers + SizeOfXLogRecord;
	char	   *exact;

	if (forbidden == NULL)
		make_forbidden();
	effects->count = 0;
	nchunks = 0;
	add_chunk(headers, 0);
	for (int i = 0; i < test.nblocks; i++)
		p = put_block(p, &test.blocks[i]);
	p = put_header_end(p);
	add_main_data();

	memset(record, 0, SizeOfXLogRecord);
	record->xl_rmid = test.rmid;
	record->xl_info = test.info;
	chunks[0].len = (uint32) (p - headers);
	for (int i = 0; i < nchunks; i++)
		record->xl_tot_len += chunks[i].len;
	exact = copy_of(headers, chunks[0].len);
	chunks[0].data = exact;
	wal_insert_effects(chunks, &noted);

	/* If it knows all that it looks at, there is nothing else. */
	looked_at.count = 0;
	if (wal_insert_is_known(chunks, look_at))
		REQUIRE(same_effects(&looked_at, effects));

	free(exact);
	for (int i = 0; i < nmain_chunks; i++)
		free(main_chunks[i]);
}

static void
check_record(void)
{
	static Effects inserted;
	static Effects redone;

	insert_record(&inserted);
	check_marks(&inserted);
	redo_record(test.main_len, &redone);
	REQUIRE(same_effects(&inserted, &redone));
}

#endif							/* FUZZ_INSERT */

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = data;
	input_left = size;
	take_record();
	check_record();
	return 0;
}
