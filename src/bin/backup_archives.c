/*
 * backup_archives.c
 *		A backup that is written as tar archives.
 *
 * As pg_basebackup has them: base.tar, and OID.tar for each tablespace, in a
 * directory; or, to standard output, one archive of everything, in which
 * tablespaces are directories.
 *
 * Files of an archive follow one another, while several connections fetch them.  So
 * one that is small is kept in memory until it is complete; for a larger one, its
 * connection has the archive to itself, and what the others fetch meanwhile waits
 * in their memory, and in the network.
 */
#include "postgres_fe.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "backup_archives.h"
#include "archive_writer.h"
#include "paths.h"
#include "report.h"
#include "workers.h"

/* Files up to that size are kept in memory. */
#define SMALL_BYTES		(4 * 1024 * 1024)

/* How long to wait for an archive before looking whether to stop. */
#define LOCK_MS			200

typedef struct Archive
{
	char		prefix[32];		/* of what is in it, "" or with '/' at its end */
	Pack	   *pack;
	pthread_mutex_t lock;		/* whoever writes a file */
	struct Archive *next;
} Archive;

struct ArchiveFile
{
	Archive    *archive;
	const char *name;			/* in the archive */
	uint64		size;
	int64		modified;
	uint64		written;
	char	   *buffer;			/* of a small one; else NULL: it has the lock */
};

static const BackupOptions *options;
static Archive *archives = NULL;

static void
add_archive(const char *prefix, const char *name)
{
	Archive    *archive = pg_malloc0(sizeof(Archive));
	char		path[MAXPGPATH];

	strlcpy(archive->prefix, prefix, sizeof(archive->prefix));
	pthread_mutex_init(&archive->lock, NULL);
	if (backup_to_stdout(options))
		strlcpy(path, "-", sizeof(path));
	else if (snprintf(path, sizeof(path), "%s/%s.tar%s", options->target.directory, name,
					  pack_suffix(&options->compression)) >= (int) sizeof(path))
		fatal("path of file \"%s\" is too long", path);
	archive->pack = pack_create(path, &options->compression);
	archive->next = archives;
	archives = archive;
}

/*
 * Begins the main archive.  The options must stay.
 */
void
archives_create(const BackupOptions *of)
{
	options = of;
	add_archive("", "base");
}

/* The archive that a file or directory is in, and its name there. */
static Archive *
archive_of(const char *path, const char **name)
{
	Archive    *archive = archives;

	/* The main one is the last of the list, and has room for everything. */
	while (strncmp(path, archive->prefix, strlen(archive->prefix)) != 0)
		archive = archive->next;
	*name = path + strlen(archive->prefix);
	return archive;
}

/* Gives up if the program is to stop, for then nobody may let go of it. */
static void
lock_archive(Archive *archive)
{
	struct timespec until;
	int			error;

	do
	{
		if (workers_stopping())
			give_up();
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += LOCK_MS * 1000000L;
		if (until.tv_nsec >= 1000000000L)
		{
			until.tv_sec++;
			until.tv_nsec -= 1000000000L;
		}
	} while ((error = pthread_mutex_timedlock(&archive->lock, &until)) == ETIMEDOUT);
	if (error != 0)
		fatal("could not lock an archive: %s", strerror(error));
}

/*
 * Adds a directory.  Before files are fetched.
 */
void
archives_add_directory(const char *path)
{
	const char *name;
	Archive    *archive = archive_of(path, &name);

	pack_directory(archive->pack, name);
}

/*
 * Begins the archive of the tablespace that is a link of that path on the server;
 * in an archive of everything, it is a directory.
 */
void
archives_add_tablespace(const char *path)
{
	char		prefix[32];

	if (backup_to_stdout(options))
		archives_add_directory(path);
	else if (snprintf(prefix, sizeof(prefix), "%s/", path) >= (int) sizeof(prefix))
		fatal("\"%s\" is not the name of a tablespace", path);
	else
		add_archive(prefix, path_file_name(path));
}

/*
 * Files
 */

/*
 * Begins a file of so many bytes.  Any worker may do so; the path must stay.
 */
ArchiveFile *
archives_begin(const char *path, uint64 size, int64 modified)
{
	ArchiveFile *file = pg_malloc0(sizeof(ArchiveFile));

	file->archive = archive_of(path, &file->name);
	file->size = size;
	file->modified = modified;
	if (size <= SMALL_BYTES)
		file->buffer = pg_malloc(Max(size, 1));
	else
	{
		lock_archive(file->archive);
		pack_file(file->archive->pack, file->name, size, modified);
	}
	return file;
}

/*
 * Adds to its contents.
 */
void
archives_write(ArchiveFile *file, const void *data, size_t len)
{
	if (len > file->size - file->written)
		fatal("unexpected data from the server: file \"%s\" is longer than it was said to be", file->name);
	if (file->buffer)
		memcpy(file->buffer + file->written, data, len);
	else
		pack_write(file->archive->pack, data, len);
	file->written += len;
}

/*
 * Ends it.
 */
void
archives_end(ArchiveFile *file)
{
	if (file->written != file->size)
		fatal("unexpected data from the server: file \"%s\" is shorter than it was said to be", file->name);
	if (file->buffer)
	{
		lock_archive(file->archive);
		pack_file(file->archive->pack, file->name, file->size, file->modified);
		pack_write(file->archive->pack, file->buffer, file->size);
		pg_free(file->buffer);
	}
	pthread_mutex_unlock(&file->archive->lock);
	pg_free(file);
}

/*
 * Completes all archives, and makes them durable if that is wanted.
 */
void
archives_close(void)
{
	while (archives)
	{
		Archive    *archive = archives;

		archives = archive->next;
		pack_close(archive->pack, !options->target.no_sync && !options->target.sync_file_systems);
		pg_free(archive);
	}
}
