/*
 * target.h
 *		The directory that a backup is written to, and those of its tablespaces.
 *
 * What was made is removed again when the program fails, unless told otherwise.
 */
#ifndef PTRACK_TARGET_H
#define PTRACK_TARGET_H

#include "common/file_utils.h"

/* -T OLD=NEW */
typedef struct TablespaceMapping
{
	char	   *old_dir;
	char	   *new_dir;
	struct TablespaceMapping *next;
} TablespaceMapping;

typedef struct TargetOptions
{
	const char *directory;
	TablespaceMapping *mappings;
	bool		group_access;
	bool		no_clean;
	bool		no_sync;
	bool		sync_file_systems;	/* --sync-method=syncfs */
	bool		go_on;			/* with what is there */
} TargetOptions;

extern void tablespace_mapping_add(TablespaceMapping **mappings, const char *argument);

extern bool target_try_lock(const char *path);
extern void target_lock(const char *path);
extern void target_create(const TargetOptions *options);
extern void target_keep(void);
extern void target_path(char *to, const char *path);
extern void target_make_directory(const char *path);
extern void target_make_tablespace(const char *path, const char *location);
extern int	target_open(const char *path, int flags);
extern void target_write(int fd, const char *path, const void *data, size_t len, uint64 offset);
extern void target_close(int fd, const char *path);
extern void target_write_back(const char *path);
extern void target_sync(const char *path);
extern void target_sync_all(void);

#endif							/* PTRACK_TARGET_H */
