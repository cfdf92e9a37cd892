/*
 * incremental_file.c
 *		Fuzzing of the reader of increments' headers: any bytes whatever.
 *
 * What must hold, besides that nothing is read out of bounds: the block numbers of
 * a header that is good ascend strictly and are of one segment; and the header,
 * written again, is what was read.
 */
#include "postgres_fe.h"

#include "bin/incremental_file.h"
#include "harness.h"

static void
check_header(const IncrementalHeader *header, const uint8_t *data)
{
	size_t		used = INCREMENTAL_FIXED + header->nblocks * sizeof(BlockNumber);
	size_t		len = incremental_header_len(header->nblocks);
	char	   *again = malloc(len);

	for (uint32 i = 0; i < header->nblocks; i++)
	{
		REQUIRE(header->blocks[i] < RELSEG_SIZE);
		REQUIRE(i == 0 || header->blocks[i] > header->blocks[i - 1]);
	}
	REQUIRE(header->truncation <= RELSEG_SIZE);
	REQUIRE(len >= used && (header->nblocks == 0 || len % BLCKSZ == 0));
	incremental_header_build(again, header->nblocks, header->truncation, header->blocks);
	REQUIRE(memcmp(again, data, used) == 0);
	for (size_t i = used; i < len; i++)
		REQUIRE(again[i] == 0);
	free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	IncrementalHeader header;
	char	   *blocks;
	size_t		len;

	if (size < INCREMENTAL_FIXED || incremental_fixed_parse((const char *) data, &header) != NULL)
		return 0;
	len = header.nblocks * sizeof(BlockNumber);
	if (size - INCREMENTAL_FIXED < len)
		return 0;

	/* What follows is no memory of the reader's. */
	blocks = malloc(len);
	memcpy(blocks, data + INCREMENTAL_FIXED, len);
	if (incremental_blocks_parse(blocks, &header) == NULL)
		check_header(&header, data);
	incremental_header_free(&header);
	free(blocks);
	return 0;
}
