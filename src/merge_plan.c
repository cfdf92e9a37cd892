/*
 * merge_plan.c
 *		Which summaries to merge.
 *
 * A query from an LSN inside a merged summary gets all of that summary.  The
 * promise is that a query from an LSN of age A never returns changes older than
 * A + A/8, beyond what the cycle that the LSN is in implies.  A summary whose
 * newest change has the age E, and that covers the time T, keeps it if T is at
 * most E/8; and it goes on keeping it, for E grows.
 *
 * So merging is for summaries that follow each other and that together cover
 * an eighth of their age at most.  How many are left?  Where two neighbours are
 * not merged, the age grows by the factor 9/8 from the new end of the one to
 * the old end of the other.  With cycles of length C, those younger than 16 C
 * cannot be merged, and of those from there up to the age A there are no more
 * than two for each factor 9/8: 18 + 17 ln(A / 16 C) altogether.  For cycles of
 * five minutes and ten days, that is 106; for ten years, 206.
 *
 * Pure: t/c/merge_plan.c checks all of that.
 */
#include "postgres.h"

#include "merge_plan.h"

/* The promise, as a divisor. */
#define AGE_PART	8

/* More at a time would need many open files. */
#define MAX_MERGED	64

/*
 * May summaries from that start to that end be one?  Times are rounded to
 * seconds, and the one more makes up for that.
 */
static bool
may_be_one(int64 start, int64 end, int64 now)
{
	return start > 0 && end >= start && now > end &&
		(end - start + 1) * AGE_PART <= now - end;
}

/*
 * Returns how many summaries to merge, and the first of them, or 0.  They are
 * given oldest first; each begins where the one before it ends.
 */
int
merge_plan(const MergeSpan *spans, int count, int64 now, int *first)
{
	for (*first = 0; *first < count; (*first)++)
	{
		int			n = 1;

		while (*first + n < count && n < MAX_MERGED &&
			   spans[*first + n].start > 0 &&
			   may_be_one(spans[*first].start, spans[*first + n].end, now))
			n++;
		if (n > 1)
			return n;
	}
	return 0;
}
