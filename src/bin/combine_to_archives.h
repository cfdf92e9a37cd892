/*
 * combine_to_archives.h
 *		Results that are tar archives.
 */
#ifndef PTRACK_COMBINE_TO_ARCHIVES_H
#define PTRACK_COMBINE_TO_ARCHIVES_H

#include "combine.h"
#include "combine_plan.h"

extern void make_archives(const CombineOptions *options, Plan *plan, const char *label);

#endif							/* PTRACK_COMBINE_TO_ARCHIVES_H */
