/*
 * publish.c
 *		Making the cycles of the live map durable as change summaries.
 *
 * Runs in the process that makes checkpoints and restartpoints, after the
 * buffers were written and before the checkpoint record is: a crash after that
 * record does not replay what the cycle holds, a crash before it does.
 *
 * Nothing here may fail the checkpoint.  When a summary cannot be published,
 * there is a warning, the map keeps what it holds, and the next checkpoint
 * tries again.  If the server goes down before one succeeds, the summary is
 * missing, and coverage begins anew after it.
 *
 * This file also knows where the server started from: the checkpoint that
 * pg_control named then.  The chain of summaries of earlier runs is attached
 * there, and what was done to the files without WAL since is noticed there.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "ptrack_map.h"
#include "publish.h"
#include "storage/shmem.h"
#include "summary_store.h"
#include "utils/memutils.h"

typedef struct PublishShared
{
	/* The checkpoint that the server started from; set before anyone reads. */
	XLogRecPtr	start_redo;		/* invalid: not known */
	TimeLineID	start_tli;
	pg_time_t	start_time;		/* when it was made */
	bool		start_minimal;	/* WAL to be replayed is of wal_level minimal */
	pg_atomic_uint32 start_checked; /* publish_check_start has run */

	/* What is replayed is on that timeline, from that redo point on. */
	pg_atomic_uint32 replay_tli;
	pg_atomic_uint64 replay_tli_since;	/* PG_UINT64_MAX: not known */

	/*
	 * What was published last.  For the process that makes checkpoints, of
	 * which there is one at a time.
	 */
	XLogRecPtr	end;			/* invalid: nothing published so far */
	Lineage		lineage;		/* at that redo point */

	/* Statistics, which anyone reads. */
	pg_atomic_uint64 published;
	pg_atomic_uint64 failures;
	pg_atomic_uint64 last_usec;
} PublishShared;

static PublishShared *shared;

/* Emptied after each use; made early, so that nothing can fail later. */
static MemoryContext publish_context;

Size
publish_shmem_size(void)
{
	return MAXALIGN(sizeof(PublishShared));
}

static void
note_start(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (crc_ok)
	{
		shared->start_redo = control->checkPointCopy.redo;
		shared->start_tli = control->checkPointCopy.ThisTimeLineID;
		shared->start_time = control->checkPointCopy.time;
		shared->start_minimal = control->wal_level == WAL_LEVEL_MINIMAL &&
			control->state != DB_SHUTDOWNED;
	}
	pfree(control);
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
publish_shmem_init(void)
{
	bool		found;

	if (publish_context == NULL)
		publish_context = AllocSetContextCreate(TopMemoryContext, "ptrack publishing",
												ALLOCSET_DEFAULT_SIZES);
	shared = ShmemInitStruct("ptrack publishing", publish_shmem_size(), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(PublishShared));
		pg_atomic_init_u64(&shared->published, 0);
		pg_atomic_init_u64(&shared->failures, 0);
		pg_atomic_init_u64(&shared->last_usec, 0);
		pg_atomic_init_u32(&shared->start_checked, 0);
		pg_atomic_init_u32(&shared->replay_tli, 0);
		pg_atomic_init_u64(&shared->replay_tli_since, PG_UINT64_MAX);
		note_start();
	}
}

/*
 * The start of the server
 */

/*
 * Can that summary be what comes before the present run of the server?  If it
 * ends at the redo point that the server started from, it must have been made
 * for the same checkpoint.  A data directory that was rolled back, while the
 * store was not, may have come to another checkpoint at the same LSN.
 *
 * In a backup that is being restored, pg_control names a later checkpoint, and
 * restartpoints do not know the time of theirs: then the LSN must do.
 */
bool
publish_fits_start(const SummaryHeader *header)
{
	if (header->end != shared->start_redo)
		return true;
	return header->tli == shared->start_tli &&
		(header->end_time_max == 0 ||
		 (shared->start_time >= header->end_time_min &&
		  shared->start_time <= header->end_time_max));
}

/* The summary that ends at that redo point, if there is one to be trusted. */
static bool
find_summary_before(XLogRecPtr redo, StoredSummary *summary, SummaryHeader *header)
{
	StoreList	list;
	bool		found = false;

	store_list(&list);
	for (int i = list.count - 1; i >= 0 && !found; i--)
	{
		*summary = list.summaries[i];
		found = summary->end == redo && store_check(summary, header) &&
			publish_fits_start(header);
	}
	pfree(list.summaries);
	return found;
}

/* What was new in a summary's range counts as new in the first cycle, too. */
static void
carry_from(const StoredSummary *summary)
{
	StoreReader reader;
	ChangeItem	item;

	store_open(&reader, summary);
	while (store_next(&reader, &item))
		map_note_carried(&item);
	store_close(&reader);
}

