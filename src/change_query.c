/*
 * change_query.c
 *		What changed since an LSN: summaries and live map together.
 *
 * Coverage is worked out anew for each query.  It ends at the current end of
 * WAL, and goes back from the live map over summaries: see chain.c.  A session
 * without the library, a damaged file, a data directory that was rolled back
 * all show as an LSN that no summary leads on from: nobody has to notice them
 * when they happen.
 *
 * The answer itself is the union of all of these; and where WAL is followed, of
 * what is in WAL from where ptrack's worker has come to.
 *
 * Summaries are merged and removed while queries run.  A query that finds one
 * gone while it plans starts anew; merged ones stay for a while (tidy.c), so
 * that those that it has open can be read to their end.
 */
#include "postgres.h"

#include "compat.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "chain.h"
#include "change_merge.h"
#include "change_query.h"
#include "engine.h"
#include "lineage.h"
#include "miscadmin.h"
#include "ptrack_map.h"
#include "publish.h"
#include "summary_store.h"
#include "utils/fmgrprotos.h"
#include "utils/uuid.h"
#include "wal_follow.h"
#include "wal_scan.h"
#include "worker.h"

struct ChangeQuery
{
	MapSnapshot frozen;
	MapSnapshot running;
	ChangeMerge *merge;
};

/*
 * Coverage
 */

/* The end of WAL that counts, and the timeline it is on. */
static XLogRecPtr
current_end(TimeLineID *tli)
{
	if (RecoveryInProgress())
		return GetXLogReplayRecPtr(tli);
	*tli = GetWALInsertionTimeLine();
	return GetXLogInsertRecPtr();
}

/*
 * How often to begin anew when a summary vanishes, or the map moves on.  Each
 * of that takes a checkpoint or a merge: this many never happen in a row.
 */
#define MAX_ATTEMPTS	100

static void
again(int *attempt)
{
	CHECK_FOR_INTERRUPTS();
	if (*attempt > 0)
		pg_usleep(1000);
	if (++*attempt > MAX_ATTEMPTS)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("change summaries are removed faster than they can be read"),
				 errhint("Try again.")));
}

/* Lists the store, and begins a search in it.  False: it has to be begun anew. */
static bool
begin_chain(Chain *chain, StoreList *list, XLogRecPtr live, TimeLineID tli)
{
	Lineage		lineage;

	if (!lineage_recent(live, &lineage))
		return false;
	store_list(list);
	chain_begin(chain, list, readTimeLineHistory(tli), live, &lineage, true);
	return true;
}

/* Reads all of the store; false if some of it vanished meanwhile. */
static bool
try_coverage(Coverage *coverage)
{
	StoreList	list;
	Chain		chain;
	TimeLineID	tli;

	/* The map first: what it gives up is in the store by then. */
	XLogRecPtr	live = map_get_start();

	coverage->end = current_end(&tli);
	if (!begin_chain(&chain, &list, live, tli))
		return false;
	coverage->summaries = list.count;
	coverage->bytes = store_bytes(&list);
	coverage->gaps = 0;

	(void) chain_reach(&chain, InvalidXLogRecPtr);
	coverage->start = chain.points[chain_lowest(&chain)].lsn;
	while (chain_over_gap(&chain))
	{
		coverage->gaps++;
		(void) chain_reach(&chain, InvalidXLogRecPtr);
	}
	return !chain.vanished;
}

/*
 * Works out the coverage, which reads all of the store.
 */
void
coverage_get(Coverage *coverage)
{
	int			attempt = 0;

	publish_check_start();
	if (engine_follows())
		worker_wake();			/* somebody wants to know how far it is */
	while (!try_coverage(coverage))
		again(&attempt);
}

/* When the server came to the end of that way, if it is known at all. */
static int64
time_of_end(const Chain *chain, int point)
{
	const SummaryHeader *header;

	if (point < 0)
		return 0;
	header = &chain->files[chain->points[point].file].info.header;
	return header->end.lsn == chain->points[0].lsn ? header->end_time : 0;
}

