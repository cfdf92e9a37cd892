/*
 * ptrack_api.c
 *		The SQL functions.
 *
 * Set-returning functions give one row per call and keep their state in the
 * query's multi-call memory context; files that they hold open are closed by
 * callbacks of that context, however the query ends.  NULL for an LSN is an
 * error everywhere: an empty answer would say that nothing changed.
 */
#include "postgres.h"

#include "compat.h"

#include "arguments.h"
#include "changed_segments.h"
#include "change_query.h"
#include "fmgr.h"
#include "funcapi.h"
#include "hooks.h"
#include "miscadmin.h"
#include "page_reader.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/pg_lsn.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(ptrack_version);
PG_FUNCTION_INFO_V1(ptrack_init_lsn);
PG_FUNCTION_INFO_V1(ptrack_lineage);
PG_FUNCTION_INFO_V1(ptrack_get_pagemapset);
PG_FUNCTION_INFO_V1(ptrack_get_change_stat);
PG_FUNCTION_INFO_V1(ptrack_changed_blocks);
PG_FUNCTION_INFO_V1(ptrack_get_block);
PG_FUNCTION_INFO_V1(ptrack_get_blocks);

/*
 * Arguments and results
 */

static TupleDesc
result_type(FunctionCallInfo fcinfo)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return BlessTupleDesc(desc);
}

static Datum
make_row(TupleDesc desc, Datum *values, bool *nulls)
{
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/* A bytea with room for len bytes. */
static bytea *
make_bytea(Size len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	return result;
}

/*
 * The first call of a set-returning function that scans segments since the LSN
 * which is its first argument; the second, if it has one, is the lineage there.
 * The function's state is of state_size zeroed bytes, of which a SegmentScan
 * pointer is the first.
 */
static FuncCallContext *
first_call(FunctionCallInfo fcinfo, Size state_size)
{
	XLogRecPtr	start = lsn_argument(fcinfo, 0, "start_lsn");
	const Lineage *lineage = lineage_argument(fcinfo, 1);
	FuncCallContext *context = SRF_FIRSTCALL_INIT();
	MemoryContext caller = MemoryContextSwitchTo(context->multi_call_memory_ctx);

	tracking_require();
	context->tuple_desc = result_type(fcinfo);
	context->user_fctx = palloc0(state_size);
	*(SegmentScan **) context->user_fctx = segment_scan_begin(start, lineage);
	MemoryContextSwitchTo(caller);
	return context;
}

/*
 * ptrack_version() returns text
 */
Datum
ptrack_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(PTRACK_VERSION));
}

/*
 * ptrack_init_lsn() returns pg_lsn
 *
 * The earliest LSN that an answer is possible from; 0/0 when disabled.
 */
Datum
ptrack_init_lsn(PG_FUNCTION_ARGS)
{
	Coverage	coverage;

	if (tracking_disabled())
	{
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("change tracking is disabled"),
				 errhint("Set \"ptrack.map_size\" to a value greater than zero and restart the server.")));
		PG_RETURN_LSN(InvalidXLogRecPtr);
	}
	coverage_get(&coverage);
	PG_RETURN_LSN(coverage.start);
}

/*
 * ptrack_lineage(lsn pg_lsn) returns uuid
 *
 * What tells this server's history at a redo point from other histories.
 */
Datum
ptrack_lineage(PG_FUNCTION_ARGS)
{
	XLogRecPtr	lsn = lsn_argument(fcinfo, 0, "lsn");
	pg_uuid_t  *uuid = palloc_object(pg_uuid_t);

	tracking_require();
	coverage_lineage(lsn, (Lineage *) uuid);
	PG_RETURN_UUID_P(uuid);
}

/*
 * ptrack_get_pagemapset(start_lsn pg_lsn [, lineage uuid])
 *
 * One row for each segment file that has changed blocks: its path, how many
 * there are, and the map of them, bit b of byte b / 8 for block b of the file.
 */
typedef struct PagemapState
{
	SegmentScan *scan;
	ChangedSegment segment;
} PagemapState;

Datum
ptrack_get_pagemapset(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	PagemapState *state;
	Datum		values[3];
	bool		nulls[3] = {0};
	bytea	   *map;

	if (SRF_IS_FIRSTCALL())
		first_call(fcinfo, sizeof(PagemapState));
	context = SRF_PERCALL_SETUP();
	state = context->user_fctx;
	if (!segment_scan_next(state->scan, &state->segment))
		SRF_RETURN_DONE(context);

	map = make_bytea(state->segment.bytes);
	memcpy(VARDATA(map), state->segment.bits, state->segment.bytes);
	values[0] = CStringGetTextDatum(state->segment.path);
	values[1] = Int64GetDatum(state->segment.changed);
	values[2] = PointerGetDatum(map);
	SRF_RETURN_NEXT(context, make_row(context->tuple_desc, values, nulls));
}

