/*
 * summary_format.c
 *		The bytes of a change summary.
 *
 * All numbers are little-endian; u16, u32 and u64 name their width in bits.
 *
 * Header, 112 bytes:
 *
 *		 0	char[4]	magic, "PTCS"
 *		 4	u16		format version, 1
 *		 6	u16		length of the header in bytes
 *		 8	u64		system identifier of the server
 *		16	u64		start LSN, a redo point
 *		24	u64		end LSN, the redo point that follows it
 *		32	u32		timeline that the end LSN is on
 *		36	u32		block size in bytes
 *		40	u32		blocks in a full segment file
 *		44	u32		flags: 1 = the live map overflowed in this range, 2 = the
 *					server had data checksums, 4 = its WAL is of wal_level
 *					minimal, 8 = WAL of this range may not tell all that this
 *					summary does
 *		48	16 bytes	lineage identifier at the start LSN; zero: not known
 *		64	16 bytes	lineage identifier at the end LSN
 *		80	u64		least and
 *		88	u64		greatest value that pg_control can have for the time of the
 *					checkpoint of the end LSN, in seconds since 1970; both zero:
 *					not known
 *		96	u64		when the server came to the start LSN, and
 *	   104	u64		to the end LSN, in seconds since 1970; zero: not known
 *
 * Redo points inside the range, of cycles that were merged, in ascending order
 * of LSN.  Each begins with a tag byte:
 *
 *		6	redo point: u64 LSN, u32 timeline, u32 flags (2, 4 as above), 16 bytes
 *			lineage identifier, u64 least and u64 greatest time, as above
 *
 * Items, in ascending order of (tablespace, database, relation, fork, piece),
 * none twice.  Each begins with a tag byte:
 *
 *		1	entry: u32 tablespace, u32 database, u32 relation number, u8 fork,
 *			u32 limit block, 0xffffffff if there is none.  The pieces that
 *			follow are of this fork, up to the next entry.
 *		2	piece, all of its 1024 blocks changed
 *		3	piece, followed by a bitmap of 128 bytes: bit b of byte n is block
 *			8 * n + b of the piece
 *		4	piece, followed by u8 n, then n times u16: the changed blocks
 *		5	piece, followed by u8 n, then n times (u16 first, u16 length): runs
 *			of changed blocks
 *
 *			Pieces have, before all this, the piece number's distance from
 *			that of the piece before it in the same entry (from -1 for the
 *			first), which is at least 1: seven bits to a byte, least
 *			significant first, the high bit set in all bytes but the last.
 *		0	end of the items: u64 number of items, u32 CRC-32C of everything
 *			before.  Nothing follows.  Redo points count as items here.
 *
 * Of the four ways to write a piece the writer takes the shortest.  Readers
 * accept nothing but what is described here: a file that says more was written
 * by a later version and would be misunderstood.
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "port/pg_bitutils.h"
#include "summary_format.h"

#define SUMMARY_MAGIC		"PTCS"
#define SUMMARY_VERSION		1
#define SUMMARY_HEADER_LEN	112
#define POINT_LEN			48

typedef enum ItemTag
{
	TAG_END = 0,
	TAG_ENTRY = 1,
	TAG_FULL = 2,
	TAG_BITMAP = 3,
	TAG_LIST = 4,
	TAG_RUNS = 5,
	TAG_POINT = 6,
} ItemTag;

/* The longest item: tag, distance, bitmap. */
#define MAX_ITEM_LEN		(1 + 5 + PIECE_BLOCKS / 8)

/* Lists and runs longer than these would be longer than the bitmap. */
#define MAX_LIST			((PIECE_BLOCKS / 8 - 1) / 2)
#define MAX_RUNS			((PIECE_BLOCKS / 8 - 1) / 4)

static inline uint8 *
put_u16(uint8 *p, uint16 v)
{
	p[0] = (uint8) v;
	p[1] = (uint8) (v >> 8);
	return p + 2;
}

static inline uint8 *
put_u32(uint8 *p, uint32 v)
{
	p = put_u16(p, (uint16) v);
	return put_u16(p, (uint16) (v >> 16));
}

static inline uint8 *
put_u64(uint8 *p, uint64 v)
{
	p = put_u32(p, (uint32) v);
	return put_u32(p, (uint32) (v >> 32));
}

