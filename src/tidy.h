/*
 * tidy.h
 *		Merging and removing old summaries.
 */
#ifndef PTRACK_TIDY_H
#define PTRACK_TIDY_H

extern bool tidy_store(int keep_minutes);

#endif							/* PTRACK_TIDY_H */
