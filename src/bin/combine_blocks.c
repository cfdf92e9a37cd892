/*
 * combine_blocks.c
 *		Where the blocks of a file of the result come from.
 *
 * The newest source says how long the file is: its truncation block length, or up
 * to its last block if that is more.  A block is taken from the newest source that
 * has it, but not from beyond the truncation block length of any source that is
 * newer: there, the file ended at the time, so that the older contents were gone
 * for good.  So the least of these lengths that was come by so far is the limit
 * for what is older.  A block of the result that is not found so was added to the
 * file without ever being written to, and is zeros.
 *
 * When increments are merged, their first one is relative to a backup that is not
 * here.  A block below the limit that no increment has is left to that one.  Those
 * from the limit on up to the newest truncation block length must not be: a reader
 * would take them from the prior backup.  So the result has them, as zeros, and
 * keeps the truncation block length of the newest increment, which is also the
 * least length that the file gets.
 *
 * In memory there are 8 bytes for each block of one segment.
 */
#include "postgres_fe.h"

#include <unistd.h>

#include "combine_blocks.h"
#include "incremental_file.h"
#include "report.h"

/* Was the file, or may it have been, changed in place? */
static bool
is_changed(const Chain *chain, const Target *target, const Source *source)
{
	return source->backup == 0 && (chain->resumed || target->written);
}

/*
 * Opens a source, which has the length that its manifest says.
 */
void
source_open(const Chain *chain, const Target *target, const Source *source, OpenSource *opened)
{
	const Input *input = &chain->backups[source->backup].input;
	char		path[MAXPGPATH];

	source_path(path, target, source);
	opened->fd = input_open(input, path, &opened->st, &opened->start);
	if (source->known && source->size != (uint64) opened->st.st_size &&
		!is_changed(chain, target, source))
		fatal("file \"%s/%s\" has %lld bytes, but its manifest says " UINT64_FORMAT,
			  input->dir, path, (long long) opened->st.st_size, source->size);
}

void
source_close(OpenSource *opened)
{
	if (opened->fd >= 0)
		close(opened->fd);
}

/*
 * Can it only be read when it is come by?
 */
bool
source_is_streamed(const Chain *chain, const Source *source)
{
	return chain->backups[source->backup].input.streamed;
}

/*
 * To be read with map_read.  The buffer has BLOCK_BUFFER bytes, and may be used
 * in between.
 */
BlockMap *
map_create(const Chain *chain, char *buffer)
{
	BlockMap   *map = pg_malloc0(sizeof(BlockMap));

	map->chain = chain;
	map->buffer = buffer;
	map->sources = pg_malloc0(chain->count * sizeof(BlockSource));
	map->origins = pg_malloc(RELSEG_SIZE * sizeof(BlockOrigin));
	return map;
}

/*
 * A file descriptor of a source.  It stays open for a while.
 */
int
map_source_fd(BlockMap *map, uint32 origin_source)
{
	int			number = (int) (origin_source - ORIGIN_SOURCE);
	BlockSource *source = &map->sources[number];
	int		   *slot = &map->open[map->next_open];
	OpenSource	opened;

	if (source->fd >= 0)
		return source->fd;
	if (*slot >= 0)
	{
		close(map->sources[*slot].fd);
		map->sources[*slot].fd = -1;
		*slot = -1;
	}
	source_open(map->chain, map->target, source->source, &opened);
	source->fd = opened.fd;
	*slot = number;
	map->next_open = (map->next_open + 1) % MAX_OPEN_SOURCES;
	return source->fd;
}

/*
 * Closes all of them.
 */
void
map_close(BlockMap *map)
{
	for (int i = 0; i < MAX_OPEN_SOURCES; i++)
	{
		if (map->open[i] >= 0)
			close(map->sources[map->open[i]].fd);
		map->open[i] = -1;
	}
}

static void
start_map(BlockMap *map, const Target *target)
{
	map->target = target;
	map->source_count = 0;
	map->next_open = 0;
	for (int i = 0; i < MAX_OPEN_SOURCES; i++)
		map->open[i] = -1;
	for (const Source *source = target->newest; source != NULL; source = source->older)
		map->sources[map->source_count++] = (BlockSource)
	{
		.source = source,.fd = -1
	};
}

static void
__attribute__((noreturn))
bad_source(const BlockMap *map, const Source *source, const char *problem)
{
	char		path[MAXPGPATH];

	source_path(path, map->target, source);
	fatal("could not use incremental file \"%s/%s\": %s",
		  map->chain->backups[source->backup].dir, path, problem);
}

static void
read_at(const BlockMap *map, const Source *source, const OpenSource *opened, char *to, size_t len,
		uint64 at)
{
	ssize_t		got;

	/* There may be something behind it. */
	if (at + len > (uint64) opened->st.st_size)
		bad_source(map, source, "it ends early");
	got = pread(opened->fd, to, len, opened->start + at);

	if (got < 0)
		bad_source(map, source, strerror(errno));
	if ((size_t) got != len)
		bad_source(map, source, "it ends early");
}

