/*
 * backup_api.c
 *		The SQL functions for backup clients.
 *
 * A client starts a backup by pg_backup_start, asks for the list of files, reads
 * them through as many connections as it likes, and calls pg_backup_stop.  What
 * these functions hold is of the query, and goes with it, however it ends.
 */
#include "postgres.h"

#include "compat.h"

#include "arguments.h"
#include "backup_list.h"
#include "backup_read.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "hooks.h"
#include "miscadmin.h"
#include "ptrack_map.h"
#include "publish.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(ptrack_backup_files);
PG_FUNCTION_INFO_V1(ptrack_backup_read);
PG_FUNCTION_INFO_V1(ptrack_backup_read_blocks);
PG_FUNCTION_INFO_V1(ptrack_await_summary);

/*
 * ptrack_backup_files() returns setof record: what there is to back up
 */
#define FILE_COLUMNS	5

static void
put_file(void *arg, const BackupEntry *entry)
{
	ReturnSetInfo *result = arg;
	Datum		values[FILE_COLUMNS];
	bool		nulls[FILE_COLUMNS] = {0};

	values[0] = CStringGetTextDatum(entry->path);
	values[1] = CharGetDatum((char) entry->kind);
	values[2] = Int64GetDatum(entry->size);
	values[3] = Int64GetDatum(entry->modified);
	nulls[4] = entry->target == NULL;
	if (entry->target)
		values[4] = CStringGetTextDatum(entry->target);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
ptrack_backup_files(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	backup_list(put_file, fcinfo->resultinfo);
	return (Datum) 0;
}

/* An array argument of that number without nulls, and how many elements it has. */
static Datum *
array_argument(FunctionCallInfo fcinfo, int n, const char *name, Oid type, int *count)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int16		len;
	bool		by_value;
	char		align;

	require_argument(fcinfo, n, name);
	array = PG_GETARG_ARRAYTYPE_P(n);
	get_typlenbyvalalign(type, &len, &by_value, &align);
	deconstruct_array(array, type, len, by_value, align, &elements, &nulls, count);
	if (ARR_NDIM(array) > 1 || array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be an array of one dimension without nulls", name)));
	return elements;
}

static BackupRequest *
requests_for(FunctionCallInfo fcinfo, int *count)
{
	Datum	   *paths = array_argument(fcinfo, 0, "paths", TEXTOID, count);
	BackupRequest *requests = palloc0_array(BackupRequest, Max(*count, 1));

	for (int i = 0; i < *count; i++)
		requests[i].path = text_to_cstring(DatumGetTextPP(paths[i]));
	return requests;
}

/* The bytes from start on, so many at most, of each file. */
static BackupRequest *
byte_requests(FunctionCallInfo fcinfo, int *count)
{
	BackupRequest *requests = requests_for(fcinfo, count);
	int64		start;
	int64		length;

	require_argument(fcinfo, 1, "start");
	require_argument(fcinfo, 2, "length");
	start = PG_GETARG_INT64(1);
	length = PG_GETARG_INT64(2);
	if (start < 0 || start % BLCKSZ != 0 || length < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a range must start at a multiple of the block size, and have a length that is not negative")));
	for (int i = 0; i < *count; i++)
	{
		requests[i].start = (uint64) start;
		requests[i].length = (uint64) length;
	}
	return requests;
}

/* The blocks of each file that are in its map, or past its listed length. */
static BackupRequest *
block_requests(FunctionCallInfo fcinfo, int *count)
{
	BackupRequest *requests = requests_for(fcinfo, count);
	int			nmaps;
	int			nsizes;
	Datum	   *maps = array_argument(fcinfo, 1, "maps", BYTEAOID, &nmaps);
	Datum	   *sizes = array_argument(fcinfo, 2, "blocks", INT8OID, &nsizes);

	if (nmaps != *count || nsizes != *count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arguments \"paths\", \"maps\" and \"blocks\" must have the same length")));
	for (int i = 0; i < *count; i++)
	{
		bytea	   *map = DatumGetByteaPP(maps[i]);

		requests[i].has_map = true;
		requests[i].map = (const uint8 *) VARDATA_ANY(map);
		requests[i].map_len = VARSIZE_ANY_EXHDR(map);
		requests[i].listed_blocks = (BlockNumber) Min(Max(DatumGetInt64(sizes[i]), 0), RELSEG_SIZE);
	}
	return requests;
}

static Datum
read_parts(FunctionCallInfo fcinfo, BackupRequest *(*get_requests) (FunctionCallInfo, int *))
{
	FuncCallContext *context;
	bytea	   *part;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext caller;
		BackupRequest *requests;
		int			count;

		context = SRF_FIRSTCALL_INIT();
		caller = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		requests = get_requests(fcinfo, &count);
		context->user_fctx = backup_reader_create(requests, count,
												  PG_ARGISNULL(3) ? InvalidXLogRecPtr : PG_GETARG_LSN(3));
		MemoryContextSwitchTo(caller);
	}
	context = SRF_PERCALL_SETUP();
	part = backup_reader_next(context->user_fctx);
	if (part == NULL)
		SRF_RETURN_DONE(context);
	SRF_RETURN_NEXT(context, PointerGetDatum(part));
}

/*
 * ptrack_backup_read(paths text[], start bigint, length bigint, check_before pg_lsn)
 * returns setof bytea
 *
 * Contents of files, in parts that backup_read.h describes.
 */
Datum
ptrack_backup_read(PG_FUNCTION_ARGS)
{
	return read_parts(fcinfo, byte_requests);
}

/*
 * ptrack_backup_read_blocks(paths text[], maps bytea[], blocks bigint[],
 * check_before pg_lsn) returns setof bytea
 *
 * The same of blocks that are in the maps, or past that number of blocks.
 */
Datum
ptrack_backup_read_blocks(PG_FUNCTION_ARGS)
{
	return read_parts(fcinfo, block_requests);
}

/*
 * ptrack_await_summary(lsn pg_lsn, seconds integer) returns boolean
 *
 * Waits until what changed before that redo point is durable, so that a copy of
 * the data directory has all of it; at most so long.
 */
Datum
ptrack_await_summary(PG_FUNCTION_ARGS)
{
	TimestampTz began = GetCurrentTimestamp();
	XLogRecPtr	lsn;
	int			seconds;

	require_argument(fcinfo, 0, "lsn");
	require_argument(fcinfo, 1, "seconds");
	lsn = PG_GETARG_LSN(0);
	seconds = PG_GETARG_INT32(1);
	tracking_require();
	publish_check_start();
	while (map_get_start() < lsn)
	{
		if (TimestampDifferenceExceeds(began, GetCurrentTimestamp(), seconds * 1000))
			PG_RETURN_BOOL(false);
		worker_wake();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_BOOL(true);
}