static inline uint16
get_u16(const uint8 *p)
{
	return (uint16) (p[0] | p[1] << 8);
}

static inline uint32
get_u32(const uint8 *p)
{
	return get_u16(p) | (uint32) get_u16(p + 2) << 16;
}

static inline uint64
get_u64(const uint8 *p)
{
	return get_u32(p) | (uint64) get_u32(p + 4) << 32;
}

/*
 * Writing
 */

static void
writer_flush(SummaryWriter *writer)
{
	if (!writer->failed && writer->used > 0 &&
		!writer->write(writer->arg, writer->buffer, writer->used))
		writer->failed = true;
	writer->used = 0;
}

static void
writer_put(SummaryWriter *writer, const uint8 *data, size_t len)
{
	if (writer->used + len > sizeof(writer->buffer))
		writer_flush(writer);
	memcpy(writer->buffer + writer->used, data, len);
	writer->used += len;
	COMP_CRC32C(writer->crc, data, len);
}

/*
 * Begins a summary.  The callback may already be called.  A failure of it is
 * kept, and told by summary_write_end.
 */
void
summary_write_begin(SummaryWriter *writer, summary_write_fn write, void *arg,
					const SummaryHeader *header)
{
	uint8		bytes[SUMMARY_HEADER_LEN] = {0};

	writer->write = write;
	writer->arg = arg;
	INIT_CRC32C(writer->crc);
	writer->items = 0;
	writer->used = 0;
	writer->failed = false;

	memcpy(bytes, SUMMARY_MAGIC, 4);
	put_u16(bytes + 4, SUMMARY_VERSION);
	put_u16(bytes + 6, SUMMARY_HEADER_LEN);
	put_u64(bytes + 8, header->system_identifier);
	put_u64(bytes + 16, header->start);
	put_u64(bytes + 24, header->end.lsn);
	put_u32(bytes + 32, header->end.tli);
	put_u32(bytes + 36, header->block_size);
	put_u32(bytes + 40, header->segment_blocks);
	put_u32(bytes + 44, header->flags | header->end.flags);
	memcpy(bytes + 48, header->start_lineage.id, LINEAGE_LEN);
	memcpy(bytes + 64, header->end.lineage.id, LINEAGE_LEN);
	put_u64(bytes + 80, (uint64) header->end.time_min);
	put_u64(bytes + 88, (uint64) header->end.time_max);
	put_u64(bytes + 96, (uint64) header->start_time);
	put_u64(bytes + 104, (uint64) header->end_time);
	writer_put(writer, bytes, sizeof(bytes));
}

/*
 * Adds a redo point inside the range.  They must come in ascending order,
 * before any item.
 */
void
summary_write_point(SummaryWriter *writer, const RedoPoint *point)
{
	uint8		bytes[1 + POINT_LEN] = {TAG_POINT};

	put_u64(bytes + 1, point->lsn);
	put_u32(bytes + 9, point->tli);
	put_u32(bytes + 13, point->flags);
	memcpy(bytes + 17, point->lineage.id, LINEAGE_LEN);
	put_u64(bytes + 33, (uint64) point->time_min);
	put_u64(bytes + 41, (uint64) point->time_max);
	writer_put(writer, bytes, sizeof(bytes));
	writer->items++;
}

static uint8 *
put_distance(uint8 *p, uint32 distance)
{
	while (distance >= 0x80)
	{
		*p++ = (uint8) (distance | 0x80);
		distance >>= 7;
	}
	*p++ = (uint8) distance;
	return p;
}

static inline bool
bit_is_set(const uint32 *bits, int i)
{
	return (bits[i / 32] >> (i % 32) & 1) != 0;
}

/* How many bits are set, and how many runs of them there are. */
static void
count_bits(const uint32 *bits, int *set, int *runs)
{
	uint32		carry = 0;		/* the bit before this word's first */

	*set = *runs = 0;
	for (int w = 0; w < PIECE_WORDS; w++)
	{
		uint32		starts = bits[w] & ~(bits[w] << 1 | carry);

		*set += pg_popcount32(bits[w]);
		*runs += pg_popcount32(starts);
		carry = bits[w] >> 31;
	}
}

static uint8 *
put_list(uint8 *p, const uint32 *bits)
{
	for (int w = 0; w < PIECE_WORDS; w++)
	{
		for (uint32 rest = bits[w]; rest != 0; rest &= rest - 1)
			p = put_u16(p, (uint16) (w * 32 + pg_rightmost_one_pos32(rest)));
	}
	return p;
}

