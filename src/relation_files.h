/*
 * relation_files.h
 *		The files that relations are stored in, and their names.
 */
#ifndef PTRACK_RELATION_FILES_H
#define PTRACK_RELATION_FILES_H

#include <sys/stat.h>

#include "common/relpath.h"
#include "storage/block.h"

/* One segment file of a fork. */
typedef struct RelationFile
{
	RelFileLocator rlocator;
	ForkNumber	fork;
	uint32		segment;
} RelationFile;

/* A growing list of files. */
typedef struct RelationFiles
{
	RelationFile *files;
	int			count;
	int			room;
} RelationFiles;

extern void relation_file_path(const RelationFile *file, char *path);
extern bool relation_file_is(const char *path, RelationFile *file);
extern void relation_file_parse(const char *path, RelationFile *file);
extern bool stat_existing(const char *path, struct stat *st,
						  int (*how) (const char *, struct stat *));
extern void require_tablespace(const char *path);
extern bool relation_file_blocks(const char *path, BlockNumber *blocks);
extern bool relation_is_unlogged(const RelFileLocator *rlocator);

extern void relation_files_of_database(Oid tablespace, Oid database,
									   RelationFiles *list);
extern void relation_files_of_cluster(RelationFiles *list);

#endif							/* PTRACK_RELATION_FILES_H */
