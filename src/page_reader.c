/*
 * page_reader.c
 *		Reading pages from relation files, as a base backup reads them.
 *
 * Pages come from the file, not from shared buffers: what a backup needs of
 * later changes, it gets from WAL.  A relation that vanishes or shrinks
 * meanwhile is no error, because WAL says so too.
 *
 * The server may be writing a page while it is read, which then looks damaged.
 * So a page whose checksum is wrong is read again, for a while, before anybody
 * is told.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "page_reader.h"
#include "storage/bufpage.h"
#include "storage/checksum.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

/* How often a page is read again, and the pause before that. */
#define REREADS			100
#define REREAD_USEC		1000

/*
 * Opens a segment file.  Returns false if it is gone.  The file stays open
 * beyond an error: the caller arranges for page_reader_close.
 */
bool
page_reader_open(PageReader *reader, const RelationFile *file, const char *path)
{
	strlcpy(reader->path, path, sizeof(reader->path));
	reader->first = file->segment * (BlockNumber) RELSEG_SIZE;
	reader->file = PathNameOpenFile(path, O_RDONLY | PG_BINARY);
	if (reader->file < 0 && errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	return reader->file >= 0;
}

/* Returns the number of whole blocks read. */
static int
read_blocks(PageReader *reader, BlockNumber block, int count, char *pages)
{
	int			len = 0;

	while (len < count * BLCKSZ)
	{
		int			got = FileRead(reader->file, pages + len, count * BLCKSZ - len,
								   (off_t) block * BLCKSZ + len,
								   WAIT_EVENT_BASEBACKUP_READ);

		if (got < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", reader->path)));
		if (got == 0)
			break;
		len += got;
	}
	return len / BLCKSZ;
}

static bool
page_is_good(const PageReader *reader, BlockNumber block, char *page)
{
	return PageIsNew((Page) page) ||
		pg_checksum_page(page, reader->first + block) == ((PageHeader) page)->pd_checksum;
}

/* Does the administrator want damaged pages all the same? */
static int
complaint_level(void)
{
	const char *ignore = GetConfigOption("ignore_checksum_failure", false, false);

	return strcmp(ignore, "on") == 0 ? WARNING : ERROR;
}

/* Returns false if the block is gone. */
static bool
read_again(PageReader *reader, BlockNumber block, char *page)
{
	for (int i = 0; i < REREADS; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (read_blocks(reader, block, 1, page) == 0)
			return false;
		if (page_is_good(reader, block, page))
			return true;
		pg_usleep(REREAD_USEC);
	}
	ereport(complaint_level(),
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("invalid page in block %u of file \"%s\"", block, reader->path),
			 errdetail("The page's checksum is %u, but its contents have checksum %u.",
					   ((PageHeader) page)->pd_checksum,
					   pg_checksum_page(page, reader->first + block))));
	return true;
}

/*
 * Reads consecutive blocks of the file into pages, which must be aligned to
 * four bytes.  Returns how many there were: fewer than asked for when the
 * file ends before.  ERROR if a page is damaged, where there are checksums.
 */
int
page_reader_read(PageReader *reader, BlockNumber block, int count, char *pages)
{
	int			got = read_blocks(reader, block, count, pages);

	if (!DataChecksumsEnabled())
		return got;
	for (int i = 0; i < got; i++)
	{
		char	   *page = pages + (Size) i * BLCKSZ;

		if (!page_is_good(reader, block + i, page) &&
			!read_again(reader, block + i, page))
			return i;
	}
	return got;
}

void
page_reader_close(PageReader *reader)
{
	if (reader->file >= 0)
		FileClose(reader->file);
	reader->file = -1;
}
