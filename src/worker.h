/*
 * worker.h
 *		ptrack's background worker.
 */
#ifndef PTRACK_WORKER_H
#define PTRACK_WORKER_H

/* The setting ptrack.keep_time. */
extern int	worker_keep_minutes;

extern Size worker_shmem_size(void);
extern void worker_shmem_init(void);
extern void worker_register(bool tracking);
extern void worker_wake(void);
extern int	worker_get_pid(uint32 *wait_event_info);

#endif							/* PTRACK_WORKER_H */
