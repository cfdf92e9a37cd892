/*
 * verify_read.c
 *		Reading the files of a backup, by several workers.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "verify.h"
#include "workers.h"

/* A part of a file, or all that is left of it. */
typedef struct FilePart
{
	const char *path;
	int			fd;
	int64		offset;
	uint64		left;
} FilePart;

static ssize_t
read_part(void *arg, char *data, size_t len)
{
	FilePart   *part = arg;
	ssize_t		got = pread(part->fd, data, Min(len, part->left), part->offset);

	if (got < 0)
	{
		report_error("could not read file \"%s\": %m", part->path);
		return -1;
	}
	part->offset += got;
	part->left -= got;
	return got;
}

/*
 * False: it was reported.  Links were seen to when the file was listed; it must
 * not have become one.
 */
static bool
open_part(Verify *verify, FilePart *part, const char *path, int64 offset, uint64 len)
{
	*part = (FilePart)
	{
		path, open(path, O_RDONLY | O_NOFOLLOW | PG_BINARY, 0), offset, len
	};
	if (part->fd < 0)
		verify_problem(verify, "could not open file \"%s\": %m", path);
	return part->fd >= 0;
}

static void
read_file(Verify *verify, VerifyBuffers *buffers, ListedFile *file)
{
	char		path[2 * MAXPGPATH];
	FilePart	part;
	bool		opened;

	if (file->archive >= 0)
		opened = open_part(verify, &part, verify->archives[file->archive].path, file->offset,
						   file->size);
	else
	{
		snprintf(path, sizeof(path), "%s/%s", verify->options.backup, file->path);
		opened = open_part(verify, &part, path, 0, PG_UINT64_MAX);
	}
	if (!opened)
		return;
	verify_file(verify, buffers, file, read_part, &part);
	close(part.fd);
}

static void
read_segment(Verify *verify, VerifyBuffers *buffers, FoundSegment *segment)
{
	FilePart	part;

	if (!open_part(verify, &part, segment->path, segment->offset, segment->size))
		return;
	verify_wal_segment(verify, buffers, segment, read_part, &part);
	close(part.fd);
}

/* WAL is read by one worker, since its records are checked in order. */
static void
read_segments(Verify *verify, VerifyBuffers *buffers)
{
	for (int i = 0; i < verify->nsegments && !workers_stopping(); i++)
	{
		if (!verify->segments[i]->read)
			read_segment(verify, buffers, verify->segments[i]);
	}
}

static void
read_worker(void *shared, int number)
{
	Verify	   *verify = shared;
	VerifyBuffers buffers;
	size_t		next;

	verify_buffers_create(&buffers);
	while (!workers_stopping() &&
		   (next = atomic_fetch_add(&verify->next, 1)) < 1 + verify->nto_read)
	{
		if (next == 0)
			read_segments(verify, &buffers);
		else
			read_file(verify, &buffers, verify->to_read[next - 1]);
	}
	verify_buffers_free(&buffers);
}

/* Large ones first, so that no worker is left with one; else as they lie. */
static int
compare_files(const void *a, const void *b)
{
	const ListedFile *left = *(ListedFile *const *) a;
	const ListedFile *right = *(ListedFile *const *) b;

	if (left->size != right->size)
		return left->size > right->size ? -1 : 1;
	if (left->archive != right->archive)
		return left->archive < right->archive ? -1 : 1;
	if (left->offset != right->offset)
		return left->offset < right->offset ? -1 : 1;
	return strcmp(left->path, right->path);
}

/*
 * Reads what was listed.
 */
void
verify_read_all(Verify *verify)
{
	verify_wal_sort(verify);
	if (verify->nto_read > 0)
		qsort(verify->to_read, verify->nto_read, sizeof(ListedFile *), compare_files);
	atomic_store(&verify->next, 0);
	workers_run(verify->options.jobs, read_worker, verify);
}
