/*
 * backup_read.c
 *		Reading files for a base backup.
 *
 * Files are read as they are, while the server writes them: WAL from the start of
 * the backup on makes them right.  One that vanishes is told to be gone, one that
 * gets shorter is filled up with zeros, and what is added to one is left out.
 *
 * Checksums of pages are verified as a base backup of PostgreSQL does it: a page
 * that the server wrote since the backup started may be half written, and is in
 * WAL; another one is read again, and counts as damaged if it is wrong then, too.
 */
#include "postgres.h"

#include "compat.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "backup_progress.h"
#include "backup_read.h"
#include "common/safe_path.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "relation_files.h"
#include "storage/bufpage.h"
#include "storage/checksum.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

/* Bytes of a file in a part, at most, and how far ahead the kernel is to read. */
#define PART_BYTES		(512 * 1024)
#define PART_PAGES		(PART_BYTES / BLCKSZ)
#define AHEAD_BYTES		(4 * 1024 * 1024)

struct BackupReader
{
	const BackupRequest *requests;
	int			count;
	int			next;			/* request to begin with */
	XLogRecPtr	check_before;	/* pages of before that are verified; invalid:
								 * none is */

	/* Of the request that was begun last. */
	const BackupRequest *request;
	int			fd;				/* -1: none is open */
	bool		verify;
	BlockNumber first_block;	/* of the segment */
	uint64		position;		/* in the file; of blocks, their number */
	uint64		end;
	BlockNumber *blocks;		/* those to read; NULL: all */
	uint32		nblocks;

	/* Damaged pages of the part that was read last. */
	BlockNumber damaged[PART_PAGES];
	int			ndamaged;

	MemoryContext context;
	MemoryContextCallback cleanup;
};

static void
close_file(void *arg)
{
	BackupReader *reader = arg;

	if (reader->fd < 0)
		return;
	close(reader->fd);
	ReleaseExternalFD();
	reader->fd = -1;
}

/*
 * Begins to read these, one after the other.  Pages with an LSN before
 * check_before are verified, if it is valid and the server has checksums.  The
 * requests must stay; memory is of the current context.
 */
BackupReader *
backup_reader_create(const BackupRequest *requests, int count, XLogRecPtr check_before)
{
	BackupReader *reader = palloc0_object(BackupReader);

	reader->requests = requests;
	reader->count = count;
	reader->check_before = DataChecksumsEnabled() ? check_before : InvalidXLogRecPtr;
	reader->fd = -1;
	reader->context = CurrentMemoryContext;
	reader->cleanup.func = close_file;
	reader->cleanup.arg = reader;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &reader->cleanup);
	return reader;
}

/*
 * Parts
 */

static void
put_u32(char *bytes, uint32 value)
{
	value = pg_hton32(value);
	memcpy(bytes, &value, sizeof(value));
}

static void
put_u64(char *bytes, uint64 value)
{
	value = pg_hton64(value);
	memcpy(bytes, &value, sizeof(value));
}

/* A part with room for so many bytes after its header. */
static bytea *
make_part(const BackupReader *reader, uint8 flags, Size len)
{
	bytea	   *part = MemoryContextAllocHuge(CurrentMemoryContext,
											  VARHDRSZ + PART_HEADER_LEN + len);
	char	   *header = VARDATA(part);

	SET_VARSIZE(part, VARHDRSZ + PART_HEADER_LEN + len);
	memset(header, 0, PART_HEADER_LEN);
	header[0] = (char) flags;
	put_u32(header + 4, (uint32) (reader->request - reader->requests));
	return part;
}

static void
set_flags(bytea *part, uint8 flags)
{
	VARDATA(part)[0] |= (char) flags;
}

/*
 * Reading
 */

/* Returns how many bytes there are, which is less than asked for at the end. */
static Size
read_at(const BackupReader *reader, char *to, Size len, uint64 offset)
{
	Size		done = 0;

	while (done < len)
	{
		ssize_t		got;

		pgstat_report_wait_start(WAIT_EVENT_BASEBACKUP_READ);
		got = pg_pread(reader->fd, to + done, len - done, (off_t) (offset + done));
		pgstat_report_wait_end();
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", reader->request->path)));
		if (got == 0)
			break;
		done += got;
	}
	return done;
}

