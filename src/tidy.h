/*
 * tidy.h
 *		Making summaries exact, merging them, and removing old ones.
 */
#ifndef PTRACK_TIDY_H
#define PTRACK_TIDY_H

extern bool tidy_store(int keep_minutes);

#endif							/* PTRACK_TIDY_H */
