/*
 * combine_build.c
 *		Making the files of the result.
 *
 * A file that is as one backup has it is copied, and what is read of it compared
 * with its checksum.  The others are put together of blocks.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#ifdef __linux__
#include <linux/fs.h>
#endif
#include <unistd.h>

#include "combine_build.h"
#include "combine_dir.h"
#include "combine_rebuild.h"
#include "progress.h"
#include "report.h"
#include "workers.h"

/* A file that is read from its beginning to its end. */
typedef struct Reading
{
	const char *path;
	OpenSource	opened;
	const Source *source;		/* whose checksum it must have, or NULL */
	OutFile    *to;				/* or NULL */
	bool		summed;
	pg_checksum_context sum;	/* for the result's manifest */
} Reading;

/*
 * Whole files
 */

/* Returns the number of bytes that were read, 0 at the end, or -1. */
static ssize_t
read_part(const Builder *builder, const OpenSource *from, uint64 at)
{
	size_t		len = Min(from->st.st_size - at, BLOCK_BUFFER);

	if (from->fd >= 0)
		return pread(from->fd, builder->buffer, len, from->start + at);
	stream_read(builder, builder->buffer, len);
	return len;
}

/* Returns the number of bytes; *context: of the source's checksum. */
static uint64
read_through(const Builder *builder, Reading *reading, pg_checksum_context *context)
{
	const OpenSource *from = &reading->opened;
	uint64		size = from->st.st_size;
	bool		check = reading->source != NULL;
	uint64		at = 0;
	ssize_t		got = 0;

	while (at < size && (got = read_part(builder, from, at)) > 0)
	{
		if (workers_stopping())
			give_up();
		if (check)
			sum_add(context, builder->buffer, got);
		if (reading->summed)
			sum_add(&reading->sum, builder->buffer, got);
		if (reading->to)
		{
			out_write(reading->to, builder->buffer, got, at);
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
clone_file(const Reading *reading, const OutFile *out)
{
#ifdef FICLONE
	if (ioctl(out->fd, FICLONE, reading->opened.fd) < 0)
		fatal("could not clone file \"%s\" to \"%s\": %m", reading->path, out->path);
#else
	fatal("file cloning is not supported on this platform");
#endif
}

/* Has the system copy a file, without its contents being seen here. */
static void
copy_unread(const Builder *builder, const Reading *reading, const char *to)
{
	const struct stat *st = &reading->opened.st;
	OutFile		out;

	if (builder->options->method == METHOD_LINK)
	{
		if (link(reading->path, to) < 0)
			fatal("could not create link from \"%s\" to \"%s\": %m", reading->path, to);
	}
	else
	{
		out_create(builder, &out, to, st->st_size, st->st_mtime);
		if (builder->options->method == METHOD_CLONE)
			clone_file(reading, &out);
		else
			copy_range(reading->opened.fd, reading->path, reading->opened.start, &out, 0,
					   st->st_size);
		out_close(builder, &out);
	}
	progress_add_bytes(st->st_size);
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
	OutFile		out;

	begin_reading(builder, target, source, &reading, path);
	if (builder->options->method == METHOD_COPY || reading.opened.fd < 0)
	{
		out_create(builder, &out, to, reading.opened.st.st_size,
				   reading.opened.st.st_mtime);
		reading.to = &out;
		read_whole(builder, &reading);
		out_close(builder, &out);
	}
	else
	{
		copy_unread(builder, &reading, to);
		if (reading.summed)
			read_whole(builder, &reading);
	}
	source_close(&reading.opened);
	end_made(builder, target, source, &reading);
}

/*
 * Files
 */

/* Compares a source with its checksum. */
static void
check_source(const Builder *builder, Target *target, const Source *source)
{
	char		path[MAXPGPATH];
	Reading		reading;

	begin_reading(builder, target, source, &reading, path);
	reading.summed = false;
	if (reading.source)
		read_whole(builder, &reading);
	source_close(&reading.opened);
}

/* Is a file that is changed in place read for its new checksum? */
static bool
must_be_read(const Builder *builder, const Target *target)
{
	return wants_checksum(builder, target) && !rebuild_can_patch_sum(builder, target);
}

/*
 * Checks what there is to make a file of.  But of a file that the first backup has
 * whole, only as much as is needed to change it in place: what is damaged must not
 * get a new checksum.
 */
void
build_check(Builder *builder, Target *target)
{
	const Source *oldest = target->oldest;

	if (target->source_count == 1)
	{
		check_source(builder, target, oldest);
		return;
	}
	map_read(builder->map, target);
	if (oldest->incremental)
		return;
	if (oldest->backup > 0 ||
		(builder->options->in_place && !builder->chain->resumed &&
		 !map_is_copy_of_oldest(builder->map) && must_be_read(builder, target)))
		check_source(builder, target, oldest);
}

/*
 * Makes a file of the result, which must not exist yet.
 */
void
build_file(Builder *builder, Target *target, const char *to)
{
	report_debug("making file \"%s\"", to);
	if (target->source_count == 1)
		copy_source(builder, target, target->newest, to);
	else
	{
		map_read(builder->map, target);
		if (map_is_copy_of_oldest(builder->map))
			copy_source(builder, target, target->oldest, to);
		else
			rebuild_file(builder, target, to);
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
	rebuild_file(builder, target, fresh);
	if (rename(fresh, path) < 0)
		fatal("could not rename file \"%s\" to \"%s\": %m", fresh, path);
}

/* Gets what the manifest has of a file that stays as it is in the first backup. */
static void
keep_first(const Builder *builder, Target *target)
{
	char		path[MAXPGPATH];
	Reading		reading;

	begin_reading(builder, target, target->oldest, &reading, path);
	if (reading.summed)
		read_whole(builder, &reading);
	source_close(&reading.opened);
	end_made(builder, target, target->oldest, &reading);
}

/* Reads a file of the first backup that was changed for its new checksum. */
static void
sum_first(const Builder *builder, Target *target)
{
	char		path[MAXPGPATH];
	Reading		reading;

	begin_reading(builder, target, target->oldest, &reading, path);
	reading.source = NULL;
	reading.summed = true;
	sum_begin(&reading.sum, builder->options->checksum_type);
	read_whole(builder, &reading);
	source_close(&reading.opened);
	end_made(builder, target, target->oldest, &reading);
}

/*
 * Gives a file its new length.  What of its last block was there but in part is
 * not part of the result.
 */
static void
set_length(const OutFile *out, uint64 old_size, uint32 length)
{
	uint64		size = (uint64) length * BLCKSZ;
	uint64		kept = Min(old_size / BLCKSZ * BLCKSZ, size);

	if ((kept != old_size && ftruncate(out->fd, kept) < 0) ||
		(size != kept && ftruncate(out->fd, size) < 0))
		fatal("could not truncate file \"%s\": %m", out->path);
}

static void
change_first(const Builder *builder, Target *target, OutFile *out, uint64 old_size)
{
	set_length(out, old_size, builder->map->length);
	rebuild_in_place(builder, target, out);
	out_close(builder, out);
	target->written = true;
	if (must_be_read(builder, target))
		sum_first(builder, target);
}

/*
 * Makes a file of the result of the one that the first backup has.  That can be
 * done again after having been done in part: of the first backup's file nothing
 * gets elsewhere in it, and blocks that are zeros for being past its old end stay
 * so.
 */
void
build_in_place(Builder *builder, Target *target)
{
	const Backup *first = &builder->chain->backups[0];
	char		path[MAXPGPATH];
	OutFile		out = {.path = path};
	struct stat st;

	path_join(path, first->dir, target->path);
	map_read(builder->map, target);
	if (map_is_copy_of_oldest(builder->map))
		keep_first(builder, target);
	else
	{
		report_debug("changing file \"%s\"", path);
		out.fd = dir_open(first->dir, target->path, O_RDWR | PG_BINARY, &st);
		if (st.st_nlink == 1)
			change_first(builder, target, &out, st.st_size);
		else
		{
			close(out.fd);
			replace_shared(builder, target, path);
			target->written = true;
		}
	}
	map_close(builder->map);
	progress_add_file();
}
