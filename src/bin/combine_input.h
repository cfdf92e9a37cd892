/*
 * combine_input.h
 *		What a backup has, be it a directory or archives.
 */
#ifndef PTRACK_COMBINE_INPUT_H
#define PTRACK_COMBINE_INPUT_H

#include "combine_archives.h"

typedef struct Input
{
	const char *dir;
	Archives   *archives;		/* NULL: files are in the directory */
} Input;

extern void input_find(Input *input);
extern int	input_open(const Input *input, const char *path, struct stat *st, uint64 *start);
extern char *input_read(const Input *input, const char *path, size_t *len);
extern void input_walk(const Input *input, dir_entry_fn entry, void *arg);

#endif							/* PTRACK_COMBINE_INPUT_H */
