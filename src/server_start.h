/*
 * server_start.h
 *		Where the server started from.
 */
#ifndef PTRACK_SERVER_START_H
#define PTRACK_SERVER_START_H

#include "pgtime.h"
#include "port/atomics.h"
#include "summary_store.h"

/* The checkpoint that the server started from; set before anyone reads. */
typedef struct ServerStart
{
	XLogRecPtr	redo;			/* invalid: not known */
	TimeLineID	tli;
	pg_time_t	time;			/* when it was made */
	bool		was_minimal;	/* WAL before is of wal_level minimal, */
	bool		minimal;		/* and has to be replayed */
	bool		standby;		/* it was one, shut down or not */
	XLogRecPtr	rewritten;		/* pg_checksums may have been run there, on a
								 * standby; invalid: not so */
	int			shutdowns;		/* clean ones right before the start; 2 on a
								 * standby, where WAL tells of none */
	pg_atomic_uint32 redo_tli;	/* where redo started; 0: there was none */
} ServerStart;

/* How well a redo point fits where the server started from. */
typedef enum Fit
{
	FIT_NOT,
	FIT_PERHAPS,				/* there is no time to compare */
	FIT_SURE,
} Fit;

/* What the summaries say about the redo point that the server started from. */
typedef struct StartKnowledge
{
	bool		unreadable;		/* a summary that may know could not be read */
	bool		ambiguous;		/* several fit as well, of different lineages */
	Fit			fit;			/* FIT_NOT: the rest is not set */
	RedoPoint	point;
	StoredSummary before;		/* the summary that it is in */
} StartKnowledge;

/* In shared memory. */
extern ServerStart *server_start;

extern Size start_shmem_size(void);
extern void start_shmem_init(void);

extern void start_note_redo(void);
extern bool start_may_cut_redo(XLogRecPtr redo);
extern XLogRecPtr start_beyond_wal(void);
extern TimeLineID start_timeline(XLogRecPtr start);
extern bool start_kept_checksums(int shutdowns);

extern void start_learn(XLogRecPtr start, StartKnowledge *knowledge);
extern void start_learn_before(XLogRecPtr start, StartKnowledge *knowledge);
extern bool start_has_earlier(XLogRecPtr start);

#endif							/* PTRACK_SERVER_START_H */
