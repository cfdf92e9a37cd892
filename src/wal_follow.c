/*
 * wal_follow.c
 *		Following WAL: marking what was written on servers without hooks.
 *
 * ptrack's worker reads WAL as it becomes durable, marks in the live map what
 * each record changes, and cuts the map at redo points, just as redo does on a
 * standby.  So the map always knows everything before some position; a query
 * copies the map and reads WAL from that position on by itself.  It never waits
 * for the worker, and is right even if there is none.
 *
 * The position is committed in steps.  Between two of them, the map may hold
 * more marks than it says, which does no harm, but no more fingerprints: those
 * are added with the step.
 *
 * Redo points.  WAL of PostgreSQL 17 and later has a record at each of them.
 * In earlier releases that is so for shutdown checkpoints only.  The redo point
 * of another one is where the server says that it is, if the worker has not
 * come that far; else it is learned from the record that completes the
 * checkpoint, as always on a standby.  Then the cycle ends at the redo point,
 * with some marks that came later, and WAL from the redo point on is read again
 * for the next cycle.
 */
#include "postgres.h"

#include "compat.h"

#include <time.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "engine.h"
#include "map_mark.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "postmaster/interrupt.h"
#include "ptrack_map.h"
#include "publish.h"
#include "server_start.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "wal_follow.h"
#include "wal_reader.h"

/* Bytes of WAL from one step to the next. */
#define STEP_BYTES		(256 * 1024)

typedef struct FollowShared
{
	pg_atomic_uint64 replayed;	/* redo has marked everything before; 0:
								 * nothing */
	slock_t		mutex;			/* protects what follows */
	FollowPosition position;	/* lsn invalid: not begun, or being moved */
	bool		begun;
} FollowShared;

/* One pass of the worker over what there is to read. */
typedef struct Follower
{
	WalReader  *reader;
	TimeLineID	tli;
	XLogRecPtr	end;			/* of what may be read */
	XLogRecPtr	stop;			/* a redo point before that; invalid: none */
	XLogRecPtr	last_cut;		/* redo point that the running cycle begins
								 * at, or the last one that it went on across */
	XLogRecPtr	committed;
	uint64		sum;			/* fingerprints since then */
} Follower;

static FollowShared *shared;

Size
follow_shmem_size(void)
{
	return MAXALIGN(sizeof(FollowShared));
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
follow_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("ptrack follower", follow_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(FollowShared));
	pg_atomic_init_u64(&shared->replayed, InvalidXLogRecPtr);
	SpinLockInit(&shared->mutex);
}

/*
 * The position
 */

/*
 * Redo has marked all records that end there or before.  In the startup process.
 */
void
follow_note_replayed(XLogRecPtr end)
{
	pg_atomic_write_u64(&shared->replayed, end);
}

static void
set_position(XLogRecPtr lsn)
{
	FollowPosition position;

	position.lsn = lsn;
	position.sum = map_running_sum(&position.cycle);
	SpinLockAcquire(&shared->mutex);
	shared->position = position;
	shared->begun = true;
	SpinLockRelease(&shared->mutex);
}

/*
 * The map knows everything before that LSN; if it is invalid, everything that
 * was replayed, if anything was.
 */
void
follow_begin(XLogRecPtr lsn)
{
	if (XLogRecPtrIsInvalid(lsn))
		lsn = pg_atomic_read_u64(&shared->replayed);
	set_position(XLogRecPtrIsInvalid(lsn) ? map_get_start() : lsn);
}

/*
 * Has following begun?
 */
bool
follow_begun(void)
{
	bool		begun;

	SpinLockAcquire(&shared->mutex);
	begun = shared->begun;
	SpinLockRelease(&shared->mutex);
	return begun;
}

/*
 * The position.  False if there is none at the moment.
 */
bool
follow_position(FollowPosition *position)
{
	SpinLockAcquire(&shared->mutex);
	*position = shared->position;
	SpinLockRelease(&shared->mutex);
	return !XLogRecPtrIsInvalid(position->lsn);
}

/*
 * The end of the WAL that can be read, and its timeline.
 */
