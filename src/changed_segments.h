/*
 * changed_segments.h
 *		From changed blocks to the segment files that hold them.
 */
#ifndef PTRACK_CHANGED_SEGMENTS_H
#define PTRACK_CHANGED_SEGMENTS_H

#include "change_query.h"
#include "common/summary_format.h"
#include "relation_files.h"

#define SEGMENT_BYTES ((RELSEG_SIZE + 7) / 8)

/* A file that exists and has changed blocks. */
typedef struct ChangedSegment
{
	RelationFile file;
	char		path[MAXPGPATH];
	BlockNumber blocks;			/* its length */
	BlockNumber changed;		/* how many bits are set */
	uint32		bytes;			/* of bits, up to the last one set */
	uint8		bits[SEGMENT_BYTES];	/* bit b of byte n: block 8 * n + b of
										 * the file */
} ChangedSegment;

typedef struct SegmentScan SegmentScan;

extern SegmentScan *segment_scan_begin(XLogRecPtr start, const Lineage *lineage);
extern bool segment_scan_next(SegmentScan *scan, ChangedSegment *segment);

#endif							/* PTRACK_CHANGED_SEGMENTS_H */
