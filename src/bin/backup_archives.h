/*
 * backup_archives.h
 *		A backup that is written as tar archives.
 */
#ifndef PTRACK_BACKUP_ARCHIVES_H
#define PTRACK_BACKUP_ARCHIVES_H

#include "backup.h"

extern void archives_create(const BackupOptions *options);
extern void archives_add_directory(const char *path);
extern void archives_add_tablespace(const char *path);
extern ArchiveFile *archives_begin(const char *path, uint64 size, int64 modified);
extern void archives_write(ArchiveFile *file, const void *data, size_t len);
extern void archives_end(ArchiveFile *file);
extern void archives_close(void);

#endif							/* PTRACK_BACKUP_ARCHIVES_H */