XLogRecPtr
follow_end(TimeLineID *tli)
{
	return RecoveryInProgress() ? GetXLogReplayRecPtr(tli) : GetFlushRecPtr(tli);
}

/*
 * Bytes of WAL that were written and not yet read by the worker.
 */
uint64
follow_lag(void)
{
	FollowPosition position;
	TimeLineID	tli;
	XLogRecPtr	end = follow_end(&tli);

	return follow_position(&position) && position.lsn < end ? end - position.lsn : 0;
}

/*
 * Beginning
 */

/* Are all segments from one LSN to another there? */
static bool
segments_exist(const WalReader *reader, XLogRecPtr start, XLogRecPtr end)
{
	start -= XLogSegmentOffset(start, wal_segment_size);
	for (; start < end; start += wal_segment_size)
	{
		XLogRecPtr	last = Min(start + wal_segment_size, end) - 1;

		if (!wal_segment_exists(wal_reader_timeline(reader, last), last))
			return false;
	}
	return true;
}

/* Does WAL say that a checkpoint with that redo point was made when it says? */
static bool
has_checkpoint(WalReader *reader, const RedoPoint *point, XLogRecPtr limit)
{
	XLogReaderState *record;
	WalCheckpoint checkpoint;

	wal_reader_begin(reader, point->lsn, limit);
	while (wal_reader_next(reader, &record) == WAL_RECORD)
	{
		CHECK_FOR_INTERRUPTS();
		if (wal_checkpoint(record, &checkpoint) && checkpoint.redo == point->lsn)
			return point->time_max == 0 ||
				(point->time_min <= checkpoint.time && checkpoint.time <= point->time_max);
	}
	return false;
}

/*
 * Does WAL that is there lead from that redo point, which a summary has, to
 * where the server started from, on that timeline?  Reads it up to the record of
 * the redo point's checkpoint, by which another history shows that has a redo
 * point at the same LSN.
 */
bool
follow_from(const RedoPoint *point, XLogRecPtr start, TimeLineID tli)
{
	WalReader  *reader = wal_reader_create(tli);
	bool		leads;

	leads = wal_reader_timeline(reader, point->lsn) == point->tli &&
		segments_exist(reader, point->lsn, start) &&
		has_checkpoint(reader, point, start);
	wal_reader_close(reader);
	return leads;
}

/*
 * The number of shutdowns that WAL tells of from that redo point up to where the
 * server started from.  If it cannot be read, there may have been any number.
 */
int
follow_shutdowns(const RedoPoint *point, XLogRecPtr start, TimeLineID tli)
{
	WalReader  *reader = wal_reader_create(tli);
	XLogReaderState *record;
	WalCheckpoint checkpoint;
	WalStatus	status;
	int			shutdowns = 0;

	wal_reader_begin(reader, point->lsn, start);
	while ((status = wal_reader_next(reader, &record)) == WAL_RECORD)
	{
		CHECK_FOR_INTERRUPTS();
		if (wal_checkpoint(record, &checkpoint))
			shutdowns += checkpoint.shutdown;
	}
	wal_reader_close(reader);
	return status == WAL_END ? shutdowns : INT_MAX / 2;
}

/*
 * Following
 */

/* Everything before that LSN was marked. */
static void
commit(Follower *follower, XLogRecPtr lsn)
{
	map_note_sum(follower->sum);
	follower->sum = 0;
	follower->committed = lsn;
	set_position(lsn);
}

static MapCut
make_cut(const Follower *follower, XLogRecPtr redo, int64 checkpoint_time)
{
	MapCut		cut = {0};

	cut.redo = redo;
	cut.tli = wal_reader_timeline(follower->reader, redo);
	cut.time_min = cut.time_max = checkpoint_time;
	cut.time = checkpoint_time ? checkpoint_time : (int64) time(NULL);
	return cut;
}

/*
 * The next record is at a redo point.  What ended before should be durable by
 * then, so that the map can be cut; else its cycle goes on.
 */
static void
cut_here(Follower *follower, XLogRecPtr redo, int64 checkpoint_time)
{
	MapCut		cut = make_cut(follower, redo, checkpoint_time);

	if (redo <= follower->last_cut)
		return;
	commit(follower, redo);
	publish_in_background(true);
	map_cut(redo, &cut, start_may_cut_redo(redo));
	follower->last_cut = redo;
	commit(follower, redo);
}

