/*
 * page_reader.h
 *		Reading pages from relation files, as a base backup reads them.
 */
#ifndef PTRACK_PAGE_READER_H
#define PTRACK_PAGE_READER_H

#include "relation_files.h"
#include "storage/fd.h"

typedef struct PageReader
{
	char		path[MAXPGPATH];
	BlockNumber first;			/* of the file's blocks, within the fork */
	File		file;			/* -1: none */
} PageReader;

extern bool page_reader_open(PageReader *reader, const RelationFile *file,
							 const char *path);
extern int	page_reader_read(PageReader *reader, BlockNumber block, int count,
							 char *pages);
extern void page_reader_close(PageReader *reader);

#endif							/* PTRACK_PAGE_READER_H */