/* Returns how many there are; -1: begin anew. */
static int
try_points(CoveragePoint **points)
{
	StoreList	list;
	Chain		chain;
	TimeLineID	tli;
	XLogRecPtr	live = map_get_start();
	int			latest = -1;
	int			n = 0;

	(void) current_end(&tli);
	if (!begin_chain(&chain, &list, live, tli))
		return -1;
	(void) chain_reach(&chain, InvalidXLogRecPtr);
	if (chain.vanished)
		return -1;
	*points = palloc_array(CoveragePoint, chain.npoints);
	for (int i = chain_lowest(&chain); chain.points[i].file >= 0; i = chain.points[i].above)
	{
		(*points)[n].lsn = chain.points[i].lsn;
		(*points)[n++].time = chain.files[chain.points[i].file].info.header.start_time;
		latest = i;
	}
	(*points)[n].lsn = live;
	(*points)[n++].time = time_of_end(&chain, latest);
	return n;
}

/*
 * The redo points that ranges can begin and end at without being widened: the
 * ends of the summaries that queries go by, in ascending order.  What changed
 * since the last one is in the live map.  Returns how many there are, in memory
 * of the current context.
 */
int
coverage_points(CoveragePoint **points)
{
	int			attempt = 0;
	int			n;

	publish_check_start();
	while ((n = try_points(points)) < 0)
		again(&attempt);
	return n;
}

/*
 * Queries
 */

pg_noreturn static void refuse(const char *what, int sqlstate, XLogRecPtr lsn,
							   XLogRecPtr start, XLogRecPtr end,
							   const char *hint);
pg_noreturn static void refuse_future(XLogRecPtr lsn, XLogRecPtr now);
pg_noreturn static void refuse_past(XLogRecPtr lsn, XLogRecPtr known,
									XLogRecPtr now);
pg_noreturn static void refuse_lineage(XLogRecPtr lsn, const Lineage *wanted,
									   const Lineage *here);

static void
refuse(const char *what, int sqlstate, XLogRecPtr lsn, XLogRecPtr start,
	   XLogRecPtr end, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("LSN %X/%X is %s", LSN_FORMAT_ARGS(lsn), what),
			 errdetail("Changes are known from %X/%X to %X/%X.",
					   LSN_FORMAT_ARGS(start), LSN_FORMAT_ARGS(end)),
			 errhint("%s", hint)));
}

static void
refuse_future(XLogRecPtr lsn, XLogRecPtr now)
{
	Coverage	coverage;

	coverage_get(&coverage);
	refuse("in the future of this server", ERRCODE_INVALID_PARAMETER_VALUE, lsn,
		   coverage.start, now,
		   "The prior backup may belong to another server, or to another history of this one.");
}

static void
refuse_past(XLogRecPtr lsn, XLogRecPtr known, XLogRecPtr now)
{
	refuse("before the changes that are known",
		   ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, lsn, known, now,
		   "Take a full backup, or use a prior backup that starts at or after the first of these.");
}

static char *
lineage_string(const Lineage *lineage)
{
	pg_uuid_t  *uuid = palloc_object(pg_uuid_t);

	StaticAssertDecl(LINEAGE_LEN == UUID_LEN, "a lineage identifier has the size of a UUID");
	memcpy(uuid->data, lineage->id, LINEAGE_LEN);
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

static void
refuse_lineage(XLogRecPtr lsn, const Lineage *wanted, const Lineage *here)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("LSN %X/%X of lineage %s is not in the history of this server",
					LSN_FORMAT_ARGS(lsn), lineage_string(wanted)),
			 here ?
			 errdetail("Its lineage at that LSN is %s.", lineage_string(here)) :
			 errdetail("No redo point is known at that LSN."),
			 errhint("The prior backup may be of a copy of this server, or of an abandoned timeline. Take a full backup.")));
}

typedef enum LineageVerdict
{
	LINEAGE_KNOWN,
	LINEAGE_UNKNOWN,			/* there is no such redo point */
	LINEAGE_BEFORE,				/* the LSN is before coverage */
	LINEAGE_AGAIN,				/* begin anew */
} LineageVerdict;

/*
 * The lineage at a redo point that the map was not told of yet, for WAL was not
 * followed that far.
 */
