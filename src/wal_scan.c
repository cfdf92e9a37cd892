/*
 * wal_scan.c
 *		What a range of WAL changes, read at once.
 *
 * For queries: what ptrack's worker has not followed yet, they read themselves.
 * Whatever cannot be read of the range is an ERROR, so that no answer is shorter
 * than it should be.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "wal_reader.h"
#include "wal_scan.h"

static void
refuse_minimal(XLogRecPtr lsn)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("WAL after %X/%X is of wal_level \"minimal\" and does not tell all changes",
					LSN_FORMAT_ARGS(lsn)),
			 errhint("Try again after the next checkpoint, for changes since then.")));
}

/*
 * Reads a range to its end, or not at all.  Records that end at or before since
 * do not count.
 */
static void
scan(XLogRecPtr start, XLogRecPtr since, XLogRecPtr end, TimeLineID tli,
	 const WalEffects *effects)
{
	WalReader  *reader = wal_reader_create(tli);
	XLogReaderState *record;
	WalCheckpoint checkpoint;
	WalStatus	status;

	wal_reader_begin(reader, start, end);
	while ((status = wal_reader_next(reader, &record)) == WAL_RECORD)
	{
		CHECK_FOR_INTERRUPTS();
		if (wal_checkpoint(record, &checkpoint) && checkpoint.minimal)
			refuse_minimal(record->ReadRecPtr);
		if (record->EndRecPtr > since)
			wal_redo_effects(record, effects);
	}
	if (status != WAL_END)
		wal_reader_report(reader, ERROR);
	wal_reader_close(reader);
}

/*
 * The changes by records of [since, end), read from start on, where a record
 * begins.  WAL must be durable up to the end, which the timeline is that of.  The
 * set lives in the current memory context.
 */
ChangeGather *
wal_scan_changes(XLogRecPtr start, XLogRecPtr since, XLogRecPtr end, TimeLineID tli)
{
	ChangeGather *gather = change_gather_create();
	WalEffects	effects = change_gather_effects(gather);

	scan(start, since, end, tli, &effects);
	change_gather_sort(gather);
	return gather;
}

/*
 * Adds up the fingerprints of the records from start to a redo point.  False if
 * the WAL before end does not say that there is one.
 */
bool
wal_scan_redo_point(XLogRecPtr start, XLogRecPtr redo, XLogRecPtr end,
					TimeLineID tli, uint64 *sum)
{
	WalReader  *reader = wal_reader_create(tli);
	XLogReaderState *record;
	WalCheckpoint checkpoint;
	WalStatus	status = WAL_END;
	bool		found = !REDO_POINTS_IN_WAL && redo == GetRedoRecPtr();

	*sum = 0;
	wal_reader_begin(reader, start, end);
	while ((!found || wal_record_start(wal_reader_position(reader)) < redo) &&
		   (status = wal_reader_next(reader, &record)) == WAL_RECORD)
	{
		CHECK_FOR_INTERRUPTS();
		if (record->ReadRecPtr < redo)
			*sum += wal_fingerprint(XLogRecGetRmid(record), XLogRecGetInfo(record),
									record->ReadRecPtr,
									record->record->header.xl_crc);
		if (wal_checkpoint(record, &checkpoint))
			found |= checkpoint.redo == redo ||
				(checkpoint.at_redo && record->ReadRecPtr == redo);
		if (REDO_POINTS_IN_WAL && record->ReadRecPtr >= redo)
			break;
	}
	if (status != WAL_END && status != WAL_RECORD)
		wal_reader_report(reader, ERROR);
	wal_reader_close(reader);
	return found;
}
