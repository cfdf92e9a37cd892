/*
 * summary_format.h
 *		Writing and reading the bytes of a change summary.
 *
 * Pure: no I/O but through callbacks, no allocation, no error reporting, so
 * that the server, clients and tests share the source.  The format itself is
 * specified at the top of summary_format.c.
 */
#ifndef PTRACK_SUMMARY_FORMAT_H
#define PTRACK_SUMMARY_FORMAT_H

#include "access/xlogdefs.h"
#include "change_item.h"
#include "port/pg_crc32c.h"

#define LINEAGE_LEN			16
#define SUMMARY_BUFFER		8192

/* Flags of a summary, and of a redo point */
#define SUMMARY_COARSE		0x0001	/* the live map overflowed in this range */
#define SUMMARY_BEYOND_WAL	0x0008	/* WAL of this range may not tell all of
									 * it */
#define SUMMARY_FLAGS		(SUMMARY_COARSE | SUMMARY_BEYOND_WAL)
#define POINT_CHECKSUMS		0x0002	/* the server had data checksums there */
#define POINT_MINIMAL		0x0004	/* WAL there is of wal_level minimal */
#define POINT_FLAGS			(POINT_CHECKSUMS | POINT_MINIMAL)

/*
 * Lineage: who this history is at a redo point.  All zero: not known.
 */
typedef struct Lineage
{
	uint8		id[LINEAGE_LEN];
} Lineage;

/*
 * A redo point, and all that tells it from another one at the same LSN.
 */
typedef struct RedoPoint
{
	XLogRecPtr	lsn;
	TimeLineID	tli;			/* the timeline that it is on */
	uint32		flags;			/* of POINT_FLAGS */
	Lineage		lineage;
	int64		time_min;		/* bounds of the time that pg_control has for */
	int64		time_max;		/* its checkpoint, in seconds since 1970; both
								 * 0: not known */
} RedoPoint;

/*
 * What a summary says of itself.  It covers [start, end.lsn); both are redo
 * points.  Those in between, if any, come before the items.
 */
typedef struct SummaryHeader
{
	uint64		system_identifier;
	XLogRecPtr	start;
	Lineage		start_lineage;
	RedoPoint	end;
	uint32		block_size;		/* bytes */
	uint32		segment_blocks; /* blocks in a full segment file */
	uint32		flags;			/* of SUMMARY_FLAGS */
	int64		start_time;		/* when the server came to start and to end, */
	int64		end_time;		/* in seconds since 1970; 0: not known */
} SummaryHeader;

/* Writes all of len bytes, or returns false. */
typedef bool (*summary_write_fn) (void *arg, const void *data, size_t len);

typedef struct SummaryWriter
{
	summary_write_fn write;
	void	   *arg;
	pg_crc32c	crc;
	ChangeKey	last;			/* of the latest item put */
	uint64		items;			/* redo points included */
	size_t		used;			/* bytes of buffer */
	bool		failed;			/* the callback said no: nothing more is done */
	uint8		buffer[SUMMARY_BUFFER];
} SummaryWriter;

extern void summary_write_begin(SummaryWriter *writer, summary_write_fn write,
								void *arg, const SummaryHeader *header);
extern void summary_write_point(SummaryWriter *writer, const RedoPoint *point);
extern void summary_write_item(SummaryWriter *writer, const ChangeItem *item);
extern bool summary_write_end(SummaryWriter *writer);

/* Returns the number of bytes read, 0 at the end, -1 on error. */
typedef ssize_t (*summary_read_fn) (void *arg, void *data, size_t len);

typedef struct SummaryReader
{
	summary_read_fn read;
	void	   *arg;
	pg_crc32c	crc;
	ChangeKey	last;			/* of the latest item returned */
	bool		have_entry;		/* last is set */
	RedoPoint	point;			/* the latest one inside the range, or start */
	XLogRecPtr	end;
	uint64		items;
	size_t		used;			/* bytes of buffer that were filled */
	size_t		next;			/* of them, those already taken */
	const char *problem;		/* NULL, or what is wrong; see below */
	bool		read_failed;	/* problem is the callback's -1 */
	uint8		buffer[SUMMARY_BUFFER];
} SummaryReader;

typedef enum SummaryResult
{
	SUMMARY_BAD = -1,			/* reader->problem says what is wrong */
	SUMMARY_END = 0,			/* and everything before it was as written */
	SUMMARY_ITEM = 1,
	SUMMARY_POINT = 2,			/* reader->point has it; none follows an item */
} SummaryResult;

extern bool summary_read_begin(SummaryReader *reader, summary_read_fn read,
							   void *arg, SummaryHeader *header);
extern SummaryResult summary_read_item(SummaryReader *reader, ChangeItem *item);

#endif							/* PTRACK_SUMMARY_FORMAT_H */