static LineageVerdict
scan_lineage(XLogRecPtr lsn, const FollowPosition *position,
			 const MapSnapshot *frozen, const MapSnapshot *running,
			 const Lineage *start, Lineage *lineage)
{
	TimeLineID	tli;
	XLogRecPtr	end = current_end(&tli);
	XLogRecPtr	from = position->lsn;
	uint64		before = position->sum;
	uint64		sum;

	if (position->cycle != running->cycle)
		return LINEAGE_AGAIN;
	if (lsn < from)
	{
		from = running->start;
		before = running->start_sum;
	}
	if (lsn < from)
		return LINEAGE_UNKNOWN;
	publish_flush_wal(end);
	if (!wal_scan_redo_point(from, lsn, end, tli, &sum))
		return LINEAGE_UNKNOWN;
	*lineage = lineage_of_running(frozen, running, start, before + sum);
	return LINEAGE_KNOWN;
}

static LineageVerdict
try_lineage(XLogRecPtr lsn, Lineage *lineage, XLogRecPtr *known)
{
	MapSnapshot frozen;
	MapSnapshot running;
	XLogRecPtr	live;
	StoreList	list;
	Chain		chain;
	TimeLineID	tli;
	FollowPosition position;
	bool		follows = engine_follows();

	if (follows && !follow_position(&position))
		return LINEAGE_AGAIN;
	map_get_cuts(&frozen, &running);
	live = XLogRecPtrIsInvalid(frozen.start) ? running.start : frozen.start;
	(void) current_end(&tli);
	if (!begin_chain(&chain, &list, live, tli))
		return LINEAGE_AGAIN;
	if (lsn > live)
	{
		if (lineage_in_map(&frozen, &running, &chain.points[0].lineage,
						   lsn, lineage))
			return LINEAGE_KNOWN;
		return follows ? scan_lineage(lsn, &position, &frozen, &running,
									  &chain.points[0].lineage, lineage) : LINEAGE_UNKNOWN;
	}
	if (chain_reach(&chain, lsn) < 0)
	{
		*known = chain.points[chain_lowest(&chain)].lsn;
		return chain.vanished ? LINEAGE_AGAIN : LINEAGE_BEFORE;
	}
	return chain_find_lineage(&chain, lsn, lineage) ? LINEAGE_KNOWN : LINEAGE_UNKNOWN;
}

static LineageVerdict
find_lineage(XLogRecPtr lsn, Lineage *lineage, XLogRecPtr *known)
{
	LineageVerdict verdict;
	int			attempt = 0;

	publish_check_start();
	while ((verdict = try_lineage(lsn, lineage, known)) == LINEAGE_AGAIN)
		again(&attempt);
	return verdict;
}

/*
 * The lineage of this server's history at a redo point.  ERROR if there is
 * none at that LSN, or if it is not known.
 */
void
coverage_lineage(XLogRecPtr lsn, Lineage *lineage)
{
	TimeLineID	tli;
	XLogRecPtr	now = current_end(&tli);
	XLogRecPtr	known;

	if (lsn > now)
		refuse_future(lsn, now);
	switch (find_lineage(lsn, lineage, &known))
	{
		case LINEAGE_BEFORE:
			refuse_past(lsn, known, now);
			break;
		case LINEAGE_UNKNOWN:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("no redo point is known at LSN %X/%X", LSN_FORMAT_ARGS(lsn)),
					 errhint("Use the start LSN of a backup.")));
			break;
		default:
			break;
	}
}

/* ERROR unless that is the lineage at that LSN. */
static void
require_lineage(XLogRecPtr lsn, const Lineage *lineage)
{
	Lineage		here;
	XLogRecPtr	known;
	LineageVerdict verdict = find_lineage(lsn, &here, &known);

	if (verdict == LINEAGE_UNKNOWN)
		refuse_lineage(lsn, lineage, NULL);
	if (verdict == LINEAGE_KNOWN && memcmp(&here, lineage, sizeof(Lineage)) != 0)
		refuse_lineage(lsn, lineage, &here);
}

/*
 * What a query is for: the changes that were made by WAL in [start, end).
 */
typedef struct QueryRange
{
	XLogRecPtr	start;
	XLogRecPtr	end;			/* PG_UINT64_MAX: none */
	XLogRecPtr	now;			/* the end of WAL, */
	TimeLineID	tli;			/* and its timeline */
	XLogRecPtr	tail;			/* what is in WAL from here on may not be in
								 * the map; PG_UINT64_MAX: all of it is */
} QueryRange;

/*
 * Opens everything that these changes can be found in: the summaries on the way
 * to that point of the chain, and the copies of the map.  Returns false if a
 * summary is gone.
 */
