/*
 * change_merge.h
 *		The union of several sets of changes, as one sequence of items.
 */
#ifndef PTRACK_CHANGE_MERGE_H
#define PTRACK_CHANGE_MERGE_H

#include "ptrack_map.h"
#include "summary_store.h"

typedef struct ChangeMerge ChangeMerge;

extern ChangeMerge *change_merge_create(int max_sources);
extern void change_merge_add(ChangeMerge *merge, store_next_fn next, void *arg);
extern bool change_merge_add_summary(ChangeMerge *merge, const StoredSummary *summary);
extern void change_merge_add_snapshot(ChangeMerge *merge, MapSnapshot *snapshot);
extern bool change_merge_next(ChangeMerge *merge, ChangeItem *item);
extern void change_merge_close(ChangeMerge *merge);

#endif							/* PTRACK_CHANGE_MERGE_H */
