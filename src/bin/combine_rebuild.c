/*
 * combine_rebuild.c
 *		Putting files together of blocks.
 *
 * Blocks are written in the order that they have in the result.  The source that
 * has the file whole, if there is one, has its blocks in the same order.  So it is
 * read from its beginning to its end on the way, those of its blocks included that
 * the result does not have, and its checksum is compared: what was damaged does
 * not get a new checksum that is right.
 *
 * In place, nothing is read of that file but the blocks that are written over.
 * From these, the old ones and the new ones, the file's CRC-32C is made of the old
 * one: as the CRC is linear, each change of bytes adds a term that only depends on
 * what is added to them, and on how far from the end they are.  A file that was
 * damaged thus remains one that is known to be.
 */
#include "postgres_fe.h"

#include <time.h>
#include <unistd.h>

#include "combine_rebuild.h"
#include "crc32c_combine.h"
#include "incremental_file.h"
#include "progress.h"
#include "report.h"
#include "workers.h"

/* A file that is put together. */
typedef struct Rebuild
{
	const Builder *builder;
	BlockMap   *map;
	OutFile    *out;
	bool		by_range;		/* is the system to copy? */
	bool		summed;			/* is a checksum made of what is written? */
	pg_checksum_context sum;

	/* The whole file that blocks are taken from, if that is checked. */
	uint32		base;			/* BlockOrigin's source; ORIGIN_NONE: not
								 * checked */
	bool		streamed;		/* it is read when it is come by */
	uint64		base_read;		/* so many bytes of it */
	pg_checksum_context base_sum;

	/* In place, if the checksum is made of the old one. */
	bool		patched;
	uint64		size;			/* in bytes */
	pg_crc32c	crc;
} Rebuild;

/* Where a block is, in bytes. */
static uint64
block_at(const Rebuild *rebuild, const BlockOrigin *origin)
{
	return rebuild->map->sources[origin->source - ORIGIN_SOURCE].start +
		(uint64) origin->index * BLCKSZ;
}

/* Exactly so many bytes. */
static void
read_bytes(const Rebuild *rebuild, int fd, char *to, size_t len, uint64 at)
{
	const char *path = rebuild->map->target->path;
	ssize_t		got = pread(fd, to, len, at);

	if (got < 0)
		fatal("could not read blocks of file \"%s\": %m", path);
	if ((size_t) got != len)
		fatal("could not read blocks of file \"%s\": read %zd of %zu", path, got, len);
}

/*
 * The whole file that blocks are taken from
 */

static void
begin_base(Rebuild *rebuild, const Target *target)
{
	if (!target_is_whole(target))
		return;
	rebuild->streamed = source_is_streamed(rebuild->map->chain, target->oldest);
	if (!rebuild->streamed &&
		(target->oldest->checksum_len == 0 || rebuild->map->chain->resumed ||
		 (rebuild->by_range && !rebuild->summed)))
		return;
	rebuild->base = ORIGIN_SOURCE + rebuild->map->source_count - 1;
	sum_begin(&rebuild->base_sum, target->oldest->checksum_type);
}

/* Bytes of a source; of that one, always those that are next. */
static void
read_source(Rebuild *rebuild, uint32 source, char *to, size_t len, uint64 at)
{
	if (source == rebuild->base && rebuild->streamed)
		stream_read(rebuild->builder, to, len);
	else
		read_bytes(rebuild, map_source_fd(rebuild->map, source), to, len, at);
	if (source == rebuild->base)
	{
		sum_add(&rebuild->base_sum, to, len);
		rebuild->base_read += len;
	}
}

/* Reads it up to there. */
static void
read_base(Rebuild *rebuild, uint64 to)
{
	const BlockSource *base = &rebuild->map->sources[rebuild->base - ORIGIN_SOURCE];

	to = Min(to, base->size);
	while (rebuild->base_read < to)
	{
		size_t		len = Min(to - rebuild->base_read, BLOCK_BUFFER);

		read_source(rebuild, rebuild->base, rebuild->builder->old, len,
					base->start + rebuild->base_read);
	}
}

