/*
 * backup_api.c
 *		The SQL functions for backup clients.
 *
 * A client starts a backup by pg_backup_start, asks for the list of files, reads
 * them through as many connections as it likes, and calls pg_backup_stop.  What
 * these functions hold is of the query, and goes with it, however it ends; but what
 * is shown of a backup's progress is of the session.
 */
#include "postgres.h"

#include "compat.h"

#include "arguments.h"
#include "backup_list.h"
#include "backup_progress.h"
#include "backup_read.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "hooks.h"
#include "miscadmin.h"
#include "ptrack_map.h"
#include "publish.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "wait_events.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(ptrack_backup_files);
PG_FUNCTION_INFO_V1(ptrack_backup_read);
PG_FUNCTION_INFO_V1(ptrack_backup_read_blocks);
PG_FUNCTION_INFO_V1(ptrack_await_summary);
PG_FUNCTION_INFO_V1(ptrack_backup_progress);
PG_FUNCTION_INFO_V1(ptrack_backup_join);
PG_FUNCTION_INFO_V1(ptrack_backups);

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
	XLogRecPtr	lsn;
	TimestampTz deadline;

	require_argument(fcinfo, 0, "lsn");
	require_argument(fcinfo, 1, "seconds");
	lsn = PG_GETARG_LSN(0);
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), (int64) PG_GETARG_INT32(1) * 1000);
	tracking_require();
	publish_check_start();
	while (map_get_start() < lsn)
	{
		if (GetCurrentTimestamp() >= deadline)
			PG_RETURN_BOOL(false);
		worker_wake();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20,
						 wait_event(WAIT_SUMMARY_READY));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_BOOL(true);
}

/*
 * Progress
 */

static const char *const phase_names[BACKUP_PHASES] = {
	[BACKUP_AWAITS_CHECKPOINT] = "waiting for checkpoint to finish",
	[BACKUP_LISTS_FILES] = "listing files",
	[BACKUP_FINDS_CHANGES] = "finding changed blocks",
	[BACKUP_STREAMS_FILES] = "streaming database files",
	[BACKUP_AWAITS_ARCHIVING] = "waiting for wal archiving to finish",
	[BACKUP_TRANSFERS_WAL] = "transferring wal files",
	[BACKUP_SYNCS_FILES] = "syncing files",
};

static BackupPhase
phase_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(n));

	for (int i = 0; i < BACKUP_PHASES; i++)
	{
		if (strcmp(name, phase_names[i]) == 0)
			return (BackupPhase) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized phase of a backup: \"%s\"", name)));
}

/* A number that is not negative; -1 if it is null. */
static int64
count_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		return -1;
	if (PG_GETARG_INT64(n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", name)));
	return PG_GETARG_INT64(n);
}

/*
 * ptrack_backup_progress(phase text, total bigint, files bigint, incremental boolean)
 * returns boolean
 *
 * Shows this session's backup in pg_stat_progress_ptrack_backup, in that phase, until
 * the session ends.  So many bytes of so many files are to be sent; null: that is as
 * it was.  A null phase ends it.  False: it is not shown, for lack of room or since
 * tracking is disabled.
 */
Datum
ptrack_backup_progress(PG_FUNCTION_ARGS)
{
	int64		total = count_argument(fcinfo, 1, "total");
	int64		files = count_argument(fcinfo, 2, "files");
	BackupPhase phase;

	if (PG_ARGISNULL(0))
	{
		if (!tracking_disabled())
			backup_progress_leave();
		PG_RETURN_BOOL(false);
	}
	phase = phase_argument(fcinfo, 0);
	if (tracking_disabled() || !backup_progress_show(phase))
		PG_RETURN_BOOL(false);
	backup_progress_expect(total, files);
	if (!PG_ARGISNULL(3))
		backup_progress_incremental(PG_GETARG_BOOL(3));
	PG_RETURN_BOOL(true);
}

/*
 * ptrack_backup_join(pid integer) returns boolean
 *
 * What this session sends from now on, until it ends, counts for the backup that the
 * session of that process shows.  False if it shows none.
 */
Datum
ptrack_backup_join(PG_FUNCTION_ARGS)
{
	int			pid;

	require_argument(fcinfo, 0, "pid");
	pid = PG_GETARG_INT32(0);
	if (pid <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid process identifier: %d", pid)));
	PG_RETURN_BOOL(!tracking_disabled() && backup_progress_join(pid));
}

/*
 * ptrack_backups() returns setof record: the rows of pg_stat_progress_ptrack_backup
 *
 * As of other activity, everybody sees that there is a backup, and those who may
 * read all statistics, or have the privileges of its role, how far it is.
 */
#define BACKUP_COLUMNS	10

static void
put_backup(ReturnSetInfo *result, const BackupProgress *backup)
{
	Datum		values[BACKUP_COLUMNS] = {0};
	bool		nulls[BACKUP_COLUMNS] = {0};

	values[0] = Int32GetDatum(backup->pid);
	values[1] = ObjectIdGetDatum(backup->database);
	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		has_privs_of_role(GetUserId(), backup->role))
	{
		values[2] = CStringGetTextDatum(phase_names[backup->phase]);
		values[3] = Int64GetDatum(backup->bytes_total);
		nulls[3] = backup->bytes_total < 0;
		values[4] = Int64GetDatum(backup->bytes);
		values[5] = Int64GetDatum(backup->files_total);
		nulls[5] = backup->files_total < 0;
		values[6] = Int64GetDatum(backup->files);
		values[7] = Int32GetDatum(backup->workers);
		values[8] = BoolGetDatum(backup->incremental);
		values[9] = TimestampTzGetDatum(backup->started);
	}
	else
		memset(nulls + 2, true, sizeof(nulls) - 2 * sizeof(bool));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
ptrack_backups(PG_FUNCTION_ARGS)
{
	BackupProgress backup;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; !tracking_disabled() && i < backup_progress_slots(); i++)
	{
		if (backup_progress_get(i, &backup))
			put_backup((ReturnSetInfo *) fcinfo->resultinfo, &backup);
	}
	return (Datum) 0;
}
