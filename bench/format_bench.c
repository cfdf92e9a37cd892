/*
 * format_bench.c
 *		How our way to write sets of blocks compares with CRoaring's.
 *
 * usage: format_bench BLOCKS RUN PER_CENT
 *
 * takes a relation of that many blocks, of which that share changed in runs of
 * RUN blocks at random places, and prints: changed blocks, bytes in a summary,
 * bytes as a run-optimized CRoaring bitmap, ns per changed block to write
 * either, and to read either.
 */
#include "postgres.h"

#include <roaring/roaring.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/summary_format.h"

static uint8 *buffer;
static size_t used;
static size_t taken;

static bool
keep(void *arg, const void *data, size_t len)
{
	memcpy(buffer + used, data, len);
	used += len;
	return true;
}

static ssize_t
give(void *arg, void *data, size_t len)
{
	size_t		got = Min(len, used - taken);

	memcpy(data, buffer + taken, got);
	taken += got;
	return (ssize_t) got;
}

static double
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void
write_summary(const uint32 *bits, uint32 blocks)
{
	static SummaryWriter writer;
	SummaryHeader header = {0};
	ChangeItem	item = {{change_where(1663, 5), change_entry(16384, 0)}, InvalidBlockNumber};

	summary_write_begin(&writer, keep, NULL, &header);
	summary_write_item(&writer, &item);
	for (uint32 piece = 0; piece < (blocks + PIECE_BLOCKS - 1) / PIECE_BLOCKS; piece++)
	{
		uint32		any = 0;

		item.key.what = change_piece(16384, 0, piece);
		for (int w = 0; w < PIECE_WORDS; w++)
			any |= item.bits[w] = bits[piece * PIECE_WORDS + w];
		if (any)
			summary_write_item(&writer, &item);
	}
	if (!summary_write_end(&writer))
		abort();
}

static void
read_summary(void)
{
	static SummaryReader reader;
	SummaryHeader header;
	ChangeItem	item;
	SummaryResult result;

	if (!summary_read_begin(&reader, give, NULL, &header))
		abort();
	while ((result = summary_read_item(&reader, &item)) == SUMMARY_ITEM)
		 /* nothing but to read it */ ;
	if (result != SUMMARY_END)
		abort();
}

int
main(int argc, char **argv)
{
	uint32		blocks,
				run,
				target,
				changed = 0;
	uint32	   *bits;
	roaring_bitmap_t *roaring = roaring_bitmap_create();
	roaring_bitmap_t *back;
	char	   *serialized;
	size_t		size;
	double		t[5];

	if (argc != 4)
	{
		fprintf(stderr, "usage: format_bench BLOCKS RUN PER_CENT\n");
		return 1;
	}
	blocks = (uint32) atoll(argv[1]);
	run = (uint32) atoi(argv[2]);
	target = (uint32) (blocks * atof(argv[3]) / 100);
	bits = calloc(blocks / 32 + PIECE_WORDS, 4);
	srandom(1);
	while (changed < target)
	{
		uint32		first = (uint32) (random() % (blocks / run)) * run;

		for (uint32 b = first; b < first + run && b < blocks; b++)
		{
			changed += !(bits[b / 32] >> b % 32 & 1);
			bits[b / 32] |= (uint32) 1 << b % 32;
		}
	}
	for (uint32 b = 0; b < blocks; b++)
		if (bits[b / 32] >> b % 32 & 1)
			roaring_bitmap_add(roaring, b);
	buffer = malloc(blocks / 4 + 100000);

	t[0] = now_ns();
	write_summary(bits, blocks);
	t[1] = now_ns();
	roaring_bitmap_run_optimize(roaring);
	size = roaring_bitmap_portable_size_in_bytes(roaring);
	serialized = malloc(size);
	roaring_bitmap_portable_serialize(roaring, serialized);
	t[2] = now_ns();
	read_summary();
	t[3] = now_ns();
	back = roaring_bitmap_portable_deserialize_safe(serialized, size);
	if (roaring_bitmap_get_cardinality(back) != changed)
		abort();
	t[4] = now_ns();
	printf("%u %zu %zu %.1f %.1f %.1f %.1f\n", changed, used, size,
		   (t[1] - t[0]) / changed, (t[2] - t[1]) / changed,
		   (t[3] - t[2]) / changed, (t[4] - t[3]) / changed);
	return 0;
}
