/*
 * manifest.h
 *		Reading and writing backup manifests, of any length.
 *
 * The format is PostgreSQL's: version 1 before 17, version 2 from 17 on, which
 * adds the system identifier.  Reading takes memory for one file at a time.
 */
#ifndef PTRACK_MANIFEST_H
#define PTRACK_MANIFEST_H

#include "access/xlogdefs.h"
#include "common/checksum_helper.h"
#include "common/cryptohash.h"

/* What a manifest says of a file. */
typedef struct ManifestFile
{
	const char *path;			/* relative to the backup, and safe */
	uint64		size;			/* bytes */
	int64		modified;		/* seconds since 1970; when read, 0 */
	pg_checksum_type checksum_type;
	int			checksum_len;	/* 0: none */
	uint8		checksum[PG_CHECKSUM_MAX_LENGTH];
} ManifestFile;

/* WAL that a backup needs. */
typedef struct WalRange
{
	TimeLineID	tli;
	XLogRecPtr	start;
	XLogRecPtr	end;
} WalRange;

/* Who is told what is in a manifest, in its order. */
typedef struct ManifestHandler
{
	void	   *arg;
	void		(*file) (void *arg, const ManifestFile *file);
	void		(*wal_range) (void *arg, const WalRange *range);
} ManifestHandler;

/* What a manifest says of itself. */
typedef struct ManifestInfo
{
	int			version;
	bool		has_system_identifier;
	uint64		system_identifier;
} ManifestInfo;

/* Reading, piece by piece, without reporting anything; for manifest_read, and tests. */
typedef struct ManifestParser ManifestParser;

extern ManifestParser *manifest_parser_create(const ManifestHandler *handler);
extern bool manifest_parser_feed(ManifestParser *parser, const char *data, size_t len);
extern bool manifest_parser_end(ManifestParser *parser, ManifestInfo *info);
extern const char *manifest_parser_problem(const ManifestParser *parser);
extern void manifest_parser_free(ManifestParser *parser);

extern void manifest_read(const char *path, const ManifestHandler *handler,
						  ManifestInfo *info);

/* Where a manifest is written to; does not return if it fails. */
typedef void (*manifest_write_fn) (void *arg, const char *data, size_t len);

typedef struct ManifestWriter
{
	manifest_write_fn write;
	void	   *arg;
	pg_cryptohash_ctx *hash;
	bool		any_file;
	bool		any_range;
} ManifestWriter;

extern void manifest_write_begin(ManifestWriter *writer, manifest_write_fn write,
								 void *arg, const ManifestInfo *info);
extern void manifest_write_file(ManifestWriter *writer, const ManifestFile *file);
extern void manifest_write_range(ManifestWriter *writer, const WalRange *range);
extern void manifest_write_end(ManifestWriter *writer);

#endif							/* PTRACK_MANIFEST_H */
