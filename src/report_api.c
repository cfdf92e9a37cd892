/*
 * report_api.c
 *		SQL functions that tell how much changed, where and when.
 *
 * They give a row for each relation fork, or redo point, and never one for each
 * block.
 */
#include "postgres.h"

#include "compat.h"

#include "arguments.h"
#include "catalog/pg_type_d.h"
#include "changed_forks.h"
#include "funcapi.h"
#include "hooks.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(ptrack_changed_forks);
PG_FUNCTION_INFO_V1(ptrack_redo_points);

/*
 * ptrack_changed_forks(start_lsn pg_lsn, end_lsn pg_lsn, regions integer
 * [, lineage uuid])
 *
 * One row for each fork that WAL of the range changed, whether or not it still
 * exists; and for each database, or the cluster, of which all may have changed:
 * then there is no fork number and no number of changed blocks.
 */
#define FORK_COLUMNS	10

/* How many regions of a fork to tell apart; 0: none. */
static int
regions_argument(FunctionCallInfo fcinfo, int n)
{
	int			regions;

	if (PG_ARGISNULL(n))
		return 0;
	regions = PG_GETARG_INT32(n);
	if (regions < 1 || regions > MAX_REGIONS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid number of regions: %d", regions),
				 errdetail("Valid are numbers from 1 to %d.", MAX_REGIONS)));
	return regions;
}

/* The counts up to the last region that has a changed block. */
static Datum
regions_array(const ChangedFork *fork)
{
	Datum		counts[MAX_REGIONS];
	int			used = fork->nregions;

	while (used > 0 && fork->regions[used - 1] == 0)
		used--;
	for (int i = 0; i < used; i++)
		counts[i] = Int64GetDatum((int64) fork->regions[i]);
	return PointerGetDatum(construct_array(counts, used, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
put_fork(ReturnSetInfo *result, const ChangedFork *fork)
{
	Datum		values[FORK_COLUMNS] = {0};
	bool		nulls[FORK_COLUMNS] = {0};
	bool		has_regions = !fork->is_whole && fork->nregions > 0;

	values[0] = ObjectIdGetDatum(change_relation(&fork->key));
	values[1] = ObjectIdGetDatum(change_tablespace(&fork->key));
	values[2] = ObjectIdGetDatum(change_database(&fork->key));
	values[3] = Int16GetDatum(change_fork(&fork->key));
	nulls[3] = fork->is_whole;
	values[4] = Int64GetDatum((int64) fork->changed);
	nulls[4] = fork->is_whole;
	values[5] = Int64GetDatum((int64) fork->increment);
	nulls[5] = fork->is_in_whole;
	values[6] = Int64GetDatum((int64) fork->blocks);
	nulls[6] = !fork->exists;
	values[7] = Int64GetDatum((int64) fork->limit);
	nulls[7] = fork->limit == InvalidBlockNumber;
	nulls[8] = nulls[9] = !has_regions;
	if (has_regions)
	{
		values[8] = Int64GetDatum((int64) 1 << fork->region_shift);
		values[9] = regions_array(fork);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	if (has_regions)
		pfree(DatumGetPointer(values[9]));
}

Datum
ptrack_changed_forks(PG_FUNCTION_ARGS)
{
	XLogRecPtr	start = lsn_argument(fcinfo, 0, "start_lsn");
	XLogRecPtr	end = end_argument(fcinfo, 1, start);
	int			regions = regions_argument(fcinfo, 2);
	const Lineage *lineage = lineage_argument(fcinfo, 3);
	ChangedFork *fork = palloc_object(ChangedFork);
	ForkScan   *scan;

	tracking_require();
	InitMaterializedSRF(fcinfo, 0);
	scan = fork_scan_begin(start, end, lineage, regions);
	while (fork_scan_next(scan, fork))
		put_fork((ReturnSetInfo *) fcinfo->resultinfo, fork);
	return (Datum) 0;
}

/*
 * ptrack_redo_points()
 *
 * One row for each redo point up to which changes are told apart from those
 * after it, oldest first, and when the server came to it.
 */
Datum
ptrack_redo_points(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CoveragePoint *points;
	int			n;

	tracking_require();
	InitMaterializedSRF(fcinfo, 0);
	n = coverage_points(&points);
	for (int i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, points[i].time == 0};

		values[0] = LSNGetDatum(points[i].lsn);
		values[1] = TimestampTzGetDatum(time_t_to_timestamptz((pg_time_t) points[i].time));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
