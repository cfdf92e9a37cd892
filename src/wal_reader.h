/*
 * wal_reader.h
 *		Reading the records of a range of WAL.
 */
#ifndef PTRACK_WAL_READER_H
#define PTRACK_WAL_READER_H

#include "access/xlogreader.h"
#include "scan_progress.h"

typedef enum WalStatus
{
	WAL_RECORD,					/* there is a record */
	WAL_END,					/* none begins before the limit */
	WAL_MISSING,				/* a segment is gone, and cannot be restored */
	WAL_DAMAGED,				/* what is there is not WAL of this server */
	WAL_UNREADABLE,				/* an I/O error: it may be there all the same */
} WalStatus;

typedef struct WalReader WalReader;

/* Shell command that fetches segments that are not in pg_wal. */
extern char *wal_restore_command;

/* Kilobytes a second that a process may read; 0: as many as it can. */
extern int	wal_reader_rate;

extern WalReader *wal_reader_create(TimeLineID tli);
extern void wal_reader_begin(WalReader *reader, XLogRecPtr start, XLogRecPtr limit);
extern bool wal_reader_find(WalReader *reader, XLogRecPtr start, XLogRecPtr limit);
extern WalStatus wal_reader_next(WalReader *reader, XLogReaderState **record);
extern XLogRecPtr wal_reader_position(const WalReader *reader);
extern TimeLineID wal_reader_timeline(const WalReader *reader, XLogRecPtr lsn);
extern void wal_reader_report(const WalReader *reader, int elevel);
extern void wal_reader_count(WalReader *reader, ScanProgress *progress);
extern void wal_reader_close(WalReader *reader);

extern XLogRecPtr wal_record_start(XLogRecPtr lsn);
extern bool wal_segment_exists(TimeLineID tli, XLogRecPtr lsn);
extern XLogRecPtr wal_reader_oldest(const WalReader *reader, XLogRecPtr lsn);

#endif							/* PTRACK_WAL_READER_H */
