/*
 * verify_files.h
 *		The files that a manifest lists, by name.
 */
#ifndef PTRACK_VERIFY_FILES_H
#define PTRACK_VERIFY_FILES_H

#include "manifest.h"

/* There may be millions: 40 bytes each, besides the name and the checksum. */
typedef struct ListedFile
{
	const char *path;			/* the checksum is in front of it */
	uint64		size;
	int64		offset;			/* in an archive */
	int32		archive;		/* its number; -1: none */
	uint32		hash;
	bool		seen;
	char		status;			/* of the table */
} ListedFile;

typedef struct VerifyFiles
{
	struct listed_hash *table;
	char	   *memory;			/* for names and checksums */
	size_t		left;			/* bytes of it */
} VerifyFiles;

extern void verify_files_create(VerifyFiles *files);
extern bool verify_files_add(VerifyFiles *files, const ManifestFile *file);
extern ListedFile *verify_files_find(VerifyFiles *files, const char *path);
extern void verify_files_each(VerifyFiles *files, void (*call) (void *arg, ListedFile *file),
							  void *arg);
extern pg_checksum_type listed_checksum(const ListedFile *file, const uint8 **bytes, int *len);

#endif							/* PTRACK_VERIFY_FILES_H */
