/*
 * backup.h
 *		What the files of the backup command share.
 *
 *		backup.c			the command: options, and the order of things
 *		backup_server.c		starting and stopping, and what the server says
 *		backup_plan.c		which files, and how each of them is taken
 *		backup_units.c		what a connection takes at a time
 *		backup_fetch.c		the connections that fetch them
 *		backup_resume.c		going on with an interrupted backup
 *		backup_stream.c		WAL that is received meanwhile
 *		backup_archives.c	tar format
 *		backup_output.c		other files, to either format
 *		backup_finish.c		label, WAL and manifest
 */
#ifndef PTRACK_BACKUP_H
#define PTRACK_BACKUP_H

#include <stdatomic.h>

#include "access/xlogdefs.h"
#include "common/compression.h"
#include "connection.h"
#include "manifest.h"
#include "target.h"

typedef enum WalMethod
{
	WAL_NONE,
	WAL_FETCH,
	WAL_STREAM,
} WalMethod;

typedef struct BackupOptions
{
	ConnectionOptions connection;
	TargetOptions target;
	const char *prior_manifest; /* NULL: a full backup */
	const char *label;
	int			jobs;
	WalMethod	wal;
	bool		fast_checkpoint;
	bool		progress;
	bool		write_recovery; /* -R */
	bool		as_archives;	/* -F tar */
	pg_compress_specification compression;
	bool		no_manifest;
	bool		no_slot;		/* to stream WAL, which is kept by other means */
	bool		no_verify;		/* of pages' checksums */
	bool		resume;			/* go on with what is there, and leave it
								 * there */
	pg_checksum_type checksum;
	int64		max_rate;		/* bytes a second; 0: no limit */
} BackupOptions;

/* To standard output goes one archive of everything. */
static inline bool
backup_to_stdout(const BackupOptions *options)
{
	return strcmp(options->target.directory, "-") == 0;
}

/* A file that is being written to an archive. */
typedef struct ArchiveFile ArchiveFile;

/* What is known of the server, and of its backup that is being made. */
typedef struct BackupServer
{
	PGconn	   *conn;			/* on which it was started */
	char	   *schema;			/* of the extension, quoted */
	char	   *instance;		/* which no other server has, nor this one
								 * after a restart */
	int			version;		/* as libpq says it */
	int			progress_pid;	/* by which the server shows this backup; 0:
								 * it is not to */
	uint64		system_identifier;
	uint32		wal_segment_size;
	bool		checksums;
	bool		group_access;
	bool		is_standby;
	XLogRecPtr	start;
	TimeLineID	start_tli;
	char	   *lineage;		/* at start; NULL: not known */
	XLogRecPtr	stop;
	TimeLineID	stop_tli;
	char	   *label;			/* backup_label */
	char	   *tablespace_map; /* may be empty */
} BackupServer;

/* The backup that an incremental one is relative to. */
typedef struct PriorBackup
{
	XLogRecPtr	start;
	TimeLineID	tli;			/* of its start */
	WalRange	last;			/* of the WAL that it needs */
	char		lineage[37];	/* a UUID; empty: not known */
} PriorBackup;

typedef enum TakeMethod
{
	TAKE_WHOLE,
	TAKE_BLOCKS,				/* those in its map */
	TAKE_NOTHING,				/* it has not changed */
} TakeMethod;

/* A piece of a file, and what was got of it. */
typedef struct FilePart
{
	uint64		start;
	uint64		length;			/* at most */
	uint64		got;
	pg_crc32c	crc;			/* of that */
} FilePart;

/* What is there of it from a backup that was interrupted. */
typedef enum ResumeMethod
{
	RESUME_NOT,					/* nothing */
	RESUME_KEEP,				/* all, if it has the checksum that it had */
	RESUME_PATCH,				/* the same, but for the blocks in its map */
} ResumeMethod;

typedef struct BackupFile
{
	char	   *path;			/* on the server */
	int64		size;			/* when it was listed */
	int64		modified;
	TakeMethod	method;
	bool		in_prior;
	bool		gone;			/* when it was to be read */
	bool		damaged;		/* pages of it have wrong checksums */
	uint8	   *map;			/* bit b of byte n: block 8 * n + b changed */
	uint32		map_len;
	uint32		changed;		/* bits set in it */
	ResumeMethod resume;
	uint32		changed_since;	/* blocks, since the interrupted backup
								 * started */
	char		expected[2 * PG_CHECKSUM_MAX_LENGTH + 1];	/* checksum of what is
															 * there */

	/* What was written. */
	FilePart   *parts;			/* of a large file; else NULL */
	int			nparts;
	atomic_int	parts_left;
	uint64		written;
	int			checksum_len;
	uint8		checksum[PG_CHECKSUM_MAX_LENGTH];
} BackupFile;

typedef struct BackupPlan
{
	BackupFile *files;			/* in order of path */
	int			nfiles;
	char	  **directories;
	int			ndirectories;
	uint64		bytes;			/* to be transferred, about */
} BackupPlan;

/* backup_server.c */
extern void server_connect(BackupServer *server, BackupOptions *options);
extern void server_start(BackupServer *server, const BackupOptions *options);
extern void server_progress(const BackupServer *server, const char *format,...) pg_attribute_printf(2, 3);
extern void server_require_same(const BackupServer *server, PGconn *conn);
extern void server_join(const BackupServer *server, PGconn *conn);
extern char *server_history(const BackupServer *server, TimeLineID tli);
extern bool history_end(const char *history, TimeLineID tli, XLogRecPtr *end);
extern TimeLineID history_before(const char *history, TimeLineID tli);
extern void server_stop(BackupServer *server, bool wait_for_archive);

/* backup_plan.c */
extern void plan_prior(PriorBackup *prior, const BackupOptions *options,
					   const BackupServer *server);
extern void plan_files(BackupPlan *plan, const BackupServer *server,
					   const BackupOptions *options);

/* What to do with a row of a map. */
typedef void (*plan_map_fn) (BackupFile *file, const char *map, int len);

extern BackupFile *backup_find(const BackupPlan *plan, const char *path);
extern void plan_maps(BackupPlan *plan, const BackupServer *server, XLogRecPtr since,
					  const char *lineage, plan_map_fn note);
extern void plan_increment(BackupPlan *plan, const BackupServer *server,
						   const BackupOptions *options, const PriorBackup *prior);

/* backup_fetch.c */
extern void fetch_files(BackupPlan *plan, const BackupServer *server,
						BackupOptions *options);
extern void fetch_file(PGconn *conn, const BackupServer *server, const BackupOptions *options,
					   BackupFile *file);
extern int	fetch_damaged_pages(void);

/* backup_finish.c */
extern void finish_backup(BackupPlan *plan, BackupServer *server, BackupOptions *options,
						  const PriorBackup *prior);

#endif							/* PTRACK_BACKUP_H */
