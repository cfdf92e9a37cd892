/*
 * write_behind.c
 *		Has what was written become durable while more is written.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "report.h"
#include "workers.h"
#include "write_behind.h"

/* Of less, the kernel writes many at once, if it is left alone. */
#define LEAST_BYTES	(256 * 1024)

/* Pieces that wait to be begun, and those that are being written, at most. */
#define QUEUE_LEN	24
#define FLIGHT_LEN	8

/* A piece of a file.  The descriptor is its own. */
typedef struct Piece
{
	int			fd;
	uint64		offset;
	uint64		len;
	char		path[MAXPGPATH];	/* for messages */
} Piece;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t added = PTHREAD_COND_INITIALIZER;

/* Under the lock: a ring. */
static Piece queue[QUEUE_LEN];
static unsigned int queue_begin;
static unsigned int queue_end;
static bool finished;

/* NULL: nothing is to be written behind. */
static Worker *writer = NULL;

#ifdef HAVE_SYNC_FILE_RANGE

/* File systems that cannot do that say so; these are left to fsync. */
static void
sync_piece(const Piece *piece, unsigned int flags)
{
	if (sync_file_range(piece->fd, (off_t) piece->offset, (off_t) piece->len, flags) != 0 &&
		errno != EINVAL && errno != ENOSYS && errno != ESPIPE)
		fatal("could not write file \"%s\": %m", piece->path);
}

/*
 * Waits until a piece is written.  The kernel reports an error of that once, and
 * perhaps not to fsync any more: it must not be passed over.
 */
static void
end_piece(Piece *piece)
{
	sync_piece(piece, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	(void) posix_fadvise(piece->fd, (off_t) piece->offset, (off_t) piece->len, POSIX_FADV_DONTNEED);
	close(piece->fd);
}

/* The next piece; false if there are no more to come. */
static bool
next_piece(Piece *piece)
{
	bool		found;

	pthread_mutex_lock(&lock);
	while (queue_begin == queue_end && !finished)
		pthread_cond_wait(&added, &lock);
	found = queue_begin != queue_end;
	if (found)
		*piece = queue[queue_begin++ % QUEUE_LEN];
	pthread_mutex_unlock(&lock);
	return found;
}

static void
write_pieces(void *arg, int number)
{
	Piece		flight[FLIGHT_LEN];
	unsigned int begin = 0;
	unsigned int end = 0;
	Piece		piece;

	while (next_piece(&piece))
	{
		sync_piece(&piece, SYNC_FILE_RANGE_WRITE);
		if (end - begin == FLIGHT_LEN)
			end_piece(&flight[begin++ % FLIGHT_LEN]);
		flight[end++ % FLIGHT_LEN] = piece;
	}
	while (begin != end)
		end_piece(&flight[begin++ % FLIGHT_LEN]);
}

#endif							/* HAVE_SYNC_FILE_RANGE */

/*
 * From now on, what write_behind() is told of is written.
 */
void
write_behind_begin(void)
{
#ifdef HAVE_SYNC_FILE_RANGE
	writer = worker_begin(write_pieces, NULL, 0);
	if (writer == NULL)
		give_up();
#endif
}

/*
 * A piece of an open file has its last contents.  Does not wait.
 */
void
write_behind(int fd, const char *path, uint64 offset, uint64 len)
{
	if (writer == NULL || len < LEAST_BYTES)
		return;
	pthread_mutex_lock(&lock);
	if (queue_end - queue_begin < QUEUE_LEN)
	{
		Piece	   *piece = &queue[queue_end % QUEUE_LEN];

		piece->fd = dup(fd);
		piece->offset = offset;
		piece->len = len;
		strlcpy(piece->path, path, sizeof(piece->path));
		if (piece->fd >= 0)
			queue_end++;
		pthread_cond_signal(&added);
	}
	pthread_mutex_unlock(&lock);
}

/*
 * Waits until all of it is written; before fsync.
 */
void
write_behind_end(void)
{
	pthread_mutex_lock(&lock);
	finished = true;
	pthread_cond_signal(&added);
	pthread_mutex_unlock(&lock);
	worker_end(writer);
	writer = NULL;
	if (workers_stopping())
		give_up();
}
