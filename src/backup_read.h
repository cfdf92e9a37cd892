/*
 * backup_read.h
 *		Reading files for a base backup.
 *
 * What is read comes in parts, each of which has a header, in network byte order:
 *
 *		0	u8		flags, of PART_FLAGS
 *		1	u8[3]	zero
 *		4	u32		number of the file among those asked for, from 0 on
 *		8	u64		with PART_BEGIN: bytes that follow for this file in all, after
 *					the block numbers, if there are any
 *	   16	u64		with PART_BEGIN: when the file was modified, in seconds
 *					since 1970
 *	   24	u32		with PART_BLOCKS: how many block numbers follow the header, u32
 *					each; then the pages of these are what follows
 *	   28	u32		with PART_BLOCKS: truncation block length
 *	   32	bytes of the file
 *
 * A damaged page is told by a part of its own, with the block number at 24.
 */
#ifndef PTRACK_BACKUP_READ_H
#define PTRACK_BACKUP_READ_H

#define PART_HEADER_LEN		32

#define PART_BEGIN			0x01	/* the first one of a file */
#define PART_END			0x02	/* the last one of a file */
#define PART_GONE			0x04	/* there is no such file any more; with
									 * both */
#define PART_BLOCKS			0x08	/* of a file's blocks only */
#define PART_DAMAGED		0x10	/* a page's checksum is wrong */

#ifndef FRONTEND

#include "access/xlogdefs.h"

/* What is asked for of a file. */
typedef struct BackupRequest
{
	const char *path;
	uint64		start;			/* bytes from there on; not with a map */
	uint64		length;			/* so many at most */
	bool		has_map;		/* only blocks that are in the map, or past a */
	const uint8 *map;			/* length in blocks; bit b of byte n: block */
	uint32		map_len;		/* 8 * n + b of the file */
	BlockNumber listed_blocks;
} BackupRequest;

typedef struct BackupReader BackupReader;

extern BackupReader *backup_reader_create(const BackupRequest *requests, int count,
										  XLogRecPtr check_before);
extern bytea *backup_reader_next(BackupReader *reader);

#endif

#endif							/* PTRACK_BACKUP_READ_H */
