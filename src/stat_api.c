/*
 * stat_api.c
 *		The SQL functions that show what ptrack does, for views and monitoring.
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "change_query.h"
#include "engine.h"
#include "fmgr.h"
#include "funcapi.h"
#include "hooks.h"
#include "ptrack_map.h"
#include "publish.h"
#include "scan_progress.h"
#include "statistics.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "wal_follow.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(ptrack_stat);
PG_FUNCTION_INFO_V1(ptrack_stat_reset);
PG_FUNCTION_INFO_V1(ptrack_scans);

/*
 * ptrack_stat() returns record: the one row of pg_stat_ptrack
 */
typedef enum StatColumn
{
	STAT_ENGINE,
	STAT_COVERAGE_START,
	STAT_COVERAGE_END,
	STAT_FLUSHED_LSN,
	STAT_MAP_SIZE,
	STAT_MAP_USED,
	STAT_SUMMARIES,
	STAT_SUMMARY_BYTES,
	STAT_GAPS,
	STAT_FLUSHES,
	STAT_FLUSH_FAILURES,
	STAT_OVERFLOWS,
	STAT_LAST_FLUSH,
	STAT_LAST_FLUSH_MS,
	STAT_SCAN_LAG,
	STAT_WORKER_PID,
	STAT_WORKER_WAIT,
	STAT_STATS_RESET,
} StatColumn;

#define STAT_COLUMNS	(STAT_STATS_RESET + 1)

static void
put_coverage(Datum *values)
{
	Coverage	coverage;

	coverage_get(&coverage);
	values[STAT_COVERAGE_START] = LSNGetDatum(coverage.start);
	values[STAT_COVERAGE_END] = LSNGetDatum(coverage.end);
	values[STAT_SUMMARIES] = Int64GetDatum(coverage.summaries);
	values[STAT_SUMMARY_BYTES] = Int64GetDatum((int64) coverage.bytes);
	values[STAT_GAPS] = Int64GetDatum(coverage.gaps);
}

/* What is so at the moment. */
static void
put_state(Datum *values, bool *nulls)
{
	MapStats	map;
	PublishStats publish;

	map_get_stats(&map);
	publish_get_stats(&publish);
	values[STAT_ENGINE] = CStringGetTextDatum(engine_name());
	values[STAT_FLUSHED_LSN] = LSNGetDatum(map.start);
	values[STAT_MAP_SIZE] = Int64GetDatum((int64) map.size);
	values[STAT_MAP_USED] = Int64GetDatum((int64) map.used);
	values[STAT_LAST_FLUSH] = TimestampTzGetDatum(publish.last_time);
	nulls[STAT_LAST_FLUSH] = publish.last_time == 0;
	values[STAT_LAST_FLUSH_MS] = Float8GetDatum(publish.last_usec / 1000.0);
	nulls[STAT_LAST_FLUSH_MS] = publish.last_time == 0;
	values[STAT_SCAN_LAG] = Int64GetDatum(engine_follows() ? (int64) follow_lag() : 0);
}

static void
put_worker(Datum *values, bool *nulls)
{
	uint32		wait = 0;
	int			pid = worker_get_pid(&wait);
	const char *event = pgstat_get_wait_event(wait);

	values[STAT_WORKER_PID] = Int32GetDatum(pid);
	nulls[STAT_WORKER_PID] = pid == 0;
	nulls[STAT_WORKER_WAIT] = event == NULL;
	if (event)
		values[STAT_WORKER_WAIT] = CStringGetTextDatum(event);
}

static void
put_counters(Datum *values)
{
	Statistics	statistics;

	statistics_get(&statistics);
	values[STAT_FLUSHES] = Int64GetDatum((int64) statistics.flushes);
	values[STAT_FLUSH_FAILURES] = Int64GetDatum((int64) statistics.flush_failures);
	values[STAT_OVERFLOWS] = Int64GetDatum((int64) statistics.overflows);
	values[STAT_STATS_RESET] = TimestampTzGetDatum(statistics.since);
}

Datum
ptrack_stat(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[STAT_COLUMNS] = {0};
	bool		nulls[STAT_COLUMNS] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (tracking_disabled())
	{
		memset(nulls, true, sizeof(nulls));
		nulls[STAT_ENGINE] = false;
		values[STAT_ENGINE] = CStringGetTextDatum("off");
	}
	else
	{
		put_coverage(values);
		put_state(values, nulls);
		put_worker(values, nulls);
		put_counters(values);
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * ptrack_stat_reset() returns void
 *
 * What pg_stat_ptrack counts is counted from now on.  ERROR if nothing is tracked.
 */
Datum
ptrack_stat_reset(PG_FUNCTION_ARGS)
{
	tracking_require();
	statistics_reset();
	PG_RETURN_VOID();
}

/*
 * ptrack_scans() returns setof record: the rows of pg_stat_progress_ptrack, one
 * for each scan of WAL that is going on
 */
#define SCAN_COLUMNS	8

static const char *const scan_purpose_names[] = {
	[SCAN_QUERY] = "query",
	[SCAN_GAP] = "gap",
	[SCAN_OVERFLOW] = "overflow",
};

Datum
ptrack_scans(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; !tracking_disabled() && i < scan_progress_slots(); i++)
	{
		ScanProgress *scan = scan_progress_slot(i);
		uint32		pid = pg_atomic_read_u32(&scan->pid);
		Datum		values[SCAN_COLUMNS];
		bool		nulls[SCAN_COLUMNS] = {0};

		if (pid == 0)
			continue;
		values[0] = Int32GetDatum((int32) pid);
		values[1] = ObjectIdGetDatum(scan->database);
		nulls[1] = !OidIsValid(scan->database);
		values[2] = CStringGetTextDatum(scan_purpose_names[scan->purpose]);
		values[3] = LSNGetDatum(scan->start);
		values[4] = LSNGetDatum(scan->end);
		values[5] = Int64GetDatum((int64) (scan->end - scan->start));
		values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&scan->bytes));
		values[7] = Int32GetDatum((int32) pg_atomic_read_u32(&scan->processes));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