/*
 * Completes the first cycle since the server started by what WAL does not tell.
 * To be called before the first answer is given or summary published; it does
 * something the first time only.
 *
 * - pg_checksums writes every page without a trace in the WAL.  If the cycle
 *   before was without checksums, or is not known, everything counts as
 *   changed.  When checksums are disabled, no page is written.
 * - With wal_level = minimal, what was carried over from the cycle before was
 *   lost in a crash, and replay does not bring it back.
 */
void
publish_check_start(void)
{
	MapStats	map;
	StoredSummary summary;
	SummaryHeader header;
	bool		checksums = DataChecksumsEnabled();

	if (pg_atomic_read_u32(&shared->start_checked) != 0)
		return;

	/* No redo point since the server started: it is still that one. */
	map_get_stats(&map);
	if (XLogRecPtrIsInvalid(map.start))
		map_note_start(GetRedoRecPtr());
	map_get_stats(&map);

	if (checksums || shared->start_minimal)
	{
		if (!find_summary_before(map.start, &summary, &header) ||
			(checksums && (header.flags & SUMMARY_CHECKSUMS) == 0))
			map_note_everything();
		else if (shared->start_minimal)
			carry_from(&summary);
	}
	pg_atomic_write_u32(&shared->start_checked, 1);
}

/*
 * Follows the timeline of what is replayed, in the startup process.  Each
 * checkpoint says which one its redo point is on, and a promotion which one
 * begins.
 */
void
publish_note_replayed(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	CheckPoint	checkpoint;
	xl_end_of_recovery promotion;
	TimeLineID	tli;
	XLogRecPtr	since;

	if (XLogRecGetRmid(record) != RM_XLOG_ID)
		return;
	if (info == XLOG_CHECKPOINT_ONLINE || info == XLOG_CHECKPOINT_SHUTDOWN)
	{
		memcpy(&checkpoint, XLogRecGetData(record), sizeof(checkpoint));
		tli = checkpoint.ThisTimeLineID;
		since = checkpoint.redo;
	}
	else if (info == XLOG_END_OF_RECOVERY)
	{
		memcpy(&promotion, XLogRecGetData(record), sizeof(promotion));
		tli = promotion.ThisTimeLineID;
		since = record->ReadRecPtr;
	}
	else
		return;
	if (tli == pg_atomic_read_u32(&shared->replay_tli))
		return;

	/* Nobody may see one of the two without the other. */
	pg_atomic_write_u64(&shared->replay_tli_since, PG_UINT64_MAX);
	pg_write_barrier();
	pg_atomic_write_u32(&shared->replay_tli, tli);
	pg_write_barrier();
	pg_atomic_write_u64(&shared->replay_tli_since, since);
}

/* The timeline of a redo point that was replayed; 0: not known. */
static TimeLineID
replayed_timeline(XLogRecPtr redo)
{
	uint64		since = pg_atomic_read_u64(&shared->replay_tli_since);
	TimeLineID	tli;

	pg_read_barrier();
	tli = pg_atomic_read_u32(&shared->replay_tli);
	pg_read_barrier();
	return redo >= since &&
		since == pg_atomic_read_u64(&shared->replay_tli_since) ? tli : 0;
}

/*
 * Publishing
 */

/*
 * Makes WAL durable up to the redo point.  A shutdown checkpoint's redo point
 * may be the first byte after a page header that is not yet written, which
 * nothing can be flushed up to; then what comes before ends with the page
 * before.
 */
static void
flush_wal(XLogRecPtr redo)
{
	uint32		header = XLogSegmentOffset(redo, wal_segment_size) < XLOG_BLCKSZ ?
		SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	if (redo % XLOG_BLCKSZ == header)
		redo -= header;
	XLogFlush(redo);
}

/*
 * The lineage at the start of a range: that at the end of the summary before
 * it.  None if there is no such summary.
 */
static Lineage
lineage_before(XLogRecPtr start)
{
	Lineage		none = {{0}};
	StoredSummary summary;
	SummaryHeader header;

	if (shared->end == start)
		return shared->lineage;
	return find_summary_before(start, &summary, &header) ? header.end_lineage : none;
}

static bool
next_item(void *arg, ChangeItem *item)
{
	return map_snapshot_next(arg, item);
}

/*
 * Publishes a copy of a half as the summary of [its start, its end) on that
 * timeline, and returns what it is called.
 */