static uint8 *
put_runs(uint8 *p, const uint32 *bits)
{
	for (int i = 0; i < PIECE_BLOCKS; i++)
	{
		int			first = i;

		while (i < PIECE_BLOCKS && bit_is_set(bits, i))
			i++;
		if (i > first)
		{
			p = put_u16(p, (uint16) first);
			p = put_u16(p, (uint16) (i - first));
		}
	}
	return p;
}

static uint8 *
put_piece(uint8 *p, uint32 distance, const uint32 *bits)
{
	uint8	   *tag = p;
	int			set;
	int			runs;

	count_bits(bits, &set, &runs);
	Assert(set > 0);
	p = put_distance(p + 1, distance);
	if (set == PIECE_BLOCKS)
		*tag = TAG_FULL;
	else if (set <= MAX_LIST && set <= 2 * runs)
	{
		*tag = TAG_LIST;
		*p++ = (uint8) set;
		p = put_list(p, bits);
	}
	else if (runs <= MAX_RUNS)
	{
		*tag = TAG_RUNS;
		*p++ = (uint8) runs;
		p = put_runs(p, bits);
	}
	else
	{
		*tag = TAG_BITMAP;
		for (int w = 0; w < PIECE_WORDS; w++)
			p = put_u32(p, bits[w]);
	}
	return p;
}

/*
 * Adds an item.  Items must come in ascending order, an entry before the
 * pieces that belong to it.
 */
void
summary_write_item(SummaryWriter *writer, const ChangeItem *item)
{
	uint8		bytes[MAX_ITEM_LEN];
	uint8	   *p = bytes;

	if (change_is_entry(&item->key))
	{
		*p++ = TAG_ENTRY;
		p = put_u32(p, change_tablespace(&item->key));
		p = put_u32(p, change_database(&item->key));
		p = put_u32(p, change_relation(&item->key));
		*p++ = (uint8) change_fork(&item->key);
		p = put_u32(p, item->limit);
	}
	else
		p = put_piece(p, (uint32) (item->key.what - writer->last.what), item->bits);

	writer_put(writer, bytes, p - bytes);
	writer->last = item->key;
	writer->items++;
}

/*
 * Ends a summary.  Returns whether all of it went through the callback.
 */
bool
summary_write_end(SummaryWriter *writer)
{
	uint8		bytes[1 + 8] = {TAG_END};
	uint8		crc[4];

	put_u64(bytes + 1, writer->items);
	writer_put(writer, bytes, sizeof(bytes));
	FIN_CRC32C(writer->crc);
	put_u32(crc, writer->crc);
	writer_put(writer, crc, sizeof(crc));
	writer_flush(writer);
	return !writer->failed;
}

/*
 * Reading
 */

static bool
reader_fail(SummaryReader *reader, const char *problem)
{
	if (reader->problem == NULL)
		reader->problem = problem;
	return false;
}

/*
 * Takes the next len bytes, at most a buffer's worth, and adds them to the
 * CRC.  Returns NULL, with the problem noted, when there are not as many.
 */
static const uint8 *
reader_take(SummaryReader *reader, size_t len)
{
	const uint8 *data;

	if (reader->used - reader->next < len)
	{
		memmove(reader->buffer, reader->buffer + reader->next,
				reader->used - reader->next);
		reader->used -= reader->next;
		reader->next = 0;
	}
	while (reader->used - reader->next < len)
	{
		ssize_t		got = reader->read(reader->arg, reader->buffer + reader->used,
									   sizeof(reader->buffer) - reader->used);

		if (got < 0)
		{
			reader->read_failed = true;
			reader_fail(reader, "cannot be read");
			return NULL;
		}
		if (got == 0)
		{
			reader_fail(reader, "ends too early");
			return NULL;
		}
		reader->used += got;
	}

	data = reader->buffer + reader->next;
	reader->next += len;
	COMP_CRC32C(reader->crc, data, len);
	return data;
}

/*
 * Begins to read a summary: its magic, version and header.  Returns false with
 * reader->problem set when it is none, or one of a version not known here.
 * What the header says is the caller's to judge.
 */
