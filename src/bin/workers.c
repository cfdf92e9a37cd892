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

struct Worker
{
	pthread_t	thread;
	worker_fn	work;
	void	   *shared;
	int			number;
};

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
 * Begins a thread that does work.  Signals are left to the calling thread.
 */
Worker *
worker_begin(worker_fn work, void *shared, int number)
{
	Worker	   *worker = pg_malloc0(sizeof(Worker));
	sigset_t	all;
	sigset_t	before;
	int			error;

	*worker = (Worker)
	{
		.work = work,.shared = shared,.number = number
	};
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&worker->thread, NULL, worker_main, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error == 0)
		return worker;
	report_error("could not create a thread: %s", strerror(error));
	workers_stop();
	pg_free(worker);
	return NULL;
}

/*
 * Waits until a thread has done its work, or has given up.
 */
void
worker_end(Worker *worker)
{
	if (worker)
		pthread_join(worker->thread, NULL);
	pg_free(worker);
}

/*
 * Has so many threads do work, and returns when all have done it.
 */
void
workers_run(int count, worker_fn work, void *shared)
{
	Worker	  **workers = pg_malloc0(count * sizeof(Worker *));

	for (int i = 0; i < count && !workers_stopping(); i++)
		workers[i] = worker_begin(work, shared, i);
	for (int i = 0; i < count; i++)
		worker_end(workers[i]);
	pg_free(workers);
	if (workers_stopping())
		give_up();
}
