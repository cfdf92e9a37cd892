/*
 * incremental_file.c
 *		Files that hold the changed blocks of a segment file.
 */
#include "postgres_fe.h"

#include "incremental_file.h"

/*
 * Bytes before the first block.
 */
size_t
incremental_header_len(uint32 nblocks)
{
	size_t		len = INCREMENTAL_FIXED + (size_t) nblocks * sizeof(BlockNumber);

	return nblocks == 0 ? len : TYPEALIGN(BLCKSZ, len);
}

/*
 * Writes a header, which has that length, to memory.
 */
void
incremental_header_build(char *bytes, uint32 nblocks, uint32 truncation,
						 const BlockNumber *blocks)
{
	uint32		fixed[] = {INCREMENTAL_MAGIC, nblocks, truncation};

	memset(bytes, 0, incremental_header_len(nblocks));
	memcpy(bytes, fixed, INCREMENTAL_FIXED);
	if (nblocks > 0)
		memcpy(bytes + INCREMENTAL_FIXED, blocks, nblocks * sizeof(BlockNumber));
}

/*
 * Reads the first INCREMENTAL_FIXED bytes of a file.  Returns NULL, or what is
 * wrong with it.
 */
const char *
incremental_fixed_parse(const char *bytes, IncrementalHeader *header)
{
	uint32		fixed[3];

	memcpy(fixed, bytes, INCREMENTAL_FIXED);
	header->nblocks = fixed[1];
	header->truncation = fixed[2];
	header->blocks = NULL;
	if (fixed[0] != INCREMENTAL_MAGIC)
		return "it has a bad magic number";
	if (header->nblocks > RELSEG_SIZE)
		return "it has more blocks than a segment";
	if (header->truncation > RELSEG_SIZE)
		return "its truncation block length is more than a segment";
	return NULL;
}

/*
 * Reads the blocks' numbers, which follow.  Returns NULL, or what is wrong.
 */
const char *
incremental_blocks_parse(const char *bytes, IncrementalHeader *header)
{
	if (header->nblocks == 0)
		return NULL;
	header->blocks = pg_malloc(header->nblocks * sizeof(BlockNumber));
	memcpy(header->blocks, bytes, header->nblocks * sizeof(BlockNumber));
	for (uint32 i = 0; i < header->nblocks; i++)
	{
		if (header->blocks[i] >= RELSEG_SIZE)
			return "it has a block number past the end of a segment";
		if (i > 0 && header->blocks[i] <= header->blocks[i - 1])
			return "its block numbers are not in ascending order";
	}
	return NULL;
}

void
incremental_header_free(IncrementalHeader *header)
{
	free(header->blocks);
	header->blocks = NULL;
}