static bool
publish_snapshot(MapSnapshot *snapshot, TimeLineID tli, StoredSummary *published)
{
	SummaryHeader header = {
		.system_identifier = GetSystemIdentifier(),
		.start = snapshot->start,
		.end = snapshot->end.redo,
		.tli = tli,
		.block_size = BLCKSZ,
		.segment_blocks = RELSEG_SIZE,
		.flags = (snapshot->coarse ? SUMMARY_COARSE : 0) |
		(DataChecksumsEnabled() ? SUMMARY_CHECKSUMS : 0),
		.start_lineage = lineage_before(snapshot->start),
		.end_time_min = snapshot->end.time_min,
		.end_time_max = snapshot->end.time_max,
	};

	if (!pg_strong_random(header.end_lineage.id, LINEAGE_LEN))
	{
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random lineage identifier")));
		return false;
	}
	if (!store_publish(&header, next_item, snapshot))
		return false;
	shared->end = header.end;
	shared->lineage = header.end_lineage;
	pg_atomic_fetch_add_u64(&shared->published, 1);
	*published = (StoredSummary)
	{
		tli, header.start, header.end
	};
	return true;
}

static bool
no_memory(void)
{
	ereport(WARNING,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("not enough memory to copy the map of changed blocks")));
	return false;
}

/* Publishes the cycle that ended, if there is one.  True: nothing is left. */
static bool
publish_frozen(TimeLineID tli)
{
	MapSnapshot snapshot;
	StoredSummary published;

	if (!map_snapshot_frozen(&snapshot))
		return XLogRecPtrIsInvalid(snapshot.start) || no_memory();
	if (!XLogIsNeeded())
		map_carry_new_relations(&snapshot);
	if (!publish_snapshot(&snapshot, tli, &published))
		return false;
	map_release_frozen();
	store_remove_covered(&published);
	return true;
}

/*
 * Publishes what the running half holds from before the redo point.  That is
 * so when the map was not cut there: because the other half was still frozen
 * then, or in recovery.  The marks that came after the redo point go along.
 */
static bool
publish_running(const MapCut *end, TimeLineID tli)
{
	MapStats	stats;
	MapSnapshot snapshot;
	StoredSummary published;

	map_get_stats(&stats);
	if (stats.start >= end->redo)
		return true;
	if (!map_snapshot_running(&snapshot))
		return no_memory();
	snapshot.end = *end;
	if (!publish_snapshot(&snapshot, tli, &published))
		return false;
	map_advance_running(end->redo);
	store_remove_covered(&published);
	return true;
}

/*
 * At a checkpoint, the redo point is that of the latest cut, and on the
 * timeline that WAL is inserted on.
 */
static bool
publish_at_checkpoint(const MapCut *cut)
{
	TimeLineID	tli = GetWALInsertionTimeLineIfSet();

	flush_wal(cut->redo);
	return publish_frozen(tli) && publish_running(cut, tli);
}

/*
 * At a restartpoint, the redo point is one of the primary's, which was replayed
 * some time ago; all WAL up to it is durable.  If replay has come to another
 * timeline since, the map keeps what it holds until the next one.
 */
static bool
publish_at_restartpoint(XLogRecPtr redo)
{
	MapCut		end = {redo, 0, 0};
	TimeLineID	tli = replayed_timeline(redo);

	return tli == 0 || publish_running(&end, tli);
}

/* May throw. */
static bool
publish_all(XLogRecPtr redo, int keep_minutes)
{
	instr_time	begin;
	instr_time	end;
	MapCut		cut;

	INSTR_TIME_SET_CURRENT(begin);
	publish_check_start();
	map_get_last_cut(&cut);
	if (redo == cut.redo ? !publish_at_checkpoint(&cut) :
		!publish_at_restartpoint(redo))
		return false;
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, begin);
	pg_atomic_write_u64(&shared->last_usec, INSTR_TIME_GET_MICROSEC(end));
	store_expire(keep_minutes);
	return true;
}

/*
 * Publishes everything that the map holds from before the redo point of the
 * checkpoint or restartpoint that is being made.  Never throws.
 */
void
publish_cycles(XLogRecPtr redo, int keep_minutes)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		MemoryContextSwitchTo(publish_context);
		done = publish_all(redo, keep_minutes);
	}
	PG_CATCH();
	{
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextReset(publish_context);

	if (!done)
	{
		pg_atomic_fetch_add_u64(&shared->failures, 1);
		ereport(WARNING,
				(errmsg("changed blocks up to %X/%X are not durable",
						LSN_FORMAT_ARGS(redo)),
				 errdetail("They are kept in memory, and the next checkpoint tries again to publish them. If the server stops before that succeeds, changes before its next start are not known.")));
	}
}

void
publish_get_stats(PublishStats *stats)
{
	stats->published = pg_atomic_read_u64(&shared->published);
	stats->failures = pg_atomic_read_u64(&shared->failures);
	stats->last_usec = pg_atomic_read_u64(&shared->last_usec);
}