bool
summary_read_begin(SummaryReader *reader, summary_read_fn read, void *arg,
				   SummaryHeader *header)
{
	const uint8 *p;

	reader->read = read;
	reader->arg = arg;
	INIT_CRC32C(reader->crc);
	reader->have_entry = false;
	reader->items = 0;
	reader->used = reader->next = 0;
	reader->problem = NULL;
	reader->read_failed = false;

	if ((p = reader_take(reader, SUMMARY_HEADER_LEN)) == NULL)
		return false;
	if (memcmp(p, SUMMARY_MAGIC, 4) != 0)
		return reader_fail(reader, "is not a change summary");
	if (get_u16(p + 4) != SUMMARY_VERSION)
		return reader_fail(reader, "has a format version that is not known");
	if (get_u16(p + 6) != SUMMARY_HEADER_LEN ||
		(get_u32(p + 44) & ~(SUMMARY_FLAGS | POINT_FLAGS)) != 0)
		return reader_fail(reader, "has a damaged header");

	header->system_identifier = get_u64(p + 8);
	header->start = get_u64(p + 16);
	header->end.lsn = get_u64(p + 24);
	header->end.tli = get_u32(p + 32);
	header->block_size = get_u32(p + 36);
	header->segment_blocks = get_u32(p + 40);
	header->flags = get_u32(p + 44) & SUMMARY_FLAGS;
	header->end.flags = get_u32(p + 44) & POINT_FLAGS;
	memcpy(header->start_lineage.id, p + 48, LINEAGE_LEN);
	memcpy(header->end.lineage.id, p + 64, LINEAGE_LEN);
	header->end.time_min = (int64) get_u64(p + 80);
	header->end.time_max = (int64) get_u64(p + 88);
	header->start_time = (int64) get_u64(p + 96);
	header->end_time = (int64) get_u64(p + 104);
	reader->point.lsn = header->start;
	reader->end = header->end.lsn;
	return true;
}

static SummaryResult
read_point(SummaryReader *reader)
{
	const uint8 *p = reader_take(reader, POINT_LEN);
	XLogRecPtr	lsn;

	if (p == NULL)
		return SUMMARY_BAD;
	lsn = get_u64(p);
	if (reader->have_entry || lsn <= reader->point.lsn || lsn >= reader->end)
	{
		reader_fail(reader, "has redo points out of order");
		return SUMMARY_BAD;
	}
	reader->point.lsn = lsn;
	reader->point.tli = get_u32(p + 8);
	reader->point.flags = get_u32(p + 12);
	if ((reader->point.flags & ~POINT_FLAGS) != 0)
	{
		reader_fail(reader, "has a redo point with unknown flags");
		return SUMMARY_BAD;
	}
	memcpy(reader->point.lineage.id, p + 16, LINEAGE_LEN);
	reader->point.time_min = (int64) get_u64(p + 32);
	reader->point.time_max = (int64) get_u64(p + 40);
	reader->items++;
	return SUMMARY_POINT;
}

static bool
read_entry(SummaryReader *reader, ChangeItem *item)
{
	const uint8 *p = reader_take(reader, 17);
	ChangeKey	key;

	if (p == NULL)
		return false;
	if (p[12] > MAX_FORKNUM)
		return reader_fail(reader, "names a fork that does not exist");
	key.where = change_where(get_u32(p), get_u32(p + 4));
	key.what = change_entry(get_u32(p + 8), (ForkNumber) p[12]);
	if (reader->have_entry && change_key_cmp(&key, &reader->last) <= 0)
		return reader_fail(reader, "has entries out of order");
	item->key = key;
	item->limit = get_u32(p + 13);
	return true;
}

static bool
read_distance(SummaryReader *reader, uint32 *distance)
{
	uint32		value = 0;

	for (int shift = 0; shift <= 21; shift += 7)
	{
		const uint8 *p = reader_take(reader, 1);

		if (p == NULL)
			return false;
		value |= (uint32) (*p & 0x7f) << shift;
		if ((*p & 0x80) == 0)
		{
			*distance = value;
			return true;
		}
	}
	return reader_fail(reader, "has a piece number out of range");
}

static bool
read_bitmap(SummaryReader *reader, uint32 *bits)
{
	const uint8 *p = reader_take(reader, PIECE_BLOCKS / 8);
	uint32		any = 0;

	if (p == NULL)
		return false;
	for (int w = 0; w < PIECE_WORDS; w++)
		any |= bits[w] = get_u32(p + 4 * w);
	return any != 0 || reader_fail(reader, "has an empty piece");
}

