/*
 * wal_fill.h
 *		Filling a gap between summaries from WAL.
 */
#ifndef PTRACK_WAL_FILL_H
#define PTRACK_WAL_FILL_H

#include "summary_store.h"

extern bool wal_find_oldest(RedoPoint *point, XLogRecPtr end, TimeLineID tli);
extern bool wal_fill(const RedoPoint *start, RedoPoint *end);
extern bool wal_fill_again(const SummaryInfo *coarse);

#endif							/* PTRACK_WAL_FILL_H */