/* Compares the whole file with its checksum. */
static void
check_contents(const BlockMap *map, const Source *source, const OpenSource *opened)
{
	uint64		size = opened->st.st_size;
	pg_checksum_context context;
	uint8		computed[PG_CHECKSUM_MAX_LENGTH];

	if (source->checksum_len == 0)
		return;
	if (pg_checksum_init(&context, source->checksum_type) < 0)
		fatal("could not initialize checksum");
	for (uint64 at = 0; at < size; at += BLOCK_BUFFER)
	{
		size_t		len = Min(size - at, BLOCK_BUFFER);

		read_at(map, source, opened, map->buffer, len, at);
		if (pg_checksum_update(&context, (uint8 *) map->buffer, len) < 0)
			fatal("could not update checksum");
	}
	if (pg_checksum_final(&context, computed) != source->checksum_len ||
		memcmp(computed, source->checksum, source->checksum_len) != 0)
		bad_source(map, source, "its checksum is not that of its manifest");
}

static void
read_header(const BlockMap *map, const Source *source, const OpenSource *opened,
			IncrementalHeader *header)
{
	uint64		size = opened->st.st_size;
	char		fixed[INCREMENTAL_FIXED];
	const char *problem;
	char	   *numbers;

	read_at(map, source, opened, fixed, sizeof(fixed), 0);
	problem = incremental_fixed_parse(fixed, header);
	if (problem)
		bad_source(map, source, problem);
	if (size != incremental_header_len(header->nblocks) + (uint64) header->nblocks * BLCKSZ)
		bad_source(map, source, "its length is not that of the blocks that its header has");
	numbers = pg_malloc(header->nblocks * sizeof(BlockNumber) + 1);
	read_at(map, source, opened, numbers, header->nblocks * sizeof(BlockNumber), INCREMENTAL_FIXED);
	problem = incremental_blocks_parse(numbers, header);
	pg_free(numbers);
	if (problem)
		bad_source(map, source, problem);
}

/* The newest source's header says how long the file is. */
static void
begin_file(BlockMap *map, const IncrementalHeader *header)
{
	map->truncation = header->truncation;
	map->length = header->truncation;
	if (header->nblocks > 0)
		map->length = Max(map->length, header->blocks[header->nblocks - 1] + 1);
	memset(map->origins, 0, map->length * sizeof(BlockOrigin));
}

/* Takes from an increment what is below the limit and not newer.  Returns the next limit. */
static uint32
take_increment(BlockMap *map, int number, uint32 limit)
{
	BlockSource *from = &map->sources[number];
	IncrementalHeader header;
	OpenSource	opened;

	source_open(map->chain, map->target, from->source, &opened);
	check_contents(map, from->source, &opened);
	read_header(map, from->source, &opened, &header);
	source_close(&opened);
	if (number == 0)
	{
		begin_file(map, &header);
		limit = map->length;
	}
	for (uint32 i = 0; i < header.nblocks && header.blocks[i] < limit; i++)
	{
		BlockOrigin *origin = &map->origins[header.blocks[i]];

		if (origin->source == ORIGIN_NONE)
			*origin = (BlockOrigin)
		{
			.source = ORIGIN_SOURCE + number,.index = i
		};
	}
	from->start = opened.start + incremental_header_len(header.nblocks);
	incremental_header_free(&header);
	return Min(limit, header.truncation);
}

/* Takes from a whole file what is below the limit and not newer. */
static void
take_whole(BlockMap *map, int number, uint32 limit)
{
	BlockSource *from = &map->sources[number];
	OpenSource	opened;

	source_open(map->chain, map->target, from->source, &opened);
	source_close(&opened);
	from->start = opened.start;
	from->size = opened.st.st_size;
	limit = Min(limit, opened.st.st_size / BLCKSZ);
	for (uint32 b = 0; b < limit; b++)
	{
		if (map->origins[b].source == ORIGIN_NONE)
			map->origins[b] = (BlockOrigin)
		{
			.source = ORIGIN_SOURCE + number,.index = b
		};
	}
}

static void
fill_with_zeros(BlockMap *map, uint32 from, uint32 to)
{
	for (uint32 b = from; b < to; b++)
	{
		if (map->origins[b].source == ORIGIN_NONE)
			map->origins[b].source = ORIGIN_ZEROS;
	}
}

/*
 * Finds the origins of a file whose newest source is incremental.
 */
void
map_read(BlockMap *map, const Target *target)
{
	uint32		limit = RELSEG_SIZE;

	start_map(map, target);
	for (int i = 0; i < map->source_count; i++)
	{
		if (map->sources[i].source->incremental)
			limit = take_increment(map, i, limit);
		else
			take_whole(map, i, limit);
	}
	if (target_is_whole(target))
		fill_with_zeros(map, 0, map->length);
	else
		fill_with_zeros(map, limit, map->truncation);
}

/*
 * Is the file as it is, or was, in the oldest source?
 */
bool
map_is_copy_of_oldest(const BlockMap *map)
{
	const Source *oldest = map->target->oldest;
	uint32		number = ORIGIN_SOURCE + map->source_count - 1;

	if (oldest->incremental || !oldest->known ||
		oldest->size != (uint64) map->length * BLCKSZ)
		return false;
	for (uint32 b = 0; b < map->length; b++)
	{
		if (map->origins[b].source != number)
			return false;
	}
	return true;
}

/*
 * Lists the blocks that the result has, and leaves only their origins, in that
 * order.  Returns how many there are.
 */
uint32
map_list_blocks(BlockMap *map, BlockNumber *blocks)
{
	uint32		count = 0;

	for (uint32 b = 0; b < map->length; b++)
	{
		if (map->origins[b].source == ORIGIN_NONE)
			continue;
		map->origins[count] = map->origins[b];
		blocks[count++] = b;
	}
	return count;
}
