/*
 * coverage_start.h
 *		Where what is known of this run begins.
 */
#ifndef PTRACK_COVERAGE_START_H
#define PTRACK_COVERAGE_START_H

extern Size coverage_shmem_size(void);
extern void coverage_shmem_init(void);

extern bool coverage_begin(void);
extern bool coverage_has_begun(void);
extern bool coverage_note_miss(void);

extern void coverage_note_worker(void);
extern bool coverage_fill_start(void);

#endif							/* PTRACK_COVERAGE_START_H */