/* The sum of fingerprints of the records from one LSN to another. */
static bool
sum_between(const Follower *follower, XLogRecPtr start, XLogRecPtr end, uint64 *sum)
{
	WalReader  *reader = wal_reader_create(follower->tli);
	XLogReaderState *record;
	WalStatus	status;

	*sum = 0;
	wal_reader_begin(reader, start, end);
	while ((status = wal_reader_next(reader, &record)) == WAL_RECORD)
	{
		CHECK_FOR_INTERRUPTS();
		*sum += wal_record_fingerprint(record);
	}
	wal_reader_close(reader);
	return status == WAL_END;
}

/*
 * There was a redo point at that LSN.  It was passed without being known: the
 * cycle that ends there has some marks too many, and the next one is read anew.
 */
static void
cut_late(Follower *follower, XLogRecPtr redo, int64 checkpoint_time)
{
	MapCut		cut = make_cut(follower, redo, checkpoint_time);
	XLogRecPtr	now = wal_reader_position(follower->reader);
	uint64		before;
	uint64		after;

	if (!sum_between(follower, redo, now, &cut.sum))
		return;
	commit(follower, now);
	publish_in_background(true);

	/*
	 * Nobody may put the position together with sums that do not belong to
	 * it.
	 */
	SpinLockAcquire(&shared->mutex);
	shared->position.lsn = InvalidXLogRecPtr;
	SpinLockRelease(&shared->mutex);
	(void) map_running_sum(&before);
	map_cut(redo, &cut, start_may_cut_redo(redo));
	(void) map_running_sum(&after);
	follower->last_cut = redo;
	if (before == after)
	{
		commit(follower, now);
		return;
	}
	map_return_sum(cut.sum);
	commit(follower, redo);
	wal_reader_begin(follower->reader, redo, follower->end);
}

/*
 * The redo point of the first checkpoint that a record before the limit completes,
 * if it is at or after the position; else invalid.
 */
static XLogRecPtr
redo_point_in_wal(const Follower *follower, XLogRecPtr position, XLogRecPtr limit)
{
	WalReader  *reader = wal_reader_create(follower->tli);
	XLogReaderState *record;
	WalCheckpoint checkpoint;
	XLogRecPtr	redo = InvalidXLogRecPtr;

	wal_reader_begin(reader, position, limit);
	while (XLogRecPtrIsInvalid(redo) &&
		   wal_reader_next(reader, &record) == WAL_RECORD)
	{
		CHECK_FOR_INTERRUPTS();
		if (wal_checkpoint(record, &checkpoint) &&
			checkpoint.redo > follower->last_cut &&
			checkpoint.redo >= wal_record_start(position))
			redo = checkpoint.redo;
	}
	wal_reader_close(reader);
	return redo;
}

/*
 * Where a checkpoint begins that is not yet cut at, if that is still ahead; and so
 * no record after it may be read before it is cut.  The server knows of the
 * latest one.  Before that, WAL is read twice, for there may be others, whose
 * records then are durable.
 */
static XLogRecPtr
redo_point_ahead(const Follower *follower, XLogRecPtr position)
{
	XLogRecPtr	limit = follower->end;
	XLogRecPtr	redo = InvalidXLogRecPtr;
	TimeLineID	tli;

	if (REDO_POINTS_IN_WAL)
		return InvalidXLogRecPtr;
	if (!RecoveryInProgress())
	{
		redo = GetRedoRecPtr();
		if (redo <= follower->last_cut || redo < wal_record_start(position))
			return InvalidXLogRecPtr;
		limit = Min(redo, follow_end(&tli));
	}
	limit = redo_point_in_wal(follower, position, limit);
	if (!XLogRecPtrIsInvalid(limit))
		redo = limit;
	return redo <= follower->end ? redo : InvalidXLogRecPtr;
}

static void
read_up_to(Follower *follower, XLogRecPtr position)
{
	follower->stop = redo_point_ahead(follower, position);
	wal_reader_begin(follower->reader, position,
					 XLogRecPtrIsInvalid(follower->stop) ? follower->end : follower->stop);
}

