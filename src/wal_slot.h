/*
 * wal_slot.h
 *		The replication slot that holds back WAL until it was followed.
 */
#ifndef PTRACK_WAL_SLOT_H
#define PTRACK_WAL_SLOT_H

#include "access/xlogdefs.h"
#include "utils/guc.h"

extern char *wal_slot_name;
extern int	wal_slot_max_lag;

extern bool wal_slot_check_name(char **name, void **extra, GucSource source);
extern void wal_slot_hold(XLogRecPtr start, XLogRecPtr end);
extern void wal_slot_drop(void);

#endif							/* PTRACK_WAL_SLOT_H */
