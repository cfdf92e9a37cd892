/*
 * combine_blocks.h
 *		Where the blocks of a file of the result come from.
 */
#ifndef PTRACK_COMBINE_BLOCKS_H
#define PTRACK_COMBINE_BLOCKS_H

#include "combine_plan.h"
#include "storage/block.h"

/* So many of a file's sources are open at a time. */
#define MAX_OPEN_SOURCES	8

/* BlockOrigin's source; the sources follow, the newest first. */
#define ORIGIN_NONE		0		/* the result does not have the block */
#define ORIGIN_ZEROS	1
#define ORIGIN_SOURCE	2

typedef struct BlockOrigin
{
	uint32		source;
	uint32		index;			/* among the blocks that the source has */
} BlockOrigin;

typedef struct BlockSource
{
	const Source *source;
	uint64		start;			/* of its blocks, in what is opened */
	int			fd;				/* -1: not open */
} BlockSource;

/* A source that is read. */
typedef struct OpenSource
{
	int			fd;
	uint64		start;			/* of its contents, in what was opened */
	struct stat st;
} OpenSource;

typedef struct BlockMap
{
	const Chain *chain;
	const Target *target;
	char	   *buffer;			/* lent, BLOCK_BUFFER bytes */
	int			source_count;
	BlockSource *sources;
	int			open[MAX_OPEN_SOURCES]; /* indexes, -1: none */
	int			next_open;
	uint32		truncation;		/* of the newest source */
	uint32		length;			/* in blocks */
	BlockOrigin *origins;		/* RELSEG_SIZE of them */
} BlockMap;

#define BLOCK_BUFFER	(256 * 1024)

extern BlockMap *map_create(const Chain *chain, char *buffer);
extern void map_read(BlockMap *map, const Target *target);
extern bool map_is_copy_of_oldest(const BlockMap *map);
extern uint32 map_list_blocks(BlockMap *map, BlockNumber *blocks);
extern int	map_source_fd(BlockMap *map, uint32 origin_source);
extern void map_close(BlockMap *map);

extern void source_open(const Chain *chain, const Target *target, const Source *source,
						OpenSource *opened);

#endif							/* PTRACK_COMBINE_BLOCKS_H */
