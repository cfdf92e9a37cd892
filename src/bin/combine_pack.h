/*
 * combine_pack.h
 *		Writing a tar archive.
 */
#ifndef PTRACK_COMBINE_PACK_H
#define PTRACK_COMBINE_PACK_H

typedef struct Pack Pack;

extern Pack *pack_create(const char *path);
extern void pack_directory(Pack *pack, const char *name);
extern void pack_file(Pack *pack, const char *name, uint64 size, int64 modified);
extern void pack_write(Pack *pack, const void *data, size_t len);
extern void pack_close(Pack *pack, bool sync);

#endif							/* PTRACK_COMBINE_PACK_H */
