/*
 * wal_scan.c
 *		What a range of WAL changes, read at once.
 *
 * For queries: what ptrack's worker has not followed yet, they read themselves.
 * Whatever cannot be read of the range is an ERROR, so that no answer is
 * shorter than it should be.  A long range is read by several processes, which
 * are PostgreSQL's parallel workers: so a query that fails or is cancelled ends
 * them.
 */
#include "postgres.h"

#include "compat.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "scan_progress.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
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
 * A scan, as the processes see it that take part.  The range is split into units
 * of a segment or more, of which each takes the next one that nobody took; to a unit
 * belong the records that begin in it.
 */
typedef struct Scan
{
	XLogRecPtr	start;			/* where a record begins */
	XLogRecPtr	since;			/* records that end at or before do not count */
	XLogRecPtr	end;			/* WAL is durable up to here */
	TimeLineID	tli;
	int			progress;		/* number of a ScanProgress */
	uint64		unit;			/* bytes */
	pg_atomic_uint64 next;		/* number of the next unit */
} Scan;

#define MIN_UNIT		((uint64) 16 * 1024 * 1024)

/* Of the parallel context: the scan, and the queues of its workers. */
#define KEY_SCAN		UINT64CONST(1)
#define KEY_QUEUES		UINT64CONST(2)
#define QUEUE_SIZE		((Size) 256 * 1024)

/* Items in one message; a message without any is a worker's last. */
#define MESSAGE_ITEMS	256

int			wal_scan_workers = 2;

PGDLLEXPORT void ptrack_scan_main(dsm_segment *segment, shm_toc *toc);

static void
scan_init(Scan *scan, XLogRecPtr start, XLogRecPtr since, XLogRecPtr end, TimeLineID tli)
{
	scan->start = start;
	scan->since = since;
	scan->end = end;
	scan->tli = tli;
	scan->progress = -1;
	scan->unit = Max((uint64) wal_segment_size, MIN_UNIT);
	pg_atomic_init_u64(&scan->next, 0);
}

static uint64
scan_units(const Scan *scan)
{
	return (scan->end - 1) / scan->unit - scan->start / scan->unit + 1;
}

/*
 * Reads a unit to its end, or not at all.
 */
static void
read_unit(const Scan *scan, WalReader *reader, uint64 number, const WalEffects *effects)
{
	XLogRecPtr	limit = (scan->start / scan->unit + number + 1) * scan->unit;
	XLogReaderState *record;
	WalCheckpoint checkpoint;
	WalStatus	status;

	/* The segment that the next record will be in need not be there yet. */
	if (number > 0 && wal_record_start(limit - scan->unit) >= scan->end)
		return;
	if (number == 0)
		wal_reader_begin(reader, scan->start, scan->end);
	else if (!wal_reader_find(reader, limit - scan->unit, scan->end))
	{
		wal_reader_report(reader, ERROR);
		return;
	}
	while ((status = wal_reader_next(reader, &record)) == WAL_RECORD &&
		   record->ReadRecPtr < limit)
	{
		CHECK_FOR_INTERRUPTS();
		if (wal_checkpoint(record, &checkpoint) && checkpoint.minimal)
			refuse_minimal(record->ReadRecPtr);
		if (record->EndRecPtr > scan->since)
			wal_redo_effects(record, effects);
	}
	if (status != WAL_RECORD && status != WAL_END)
		wal_reader_report(reader, ERROR);
}

/* Takes part until no unit is left. */
static void
read_units(Scan *scan, ChangeGather *gather)
{
	WalReader  *reader = wal_reader_create(scan->tli);
	WalEffects	effects = change_gather_effects(gather);
	uint64		units = scan_units(scan);
	uint64		number;

	wal_reader_count(reader, scan_progress_slot(scan->progress));
	while ((number = pg_atomic_fetch_add_u64(&scan->next, 1)) < units)
		read_unit(scan, reader, number, &effects);
	wal_reader_close(reader);
}

