/*
 * wal_records.h
 *		What a WAL record changes.
 */
#ifndef PTRACK_WAL_RECORDS_H
#define PTRACK_WAL_RECORDS_H

#include "access/xlog_internal.h"
#include "access/xlogreader.h"

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

extern void wal_insert_effects(const XLogRecData *rdata, const WalEffects *effects);
extern void wal_redo_effects(XLogReaderState *reader, const WalEffects *effects);

#endif							/* PTRACK_WAL_RECORDS_H */
