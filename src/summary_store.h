/*
 * summary_store.h
 *		The directory of change summaries.
 */
#ifndef PTRACK_SUMMARY_STORE_H
#define PTRACK_SUMMARY_STORE_H

#include "common/summary_format.h"
#include "storage/fd.h"

/* Below the data directory. */
#define STORE_DIRECTORY "ptrack"

/* "ptrack/", 8 + 16 + 16 hexadecimal digits, ".summary" */
#define STORE_PATH_LEN	64

/* A summary as its name describes it; what is in it is another matter. */
typedef struct StoredSummary
{
	TimeLineID	tli;			/* that end is on */
	XLogRecPtr	start;
	XLogRecPtr	end;
} StoredSummary;

typedef struct StoreList
{
	StoredSummary *summaries;	/* ascending by end, then by start */
	int			count;
} StoreList;

/* What a summary says of itself, once it was found undamaged. */
typedef struct SummaryInfo
{
	SummaryHeader header;
	RedoPoint  *points;			/* after its start, ascending; the last is its
								 * end */
	int			npoints;
} SummaryInfo;

typedef enum StoreVerdict
{
	STORE_GOOD,
	STORE_BAD,					/* damaged, or not what its name says */
	STORE_UNREADABLE,			/* it may be good, but there was an I/O error */
	STORE_GONE,					/* there is no such file any more */
} StoreVerdict;

/* A summary that is being read. */
typedef struct StoreReader
{
	char		path[STORE_PATH_LEN];
	File		file;			/* -1: none */
	off_t		offset;
	int			error;			/* errno of what could not be read */
	SummaryReader reader;
} StoreReader;

/* Gives the next item to be written, or returns false when there is none. */
typedef bool (*store_next_fn) (void *arg, ChangeItem *item);

extern void store_list(StoreList *list);
extern bool store_is_summary_name(const char *name);
extern uint64 store_bytes(const StoreList *list);
extern time_t store_age(const StoredSummary *summary);
extern bool store_publish(const SummaryHeader *header, const RedoPoint *points,
						  int npoints, store_next_fn next, void *arg);
extern bool store_remove(const StoredSummary *summary);
extern bool store_remove_around(XLogRecPtr lsn);
extern void store_remove_covered(const StoredSummary *by);
extern void store_remove_all(void);
extern void store_remove_temporary(void);

extern StoreVerdict store_check(const StoredSummary *summary, SummaryInfo *info);
extern bool store_open(StoreReader *reader, const StoredSummary *summary);
extern bool store_next(StoreReader *reader, ChangeItem *item);
extern void store_close(StoreReader *reader);

#endif							/* PTRACK_SUMMARY_STORE_H */
