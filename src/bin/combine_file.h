/*
 * combine_file.h
 *		What files of the result are made with.
 */
#ifndef PTRACK_COMBINE_FILE_H
#define PTRACK_COMBINE_FILE_H

#include "archive_writer.h"
#include "combine.h"
#include "combine_blocks.h"

/* Of one thread. */
typedef struct Builder
{
	const CombineOptions *options;
	const Chain *chain;
	char	   *buffer;			/* BLOCK_BUFFER bytes */
	char	   *old;			/* another one */
	BlockNumber *blocks;		/* RELSEG_SIZE of them */
	BlockMap   *map;
	Pack	   *pack;			/* what files are put into, or NULL */
	TarInput   *stream;			/* has the file that is come by, or NULL */
} Builder;

/* A file that is written. */
typedef struct OutFile
{
	const char *path;
	int			fd;
	Pack	   *pack;			/* written to instead, from beginning to end */
} OutFile;

extern Builder *builder_create(const CombineOptions *options, const Chain *chain);

extern void sum_begin(pg_checksum_context *sum, pg_checksum_type type);
extern void sum_add(pg_checksum_context *sum, const char *bytes, size_t len);
extern int	sum_end(pg_checksum_context *sum, uint8 *checksum);
extern bool wants_checksum(const Builder *builder, const Target *target);
extern bool has_wanted_checksum(const Builder *builder, const Source *source);

extern void stream_read(const Builder *builder, char *to, size_t len);
extern void out_create(const Builder *builder, OutFile *out, const char *path, uint64 size,
					   int64 modified);
extern void out_write(const OutFile *out, const char *bytes, size_t len, uint64 at);
extern void out_close(const Builder *builder, OutFile *out);
extern void copy_range(int from, const char *from_path, uint64 from_at, const OutFile *out,
					   uint64 at, uint64 len);

#endif							/* PTRACK_COMBINE_FILE_H */
