/*
 * summary_reader.c
 *		Fuzzing of the reader of change summaries: any bytes whatever.
 *
 * The input is the contents of a summary file.  It is read as it is, and once
 * more with the number of items and the CRC at its end made right, since no
 * amount of guessing would come by those: in one piece, in short reads, and with
 * a read that fails.
 *
 * What must hold, besides that nothing is read out of bounds:
 *
 * - redo points come first, ascend strictly and are inside the range;
 * - the items' keys ascend strictly and are in range, each piece belongs to the
 *   entry before it and has a changed block;
 * - how reads are cut up makes no difference; a failed read is never passed over;
 * - a file with another CRC than the right one is bad;
 * - what reads without a problem, and is written again, reads as the same.
 *
 * Only the public functions of summary_format.h are used.  All that is known of
 * the format here is how the trailer ends: u64 number of items, u32 CRC.
 */
#include "postgres_fe.h"

#include "common/summary_format.h"
#include "harness.h"

#define TRAILER_LEN		12

void
ExceptionalCondition(const char *condition, const char *file, int line)
{
	fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
	abort();
}

/* A summary in memory, and how it is given to the reader. */
typedef struct Source
{
	const uint8_t *bytes;
	size_t		len;
	size_t		next;
	uint32		cuts;			/* 0: all that is asked for; else the state of a
								 * generator of lengths */
	size_t		fail_at;		/* reads fail from this offset on */
	bool		failed;
} Source;

static ssize_t
give(void *arg, void *data, size_t len)
{
	Source	   *source = arg;
	size_t		got = Min(len, source->len - source->next);

	if (source->cuts != 0)
	{
		source->cuts = source->cuts * 1664525 + 1013904223;
		got = Min(got, 1 + (source->cuts >> 24) % 20);
	}
	if (source->next >= source->fail_at)
	{
		source->failed = true;
		return -1;
	}
	got = Min(got, source->fail_at - source->next);
	memcpy(data, source->bytes + source->next, got);
	source->next += got;
	return (ssize_t) got;
}

/* What came of reading a summary. */
typedef struct Outcome
{
	bool		begun;
	SummaryResult result;
	uint64		points;
	XLogRecPtr	last_point;
	uint64		items;
	pg_crc32c	hash;			/* of all of them */
	const char *problem;
} Outcome;

static void
hash_item(pg_crc32c *hash, const ChangeItem *item)
{
	COMP_CRC32C(*hash, &item->key, sizeof(item->key));
	if (change_is_entry(&item->key))
		COMP_CRC32C(*hash, &item->limit, sizeof(item->limit));
	else
		COMP_CRC32C(*hash, item->bits, sizeof(item->bits));
}

static void
check_item(const ChangeItem *item, const ChangeItem *previous)
{
	uint32		piece = (uint32) (item->key.what & 0xffffff);
	uint32		any = 0;

	REQUIRE(change_fork(&item->key) >= 0 && change_fork(&item->key) <= MAX_FORKNUM);
	REQUIRE(previous == NULL || change_key_cmp(&previous->key, &item->key) < 0);
	if (piece == 0)
		return;
	REQUIRE(previous != NULL);
	REQUIRE(piece - 1 <= MAX_PIECE);

	ChangeKey	mine = change_entry_key(&item->key);
	ChangeKey	theirs = change_entry_key(&previous->key);

	REQUIRE(change_key_cmp(&mine, &theirs) == 0);
	for (int w = 0; w < PIECE_WORDS; w++)
		any |= item->bits[w];
	REQUIRE(any != 0);
}

static void
check_point(const RedoPoint *point, const SummaryHeader *header, Outcome *outcome)
{
	REQUIRE(point->lsn > header->start && point->lsn < header->end.lsn);
	REQUIRE(outcome->points == 0 || point->lsn > outcome->last_point);
	outcome->last_point = point->lsn;
	outcome->points++;
	COMP_CRC32C(outcome->hash, &point->lsn, sizeof(point->lsn));
	COMP_CRC32C(outcome->hash, &point->tli, sizeof(point->tli));
	COMP_CRC32C(outcome->hash, &point->flags, sizeof(point->flags));
	COMP_CRC32C(outcome->hash, &point->lineage, sizeof(point->lineage));
	COMP_CRC32C(outcome->hash, &point->time_min, sizeof(point->time_min));
	COMP_CRC32C(outcome->hash, &point->time_max, sizeof(point->time_max));
}

/* Reads to the end; writes it again, too, if there is a writer. */
static Outcome
read_all(Source *source, SummaryHeader *header, SummaryWriter *writer,
		 summary_write_fn write)
{
	static SummaryReader reader;
	static ChangeItem items[2];
	Outcome		outcome = {0};

	INIT_CRC32C(outcome.hash);
	memset(header, 0, sizeof(*header));
	outcome.begun = summary_read_begin(&reader, give, source, header);
	if (outcome.begun && writer)
		summary_write_begin(writer, write, NULL, header);
	while ((outcome.result = summary_read_item(&reader, &items[outcome.items & 1])) > SUMMARY_END)
	{
		const ChangeItem *item = &items[outcome.items & 1];

		if (outcome.result == SUMMARY_POINT)
		{
			REQUIRE(outcome.items == 0);
			check_point(&reader.point, header, &outcome);
			if (writer)
				summary_write_point(writer, &reader.point);
			continue;
		}
		check_item(item, outcome.items > 0 ? &items[(outcome.items + 1) & 1] : NULL);
		hash_item(&outcome.hash, item);
		outcome.items++;
		if (writer)
			summary_write_item(writer, item);
	}
	outcome.problem = reader.problem;
	REQUIRE(outcome.begun || outcome.result == SUMMARY_BAD);
	REQUIRE((outcome.problem == NULL) == (outcome.result == SUMMARY_END));
	REQUIRE(!source->failed || outcome.result == SUMMARY_BAD);
	REQUIRE(reader.read_failed == source->failed);
	return outcome;
}

