/*
 * backup_resume.h
 *		Going on with a backup that was interrupted.
 */
#ifndef PTRACK_BACKUP_RESUME_H
#define PTRACK_BACKUP_RESUME_H

#include "backup.h"

#define JOURNAL_NAME	"pg_ptrack.journal"

extern bool resume_find(const BackupOptions *options);
extern void resume_read(const BackupServer *server, const BackupOptions *options,
						const PriorBackup *prior);
extern void resume_plan(BackupPlan *plan, const BackupServer *server);
extern void resume_begin(const BackupServer *server, const BackupOptions *options,
						 const PriorBackup *prior);
extern void resume_note(const BackupFile *file);
extern void resume_end(void);

#endif							/* PTRACK_BACKUP_RESUME_H */