/*
 * The same, and zeros after the end.  No WAL makes the control file right, so it is
 * not read while it is written.
 */
static void
read_padded(const BackupReader *reader, char *to, Size len, uint64 offset)
{
	bool		control = strcmp(reader->request->path, XLOG_CONTROL_FILE) == 0;
	Size		got;

	if (control)
		LWLockAcquire(ControlFileLock, LW_SHARED);
	got = read_at(reader, to, len, offset);
	if (control)
		LWLockRelease(ControlFileLock);
	memset(to + got, 0, len - got);
}

static bool
page_is_good(const BackupReader *reader, char *page, BlockNumber block)
{
	PageHeader	header = (PageHeader) page;

	if (PageIsNew((Page) page) || PageGetLSN((Page) page) >= reader->check_before)
		return true;
	return pg_checksum_page(page, reader->first_block + block) == header->pd_checksum;
}

/* Verifies a page that was read, and reads it again if it is wrong. */
static void
check_page(BackupReader *reader, char *page, BlockNumber block)
{
	if (page_is_good(reader, page, block))
		return;

	/* It may have been written at that moment; then it soon has a new LSN. */
	pg_usleep(1000);
	if (read_at(reader, page, BLCKSZ, (uint64) block * BLCKSZ) < BLCKSZ)
		memset(page, 0, BLCKSZ);
	else if (!page_is_good(reader, page, block))
		reader->damaged[reader->ndamaged++] = block;
}

static void
read_ahead(const BackupReader *reader, uint64 offset, uint64 len)
{
#if defined(USE_POSIX_FADVISE) && defined(POSIX_FADV_WILLNEED)
	(void) posix_fadvise(reader->fd, (off_t) offset, (off_t) len, POSIX_FADV_WILLNEED);
#endif
}

/*
 * Files
 */

/* Only what is in the data directory, or in its tablespaces, is read. */
static void
check_path(const char *path)
{
	if (!path_is_safe(path))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not the path of a file of the data directory", path)));
}

