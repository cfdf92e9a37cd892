/*
 * server_start.c
 *		Where the server started from: what pg_control said of that, and what the
 *		summaries of earlier runs say.
 *
 * It is the checkpoint that pg_control named then.  The chain of summaries of
 * earlier runs is attached there, or at a redo point from which WAL leads there.
 * What is to be made of that is decided in coverage_start.c.
 *
 * Nothing here takes a lock.  Of what is in shared memory, redo_tli is atomic, and
 * rewritten may be raised once more, with publish.c's lock held, when coverage
 * begins; the rest is set before there are other processes.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "server_start.h"
#include "storage/shmem.h"
#include "summary_store.h"
#include "wal_follow.h"
#include "wal_records.h"

ServerStart *server_start;

Size
start_shmem_size(void)
{
	return MAXALIGN(sizeof(ServerStart));
}

static void
note_start(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (crc_ok)
	{
		server_start->redo = control->checkPointCopy.redo;
		server_start->tli = control->checkPointCopy.ThisTimeLineID;
		server_start->time = control->checkPointCopy.time;
		server_start->was_minimal = control->wal_level == WAL_LEVEL_MINIMAL;
		server_start->minimal = server_start->was_minimal && control->state != DB_SHUTDOWNED;
		wal_crashed_minimal = server_start->minimal;
		if (control->state == DB_SHUTDOWNED)
			server_start->shutdowns = 1;
		else if (control->state == DB_SHUTDOWNED_IN_RECOVERY)
			server_start->shutdowns = 2;

		server_start->standby = control->state == DB_SHUTDOWNED_IN_RECOVERY ||
			control->state == DB_IN_ARCHIVE_RECOVERY;

		/* It only grows, so it will do after a crash since then, too. */
		if (server_start->standby && control->data_checksum_version != 0)
			server_start->rewritten = control->minRecoveryPoint;
	}
	pfree(control);
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
start_shmem_init(void)
{
	bool		found;

	server_start = ShmemInitStruct("ptrack server start", start_shmem_size(), &found);
	if (!found)
	{
		memset(server_start, 0, sizeof(ServerStart));
		pg_atomic_init_u32(&server_start->redo_tli, 0);
		note_start();
	}
}

/*
 * Notes the timeline that redo starts on.  The startup process does that before
 * it replays its first record; if another one is earlier, it sees the same.
 */
void
start_note_redo(void)
{
	uint32		unknown = 0;
	TimeLineID	tli;

	(void) GetXLogReplayRecPtr(&tli);
	pg_atomic_compare_exchange_u32(&server_start->redo_tli, &unknown, tli);
}

/*
 * May a cycle end at that redo point, which is going to be replayed?
 *
 * - WAL of wal_level = minimal does not tell all that a transaction does after a
 *   redo point: its cycles must stay together.
 * - If pg_checksums was run on a standby, all its pages changed where it was shut
 *   down.  That is noted in the first cycle, which begins earlier, and so must
 *   last until there.
 */
bool
start_may_cut_redo(XLogRecPtr redo)
{
	return !server_start->minimal && redo > server_start->rewritten;
}

/*
 * Up to that LSN, the map knows of changes that WAL does not tell; invalid: of
 * none.
 */
XLogRecPtr
start_beyond_wal(void)
{
	return server_start->rewritten;
}

/*
 * The timeline of the server's start.  After pg_rewind, redo may begin earlier,
 * and on another timeline, than the redo point in pg_control, from which on WAL
 * is followed.
 */
TimeLineID
start_timeline(XLogRecPtr start)
{
	TimeLineID	tli = pg_atomic_read_u32(&server_start->redo_tli);

	return tli == 0 || start == server_start->redo ? server_start->tli : tli;
}

/*
 * Checksums were enabled at a redo point, from which WAL led to the server's
 * start over so many shutdowns: were they from there on?  pg_checksums needs the
 * server to be shut down, and leaves no trace in WAL: a session without them is
 * between two shutdowns.
 */
bool
start_kept_checksums(int shutdowns)
{
	return DataChecksumsEnabled() && shutdowns + server_start->shutdowns < 2;
}

/*
 * Summaries
 */

/*
 * Can that redo point be where the present run of the server began?  If it is
 * the one in pg_control, it must be of the same checkpoint.  A data directory
 * that was rolled back, while the store was not, may have come to another
 * checkpoint at the same LSN.
 *
 * In a backup that is being restored, pg_control names a later checkpoint, and
 * in recovery the time of a checkpoint is not known at its redo point: then the
 * LSN and the timeline must do.
 */