/*
 * ptrack_get_change_stat(start_lsn pg_lsn [, lineage uuid])
 *
 * One row: files with changed blocks, those blocks, and their size in MB.
 */
Datum
ptrack_get_change_stat(PG_FUNCTION_ARGS)
{
	XLogRecPtr	start = lsn_argument(fcinfo, 0, "start_lsn");
	const Lineage *lineage = lineage_argument(fcinfo, 1);
	SegmentScan *scan;
	ChangedSegment *segment = palloc_object(ChangedSegment);
	int64		files = 0;
	int64		blocks = 0;
	Datum		values[3];
	bool		nulls[3] = {0};

	tracking_require();
	scan = segment_scan_begin(start, lineage);
	while (segment_scan_next(scan, segment))
	{
		files++;
		blocks += segment->changed;
	}
	values[0] = Int64GetDatum(files);
	values[1] = NumericGetDatum(int64_to_numeric(blocks));
	values[2] = NumericGetDatum(int64_div_fast_to_numeric(blocks * BLCKSZ * 100 / (1024 * 1024), 2));
	return make_row(result_type(fcinfo), values, nulls);
}

/*
 * ptrack_changed_blocks(start_lsn pg_lsn, end_lsn pg_lsn [, lineage uuid])
 *
 * The changes themselves, whether or not the blocks still exist: limit blocks
 * and marked blocks, in the columns of pg_wal_summary_contents.
 */
typedef struct BlocksState
{
	ChangeQuery *query;
	ChangeItem	item;			/* being returned */
	int			next;			/* bit of item to look at; PIECE_BLOCKS: none */
} BlocksState;

static void
blocks_first_call(FunctionCallInfo fcinfo)
{
	XLogRecPtr	start = lsn_argument(fcinfo, 0, "start_lsn");
	XLogRecPtr	end = end_argument(fcinfo, 1, start);
	const Lineage *lineage = lineage_argument(fcinfo, 2);
	FuncCallContext *context = SRF_FIRSTCALL_INIT();
	MemoryContext caller = MemoryContextSwitchTo(context->multi_call_memory_ctx);
	BlocksState *state = palloc0_object(BlocksState);

	tracking_require();
	context->tuple_desc = result_type(fcinfo);
	state->query = change_query_begin(start, end, lineage);
	state->next = PIECE_BLOCKS;
	context->user_fctx = state;
	MemoryContextSwitchTo(caller);
}

/* The next marked block of the current piece. */
static bool
next_marked(BlocksState *state)
{
	while (state->next < PIECE_BLOCKS)
	{
		uint32		rest = state->item.bits[state->next / 32] >> state->next % 32;

		if (rest != 0)
		{
			state->next += pg_rightmost_one_pos32(rest);
			return true;
		}
		state->next = (state->next / 32 + 1) * 32;
	}
	return false;
}

/* The next row: a limit block, or a marked one. */
static bool
next_changed(BlocksState *state, BlockNumber *block, bool *is_limit)
{
	for (;;)
	{
		if (next_marked(state))
		{
			*block = change_first_block(&state->item.key) + state->next++;
			*is_limit = false;
			return true;
		}
		if (!change_query_next(state->query, &state->item))
			return false;
		if (!change_is_entry(&state->item.key))
			state->next = 0;
		else if (state->item.limit != InvalidBlockNumber)
		{
			*block = state->item.limit;
			*is_limit = true;
			return true;
		}
	}
}

Datum
ptrack_changed_blocks(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	BlocksState *state;
	BlockNumber block;
	bool		is_limit;
	Datum		values[6];
	bool		nulls[6] = {0};

	if (SRF_IS_FIRSTCALL())
		blocks_first_call(fcinfo);
	context = SRF_PERCALL_SETUP();
	state = context->user_fctx;
	if (!next_changed(state, &block, &is_limit))
		SRF_RETURN_DONE(context);

	values[0] = ObjectIdGetDatum(change_relation(&state->item.key));
	values[1] = ObjectIdGetDatum(change_tablespace(&state->item.key));
	values[2] = ObjectIdGetDatum(change_database(&state->item.key));
	values[3] = Int16GetDatum(change_fork(&state->item.key));
	values[4] = Int64GetDatum((int64) block);
	values[5] = BoolGetDatum(is_limit);
	SRF_RETURN_NEXT(context, make_row(context->tuple_desc, values, nulls));
}

/*
 * ptrack_get_block(path text, blkno bigint) returns bytea
 *
 * One page of a segment file; NULL if there is no such block.
 */
