/*
 * write_behind.h
 *		Has what was written become durable while more is written.
 *
 * A thread tells the kernel early to write what the others wrote, waits for that
 * in their stead, and then has the kernel forget it.  So fsync finds little left to
 * do in the end, and a backup does not push what the server's users need out of the
 * page cache.  This is but advice: what the thread cannot keep up with is left to
 * fsync, which decides what is durable.
 */
#ifndef PTRACK_WRITE_BEHIND_H
#define PTRACK_WRITE_BEHIND_H

/* So much of a file is given to it at a time. */
#define WRITE_BEHIND_BYTES	(8 * 1024 * 1024)

extern void write_behind_begin(void);
extern void write_behind(int fd, const char *path, uint64 offset, uint64 len);
extern void write_behind_end(void);

#endif							/* PTRACK_WRITE_BEHIND_H */