static Outcome
read_bytes(const uint8_t *bytes, size_t len, uint32 cuts, size_t fail_at)
{
	Source		source = {bytes, len, 0, cuts, fail_at, false};
	SummaryHeader header;

	return read_all(&source, &header, NULL, NULL);
}

/* What is written goes here. */
static uint8_t *written;
static size_t written_len;
static size_t written_room;

static bool
keep(void *arg, const void *data, size_t len)
{
	if (written_len + len > written_room)
	{
		written_room = 2 * (written_len + len);
		written = realloc(written, written_room);
		REQUIRE(written != NULL);
	}
	memcpy(written + written_len, data, len);
	written_len += len;
	return true;
}

/* Writes again what reads without a problem, and reads that. */
static void
round_trip(const uint8_t *bytes, size_t len)
{
	static SummaryWriter writer;
	Source		source = {bytes, len, 0, 0, SIZE_MAX, false};
	SummaryHeader header;
	SummaryHeader again_header;
	Outcome		first;
	Outcome		again;

	written_len = 0;
	first = read_all(&source, &header, &writer, keep);
	REQUIRE(first.result == SUMMARY_END);
	REQUIRE(summary_write_end(&writer));

	source = (Source) {written, written_len, 0, 0, SIZE_MAX, false};
	again = read_all(&source, &again_header, NULL, NULL);
	REQUIRE(again.result == SUMMARY_END);
	REQUIRE(again.points == first.points && again.items == first.items);
	REQUIRE(again.hash == first.hash);
	REQUIRE(memcmp(&header, &again_header, sizeof(header)) == 0);
	/* Of the ways to write a piece, the writer takes the shortest. */
	REQUIRE(written_len <= len);
}

/* All ways to read it. */
static void
read_every_way(const uint8_t *bytes, size_t len)
{
	Outcome		whole = read_bytes(bytes, len, 0, SIZE_MAX);
	Outcome		cut = read_bytes(bytes, len, 1 + whole.hash, SIZE_MAX);

	REQUIRE(whole.result == cut.result && whole.items == cut.items);
	REQUIRE(whole.points == cut.points);
	REQUIRE(whole.hash == cut.hash && whole.problem == cut.problem);
	/* The last read, which finds nothing, may fail as well. */
	(void) read_bytes(bytes, len, 1 + whole.hash,
					  whole.hash & 1 ? len : whole.hash % (len + 1));
	if (whole.result == SUMMARY_END)
		round_trip(bytes, len);
}

static void
put_little_endian(uint8_t *p, uint64 value, int len)
{
	for (int i = 0; i < len; i++)
		p[i] = (uint8_t) (value >> 8 * i);
}

/* Makes the trailer right, for as many items as the reader can see. */
static void
mend(uint8_t *bytes, size_t len)
{
	Outcome		outcome = read_bytes(bytes, len, 0, SIZE_MAX);
	pg_crc32c	crc;

	put_little_endian(bytes + len - TRAILER_LEN, outcome.points + outcome.items, 8);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes, len - 4);
	FIN_CRC32C(crc);
	put_little_endian(bytes + len - 4, crc, 4);
}

/* Does the above hold for this version of the format? */
int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static SummaryWriter writer;
	SummaryHeader header = {.system_identifier = 1, .start = 1, .end = {.lsn = 2, .tli = 1}};
	ChangeItem	item = {.limit = 7};

	item.key.where = change_where(1663, 5);
	item.key.what = change_entry(16384, MAIN_FORKNUM);
	summary_write_begin(&writer, keep, NULL, &header);
	summary_write_item(&writer, &item);
	REQUIRE(summary_write_end(&writer));
	memset(written + written_len - TRAILER_LEN, 0xff, TRAILER_LEN);
	REQUIRE(read_bytes(written, written_len, 0, SIZE_MAX).result == SUMMARY_BAD);
	mend(written, written_len);
	REQUIRE(read_bytes(written, written_len, 0, SIZE_MAX).result == SUMMARY_END);
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t    *mended;

	if (size < TRAILER_LEN)
	{
		REQUIRE(read_bytes(data, size, 0, SIZE_MAX).result == SUMMARY_BAD);
		return 0;
	}
	mended = malloc(size);
	memcpy(mended, data, size);
	mend(mended, size);
	if (memcmp(data + size - 4, mended + size - 4, 4) != 0)
		REQUIRE(read_bytes(data, size, 0, SIZE_MAX).result == SUMMARY_BAD);
	read_every_way(mended, size);
	free(mended);
	return 0;
}
