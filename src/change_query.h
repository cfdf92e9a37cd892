/*
 * change_query.h
 *		What changed since an LSN: summaries and live map together.
 */
#ifndef PTRACK_CHANGE_QUERY_H
#define PTRACK_CHANGE_QUERY_H

#include "access/xlogdefs.h"
#include "common/change_item.h"
#include "common/summary_format.h"

/* The range that answers are possible for, and what they would be made of. */
typedef struct Coverage
{
	XLogRecPtr	start;
	XLogRecPtr	end;			/* the current end of WAL */
	int			summaries;		/* files in the store, used or not */
	uint64		bytes;			/* size of those files */
	int			gaps;			/* places where their chain is broken */
} Coverage;

/* A redo point up to which, and from which on, changes are told apart. */
typedef struct CoveragePoint
{
	XLogRecPtr	lsn;
	int64		time;			/* when the server came to it, in seconds
								 * since 1970; 0: not known */
} CoveragePoint;

typedef struct ChangeQuery ChangeQuery;

extern void coverage_get(Coverage *coverage);
extern int	coverage_points(CoveragePoint **points);
extern void coverage_lineage(XLogRecPtr lsn, Lineage *lineage);

extern ChangeQuery *change_query_begin(XLogRecPtr start, XLogRecPtr end,
									   const Lineage *lineage);
extern bool change_query_next(ChangeQuery *query, ChangeItem *item);

#endif							/* PTRACK_CHANGE_QUERY_H */
