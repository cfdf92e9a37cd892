/*
 * merge_plan.h
 *		Which summaries to merge.
 */
#ifndef PTRACK_MERGE_PLAN_H
#define PTRACK_MERGE_PLAN_H

/* The time that a summary covers, in seconds since 1970; 0: not known. */
typedef struct MergeSpan
{
	int64		start;
	int64		end;
} MergeSpan;

extern int	merge_plan(const MergeSpan *spans, int count, int64 now, int *first);

#endif							/* PTRACK_MERGE_PLAN_H */
