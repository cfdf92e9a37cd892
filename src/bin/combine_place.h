/*
 * combine_place.h
 *		Combining a full backup with increments in its own directory.
 */
#ifndef PTRACK_COMBINE_PLACE_H
#define PTRACK_COMBINE_PLACE_H

#include "combine.h"
#include "combine_chain.h"

extern void place_refuse(const char *dir);
extern void place_combine(const CombineOptions *options, Chain *chain);

#endif							/* PTRACK_COMBINE_PLACE_H */