Datum
ptrack_get_block(PG_FUNCTION_ARGS)
{
	char	   *path;
	int64		block;
	RelationFile file;
	PageReader	reader;
	BlockNumber blocks;
	bytea	   *page;
	volatile int got = 0;

	require_argument(fcinfo, 0, "path");
	require_argument(fcinfo, 1, "blkno");
	path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	block = PG_GETARG_INT64(1);
	relation_file_parse(path, &file);
	if (block < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid block number: %lld", (long long) block)));
	if (!relation_file_blocks(path, &blocks) || block >= blocks ||
		!page_reader_open(&reader, &file, path))
		PG_RETURN_NULL();

	page = make_bytea(BLCKSZ);
	PG_TRY();
	{
		got = page_reader_read(&reader, (BlockNumber) block, 1, VARDATA(page));
	}
	PG_FINALLY();
	{
		page_reader_close(&reader);
	}
	PG_END_TRY();
	if (got == 0)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(page);
}

/*
 * ptrack_get_blocks(start_lsn pg_lsn [, lineage uuid])
 *
 * The contents of every changed block that exists, read some blocks at a time.
 */
#define READ_BLOCKS		32

typedef struct ContentsState
{
	SegmentScan *scan;
	ChangedSegment segment;
	BlockNumber next;			/* block of the segment to look at */
	PageReader	reader;
	BlockNumber first;			/* block that pages begins with */
	int			pages_read;
	char	   *pages;			/* READ_BLOCKS of them */
	MemoryContextCallback cleanup;
} ContentsState;

static void
close_contents(void *arg)
{
	page_reader_close(&((ContentsState *) arg)->reader);
}

static void
contents_first_call(FunctionCallInfo fcinfo)
{
	FuncCallContext *context = first_call(fcinfo, sizeof(ContentsState));
	ContentsState *state = context->user_fctx;

	state->pages = MemoryContextAlloc(context->multi_call_memory_ctx,
									  READ_BLOCKS * BLCKSZ);
	state->reader.file = -1;
	state->cleanup.func = close_contents;
	state->cleanup.arg = state;
	MemoryContextRegisterResetCallback(context->multi_call_memory_ctx, &state->cleanup);
}

static inline bool
is_changed(const ChangedSegment *segment, BlockNumber block)
{
	return block / 8 < segment->bytes &&
		(segment->bits[block / 8] >> block % 8 & 1) != 0;
}

/* The next changed block of the segment, or false. */
static bool
next_block(ContentsState *state)
{
	const ChangedSegment *segment = &state->segment;

	for (; state->next / 8 < segment->bytes; state->next++)
	{
		if (is_changed(segment, state->next))
			return true;
	}
	return false;
}

static void
close_segment(ContentsState *state)
{
	page_reader_close(&state->reader);
	state->pages_read = 0;
	state->segment.bytes = 0;
}

/* Goes to the next segment file that can be opened; false if there is none. */
static bool
next_segment(ContentsState *state)
{
	do
	{
		close_segment(state);
		if (!segment_scan_next(state->scan, &state->segment))
			return false;
	} while (!page_reader_open(&state->reader, &state->segment.file,
							   state->segment.path));
	state->next = 0;
	return true;
}

/* Has state->next in pages, reading it and what follows if need be. */
static bool
have_page(ContentsState *state)
{
	int			count = 1;

	if (state->next >= state->first &&
		state->next < state->first + state->pages_read)
		return true;
	while (count < READ_BLOCKS && is_changed(&state->segment, state->next + count))
		count++;
	state->first = state->next;
	state->pages_read = page_reader_read(&state->reader, state->first, count,
										 state->pages);
	return state->pages_read > 0;
}

/* Goes to the next block that is still there. */
static bool
next_contents(ContentsState *state)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!next_block(state))
		{
			if (!next_segment(state))
				return false;
		}
		else if (have_page(state))
			return true;
		else
			close_segment(state);	/* it was truncated here */
	}
}

Datum
ptrack_get_blocks(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	ContentsState *state;
	bytea	   *page;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (SRF_IS_FIRSTCALL())
		contents_first_call(fcinfo);
	context = SRF_PERCALL_SETUP();
	state = context->user_fctx;
	if (!next_contents(state))
		SRF_RETURN_DONE(context);

	page = make_bytea(BLCKSZ);
	memcpy(VARDATA(page), state->pages + (Size) (state->next - state->first) * BLCKSZ,
		   BLCKSZ);
	values[0] = CStringGetTextDatum(state->segment.path);
	values[1] = Int64GetDatum(state->next);
	values[2] = PointerGetDatum(page);
	state->next++;
	SRF_RETURN_NEXT(context, make_row(context->tuple_desc, values, nulls));
}
