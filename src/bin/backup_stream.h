/*
 * backup_stream.h
 *		WAL that is received while files are fetched.
 */
#ifndef PTRACK_BACKUP_STREAM_H
#define PTRACK_BACKUP_STREAM_H

#include "backup.h"

extern void stream_open(const BackupServer *server, BackupOptions *options);
extern void stream_begin(const BackupServer *server);
extern void stream_end(const BackupServer *server);

#endif							/* PTRACK_BACKUP_STREAM_H */
