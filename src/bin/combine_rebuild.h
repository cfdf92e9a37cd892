/*
 * combine_rebuild.h
 *		Putting files together of blocks.
 */
#ifndef PTRACK_COMBINE_REBUILD_H
#define PTRACK_COMBINE_REBUILD_H

#include "combine_file.h"

extern void rebuild_file(const Builder *builder, Target *target, const char *to);
extern bool rebuild_can_patch_sum(const Builder *builder, const Target *target);
extern void rebuild_in_place(const Builder *builder, Target *target, OutFile *out);

#endif							/* PTRACK_COMBINE_REBUILD_H */
