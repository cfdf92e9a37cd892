/*
 * workers.h
 *		Threads that share work.
 *
 * A worker that fails has said why, and called give_up(): it ends, the others
 * are asked to stop, and once they all have, workers_run() ends the program.
 */
#ifndef PTRACK_WORKERS_H
#define PTRACK_WORKERS_H

/* What a worker does: number is from 0 on. */
typedef void (*worker_fn) (void *shared, int number);

typedef struct Worker Worker;

extern Worker *worker_begin(worker_fn work, void *shared, int number);
extern void worker_end(Worker *worker);
extern void workers_run(int count, worker_fn work, void *shared);
extern bool workers_stopping(void);
extern void workers_stop(void);
extern void worker_give_up(void);

#endif							/* PTRACK_WORKERS_H */
