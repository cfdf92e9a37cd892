/*
 * workers.c
 *		Threads that share work.
 */
#include "postgres_fe.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "report.h"
#include "workers.h"

typedef struct Worker
{
	pthread_t	thread;
	worker_fn	work;
	void	   *shared;
	int			number;
} Worker;

static _Thread_local Worker *this_worker = NULL;
static atomic_bool stopping = false;

/*
 * Should workers come to an end, for one of them has failed or the user has
 * interrupted?  They look between one piece of work and the next, and while they
 * wait for a server.
 */
bool
workers_stopping(void)
{
	return atomic_load(&stopping);
}

/*
 * Asks all workers to stop.  May be called from a signal handler.
 */
void
workers_stop(void)
{
	atomic_store(&stopping, true);
}

/*
 * Ends this thread, if it is a worker.
 */
void
worker_give_up(void)
{
	if (this_worker == NULL)
		return;
	workers_stop();
	pthread_exit(NULL);
}

static void *
worker_main(void *arg)
{
	this_worker = arg;
	this_worker->work(this_worker->shared, this_worker->number);
	return NULL;
}

/*
 * Has so many threads do work, and returns when all have done it.  Signals are
 * left to the calling thread.
 */
void
workers_run(int count, worker_fn work, void *shared)
{
	Worker	   *workers = pg_malloc0(count * sizeof(Worker));
	int			started = 0;
	int			error = 0;
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (; started < count && error == 0; started++)
	{
		workers[started] = (Worker) {.work = work,.shared = shared,.number = started};
		error = pthread_create(&workers[started].thread, NULL, worker_main, &workers[started]);
		if (error)
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
	{
		report_error("could not create a thread: %s", strerror(error));
		workers_stop();
	}
	for (int i = 0; i < started; i++)
		pthread_join(workers[i].thread, NULL);
	pg_free(workers);
	if (workers_stopping())
		give_up();
}
