/*
 * combine_input.c
 *		What a backup has, be it a directory or archives.
 *
 * Its manifest is a file in the directory in either case.
 */
#include "postgres_fe.h"

#include <fcntl.h>

#include "combine_input.h"
#include "report.h"

/*
 * Finds out which of both it is.
 */
void
input_find(Input *input)
{
	input->archives = archives_open(input->dir);
}

/*
 * Opens what has a file's data, from *start on, and sets *st to what there is to
 * know of the file.  Gives up if there is none.
 */
int
input_open(const Input *input, const char *path, struct stat *st, uint64 *start)
{
	int			fd;

	*start = 0;
	if (input->archives == NULL)
		return dir_open(input->dir, path, O_RDONLY | PG_BINARY, st);
	fd = archives_try_open(input->archives, path, st, start);
	if (fd < 0)
		fatal("file \"%s\" is missing in backup \"%s\"", path, input->dir);
	return fd;
}

/*
 * A small file, in malloc'd memory, with a zero byte behind it.
 */
char *
input_read(const Input *input, const char *path, size_t *len)
{
	if (input->archives)
		return archives_read(input->archives, path, len);
	return dir_read(input->dir, path, len);
}

/*
 * Tells of everything in it, each directory before what is in it.
 */
void
input_walk(const Input *input, dir_entry_fn entry, void *arg)
{
	if (input->archives)
		archives_walk(input->archives, entry, arg);
	else
		dir_walk(input->dir, entry, arg);
}
