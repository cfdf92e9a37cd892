/*
 * combine_output.h
 *		The directory that the result is in.
 */
#ifndef PTRACK_COMBINE_OUTPUT_H
#define PTRACK_COMBINE_OUTPUT_H

#include "combine.h"
#include "combine_plan.h"

extern const char *output_mapped(const CombineOptions *options, const char *link);
extern void output_check(const CombineOptions *options, const Plan *plan);
extern void output_check_outside(const char *dir, const Chain *chain);
extern bool output_must_unpack(const Chain *chain);
extern void output_unpack(const Plan *plan, const char *path);
extern void output_create_root(const CombineOptions *options);
extern void output_make_directories(const Plan *plan);
extern void output_write_text(const char *dir, const char *name, const char *text, size_t len);
extern void output_write_manifest(const CombineOptions *options, const Plan *plan,
								  const char *dir, const char *name, const char *label,
								  const char *map);
extern void output_sync(const CombineOptions *options, const Plan *plan, const char *dir);
extern void output_sync_path(const char *path, bool is_dir);

#endif							/* PTRACK_COMBINE_OUTPUT_H */