/* A record that tells of checkpoints, which is marked. */
static void
note_checkpoint(Follower *follower, const WalCheckpoint *checkpoint)
{
	if (XLogRecPtrIsInvalid(checkpoint->redo))
		return;
	if (checkpoint->redo > follower->last_cut)
		cut_late(follower, checkpoint->redo, checkpoint->time);
	else
		map_time_cut(checkpoint->redo, checkpoint->time);
	publish_in_background(false);
}

static void
mark(Follower *follower, XLogReaderState *record)
{
	follower->sum += wal_record_fingerprint(record);
	wal_redo_effects(record, &map_effects);
}

/*
 * Marks a record.  False if WAL that follows does not tell everything.
 */
static bool
follow_record(Follower *follower, XLogReaderState *record)
{
	WalCheckpoint checkpoint;

	if (!wal_checkpoint(record, &checkpoint))
	{
		mark(follower, record);
		return true;
	}
	if (checkpoint.minimal)
		return false;
	if (checkpoint.at_redo)
		cut_here(follower, record->ReadRecPtr, checkpoint.time);
	mark(follower, record);
	note_checkpoint(follower, &checkpoint);
	return true;
}

/*
 * WAL is gone, or is no WAL: what it said is not known.  What is known begins
 * anew where the server would begin recovery, once that is after it.
 */
static void
lose(Follower *follower, bool minimal)
{
	static XLogRecPtr reported = InvalidXLogRecPtr;
	XLogRecPtr	position = wal_reader_position(follower->reader);
	XLogRecPtr	redo = GetRedoRecPtr();

	if (reported != position && minimal)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("WAL after %X/%X is of wal_level \"minimal\" and does not tell all changes",
						LSN_FORMAT_ARGS(position))));
	else if (reported != position)
		wal_reader_report(follower->reader, WARNING);
	reported = position;
	if (redo <= position)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("changes from %X/%X to %X/%X are not known",
					LSN_FORMAT_ARGS(follower->committed), LSN_FORMAT_ARGS(redo)),
			 errhint("The next backup must be a full one.")));
	publish_begin_anew(redo);
	set_position(redo);
}

/* Reads what there is.  Returns false if it came to an end before that. */
static bool
follow_records(Follower *follower)
{
	XLogReaderState *record;
	WalStatus	status;

	for (;;)
	{
		while ((status = wal_reader_next(follower->reader, &record)) == WAL_RECORD)
		{
			if (!follow_record(follower, record))
			{
				lose(follower, true);
				return false;
			}
			if (wal_reader_position(follower->reader) < follower->committed + STEP_BYTES)
				continue;
			commit(follower, wal_reader_position(follower->reader));
			if (ShutdownRequestPending || ConfigReloadPending)
				return false;
			CHECK_FOR_INTERRUPTS();
		}
		if (status != WAL_END || XLogRecPtrIsInvalid(follower->stop))
			break;
		cut_here(follower, follower->stop, 0);
		read_up_to(follower, follower->stop);
	}
	if (status == WAL_END)
		commit(follower, wal_reader_position(follower->reader));
	else if (status == WAL_UNREADABLE)
		wal_reader_report(follower->reader, WARNING);
	else
		lose(follower, false);
	return status == WAL_END;
}

/*
 * For ptrack's worker: follows WAL as far as it can be read now.  Returns
 * whether there was anything to read.  Memory is of the current context.
 */
bool
follow_wal(void)
{
	Follower	follower = {0};
	FollowPosition position;
	MapSnapshot frozen;
	MapSnapshot running;

	if (!engine_follows() || !follow_position(&position))
		return false;
	follower.end = follow_end(&follower.tli);
	if (wal_record_start(position.lsn) >= follower.end)
		return false;

	map_get_cuts(&frozen, &running);
	follower.last_cut = Max(running.start, running.end.redo);
	follower.committed = position.lsn;
	follower.reader = wal_reader_create(follower.tli);
	read_up_to(&follower, position.lsn);
	(void) follow_records(&follower);
	wal_reader_close(follower.reader);
	return true;
}
