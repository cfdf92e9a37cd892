/*
 * archive_writer.h
 *		Writing a tar archive.
 */
#ifndef PTRACK_ARCHIVE_WRITER_H
#define PTRACK_ARCHIVE_WRITER_H

#include "common/compression.h"

typedef struct Pack Pack;

extern void pack_parse_compression(const char *text, pg_compress_specification *compression);
extern const char *pack_suffix(const pg_compress_specification *compression);
extern Pack *pack_create(const char *path, const pg_compress_specification *compression);
extern void pack_directory(Pack *pack, const char *name);
extern void pack_file(Pack *pack, const char *name, uint64 size, int64 modified);
extern void pack_write(Pack *pack, const void *data, size_t len);
extern void pack_close(Pack *pack, bool sync);

#endif							/* PTRACK_ARCHIVE_WRITER_H */
