/*
 * lineage.c
 *		Identifiers of histories: of redo points, and of places in between.
 *
 * A redo point's identifier is 8 random bytes, chosen where coverage began, and
 * a sum over all WAL records since then, of their places and checksums.  So it
 * is the same wherever the same WAL was replayed, and another one as soon as
 * two servers that were one have written anything of their own.
 */
#include "postgres.h"

#include "compat.h"

#include "lineage.h"
#include "port/pg_bswap.h"
#include "storage/shmem.h"
#include "storage/spin.h"

/* The redo points that were published last, so that readers may lag a bit. */
#define RECENT_POINTS	4

typedef struct RecentPoint
{
	XLogRecPtr	lsn;			/* invalid: none */
	Lineage		lineage;
} RecentPoint;

typedef struct LineageShared
{
	slock_t		mutex;			/* protects what follows */
	RecentPoint recent[RECENT_POINTS];
	int			nrecent;		/* all that were ever put there */
} LineageShared;

static LineageShared *shared;

Size
lineage_shmem_size(void)
{
	return MAXALIGN(sizeof(LineageShared));
}

/*
 * Creates the shared memory, or attaches to it.  Called with
 * AddinShmemInitLock held.
 */
void
lineage_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("ptrack lineage", lineage_shmem_size(), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(LineageShared));
		SpinLockInit(&shared->mutex);
	}
}

/*
 * An identifier for a history that begins: no other has it.
 */
Lineage
lineage_new(void)
{
	Lineage		lineage;

	if (!pg_strong_random(lineage.id, LINEAGE_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random lineage identifier")));
	return lineage;
}

/*
 * The identifier after records with that sum of fingerprints.
 */
Lineage
lineage_after(const Lineage *before, uint64 sum)
{
	Lineage		after = *before;
	uint64		position;

	memcpy(&position, after.id + LINEAGE_LEN / 2, sizeof(position));
	position = pg_hton64(pg_ntoh64(position) + sum);
	memcpy(after.id + LINEAGE_LEN / 2, &position, sizeof(position));
	return after;
}

/*
 * Notes the lineage at a redo point that was published, or that coverage begins at.
 * There is one process at a time that does so: see publish.c.
 */
void
lineage_remember(XLogRecPtr lsn, const Lineage *lineage)
{
	RecentPoint point = {lsn, *lineage};

	SpinLockAcquire(&shared->mutex);
	shared->recent[shared->nrecent++ % RECENT_POINTS] = point;
	SpinLockRelease(&shared->mutex);
}

/*
 * The lineage at a redo point that the map's knowledge began at a moment ago.
 * False if that is too long ago, or not known yet.
 */
bool
lineage_recent(XLogRecPtr lsn, Lineage *lineage)
{
	bool		found = false;

	SpinLockAcquire(&shared->mutex);
	for (int i = 0; i < RECENT_POINTS && !found; i++)
	{
		found = shared->recent[i].lsn == lsn && !XLogRecPtrIsInvalid(lsn);
		*lineage = shared->recent[i].lineage;
	}
	SpinLockRelease(&shared->mutex);
	return found;
}

static bool
find_cut(const MapSnapshot *half, XLogRecPtr lsn, const Lineage *start,
		 Lineage *lineage)
{
	const MapCut *cut = &half->end;

	for (int i = 0; i < half->ninner && cut->redo != lsn; i++)
		cut = &half->inner[i];
	if (cut->redo != lsn)
		return false;
	*lineage = lineage_after(start, cut->sum - half->start_sum);
	return true;
}

/*
 * The lineage at one of the redo points that the live map knows, given that at
 * its start.  False if there is none at that LSN.
 */
bool
lineage_in_map(const MapSnapshot *frozen, const MapSnapshot *running,
			   const Lineage *start, XLogRecPtr lsn, Lineage *lineage)
{
	Lineage		between = *start;

	if (!XLogRecPtrIsInvalid(frozen->start))
	{
		if (find_cut(frozen, lsn, start, lineage))
			return true;
		between = lineage_after(start, frozen->end.sum - frozen->start_sum);
	}
	return find_cut(running, lsn, &between, lineage);
}

/*
 * The lineage after so many fingerprints of the running cycle, given that at the
 * start of the live map.
 */
Lineage
lineage_of_running(const MapSnapshot *frozen, const MapSnapshot *running,
				   const Lineage *start, uint64 sum)
{
	sum -= running->start_sum;
	if (!XLogRecPtrIsInvalid(frozen->start))
		sum += frozen->end.sum - frozen->start_sum;
	return lineage_after(start, sum);
}
