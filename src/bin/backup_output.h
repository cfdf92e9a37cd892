/*
 * backup_output.h
 *		Writing files of a backup that do not come through backup_fetch.c.
 */
#ifndef PTRACK_BACKUP_OUTPUT_H
#define PTRACK_BACKUP_OUTPUT_H

#include "backup.h"

extern void output_bytes(const BackupOptions *options, const char *path, const void *bytes,
						 size_t len);

#endif							/* PTRACK_BACKUP_OUTPUT_H */
