/*
 * progress.h
 *		How far a command has come, for the user to see.
 */
#ifndef PTRACK_PROGRESS_H
#define PTRACK_PROGRESS_H

extern void progress_begin(const char *what, uint64 total_bytes, uint64 total_files);
extern void progress_add_bytes(uint64 bytes);
extern void progress_add_file(void);
extern void progress_end(void);

#endif							/* PTRACK_PROGRESS_H */