static bool
open_sources(ChangeQuery *query, const Chain *chain, int point,
			 const QueryRange *range, bool have_frozen)
{
	bool		beyond_wal = query->running.beyond_wal ||
		(have_frozen && query->frozen.beyond_wal);

	query->merge = change_merge_create(chain->npoints + 3);
	if (range->start >= range->tail && !beyond_wal)
		return true;
	for (; chain->points[point].file >= 0; point = chain->points[point].above)
	{
		const StoredSummary *summary = &chain->files[chain->points[point].file].summary;

		CHECK_FOR_INTERRUPTS();
		if (summary->start < range->end &&
			!change_merge_add_summary(query->merge, summary))
		{
			change_merge_close(query->merge);
			return false;
		}
	}
	if (have_frozen && query->frozen.end.redo > range->start &&
		query->frozen.start < range->end)
		change_merge_add_snapshot(query->merge, &query->frozen);
	if (query->running.start < range->end)
		change_merge_add_snapshot(query->merge, &query->running);
	return true;
}

/* Adds what is in WAL and not yet in the map. */
static void
add_tail(ChangeQuery *query, const QueryRange *range)
{
	XLogRecPtr	end = Min(range->end, range->now);

	if (range->tail < end)
		change_merge_add(query->merge, change_gather_next,
						 wal_scan_changes(range->tail, range->start, end, range->tli));
}

/* Returns false if the query has to be begun anew. */
static bool
try_begin(ChangeQuery *query, QueryRange *range)
{
	bool		have_frozen;
	StoreList	list;
	Chain		chain;
	int			point;
	bool		vanished;
	FollowPosition position;

	/*
	 * The position before the map, which may be further by then; and the map
	 * before the store, which has by then what the map gives up.
	 */
	range->tail = PG_UINT64_MAX;
	if (engine_follows())
	{
		if (!follow_position(&position))
			return false;
		range->tail = position.lsn;
	}
	map_snapshot_both(&query->frozen, &have_frozen, &query->running);

	/*
	 * If the map was cut in between, it may have been at a redo point that the
	 * worker had passed: then it reads WAL before that position again, which
	 * the new cycle need not have yet.
	 */
	if ((range->tail == PG_UINT64_MAX || position.cycle == query->running.cycle) &&
		begin_chain(&chain, &list,
					have_frozen ? query->frozen.start : query->running.start,
					range->tli))
	{
		point = chain_reach(&chain, range->start);
		vanished = chain.vanished;
		if (point < 0 && !vanished)
			refuse_past(range->start, chain.points[chain_lowest(&chain)].lsn, range->now);
		if (point >= 0 && open_sources(query, &chain, point, range, have_frozen))
		{
			add_tail(query, range);
			return true;
		}
	}
	map_snapshot_free(&query->running);
	if (have_frozen)
		map_snapshot_free(&query->frozen);
	return false;
}

/*
 * Begins a query for the changes that were made by WAL in [start, end), or
 * from start on if end is invalid; then it includes everything up to now.  The
 * range is widened to redo points at both ends.  If a lineage is given, it must
 * be the one at the start.
 *
 * ERROR if any of that is unknown.  The query lives in the current memory
 * context, and is cleaned up with it.
 */
ChangeQuery *
change_query_begin(XLogRecPtr start, XLogRecPtr end, const Lineage *lineage)
{
	ChangeQuery *query = palloc0_object(ChangeQuery);
	QueryRange	range = {0};
	int			attempt = 0;

	range.start = start;
	range.end = XLogRecPtrIsInvalid(end) ? PG_UINT64_MAX : end;
	range.now = current_end(&range.tli);
	if (start > range.now)
		refuse_future(start, range.now);
	if (!XLogRecPtrIsInvalid(end) && end > range.now)
		refuse_future(end, range.now);

	/*
	 * What is being inserted before the end is marked only then; and what WAL
	 * is followed for must be there to be read.
	 */
	if (!XLogRecPtrIsInvalid(end) || engine_follows())
		publish_flush_wal(Min(range.end, range.now));

	publish_check_start();
	if (lineage)
		require_lineage(start, lineage);

	while (!try_begin(query, &range))
		again(&attempt);
	return query;
}

/*
 * Returns the next item, of which no key comes twice, or false at the end.
 */
bool
change_query_next(ChangeQuery *query, ChangeItem *item)
{
	return change_merge_next(query->merge, item);
}