static Fit
fits_start(const RedoPoint *point, XLogRecPtr start)
{
	if (point->lsn != start || point->tli != start_timeline(start))
		return FIT_NOT;
	if (start != server_start->redo || point->time_max == 0)
		return FIT_PERHAPS;
	return server_start->time >= point->time_min &&
		server_start->time <= point->time_max ? FIT_SURE : FIT_NOT;
}

/* Of two redo points that both may be it, the one that fits better counts. */
static void
learn_point(const RedoPoint *point, Fit fit, const StoredSummary *summary,
			StartKnowledge *knowledge)
{
	if (fit == FIT_NOT || fit < knowledge->fit)
		return;
	if (fit == knowledge->fit)
	{
		if (memcmp(&point->lineage, &knowledge->point.lineage, sizeof(Lineage)) != 0)
			knowledge->ambiguous = true;
		return;
	}
	knowledge->ambiguous = false;
	knowledge->fit = fit;
	knowledge->point = *point;
	knowledge->before = *summary;
}

static void
learn_from(const StoredSummary *summary, XLogRecPtr start, StartKnowledge *knowledge)
{
	SummaryInfo info;
	StoreVerdict verdict;

	if (summary->start >= start || summary->end < start)
		return;
	verdict = store_check(summary, &info);
	knowledge->unreadable |= verdict == STORE_UNREADABLE;
	if (verdict != STORE_GOOD)
		return;
	for (int i = 0; i < info.npoints; i++)
		learn_point(&info.points[i], fits_start(&info.points[i], start), summary,
					knowledge);
	pfree(info.points);
}

/*
 * What the summaries say of the redo point at that LSN, which the server started
 * from.
 */
void
start_learn(XLogRecPtr start, StartKnowledge *knowledge)
{
	StoreList	list;

	memset(knowledge, 0, sizeof(*knowledge));
	store_list(&list);
	for (int i = 0; i < list.count; i++)
		learn_from(&list.summaries[i], start, knowledge);
	if (knowledge->ambiguous)
		knowledge->fit = FIT_NOT;
}

/*
 * Where to look for what leads to the server's start, if nothing ends there: so
 * many redo points are tried, the latest first.
 */
#define MAX_FOLLOW_TRIES	8

typedef struct FollowChoice
{
	RedoPoint	point;
	StoredSummary summary;
} FollowChoice;

/* Keeps the latest redo points, in descending order. */
static int
add_choice(FollowChoice *choices, int count, const RedoPoint *point,
		   const StoredSummary *summary)
{
	int			at = count;

	while (at > 0 && choices[at - 1].point.lsn < point->lsn)
		at--;
	if (at == MAX_FOLLOW_TRIES)
		return count;
	if (count < MAX_FOLLOW_TRIES)
		count++;
	memmove(&choices[at + 1], &choices[at], (count - at - 1) * sizeof(FollowChoice));
	choices[at].point = *point;
	choices[at].summary = *summary;
	return count;
}

static int
list_choices(FollowChoice *choices, XLogRecPtr start)
{
	StoreList	list;
	SummaryInfo info;
	int			count = 0;

	store_list(&list);
	for (int i = 0; i < list.count; i++)
	{
		if (list.summaries[i].start >= start ||
			store_check(&list.summaries[i], &info) != STORE_GOOD)
			continue;
		for (int n = 0; n < info.npoints; n++)
		{
			if (info.points[n].lsn < start && (info.points[n].flags & POINT_MINIMAL) == 0)
				count = add_choice(choices, count, &info.points[n], &list.summaries[i]);
		}
		pfree(info.points);
	}
	return count;
}

/*
 * Is there a redo point before that LSN from which WAL might lead there?
 */
bool
start_has_earlier(XLogRecPtr start)
{
	FollowChoice choices[MAX_FOLLOW_TRIES];

	return list_choices(choices, start) > 0;
}

/*
 * Finds the latest redo point before the server's start from which WAL leads
 * there.
 */
void
start_learn_before(XLogRecPtr start, StartKnowledge *knowledge)
{
	FollowChoice choices[MAX_FOLLOW_TRIES];
	int			count = server_start->was_minimal ? 0 : list_choices(choices, start);

	for (int i = 0; i < count; i++)
	{
		const RedoPoint *point = &choices[i].point;

		if (knowledge->fit != FIT_NOT && point->lsn < knowledge->point.lsn)
			break;
		if (follow_from(point, start, start_timeline(start)))
			learn_point(point, FIT_SURE, &choices[i].summary, knowledge);
	}
	if (knowledge->ambiguous)
		knowledge->fit = FIT_NOT;
}
