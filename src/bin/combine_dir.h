/*
 * combine_dir.h
 *		Backups that are directories: opening, reading and listing files.
 */
#ifndef PTRACK_COMBINE_DIR_H
#define PTRACK_COMBINE_DIR_H

#include <sys/stat.h>

/*
 * Told of a file or directory.  link: what the symbolic link says that leads to
 * the directory, or NULL; st is of what it leads to.
 */
typedef void (*dir_entry_fn) (void *arg, const char *path, const struct stat *st,
							  const char *link);

extern void path_join(char *to, const char *dir, const char *path);
extern int	dir_open(const char *dir, const char *path, int flags, struct stat *st);
extern bool dir_has(const char *dir, const char *path);
extern char *dir_read(const char *dir, const char *path, size_t *len);
extern void dir_walk(const char *dir, dir_entry_fn entry, void *arg);

#endif							/* PTRACK_COMBINE_DIR_H */
