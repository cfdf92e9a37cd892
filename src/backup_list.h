/*
 * backup_list.h
 *		What a base backup takes of the data directory.
 */
#ifndef PTRACK_BACKUP_LIST_H
#define PTRACK_BACKUP_LIST_H

#include "utils/tuplestore.h"

typedef enum BackupKind
{
	BACKUP_DIRECTORY = 'd',
	BACKUP_FILE = 'f',
	BACKUP_LINK = 'l',			/* of a tablespace */
} BackupKind;

/* Something to back up. */
typedef struct BackupEntry
{
	BackupKind	kind;
	const char *path;			/* relative to the data directory */
	int64		size;			/* of a file, in bytes */
	int64		modified;		/* seconds since 1970 */
	const char *target;			/* of a link; else NULL */
} BackupEntry;

typedef void (*backup_list_fn) (void *arg, const BackupEntry *entry);

extern void backup_list(backup_list_fn add, void *arg);

#endif							/* PTRACK_BACKUP_LIST_H */
