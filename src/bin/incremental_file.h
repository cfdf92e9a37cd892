/*
 * incremental_file.h
 *		Files that hold the changed blocks of a segment file.
 *
 * PostgreSQL's format: all numbers are u32 in the machine's byte order.
 *
 *		0	magic, 0xd3ae1f0d
 *		4	number of blocks
 *		8	truncation block length: of the blocks before that one, those that
 *			are not in the file are as in the backup before; from it on, those
 *			that are not in the file do not exist
 *	   12	the blocks' numbers within the segment, ascending
 *			zeros, up to a multiple of the block size, if there are any blocks
 *			the blocks, in that order
 */
#ifndef PTRACK_INCREMENTAL_FILE_H
#define PTRACK_INCREMENTAL_FILE_H

#include "storage/block.h"

#define INCREMENTAL_MAGIC	0xd3ae1f0d

/* The fixed part, in bytes. */
#define INCREMENTAL_FIXED	12

typedef struct IncrementalHeader
{
	uint32		nblocks;
	uint32		truncation;		/* truncation block length */
	BlockNumber *blocks;		/* malloc'd; NULL if there are none */
} IncrementalHeader;

extern size_t incremental_header_len(uint32 nblocks);
extern void incremental_header_build(char *bytes, uint32 nblocks, uint32 truncation,
									 const BlockNumber *blocks);
extern const char *incremental_fixed_parse(const char *bytes, IncrementalHeader *header);
extern const char *incremental_blocks_parse(const char *bytes, IncrementalHeader *header);
extern void incremental_header_free(IncrementalHeader *header);

#endif							/* PTRACK_INCREMENTAL_FILE_H */