static void
end_base(Rebuild *rebuild)
{
	const Source *source = rebuild->map->target->oldest;
	uint8		computed[PG_CHECKSUM_MAX_LENGTH];

	read_base(rebuild, PG_UINT64_MAX);
	if (source->checksum_len == 0)
		return;
	if (sum_end(&rebuild->base_sum, computed) != source->checksum_len ||
		memcmp(computed, source->checksum, source->checksum_len) != 0)
		fatal("checksum of file \"%s/%s\" is not that of its manifest",
			  rebuild->map->chain->backups[source->backup].dir, rebuild->map->target->path);
}

/*
 * Checksums of files that are changed in place
 */

/*
 * Can the result's checksum be made of that of the file that is changed, whose
 * blocks the map has?
 */
bool
rebuild_can_patch_sum(const Builder *builder, const Target *target)
{
	const Source *base = target->oldest;

	return wants_checksum(builder, target) && has_wanted_checksum(builder, base) &&
		base->checksum_type == CHECKSUM_TYPE_CRC32C && !builder->chain->resumed &&
		base->size % BLCKSZ == 0 && base->size <= (uint64) builder->map->length * BLCKSZ;
}

/* The file has so many bytes now, zeros after the old ones. */
static void
begin_patched(Rebuild *rebuild, const Source *base)
{
	uint64		more = rebuild->size - base->size;
	pg_crc32c	zeros = ~crc32c_combine(0xFFFFFFFF, 0, more);

	memcpy(&rebuild->crc, base->checksum, sizeof(rebuild->crc));
	rebuild->crc = crc32c_combine(rebuild->crc, zeros, more);
}

static pg_crc32c
crc_of(const char *bytes, size_t len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes, len);
	FIN_CRC32C(crc);
	return crc;
}

/* Bytes are going to be written there. */
static void
patch(Rebuild *rebuild, const char *bytes, size_t len, uint64 at)
{
	char	   *old = rebuild->builder->old;
	pg_crc32c	change;

	read_bytes(rebuild, rebuild->out->fd, old, len, at);
	change = crc_of(old, len) ^ crc_of(bytes, len);
	rebuild->crc ^= crc32c_combine(change, 0, rebuild->size - at - len);
}

/*
 * Writing
 */

/* written: they are there, and only to be accounted for. */
static void
put_bytes(Rebuild *rebuild, const char *bytes, size_t len, uint64 at, bool written)
{
	if (rebuild->patched)
		patch(rebuild, bytes, len, at);
	if (rebuild->summed)
		sum_add(&rebuild->sum, bytes, len);
	if (!written)
		out_write(rebuild->out, bytes, len, at);
}

static void
put_zeros(Rebuild *rebuild, uint32 count, uint64 at)
{
	static const PGAlignedBlock zeros;

	for (uint32 i = 0; i < count; i++)
		put_bytes(rebuild, zeros.data, BLCKSZ, at + (uint64) i * BLCKSZ, false);
}

/* Blocks that lie together in a source. */
static void
put_run(Rebuild *rebuild, const BlockOrigin *origin, uint32 count, uint64 at)
{
	char	   *buffer = rebuild->builder->buffer;
	bool		by_range = rebuild->by_range &&
		!(rebuild->streamed && origin->source == rebuild->base);
	uint64		from = block_at(rebuild, origin);
	uint64		len = (uint64) count * BLCKSZ;

	if (by_range)
		copy_range(map_source_fd(rebuild->map, origin->source), rebuild->map->target->path, from,
				   rebuild->out, at, len);
	if (by_range && !rebuild->summed)
		return;
	for (uint64 done = 0; done < len; done += BLOCK_BUFFER)
	{
		size_t		part = Min(len - done, BLOCK_BUFFER);

		read_source(rebuild, origin->source, buffer, part, from + done);
		put_bytes(rebuild, buffer, part, at + done, by_range);
	}
}

