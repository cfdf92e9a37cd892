/*
 * change_gather.h
 *		Gathering a set of changes in the memory of one process.
 */
#ifndef PTRACK_CHANGE_GATHER_H
#define PTRACK_CHANGE_GATHER_H

#include "common/change_item.h"
#include "wal_records.h"

typedef struct ChangeGather ChangeGather;

extern ChangeGather *change_gather_create(void);
extern WalEffects change_gather_effects(ChangeGather *gather);
extern void change_gather_add(ChangeGather *gather, const ChangeItem *item);
extern void change_gather_sort(ChangeGather *gather);
extern bool change_gather_next(void *gather, ChangeItem *item);

#endif							/* PTRACK_CHANGE_GATHER_H */
