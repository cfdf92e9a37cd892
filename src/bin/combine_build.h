/*
 * combine_build.h
 *		Making the files of the result.
 */
#ifndef PTRACK_COMBINE_BUILD_H
#define PTRACK_COMBINE_BUILD_H

#include "combine_file.h"

/* What takes a file's place is first there with this behind its name. */
#define FRESH_SUFFIX	".ptrack_combine"

extern void build_check(Builder *builder, Target *target);
extern void build_file(Builder *builder, Target *target, const char *to);
extern void build_in_place(Builder *builder, Target *target);

#endif							/* PTRACK_COMBINE_BUILD_H */
