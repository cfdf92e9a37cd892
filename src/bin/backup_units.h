/*
 * backup_units.h
 *		What the connections of a backup take from the server at a time: a file, a
 *		range of a large one, or several small ones; and in which order.
 */
#ifndef PTRACK_BACKUP_UNITS_H
#define PTRACK_BACKUP_UNITS_H

#include "backup.h"

typedef struct Unit
{
	BackupFile **files;
	int			nfiles;
	int			part;			/* of the only file; -1: all of each file */
	TakeMethod	method;
	uint64		cost;			/* bytes, about */
} Unit;

/* A file that is taken in ranges. */
typedef struct LargeFile LargeFile;

/* All that there are.  Connections may share them. */
typedef struct Units Units;

extern Units *units_make(BackupPlan *plan, const BackupOptions *options);
extern bool units_next(Units *units, LargeFile **own, Unit *unit);
extern void units_free(Units *units);

#endif							/* PTRACK_BACKUP_UNITS_H */