/* How many blocks of the result, from that one on, lie together where they come from? */
static uint32
run_length(const BlockMap *map, uint32 from, uint32 count)
{
	const BlockOrigin *first = &map->origins[from];
	uint32		run = 1;

	while (from + run < count && first[run].source == first->source &&
		   (first->source == ORIGIN_ZEROS || first[run].index == first->index + run))
		run++;
	return run;
}

/*
 * Writes so many blocks, whose origins the map has, from that byte on.  But not
 * those of one source, if given: they are there.
 */
static void
put_blocks(Rebuild *rebuild, uint32 count, uint64 start, uint32 except)
{
	uint32		run;

	for (uint32 i = 0; i < count; i += run)
	{
		const BlockOrigin *origin = &rebuild->map->origins[i];
		uint64		at = start + (uint64) i * BLCKSZ;

		if (workers_stopping())
			give_up();
		run = run_length(rebuild->map, i, count);
		if (origin->source == except)
			continue;
		if (origin->source == ORIGIN_ZEROS)
			put_zeros(rebuild, run, at);
		else
			put_run(rebuild, origin, run, at);
		if (rebuild->base != ORIGIN_NONE)
			read_base(rebuild, (uint64) (i + run) * BLCKSZ);
		progress_add_bytes((uint64) run * BLCKSZ);
	}
}

static void
put_header(Rebuild *rebuild, uint32 count)
{
	size_t		len = incremental_header_len(count);
	char	   *header = pg_malloc(len);

	incremental_header_build(header, count, rebuild->map->truncation, rebuild->builder->blocks);
	put_bytes(rebuild, header, len, 0, false);
	pg_free(header);
}

/*
 * Makes a file of the blocks that the map has.
 */
void
rebuild_file(const Builder *builder, Target *target, const char *to)
{
	OutFile		out;
	Rebuild		rebuild = {.builder = builder,.map = builder->map,.out = &out};
	ManifestFile *made = &target->made;
	uint32		count = builder->map->length;
	uint64		header_len = 0;

	if (!target_is_whole(target))
	{
		count = map_list_blocks(builder->map, builder->blocks);
		header_len = incremental_header_len(count);
	}
	made->size = header_len + (uint64) count * BLCKSZ;
	made->modified = time(NULL);
	made->checksum_type = builder->options->checksum_type;
	out_create(builder, &out, to, made->size, made->modified);
	rebuild.by_range = builder->options->method == METHOD_COPY_FILE_RANGE;
	rebuild.summed = wants_checksum(builder, target);
	if (rebuild.summed)
		sum_begin(&rebuild.sum, made->checksum_type);
	begin_base(&rebuild, target);
	if (header_len > 0)
		put_header(&rebuild, count);
	put_blocks(&rebuild, count, header_len, ORIGIN_NONE);
	if (rebuild.base != ORIGIN_NONE)
		end_base(&rebuild);
	if (rebuild.summed)
		made->checksum_len = sum_end(&rebuild.sum, made->checksum);
	out_close(builder, &out);
}

/*
 * Writes those blocks to a file that is open for it, has its new size, and
 * already has the oldest source's blocks.  If the file's checksum can
 * be made of the old one, it is.
 */
void
rebuild_in_place(const Builder *builder, Target *target, OutFile *out)
{
	BlockMap   *map = builder->map;
	ManifestFile *made = &target->made;
	Rebuild		rebuild = {.builder = builder,.map = map,.out = out};

	rebuild.size = (uint64) map->length * BLCKSZ;
	made->size = rebuild.size;
	made->modified = time(NULL);
	made->checksum_type = builder->options->checksum_type;
	rebuild.patched = rebuild_can_patch_sum(builder, target);
	rebuild.by_range = builder->options->method == METHOD_COPY_FILE_RANGE && !rebuild.patched;
	if (rebuild.patched)
		begin_patched(&rebuild, target->oldest);
	put_blocks(&rebuild, map->length, 0, ORIGIN_SOURCE + map->source_count - 1);
	if (rebuild.patched)
	{
		made->checksum_len = sizeof(rebuild.crc);
		memcpy(made->checksum, &rebuild.crc, sizeof(rebuild.crc));
	}
}