static void
send_items(shm_mq_handle *queue, ChangeItem *items, int count)
{
	if (shm_mq_send(queue, count * sizeof(ChangeItem), items, false, true) != SHM_MQ_SUCCESS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the process that scans WAL has gone")));
}

/*
 * What a parallel worker of a scan does: takes part, and sends what it gathered.
 */
void
ptrack_scan_main(dsm_segment *segment, shm_toc *toc)
{
	Scan	   *scan = shm_toc_lookup(toc, KEY_SCAN, false);
	char	   *queues = shm_toc_lookup(toc, KEY_QUEUES, false);
	shm_mq	   *mq = (shm_mq *) (queues + ParallelWorkerNumber * QUEUE_SIZE);
	ChangeGather *gather = change_gather_create();
	ChangeItem *items = palloc_array(ChangeItem, MESSAGE_ITEMS);
	shm_mq_handle *queue;
	int			count = 0;

	shm_mq_set_sender(mq, MyProc);
	queue = shm_mq_attach(mq, segment, NULL);
	read_units(scan, gather);
	change_gather_sort(gather);
	while (change_gather_next(gather, &items[count]))
	{
		if (++count == MESSAGE_ITEMS)
		{
			send_items(queue, items, count);
			count = 0;
		}
	}
	if (count > 0)
		send_items(queue, items, count);
	send_items(queue, items, 0);
	shm_mq_detach(queue);
}

/* Adds what a worker gathered: all of it, or an ERROR. */
static void
receive_items(shm_mq_handle *queue, ChangeGather *gather)
{
	Size		len;
	void	   *data;

	do
	{
		if (shm_mq_receive(queue, &len, &data, false) != SHM_MQ_SUCCESS)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("lost connection to a parallel worker that scans WAL"),
					 errhint("Try again, or set \"ptrack.scan_workers\" to 1.")));
		for (Size i = 0; i < len / sizeof(ChangeItem); i++)
		{
			ChangeItem	item;

			memcpy(&item, (char *) data + i * sizeof(ChangeItem), sizeof(item));
			change_gather_add(gather, &item);
		}
	} while (len > 0);
}

/* Reads a range together with so many workers, or as many of them as there are. */
static void
scan_in_parallel(const Scan *range, int workers, ScanProgress *progress,
				 ChangeGather *gather)
{
	ParallelContext *context;
	Scan	   *scan;
	char	   *queues;
	shm_mq_handle **handles = palloc_array(shm_mq_handle *, workers);

	EnterParallelMode();
	context = CreateParallelContext("ptrack", "ptrack_scan_main", workers);
	shm_toc_estimate_chunk(&context->estimator, sizeof(Scan));
	shm_toc_estimate_chunk(&context->estimator, workers * QUEUE_SIZE);
	shm_toc_estimate_keys(&context->estimator, 2);
	InitializeParallelDSM(context);

	scan = shm_toc_allocate(context->toc, sizeof(Scan));
	scan_init(scan, range->start, range->since, range->end, range->tli);
	scan->progress = scan_progress_number(progress);
	shm_toc_insert(context->toc, KEY_SCAN, scan);
	queues = shm_toc_allocate(context->toc, workers * QUEUE_SIZE);
	for (int i = 0; i < workers; i++)
	{
		shm_mq	   *mq = shm_mq_create(queues + i * QUEUE_SIZE, QUEUE_SIZE);

		shm_mq_set_receiver(mq, MyProc);
		handles[i] = shm_mq_attach(mq, context->seg, NULL);
	}
	shm_toc_insert(context->toc, KEY_QUEUES, queues);

	LaunchParallelWorkers(context);
	if (progress)
		pg_atomic_write_u32(&progress->processes, context->nworkers_launched + 1);
	for (int i = 0; i < context->nworkers_launched; i++)
		shm_mq_set_handle(handles[i], context->worker[i].bgwhandle);
	read_units(scan, gather);
	for (int i = 0; i < context->nworkers_launched; i++)
		receive_items(handles[i], gather);
	WaitForParallelWorkersToFinish(context);
	DestroyParallelContext(context);
	ExitParallelMode();
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
	ScanProgress *progress = scan_progress_begin(SCAN_QUERY, start, end);
	Scan		scan;
	uint64		units;

	scan_init(&scan, start, since, end, tli);
	scan.progress = scan_progress_number(progress);
	units = scan_units(&scan);
	if (units > 2 && wal_scan_workers > 1)
		scan_in_parallel(&scan, (int) Min((uint64) wal_scan_workers, units) - 1,
						 progress, gather);
	else
		read_units(&scan, gather);
	scan_progress_end(progress);
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
			*sum += wal_record_fingerprint(record);
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