/* False if it is gone. */
static bool
open_file(BackupReader *reader, struct stat *st)
{
	const char *path = reader->request->path;
	int			fd;

	check_path(path);
	fd = BasicOpenFile(path, O_RDONLY | O_NOFOLLOW | PG_BINARY);
	if (fd < 0 && errno == ENOENT)
	{
		require_tablespace(path);
		return false;
	}
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	ReserveExternalFD();
	reader->fd = fd;
	if (fstat(reader->fd, st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	if (!S_ISREG(st->st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", path)));
	return true;
}

static bool
is_wanted(const BackupRequest *request, BlockNumber block)
{
	if (block >= request->listed_blocks)
		return true;
	return block / 8 < request->map_len && (request->map[block / 8] >> block % 8 & 1) != 0;
}

static void
choose_blocks(BackupReader *reader, BlockNumber length)
{
	const BackupRequest *request = reader->request;
	uint32		room = 0;

	for (BlockNumber block = 0; block < length; block++)
		room += is_wanted(request, block);
	reader->blocks = MemoryContextAlloc(reader->context, Max(room, 1) * sizeof(BlockNumber));
	reader->nblocks = 0;
	for (BlockNumber block = 0; block < length; block++)
	{
		if (is_wanted(request, block))
			reader->blocks[reader->nblocks++] = block;
	}
}

/* The part that a file's blocks begin with: their numbers. */
static bytea *
begin_blocks(BackupReader *reader, const struct stat *st)
{
	BlockNumber length = (BlockNumber) Min(st->st_size / BLCKSZ, RELSEG_SIZE);
	bytea	   *part;

	choose_blocks(reader, length);
	reader->position = 0;
	reader->end = reader->nblocks;
	part = make_part(reader, PART_BEGIN | PART_BLOCKS, reader->nblocks * sizeof(BlockNumber));
	put_u64(VARDATA(part) + 8, (uint64) reader->nblocks * BLCKSZ);
	put_u64(VARDATA(part) + 16, (uint64) st->st_mtime);
	put_u32(VARDATA(part) + 24, reader->nblocks);
	put_u32(VARDATA(part) + 28, length);
	for (uint32 i = 0; i < reader->nblocks; i++)
		put_u32(VARDATA(part) + PART_HEADER_LEN + i * sizeof(BlockNumber), reader->blocks[i]);
	return part;
}

/* The next blocks' pages; a run of them is read at once. */
static bytea *
read_blocks(BackupReader *reader)
{
	uint32		count = (uint32) Min(reader->end - reader->position, PART_PAGES);
	bytea	   *part = make_part(reader, PART_BLOCKS, (Size) count * BLCKSZ);
	char	   *pages = VARDATA(part) + PART_HEADER_LEN;
	const BlockNumber *blocks = reader->blocks + reader->position;

	for (uint32 i = 0, run; i < count; i += run)
	{
		for (run = 1; i + run < count && blocks[i + run] == blocks[i] + run;)
			run++;
		read_padded(reader, pages + (Size) i * BLCKSZ, (Size) run * BLCKSZ,
					(uint64) blocks[i] * BLCKSZ);
	}
	for (uint32 i = 0; reader->verify && i < count; i++)
		check_page(reader, pages + (Size) i * BLCKSZ, blocks[i]);
	reader->position += count;
	backup_progress_add_bytes((uint64) count * BLCKSZ);
	return part;
}

static void
begin_bytes(BackupReader *reader, const struct stat *st)
{
	const BackupRequest *request = reader->request;

	reader->blocks = NULL;
	reader->position = Min(request->start, (uint64) st->st_size);
	reader->end = Min((uint64) st->st_size, request->start + request->length);
	read_ahead(reader, reader->position, Min(reader->end - reader->position, AHEAD_BYTES));
}

static bytea *
read_bytes(BackupReader *reader, const struct stat *begun)
{
	Size		len = (Size) Min(reader->end - reader->position, PART_BYTES);
	bytea	   *part = make_part(reader, 0, len);
	char	   *bytes = VARDATA(part) + PART_HEADER_LEN;

	if (begun)
	{
		set_flags(part, PART_BEGIN);
		put_u64(VARDATA(part) + 8, reader->end - reader->position);
		put_u64(VARDATA(part) + 16, (uint64) begun->st_mtime);
	}
	if (reader->end - reader->position > AHEAD_BYTES)
		read_ahead(reader, reader->position + AHEAD_BYTES, PART_BYTES);
	read_padded(reader, bytes, len, reader->position);
	for (Size at = 0; reader->verify && at + BLCKSZ <= len; at += BLCKSZ)
		check_page(reader, bytes + at, (BlockNumber) ((reader->position + at) / BLCKSZ));
	reader->position += len;
	backup_progress_add_bytes(len);
	return part;
}

/*
 * The parts in their order
 */

static bytea *
begin_file(BackupReader *reader)
{
	RelationFile relation;
	struct stat st;

	reader->request = &reader->requests[reader->next++];
	if (!open_file(reader, &st))
		return make_part(reader, PART_BEGIN | PART_END | PART_GONE, 0);
	reader->verify = !XLogRecPtrIsInvalid(reader->check_before) &&
		relation_file_is(reader->request->path, &relation);
	reader->first_block = reader->verify ? relation.segment * (BlockNumber) RELSEG_SIZE : 0;
	if (reader->request->has_map)
		return begin_blocks(reader, &st);
	begin_bytes(reader, &st);
	return read_bytes(reader, &st);
}

static bytea *
next_damaged(BackupReader *reader)
{
	bytea	   *part = make_part(reader, PART_DAMAGED, 0);

	put_u32(VARDATA(part) + 24, reader->damaged[--reader->ndamaged]);
	return part;
}

/*
 * Returns the next part, allocated in the current memory context; NULL if there
 * is none.  ERROR if a file cannot be read.
 */
bytea *
backup_reader_next(BackupReader *reader)
{
	bytea	   *part;

	CHECK_FOR_INTERRUPTS();
	if (reader->ndamaged > 0)
		return next_damaged(reader);
	if (reader->fd < 0 && reader->next == reader->count)
		return NULL;
	if (reader->fd < 0)
		part = begin_file(reader);
	else
		part = reader->blocks ? read_blocks(reader) : read_bytes(reader, NULL);
	if (reader->fd >= 0 && reader->position == reader->end)
	{
		set_flags(part, PART_END);

		/* Of one that is read in ranges, the first counts for all. */
		if (reader->request->start == 0)
			backup_progress_add_file();
		close_file(reader);
		if (reader->blocks)
			pfree(reader->blocks);
		reader->blocks = NULL;
	}
	return part;
}
