/*
 * combine_file.c
 *		What files of the result are made with.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "combine_file.h"
#include "common/file_perm.h"
#include "report.h"

/*
 * What one thread makes files with.
 */
Builder *
builder_create(const CombineOptions *options, const Chain *chain)
{
	Builder    *builder = pg_malloc0(sizeof(Builder));

	builder->options = options;
	builder->chain = chain;
	builder->buffer = pg_malloc(BLOCK_BUFFER);
	builder->blocks = pg_malloc(RELSEG_SIZE * sizeof(BlockNumber));
	builder->old = pg_malloc(BLOCK_BUFFER);
	builder->map = map_create(chain, builder->buffer);
	return builder;
}

/*
 * Checksums
 */

void
sum_begin(pg_checksum_context *sum, pg_checksum_type type)
{
	if (pg_checksum_init(sum, type) < 0)
		fatal("could not initialize checksum");
}

void
sum_add(pg_checksum_context *sum, const char *bytes, size_t len)
{
	if (pg_checksum_update(sum, (const uint8 *) bytes, len) < 0)
		fatal("could not update checksum");
}

int
sum_end(pg_checksum_context *sum, uint8 *checksum)
{
	int			len = pg_checksum_final(sum, checksum);

	if (len < 0)
		fatal("could not finalize checksum");
	return len;
}

/*
 * Does the result's manifest have a checksum of it?
 */
bool
wants_checksum(const Builder *builder, const Target *target)
{
	return builder->options->manifest && target->in_manifest &&
		builder->options->checksum_type != CHECKSUM_TYPE_NONE;
}

/*
 * Is it that of the source?
 */
bool
has_wanted_checksum(const Builder *builder, const Source *source)
{
	return source->checksum_len > 0 && source->checksum_type == builder->options->checksum_type;
}

/*
 * Reads exactly so many bytes of the file that is come by.
 */
void
stream_read(const Builder *builder, char *to, size_t len)
{
	while (len > 0)
	{
		ssize_t		got = tar_input_read(builder->stream, to, len);

		if (got < 0)
			fatal("%s", tar_input_problem(builder->stream));
		if (got == 0)
			fatal("a file ends early in an archive of backup \"%s\"",
				  builder->chain->backups[0].dir);
		to += got;
		len -= got;
	}
}

/*
 * Writing
 */

/*
 * Makes a file.  size and modified are for an archive, which has them before the
 * contents.
 */
void
out_create(const Builder *builder, OutFile *out, const char *path, uint64 size,
		   int64 modified)
{
	memset(out, 0, sizeof(*out));
	out->path = path;
	out->pack = builder->pack;
	if (out->pack)
	{
		pack_file(out->pack, path, size, modified);
		return;
	}
	out->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, pg_file_create_mode);
	if (out->fd < 0)
		fatal("could not create file \"%s\": %m", path);
}

/*
 * Writes bytes; to an archive, in their order.
 */
void
out_write(const OutFile *out, const char *bytes, size_t len, uint64 at)
{
	if (out->pack)
	{
		pack_write(out->pack, bytes, len);
		return;
	}
	while (len > 0)
	{
		ssize_t		written;

		errno = 0;
		written = pwrite(out->fd, bytes, len, at);
		if (written <= 0)
		{
			/* If there is no reason given, it is that there is no room. */
			if (errno == 0)
				errno = ENOSPC;
			fatal("could not write file \"%s\": %m", out->path);
		}
		bytes += written;
		len -= written;
		at += written;
	}
}

void
out_close(const Builder *builder, OutFile *out)
{
	if (out->pack)
		return;
#if defined(HAVE_SYNC_FILE_RANGE)
	/* What is written already is not waited for later. */
	if (builder->options->sync)
		(void) sync_file_range(out->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
	if (close(out->fd) < 0)
		fatal("could not close file \"%s\": %m", out->path);
}

/*
 * Has the system copy bytes of a file to another one.
 */
void
copy_range(int from, const char *from_path, uint64 from_at, const OutFile *out, uint64 at,
		   uint64 len)
{
#ifdef __linux__
	loff_t		in_at = from_at;
	loff_t		out_at = at;

	while (len > 0)
	{
		ssize_t		copied = copy_file_range(from, &in_at, out->fd, &out_at, len, 0);

		if (copied < 0)
			fatal("could not copy file range from \"%s\" to \"%s\": %m", from_path,
				  out->path);
		if (copied == 0)
			fatal("could not copy file range from \"%s\": it ends early", from_path);
		len -= copied;
	}
#else
	fatal("copy_file_range is not supported on this platform");
#endif
}
