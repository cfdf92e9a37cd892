/*
 * combine_archives.h
 *		Backups that are tar archives: finding, opening and listing files.
 */
#ifndef PTRACK_COMBINE_ARCHIVES_H
#define PTRACK_COMBINE_ARCHIVES_H

#include "combine_dir.h"

typedef struct Archives Archives;

/* Is that file going to be read? */
typedef bool (*file_needed_fn) (void *arg, const char *path);

extern Archives *archives_open(const char *dir);
extern bool archives_compressed(const Archives *archives);
extern int	archives_try_open(const Archives *archives, const char *path, struct stat *st,
							  uint64 *start);
extern char *archives_read(const Archives *archives, const char *path, size_t *len);
extern void archives_walk(const Archives *archives, dir_entry_fn entry, void *arg);
extern void archives_unpack(Archives *archives, int fd, uint64 *len, file_needed_fn needed,
							void *arg);

#endif							/* PTRACK_COMBINE_ARCHIVES_H */
