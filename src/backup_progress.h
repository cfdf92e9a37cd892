/*
 * backup_progress.h
 *		How far running backups have come.
 */
#ifndef PTRACK_BACKUP_PROGRESS_H
#define PTRACK_BACKUP_PROGRESS_H

#include "datatype/timestamp.h"

typedef enum BackupPhase
{
	BACKUP_AWAITS_CHECKPOINT,
	BACKUP_LISTS_FILES,
	BACKUP_FINDS_CHANGES,
	BACKUP_STREAMS_FILES,		/* only then, what is read counts */
	BACKUP_AWAITS_ARCHIVING,
	BACKUP_TRANSFERS_WAL,
	BACKUP_SYNCS_FILES,
} BackupPhase;

#define BACKUP_PHASES	(BACKUP_SYNCS_FILES + 1)

/* What there is to see of a backup. */
typedef struct BackupProgress
{
	int			pid;			/* of the session that shows it */
	Oid			database;
	Oid			role;			/* that session's user */
	TimestampTz started;
	BackupPhase phase;
	bool		incremental;
	int64		bytes_total;	/* not less than was sent; -1: not known */
	int64		bytes;
	int64		files_total;	/* the same */
	int64		files;
	int			workers;		/* sessions that take part, besides that one */
} BackupProgress;

extern Size backup_progress_shmem_size(void);
extern void backup_progress_shmem_init(void);

extern bool backup_progress_show(BackupPhase phase);
extern void backup_progress_expect(int64 bytes, int64 files);
extern void backup_progress_incremental(bool incremental);
extern bool backup_progress_join(int pid);
extern void backup_progress_leave(void);
extern void backup_progress_add_bytes(uint64 bytes);
extern void backup_progress_add_file(void);

extern int	backup_progress_slots(void);
extern bool backup_progress_get(int number, BackupProgress *progress);

#endif							/* PTRACK_BACKUP_PROGRESS_H */
