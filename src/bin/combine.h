/*
 * combine.h
 *		What the user wants of "pg_ptrack combine".
 */
#ifndef PTRACK_COMBINE_H
#define PTRACK_COMBINE_H

#include "common/checksum_helper.h"
#include "common/compression.h"
#include "target.h"

typedef enum CopyMethod
{
	METHOD_COPY,
	METHOD_COPY_FILE_RANGE,
	METHOD_CLONE,
	METHOD_LINK,
} CopyMethod;

typedef struct CombineOptions
{
	const char *output;			/* NULL: in place */
	bool		archives;		/* is the result to be some? */
	pg_compress_specification compression;	/* of these */
	TablespaceMapping *mappings;
	CopyMethod	method;
	pg_checksum_type checksum_type; /* of the result's manifest */
	int			jobs;
	bool		manifest;		/* does the result get one? */
	bool		dry_run;
	bool		sync;
	bool		syncfs;
	bool		clean;			/* remove what was made, after an error */
	bool		progress;
	bool		in_place;
} CombineOptions;

#endif							/* PTRACK_COMBINE_H */
