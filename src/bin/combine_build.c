/*
 * combine_build.c
 *		Making the files of the result.
 *
 * A file that is as one backup has it is copied, and what is read of it compared
 * with its checksum.  The others are put together of blocks, in the order that
 * they have in the result.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#ifdef __linux__
#include <linux/fs.h>
#endif
#include <time.h>
#include <unistd.h>

#include "combine_build.h"
#include "combine_dir.h"
#include "progress.h"
#include "common/file_perm.h"
#include "incremental_file.h"
#include "report.h"
#include "workers.h"

/* A file that is written. */
typedef struct Output
{
	const char *path;
	int			fd;
	bool		summed;			/* is a checksum made of it? */
	pg_checksum_context sum;
} Output;

/* A file that is read from its beginning to its end. */
typedef struct Reading
{
	const char *path;
	OpenSource	opened;
	const Source *source;		/* whose checksum it must have, or NULL */
	Output	   *to;				/* or NULL */
	bool		summed;
	pg_checksum_context sum;	/* for the result's manifest */
} Reading;

Builder *
builder_create(const CombineOptions *options, const Chain *chain)
{
	Builder    *builder = pg_malloc0(sizeof(Builder));

	builder->options = options;
	builder->chain = chain;
	builder->buffer = pg_malloc(BLOCK_BUFFER);
	builder->blocks = pg_malloc(RELSEG_SIZE * sizeof(BlockNumber));
	builder->map = map_create(chain, builder->buffer);
	return builder;
}

/*
 * Checksums
 */

static void
sum_begin(pg_checksum_context *sum, pg_checksum_type type)
{
	if (pg_checksum_init(sum, type) < 0)
		fatal("could not initialize checksum");
}

static void
sum_add(pg_checksum_context *sum, const char *bytes, size_t len)
{
	if (pg_checksum_update(sum, (const uint8 *) bytes, len) < 0)
		fatal("could not update checksum");
}

static int
sum_end(pg_checksum_context *sum, uint8 *checksum)
{
	int			len = pg_checksum_final(sum, checksum);

	if (len < 0)
		fatal("could not finalize checksum");
	return len;
}

static bool
wants_checksum(const Builder *builder, const Target *target)
{
	return builder->options->manifest && target->in_manifest &&
		builder->options->checksum_type != CHECKSUM_TYPE_NONE;
}

static bool
has_wanted_checksum(const Builder *builder, const Source *source)
{
	return source->checksum_len > 0 && source->checksum_type == builder->options->checksum_type;
}

/*
 * Writing
 */

static void
output_create(Output *output, const char *path)
{
	memset(output, 0, sizeof(*output));
	output->path = path;
	output->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, pg_file_create_mode);
	if (output->fd < 0)
		fatal("could not create file \"%s\": %m", path);
}

static void
output_write(const Output *output, const char *bytes, size_t len, uint64 at)
{
	while (len > 0)
	{
		ssize_t		written;

		errno = 0;
		written = pwrite(output->fd, bytes, len, at);
		if (written <= 0)
		{
			/* If there is no reason given, it is that there is no room. */
			if (errno == 0)
				errno = ENOSPC;
			fatal("could not write file \"%s\": %m", output->path);
		}
		bytes += written;
		len -= written;
		at += written;
	}
}

