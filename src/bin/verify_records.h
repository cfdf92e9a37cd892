/*
 * verify_records.h
 *		Are the records of a range of WAL as they were written?
 *
 * Pages are given in order.  Nothing is reported here.
 */
#ifndef PTRACK_VERIFY_RECORDS_H
#define PTRACK_VERIFY_RECORDS_H

#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "manifest.h"
#include "port/pg_crc32c.h"

typedef enum RecordsState
{
	RECORDS_MORE,				/* more pages are needed */
	RECORDS_GOOD,				/* all of the range was */
	RECORDS_BAD,				/* see problem */
	RECORDS_UNKNOWN,			/* pages did not come in order */
} RecordsState;

typedef struct RecordsCheck
{
	WalRange	range;
	RecordsState state;
	const char *problem;		/* what is wrong with the record */
	XLogRecPtr	next;			/* the page, or if pages are skipped the first
								 * one that is not, that comes next */
	XLogRecPtr	record;			/* where it begins */
	XLogRecPtr	before;			/* where the record before it begins, or 0 */
	uint32		len;			/* of the record in bytes; 0: none has begun */
	uint32		got;			/* of them */
	char		header[SizeOfXLogRecord];
	pg_crc32c	crc;			/* of what follows the header */
} RecordsCheck;

extern void records_check_begin(RecordsCheck *check, const WalRange *range);
extern void records_check_pages(RecordsCheck *check, const char *pages, size_t len,
								XLogRecPtr address, uint32 segment_size);

#endif							/* PTRACK_VERIFY_RECORDS_H */
