/*
 * combine_plan.h
 *		What the result of combining consists of, and where that comes from.
 */
#ifndef PTRACK_COMBINE_PLAN_H
#define PTRACK_COMBINE_PLAN_H

#include "combine_chain.h"
#include "manifest.h"

/* A file of a backup. */
typedef struct Source
{
	struct Source *older;		/* what it is relative to */
	int			backup;			/* index in the chain */
	bool		incremental;
	bool		known;			/* is what follows?  By the backup's manifest. */
	uint64		size;
	pg_checksum_type checksum_type;
	int			checksum_len;	/* 0: none */
	uint8		checksum[FLEXIBLE_ARRAY_MEMBER];
} Source;

/* A file of the result. */
typedef struct Target
{
	const char *path;			/* of the whole file */
	bool		incremental;	/* is what the last backup has of it */
	bool		in_manifest;	/* false: WAL */
	Source	   *newest;
	Source	   *oldest;
	int			source_count;
	uint64		weight;			/* about its size, in bytes */
	ManifestFile made;			/* once it is there */
	bool		written;		/* it is, and was not before */
} Target;

typedef struct Directory
{
	struct Directory *next;
	const char *path;
	const char *link;			/* what leads to it, or NULL */
} Directory;

typedef struct Plan
{
	const Chain *chain;
	Target	  **targets;
	size_t		target_count;
	size_t		target_room;
	struct targets_hash *by_path;
	Directory  *directories;	/* each after those that it is in */
	Directory **directories_end;
	struct LineagePoint *lineages;
	ManifestInfo info;			/* of the last backup's manifest */
	bool		has_info;
	WalRange   *ranges;			/* of the last backup's manifest */
	int			range_count;
	uint64		weight;			/* sum over targets */
	bool		skip_map;		/* the result does not get the last backup's
								 * tablespace_map */
} Plan;

extern Plan *plan_create(const Chain *chain, bool for_archives);
extern bool plan_needs(const Plan *plan, int backup, const char *path);
extern Target *plan_find(const Plan *plan, const char *path);
extern void result_path(char *path, const Target *target);
extern void source_path(char *path, const Target *target, const Source *source);
extern bool target_is_whole(const Target *target);

/* What to do with a target, in one of several threads. */
typedef void (*target_fn) (void *arg, int thread, Target *target);

extern void plan_for_each(const Plan *plan, int threads, target_fn work, void *arg);
extern void plan_sort_by_weight(Plan *plan);
extern void plan_sort_by_path(Plan *plan);

#endif							/* PTRACK_COMBINE_PLAN_H */
