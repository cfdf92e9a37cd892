/*
 * verify.h
 *		What the parts of "pg_ptrack verify" share.
 *
 * The manifest is read first, then what there is in the backup is listed, then
 * workers read it; what they found out is compared last.  Problems are reported
 * when they are found.
 */
#ifndef PTRACK_VERIFY_H
#define PTRACK_VERIFY_H

#include <pthread.h>
#include <stdatomic.h>

#include "access/xlog_internal.h"
#include "manifest.h"
#include "report.h"
#include "tar_input.h"
#include "verify_files.h"
#include "verify_records.h"

/* Of an archive as it is given on the command line, or found in a directory. */
typedef struct VerifyArchive
{
	char	   *path;
	const char *prefix;
} VerifyArchive;

typedef struct VerifyOptions
{
	const char *backup;
	char		format;			/* 'p', 't', 'a': one archive, '\0': to be
								 * found out */
	const char *manifest;		/* NULL: in the backup */
	const char *wal_directory;	/* NULL: in the backup */
	const char **ignored;		/* paths */
	int			nignored;
	int			jobs;
	bool		exit_on_error;
	bool		skip_checksums;
	bool		skip_wal;
	bool		quiet;
	bool		progress;
} VerifyOptions;

/* What was found in pg_control. */
typedef struct FoundControl
{
	bool		found;
	uint64		system_identifier;
	uint32		segment_size;	/* of WAL */
} FoundControl;

/* What was found in backup_label. */
typedef struct FoundLabel
{
	bool		found;
	bool		incremental;
	TimeLineID	tli;
	XLogRecPtr	start;
} FoundLabel;

/* A WAL segment file. */
typedef struct FoundSegment
{
	char		name[XLOG_FNAME_LEN + 1];
	uint64		size;
	uint64		system_identifier;
	bool		read;			/* has been read, */
	bool		good;			/* and is as it should be */
	char	   *path;			/* of the file that it is in */
	int64		offset;			/* there */
} FoundSegment;

typedef struct Verify
{
	VerifyOptions options;
	VerifyArchive *archives;
	int			narchives;

	/* What the manifest says. */
	ManifestInfo info;
	WalRange   *ranges;
	int			nranges;
	RecordsCheck *records;		/* of each of the ranges */
	VerifyFiles files;
	uint64		nfiles;
	uint64		nbytes;			/* of all of them */

	/* What is in the backup; the lock is for all of this, and for files. */
	pthread_mutex_t lock;
	FoundControl control;
	FoundLabel	label;
	FoundSegment **segments;
	int			nsegments;
	bool		any_incremental;
	ListedFile **to_read;
	size_t		nto_read;
	size_t		to_read_room;

	atomic_size_t next;			/* to be read */
	atomic_bool failed;			/* there was a problem */
} Verify;

/* A worker's memory. */
typedef struct VerifyBuffers
{
	char	   *data;
	char	   *head;
} VerifyBuffers;

/* Reads at most len bytes: 0 at the end, -1 after it has reported why not. */
typedef ssize_t (*content_read_fn) (void *arg, char *data, size_t len);

/* verify.c */
extern void verify_failed(Verify *verify);
extern bool verify_ignores(const Verify *verify, const char *path);

#define verify_problem(verify, ...) \
	do { \
		report_error(__VA_ARGS__); \
		verify_failed(verify); \
	} while (0)

/* verify_list.c */
extern void verify_list_plain(Verify *verify);
extern void verify_list_archives(Verify *verify);
extern void verify_list_wal(Verify *verify, const char *directory);
extern void verify_list_missing(Verify *verify);

/* verify_read.c */
extern void verify_read_all(Verify *verify);

/* verify_content.c */
extern void verify_buffers_create(VerifyBuffers *buffers);
extern void verify_buffers_free(VerifyBuffers *buffers);
extern bool verify_wants(const Verify *verify, const ListedFile *file);
extern void verify_file(Verify *verify, VerifyBuffers *buffers, ListedFile *file,
						content_read_fn read, void *arg);
extern ssize_t verify_fill(content_read_fn read, void *arg, char *data);
extern void verify_found(Verify *verify);

/* verify_wal.c */
extern FoundSegment *verify_wal_note(Verify *verify, const char *name, uint64 size,
									 const char *path, int64 offset);
extern void verify_wal_segment(Verify *verify, VerifyBuffers *buffers, FoundSegment *segment,
							   content_read_fn read, void *arg);
extern void verify_wal_sort(Verify *verify);
extern void verify_wal_begin(Verify *verify);
extern void verify_wal_end(Verify *verify);

/* Data are read in pieces of that many bytes, of which WAL pages are a fraction. */
#define VERIFY_READ_SIZE	(256 * 1024)

#endif							/* PTRACK_VERIFY_H */
