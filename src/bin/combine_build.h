/*
 * combine_build.h
 *		Making the files of the result.
 */
#ifndef PTRACK_COMBINE_BUILD_H
#define PTRACK_COMBINE_BUILD_H

#include "combine.h"
#include "combine_blocks.h"

/* What takes a file's place is first there with this behind its name. */
#define FRESH_SUFFIX	".tmp"

/* Of one thread. */
typedef struct Builder
{
	const CombineOptions *options;
	const Chain *chain;
	char	   *buffer;
	BlockNumber *blocks;		/* RELSEG_SIZE of them */
	BlockMap   *map;
} Builder;

extern Builder *builder_create(const CombineOptions *options, const Chain *chain);
extern void build_nothing(Builder *builder, Target *target);
extern void build_file(Builder *builder, Target *target, const char *to);
extern void build_in_place(Builder *builder, Target *target);

#endif							/* PTRACK_COMBINE_BUILD_H */