static void
output_close(const Builder *builder, Output *output)
{
#if defined(HAVE_SYNC_FILE_RANGE)
	/* What is written already is not waited for later. */
	if (builder->options->sync)
		(void) sync_file_range(output->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
	if (close(output->fd) < 0)
		fatal("could not close file \"%s\": %m", output->path);
}

/*
 * Whole files
 */

/* Returns the number of bytes; *context: of the source's checksum. */
static uint64
read_through(const Builder *builder, Reading *reading, pg_checksum_context *context)
{
	const OpenSource *from = &reading->opened;
	uint64		size = from->st.st_size;
	bool		check = reading->source != NULL;
	uint64		at = 0;
	ssize_t		got = 0;

	while (at < size && (got = pread(from->fd, builder->buffer, Min(size - at, BLOCK_BUFFER),
									 from->start + at)) > 0)
	{
		if (workers_stopping())
			give_up();
		if (check)
			sum_add(context, builder->buffer, got);
		if (reading->summed)
			sum_add(&reading->sum, builder->buffer, got);
		if (reading->to)
		{
			output_write(reading->to, builder->buffer, got, at);
			progress_add_bytes(got);
		}
		at += got;
	}
	if (got < 0)
		fatal("could not read file \"%s\": %m", reading->path);
	return at;
}

/* Reads the file, and does what is to be done with its contents. */
static void
read_whole(const Builder *builder, Reading *reading)
{
	uint64		size = reading->opened.st.st_size;
	pg_checksum_context context;
	uint8		computed[PG_CHECKSUM_MAX_LENGTH];
	const Source *source = reading->source;
	uint64		got;

	if (source)
		sum_begin(&context, source->checksum_type);
	got = read_through(builder, reading, &context);
	if (got != size)
		fatal("could not read file \"%s\": read " UINT64_FORMAT " of " UINT64_FORMAT,
			  reading->path, got, size);
	if (source && (sum_end(&context, computed) != source->checksum_len ||
				   memcmp(computed, source->checksum, source->checksum_len) != 0))
		fatal("checksum of file \"%s\" is not that of its manifest", reading->path);
}

static void
clone_file(const Reading *reading, const Output *output)
{
#ifdef FICLONE
	if (ioctl(output->fd, FICLONE, reading->opened.fd) < 0)
		fatal("could not clone file \"%s\" to \"%s\": %m", reading->path, output->path);
#else
	fatal("file cloning is not supported on this platform");
#endif
}

static void
copy_range(int from, const char *from_path, uint64 from_at, const Output *output, uint64 at,
		   uint64 len)
{
#ifdef __linux__
	loff_t		in = from_at;
	loff_t		out = at;

	while (len > 0)
	{
		ssize_t		copied = copy_file_range(from, &in, output->fd, &out, len, 0);

		if (copied < 0)
			fatal("could not copy file range from \"%s\" to \"%s\": %m", from_path,
				  output->path);
		if (copied == 0)
			fatal("could not copy file range from \"%s\": it ends early", from_path);
		len -= copied;
	}
#else
	fatal("copy_file_range is not supported on this platform");
#endif
}

/* Has the system copy a file, without its contents being seen here. */
static void
copy_unread(const Builder *builder, const Reading *reading, const char *to)
{
	uint64		size = reading->opened.st.st_size;
	Output		output;

	if (builder->options->method == METHOD_LINK)
	{
		if (link(reading->path, to) < 0)
			fatal("could not create link from \"%s\" to \"%s\": %m", reading->path, to);
	}
	else
	{
		output_create(&output, to);
		if (builder->options->method == METHOD_CLONE)
			clone_file(reading, &output);
		else
			copy_range(reading->opened.fd, reading->path, reading->opened.start, &output, 0, size);
		output_close(builder, &output);
	}
	progress_add_bytes(size);
}

/* Notes what the manifest needs of the file that was read. */
static void
end_made(const Builder *builder, Target *target, const Source *source, Reading *reading)
{
	ManifestFile *made = &target->made;

	made->size = reading->opened.st.st_size;
	made->modified = reading->opened.st.st_mtime;
	if (reading->summed)
		made->checksum_len = sum_end(&reading->sum, made->checksum);
	else if (has_wanted_checksum(builder, source))
	{
		made->checksum_len = source->checksum_len;
		memcpy(made->checksum, source->checksum, source->checksum_len);
	}
}

/* Begins to read a source, with the checksums that have to be made then. */
static void
begin_reading(const Builder *builder, Target *target, const Source *source, Reading *reading,
			  char *path)
{
	char		name[MAXPGPATH];

	source_path(name, target, source);
	path_join(path, builder->chain->backups[source->backup].dir, name);
	memset(reading, 0, sizeof(*reading));
	reading->path = path;
	source_open(builder->chain, target, source, &reading->opened);
	reading->source = source->checksum_len > 0 ? source : NULL;
	target->made.checksum_type = builder->options->checksum_type;
	reading->summed = wants_checksum(builder, target) && !has_wanted_checksum(builder, source);
	if (reading->summed)
		sum_begin(&reading->sum, builder->options->checksum_type);
}

static void
copy_source(const Builder *builder, Target *target, const Source *source, const char *to)
{
	char		path[MAXPGPATH];
	Reading		reading;
	Output		output;

	begin_reading(builder, target, source, &reading, path);
	if (builder->options->method == METHOD_COPY)
	{
		output_create(&output, to);
		reading.to = &output;
		read_whole(builder, &reading);
		output_close(builder, &output);
	}
	else
	{
		copy_unread(builder, &reading, to);
		if (reading.summed)
			read_whole(builder, &reading);
	}
	close(reading.opened.fd);
	end_made(builder, target, source, &reading);
}

/*
 * Blocks
 */

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

static void
write_zeros(Output *output, uint32 count, uint64 at)
{
	static const PGAlignedBlock zeros;

	for (uint32 i = 0; i < count; i++)
	{
		output_write(output, zeros.data, BLCKSZ, at + (uint64) i * BLCKSZ);
		if (output->summed)
			sum_add(&output->sum, zeros.data, BLCKSZ);
	}
}

/* Bytes of a source, by way of memory, where that is needed. */
static void
write_run(const Builder *builder, Output *output, int from, uint64 from_at, uint64 at, uint64 len)
{
	bool		ranges = builder->options->method == METHOD_COPY_FILE_RANGE;
	const char *path = builder->map->target->path;

	if (ranges)
		copy_range(from, path, from_at, output, at, len);
	for (uint64 done = 0; done < len && (!ranges || output->summed); done += BLOCK_BUFFER)
	{
		size_t		part = Min(len - done, BLOCK_BUFFER);
		ssize_t		got = pread(from, builder->buffer, part, from_at + done);

		if (got < 0)
			fatal("could not read blocks of file \"%s\": %m", path);
		if ((size_t) got != part)
			fatal("could not read blocks of file \"%s\": read %zd of %zu", path, got, part);
		if (output->summed)
			sum_add(&output->sum, builder->buffer, part);
		if (!ranges)
			output_write(output, builder->buffer, part, at + done);
	}
}

/*
 * Writes so many blocks, whose origins the map has, from that byte on.  But not
 * those of one source, if given: they are there.
 */
static void
write_blocks(const Builder *builder, Output *output, uint32 count, uint64 start, uint32 except)
{
	BlockMap   *map = builder->map;
	uint32		run;

	for (uint32 i = 0; i < count; i += run)
	{
		BlockOrigin origin = map->origins[i];
		uint64		at = start + (uint64) i * BLCKSZ;

		if (workers_stopping())
			give_up();
		run = run_length(map, i, count);
		if (origin.source == except)
			continue;
		if (origin.source == ORIGIN_ZEROS)
			write_zeros(output, run, at);
		else
			write_run(builder, output, map_source_fd(map, origin.source),
					  map->sources[origin.source - ORIGIN_SOURCE].start +
					  (uint64) origin.index * BLCKSZ, at, (uint64) run * BLCKSZ);
		progress_add_bytes((uint64) run * BLCKSZ);
	}
}

/* Writes an increment's header.  Returns its length. */
static uint64
write_header(const Builder *builder, Output *output, uint32 count)
{
	size_t		len = incremental_header_len(count);
	char	   *header = pg_malloc(len);

	incremental_header_build(header, count, builder->map->truncation, builder->blocks);
	output_write(output, header, len, 0);
	if (output->summed)
		sum_add(&output->sum, header, len);
	pg_free(header);
	return len;
}

/* Makes a file of the blocks that the map has. */
static void
build_of_blocks(const Builder *builder, Target *target, const char *to)
{
	BlockMap   *map = builder->map;
	uint32		count = map->length;
	uint64		header_len = 0;
	Output		output;

	output_create(&output, to);
	output.summed = wants_checksum(builder, target);
	if (output.summed)
		sum_begin(&output.sum, builder->options->checksum_type);
	if (!target_is_whole(target))
	{
		count = map_list_blocks(map, builder->blocks);
		header_len = write_header(builder, &output, count);
	}
	write_blocks(builder, &output, count, header_len, ORIGIN_NONE);
	target->made.size = header_len + (uint64) count * BLCKSZ;
	target->made.modified = time(NULL);
	target->made.checksum_type = builder->options->checksum_type;
	if (output.summed)
		target->made.checksum_len = sum_end(&output.sum, target->made.checksum);
	output_close(builder, &output);
}

/*
 * Reads what tells how a file would be made.
 */
void
build_nothing(Builder *builder, Target *target)
{
	OpenSource	opened;

	if (target->source_count > 1)
	{
		map_read(builder->map, target);
		return;
	}
	source_open(builder->chain, target, target->newest, &opened);
	close(opened.fd);
}

/*
 * Makes a file of the result, which must not exist yet.
 */
void
build_file(Builder *builder, Target *target, const char *to)
{
	report(PG_LOG_DEBUG, PG_LOG_PRIMARY, "making file \"%s\"", to);
	if (target->source_count == 1)
		copy_source(builder, target, target->newest, to);
	else
	{
		map_read(builder->map, target);
		if (map_is_copy_of_oldest(builder->map))
			copy_source(builder, target, target->oldest, to);
		else
			build_of_blocks(builder, target, to);
		map_close(builder->map);
	}
	target->written = true;
	progress_add_file();
}

/*
 * In place
 */

/* Replaces a file, for what is in it is another backup's as well. */
static void
replace_shared(Builder *builder, Target *target, const char *path)
{
	char		fresh[MAXPGPATH];

	if (snprintf(fresh, sizeof(fresh), "%s" FRESH_SUFFIX, path) >= (int) sizeof(fresh))
		fatal("file name \"%s\" is too long", path);
	if (unlink(fresh) < 0 && errno != ENOENT)
		fatal("could not remove file \"%s\": %m", fresh);
	build_of_blocks(builder, target, fresh);
	if (rename(fresh, path) < 0)
		fatal("could not rename file \"%s\" to \"%s\": %m", fresh, path);
}

/*
 * Gets what the manifest has of a file of the first backup: anew, if the file was
 * written to.
 */
static void
sum_first(const Builder *builder, Target *target)
{
	char		path[MAXPGPATH];
	Reading		reading;

	begin_reading(builder, target, target->oldest, &reading, path);
	if (target->written)
	{
		reading.source = NULL;
		if (wants_checksum(builder, target) && !reading.summed)
			sum_begin(&reading.sum, builder->options->checksum_type);
		reading.summed = wants_checksum(builder, target);
	}
	if (reading.summed)
		read_whole(builder, &reading);
	close(reading.opened.fd);
	end_made(builder, target, target->oldest, &reading);
}

/*
 * Gives a file its new length.  What of its last block was there but in part is
 * not part of the result.
 */
static void
set_length(const Output *output, uint64 old_size, uint32 length)
{
	uint64		size = (uint64) length * BLCKSZ;
	uint64		kept = Min(old_size / BLCKSZ * BLCKSZ, size);

	if ((kept != old_size && ftruncate(output->fd, kept) < 0) ||
		(size != kept && ftruncate(output->fd, size) < 0))
		fatal("could not truncate file \"%s\": %m", output->path);
}

/*
 * Makes a file of the result of the one that the first backup has.  That can be
 * done again after having been done in part: of the first backup's file nothing
 * is read, and blocks that are zeros for being past its old end stay so.
 */
void
build_in_place(Builder *builder, Target *target)
{
	const Backup *first = &builder->chain->backups[0];
	BlockMap   *map = builder->map;
	char		path[MAXPGPATH];
	Output		output = {.path = path};
	struct stat st;

	path_join(path, first->dir, target->path);
	map_read(map, target);
	if (!map_is_copy_of_oldest(map))
	{
		report(PG_LOG_DEBUG, PG_LOG_PRIMARY, "changing file \"%s\"", path);
		output.fd = dir_open(first->dir, target->path, O_RDWR | PG_BINARY, &st);
		if (st.st_nlink > 1)
		{
			close(output.fd);
			replace_shared(builder, target, path);
		}
		else
		{
			set_length(&output, st.st_size, map->length);
			write_blocks(builder, &output, map->length, 0,
						 ORIGIN_SOURCE + map->source_count - 1);
			output_close(builder, &output);
		}
		target->written = true;
	}
	map_close(map);
	sum_first(builder, target);
	progress_add_file();
}
