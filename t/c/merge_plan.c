/*
 * merge_plan.c
 *		The promises of src/merge_plan.c, over years of checkpoints.
 *
 * Compiled with it by t/065_merge.pl; prints TAP.
 */
#include "../../src/merge_plan.c"

#include <math.h>
#include <stdio.h>

#define MAX_SPANS	200000
#define MINUTE		60
#define DAY			(24 * 60 * MINUTE)

static MergeSpan spans[MAX_SPANS];
static int	nspans;
static int	tests;
static uint64 seed = 1;

static void
ok(bool good, const char *name)
{
	printf("%s %d - %s\n", good ? "ok" : "not ok", ++tests, name);
}

static uint32
random_below(uint32 limit)
{
	seed = seed * UINT64CONST(6364136223846793005) + 1442695040888963407;
	return (uint32) (seed >> 33) % limit;
}

/* Does what the worker does; false if a merge breaks the promise. */
static bool
merge_all(int64 now)
{
	int			first;
	int			count;

	while ((count = merge_plan(spans, nspans, now, &first)) > 0)
	{
		int64		start = spans[first].start;
		int64		newest = spans[first + count - 1].end;

		if ((now - start) * 8 > (now - newest) * 9)
			return false;
		spans[first].end = newest;
		memmove(&spans[first + 1], &spans[first + count],
				(nspans - first - count) * sizeof(MergeSpan));
		nspans -= count - 1;
	}
	return true;
}

/* What merge_plan.c says of the number of summaries. */
static double
bound(int64 age, int64 cycle)
{
	return 18 + 17 * log(Max((double) age / (16 * cycle), 1));
}

static bool
joined(void)
{
	for (int i = 1; i < nspans; i++)
	{
		if (spans[i].start != spans[i - 1].end)
			return false;
	}
	return true;
}

/* Checkpoints of that distance, give or take some, for so long. */
static void
simulate(const char *name, int64 cycle, int64 jitter, int64 duration)
{
	int64		begin = 1700000000;
	int64		now = begin;
	bool		kept = true;
	int			most = 0;
	double		excess = -1000;
	char		line[200];

	nspans = 0;
	while (now < begin + duration && nspans < MAX_SPANS)
	{
		spans[nspans].start = now;
		now += cycle + (jitter ? random_below((uint32) jitter) : 0);
		spans[nspans++].end = now;
		kept = kept && merge_all(now);
		most = Max(most, nspans);
		excess = Max(excess, nspans - bound(now - begin, cycle));
	}
	ok(kept, "no merge reaches back further than an eighth of the age");
	ok(joined(), "nothing is left out");
	snprintf(line, sizeof(line), "%s: at most %d summaries, %.0f below the bound",
			 name, most, -excess);
	ok(excess <= 0, line);
}

/* Times that make no sense are never merged. */
static void
refused(const char *name, int64 a, int64 b, int64 c, int64 d, int64 now)
{
	MergeSpan	two[2] = {{a, b}, {c, d}};
	int			first;

	ok(merge_plan(two, 2, now, &first) == 0, name);
}

int
main(void)
{
	MergeSpan	pair[2] = {{1000, 1050}, {1050, 1099}};
	int			first;

	simulate("every five minutes for a year", 5 * MINUTE, 0, 365 * (int64) DAY);
	simulate("every second for a day", 1, 0, DAY);
	simulate("every half to one hour for ten years", 30 * MINUTE, 30 * MINUTE,
			 3650 * (int64) DAY);
	simulate("every one to 600 seconds for a month", 1, 600, 30 * DAY);

	/* 100 seconds, rounded up, are an eighth of 800. */
	ok(merge_plan(pair, 2, 1099 + 800, &first) == 2 && first == 0, "as soon as the age allows it");
	ok(merge_plan(pair, 2, 1099 + 799, &first) == 0, "and not before");
	ok(merge_plan(pair, 1, 1099 + 800, &first) == 0, "one summary alone");
	ok(merge_plan(NULL, 0, 1000, &first) == 0, "no summary");
	refused("times that are not known", 0, 0, 0, 0, 1000000);
	refused("a start that is not known", 0, 100, 100, 200, 1000000);
	refused("an end that is not known", 100, 200, 200, 0, 1000000);
	refused("a clock that went back", 5000, 5100, 5100, 4000, 1000000);
	refused("a clock that is behind all of it", 5000, 5100, 5100, 5200, 4000);
	refused("greatest distances", 1, 2, 2, PG_INT64_MAX / 16, PG_INT64_MAX / 8);
	printf("1..%d\n", tests);
	return 0;
}
