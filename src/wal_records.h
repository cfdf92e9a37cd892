/*
 * wal_records.h
 *		What a WAL record changes.
 */
#ifndef PTRACK_WAL_RECORDS_H
#define PTRACK_WAL_RECORDS_H

#include "access/heapam_xlog.h"
#include "access/rmgr.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "catalog/pg_control.h"
#include "compat.h"
#include "port/pg_crc32c.h"

/*
 * Where the effects of records go.  The functions must be as harmless as the
 * caller of wal_record_effects needs them to be: those of the live map are
 * called in critical sections.
 */
typedef struct WalEffects
{
	/* That block of that fork was changed.  Never called for the FSM. */
	void		(*mark) (void *arg, const RelFileLocator *rlocator,
						 ForkNumber fork, BlockNumber block);

	/* The fork had no more blocks than that at some moment. */
	void		(*limit) (void *arg, const RelFileLocator *rlocator,
						  ForkNumber fork, BlockNumber limit);

	/* All relations of that database in that tablespace are new. */
	void		(*reset) (void *arg, Oid tablespace, Oid database);

	/* The record changes relations in a way that is not known here. */
	void		(*unknown) (void *arg);

	void	   *arg;
} WalEffects;

/*
 * Where heap records say that they clear bits of the visibility map: for each
 * operation, which byte of the main data has its flags, and which flags they
 * are.
 */
typedef struct WalHeapFlags
{
	uint8		offset;
	uint8		cleared;		/* 0: none */
} WalHeapFlags;

#define WAL_HEAP_OP(info)	(((info) & XLOG_HEAP_OPMASK) >> 4)
#define WAL_HEAP_OPS		(WAL_HEAP_OP(XLOG_HEAP_OPMASK) + 1)

/* Of RM_HEAP2_ID, and of RM_HEAP_ID, which is the next. */
extern LIBRARY_ONLY const WalHeapFlags wal_heap_flags[2][WAL_HEAP_OPS];

static inline const WalHeapFlags *
wal_heap_op(RmgrId rmid, uint8 info)
{
	StaticAssertDecl(RM_HEAP_ID == RM_HEAP2_ID + 1, "heap records' flags are one table");

	return &wal_heap_flags[rmid - RM_HEAP2_ID][WAL_HEAP_OP(info)];
}

/*
 * Can this record change more than the blocks that it registers?
 */
static inline bool
wal_record_has_data(RmgrId rmid, uint8 info)
{
	return (info & XLR_SPECIAL_REL_UPDATE) != 0 ||
		rmid == RM_HEAP_ID || rmid == RM_HEAP2_ID ||
		rmid == RM_SMGR_ID || rmid == RM_DBASE_ID;
}

/*
 * What a record says of checkpoints.
 */
typedef struct WalCheckpoint
{
	bool		at_redo;		/* the record is at a redo point */
	bool		shutdown;		/* the server may have been shut down then */
	XLogRecPtr	redo;			/* of the checkpoint that it completes;
								 * invalid: it completes none */
	int64		time;			/* of that checkpoint, in seconds since 1970 */
	bool		minimal;		/* what follows is of wal_level minimal */
	bool		level;			/* what came before may be of another level */
} WalCheckpoint;

/*
 * Is WAL of wal_level = minimal that has to be replayed, though the setting may be
 * another one by now?  Set by the postmaster.
 */
extern bool wal_crashed_minimal;

extern bool wal_checkpoint(XLogReaderState *reader, WalCheckpoint *checkpoint);

/*
 * What a record contributes to the sum that tells this history from others.  The
 * record of a shutdown checkpoint does not: whoever starts from it does not get
 * to see it, while standbys that are running do.  The factor is odd, so that two
 * records with different checksums never are the same.
 */
static inline uint64
wal_fingerprint(RmgrId rmid, uint8 info, XLogRecPtr lsn, pg_crc32c crc)
{
	if (unlikely(rmid == RM_XLOG_ID &&
				 (info & ~XLR_INFO_MASK) == XLOG_CHECKPOINT_SHUTDOWN))
		return 0;
	return (uint64) crc * (lsn | 1);
}

/* The same, of a record that was read. */
static inline uint64
wal_record_fingerprint(const XLogReaderState *record)
{
	return wal_fingerprint(XLogRecGetRmid(record), XLogRecGetInfo(record),
						   record->ReadRecPtr, record->record->header.xl_crc);
}

extern void wal_insert_effects(const XLogRecData *rdata, const WalEffects *effects);
extern void wal_redo_effects(XLogReaderState *reader, const WalEffects *effects);

#endif							/* PTRACK_WAL_RECORDS_H */