/* A list of single blocks, or of runs of them: width 1 or 2 numbers each. */
static bool
read_blocks(SummaryReader *reader, int width, uint32 *bits)
{
	const uint8 *p = reader_take(reader, 1);
	int			count;
	uint32		from = 0;

	if (p == NULL)
		return false;
	count = *p;
	if (count == 0 || (p = reader_take(reader, (size_t) count * width * 2)) == NULL)
		return reader_fail(reader, "has an empty piece");
	memset(bits, 0, PIECE_BLOCKS / 8);
	for (int i = 0; i < count; i++, p += width * 2)
	{
		uint32		first = get_u16(p);
		uint32		len = width == 2 ? get_u16(p + 2) : 1;

		if (len == 0 || first < from || first + len > PIECE_BLOCKS)
			return reader_fail(reader, "has blocks out of order");
		for (uint32 b = first; b < first + len; b++)
			bits[b / 32] |= (uint32) 1 << (b % 32);
		from = first + len;
	}
	return true;
}

static bool
read_piece(SummaryReader *reader, ItemTag tag, ChangeItem *item)
{
	uint32		distance;

	if (!reader->have_entry)
		return reader_fail(reader, "has a piece that belongs to no relation");
	if (!read_distance(reader, &distance))
		return false;
	if (distance == 0 ||
		distance > MAX_PIECE + 1 - (uint32) (reader->last.what & 0xffffff))
		return reader_fail(reader, "has a piece number out of range");
	item->key.where = reader->last.where;
	item->key.what = reader->last.what + distance;
	item->limit = InvalidBlockNumber;

	switch (tag)
	{
		case TAG_FULL:
			memset(item->bits, 0xff, sizeof(item->bits));
			return true;
		case TAG_BITMAP:
			return read_bitmap(reader, item->bits);
		case TAG_LIST:
			return read_blocks(reader, 1, item->bits);
		case TAG_RUNS:
			return read_blocks(reader, 2, item->bits);
		default:
			return reader_fail(reader, "has an item of an unknown kind");
	}
}

/* Nothing may follow. */
static void
check_end(SummaryReader *reader)
{
	uint8		beyond;
	ssize_t		got = reader->next < reader->used ? 1 :
		reader->read(reader->arg, &beyond, 1);

	if (got < 0)
	{
		reader->read_failed = true;
		reader_fail(reader, "cannot be read");
	}
	else if (got > 0)
		reader_fail(reader, "goes on after its end");
}

/* The trailer, after its tag: what was counted and summed up so far is right. */
static SummaryResult
read_trailer(SummaryReader *reader)
{
	const uint8 *p = reader_take(reader, 8);
	pg_crc32c	crc;

	if (p == NULL)
		return SUMMARY_BAD;
	if (get_u64(p) != reader->items)
	{
		reader_fail(reader, "does not hold as many items as it says");
		return SUMMARY_BAD;
	}
	crc = reader->crc;
	FIN_CRC32C(crc);
	if ((p = reader_take(reader, 4)) == NULL)
		return SUMMARY_BAD;
	if (get_u32(p) != crc)
		reader_fail(reader, "has a checksum that does not match its contents");
	else
		check_end(reader);
	return reader->problem ? SUMMARY_BAD : SUMMARY_END;
}

/*
 * Reads the next item or redo point.  Only SUMMARY_END says that the items returned
 * so far are what was written: whoever must not act on damaged contents reads to
 * the end first.
 */
SummaryResult
summary_read_item(SummaryReader *reader, ChangeItem *item)
{
	const uint8 *p;
	bool		good;

	if (reader->problem || (p = reader_take(reader, 1)) == NULL)
		return SUMMARY_BAD;
	if (*p == TAG_END)
		return read_trailer(reader);
	if (*p == TAG_POINT)
		return read_point(reader);
	if (*p == TAG_ENTRY)
		good = read_entry(reader, item);
	else
		good = read_piece(reader, (ItemTag) *p, item);
	if (!good)
		return SUMMARY_BAD;
	reader->last = item->key;
	reader->have_entry = true;
	reader->items++;
	return SUMMARY_ITEM;
}
