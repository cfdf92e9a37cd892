/*
 * paths.h
 *		Names of files in a backup.
 */
#ifndef PTRACK_PATHS_H
#define PTRACK_PATHS_H

#include "common/relpath.h"
#include "common/safe_path.h"

#define INCREMENTAL_PREFIX		"INCREMENTAL."
#define INCREMENTAL_PREFIX_LEN	(sizeof(INCREMENTAL_PREFIX) - 1)
#define MANIFEST_NAME			"backup_manifest"
#define LABEL_NAME				"backup_label"
#define TABLESPACE_MAP_NAME		"tablespace_map"
#define CONTROL_NAME			"global/pg_control"

extern const char *path_file_name(const char *path);
extern bool path_is_incremental(const char *path);
extern bool path_to_incremental(char *to, size_t room, const char *path);
extern bool path_from_incremental(char *to, size_t room, const char *path);
extern bool path_is_recovery_settings(const char *path);
extern bool path_is_relation(const char *path, ForkNumber *fork, unsigned *segment);

#endif							/* PTRACK_PATHS_H */
