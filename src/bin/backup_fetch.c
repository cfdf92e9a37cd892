/*
 * backup_fetch.c
 *		The connections that fetch files.
 *
 * Work is cut into units of about the same kind of size: a range of a large file,
 * or a number of small ones, which the server sends in one go.  Each connection
 * takes the largest unit that is left, so that none of them idles before the end.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "backup.h"
#include "backup_archives.h"
#include "backup_read.h"
#include "backup_resume.h"
#include "backup_units.h"
#include "crc32c_combine.h"
#include "incremental_file.h"
#include "paths.h"
#include "portability/instr_time.h"
#include "progress.h"
#include "report.h"
#include "workers.h"
#include "write_behind.h"

/* How much is read at a time of what is in the backup. */
#define READ_BYTES		(4 * 1024 * 1024)

/* What the connections share. */
typedef struct Fetch
{
	const BackupServer *server;
	BackupOptions *options;
	Units	   *units;
	atomic_int	busy;			/* connections that have not come to the end */
	int			all_done[2];	/* a pipe; the last of them closes its second end */
} Fetch;

/* A file that is being written. */
typedef struct Writing
{
	BlockNumber *patch;			/* of a file that is patched: the numbers of
								 * the blocks that come; NULL: it is written
								 * anew */
	uint32		next_patch;		/* index of the next one */
	BackupFile *file;			/* NULL: none */
	FilePart   *part;			/* NULL: all of it */
	char		path[MAXPGPATH];	/* in the backup */
	ArchiveFile *archived;		/* NULL: it is a file of its own */
	int			fd;
	uint64		position;		/* in the file */
	uint64		behind;			/* up to here, it is being written behind */
	pg_checksum_context checksum;
} Writing;

static atomic_int damaged_pages;

/*
 * The rate limit
 */

/* Waits until that many bytes more may be received, of all connections together. */
static void
limit_rate(int64 bytes, int64 max_rate)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static int64 due = 0;		/* microseconds; when the next bytes may come */
	instr_time	now;
	int64		wait;

	if (max_rate == 0)
		return;
	INSTR_TIME_SET_CURRENT(now);
	pthread_mutex_lock(&lock);
	due = Max(due, (int64) INSTR_TIME_GET_MICROSEC(now)) + bytes * 1000000 / max_rate;
	wait = due - (int64) INSTR_TIME_GET_MICROSEC(now);
	pthread_mutex_unlock(&lock);
	for (; wait > 0 && !workers_stopping(); wait -= 100000)
		pg_usleep(Min(wait, 100000));
}

/*
 * What is on disk
 */

/*
 * Reads what is in the backup of a file, for its checksum and length.
 */
static void
read_back(BackupFile *file, const char *path, const BackupOptions *options)
{
	pg_checksum_context checksum;
	char	   *buffer = pg_malloc(READ_BYTES);
	int			fd = target_open(path, O_RDONLY);
	ssize_t		got;

	file->written = 0;
	if (pg_checksum_init(&checksum, options->checksum) < 0)
		fatal("could not initialize checksum of file \"%s\"", path);
	while ((got = read(fd, buffer, READ_BYTES)) > 0)
	{
		if (pg_checksum_update(&checksum, (const uint8 *) buffer, got) < 0)
			fatal("could not update checksum of file \"%s\"", path);
		file->written += got;
	}
	if (got < 0)
		fatal("could not read file \"%s\": %m", path);
	target_close(fd, path);
	file->checksum_len = pg_checksum_final(&checksum, file->checksum);
	pg_free(buffer);
}

/* The name of a file in the backup. */
static void
path_in_backup(char *to, const BackupFile *file)
{
	if (file->method == TAKE_WHOLE)
		strlcpy(to, file->path, MAXPGPATH);
	else if (!path_to_incremental(to, MAXPGPATH, file->path))
		fatal("path of file \"%s\" is too long", file->path);
}

static bool
checksum_is(const BackupFile *file, const char *hex)
{
	for (int i = 0; i < file->checksum_len; i++)
	{
		char		digits[3];

		snprintf(digits, sizeof(digits), "%02x", file->checksum[i]);
		if (strncmp(hex + 2 * i, digits, 2) != 0)
			return false;
	}
	return strlen(hex) == 2 * (size_t) file->checksum_len;
}

/* Is a file of an interrupted backup what it was?  If not, it is removed. */
static bool
is_as_expected(BackupFile *file, const BackupOptions *options)
{
	char		path[MAXPGPATH];
	char		full[MAXPGPATH];
	uint64		size = file->written;

	path_in_backup(path, file);
	target_path(full, path);
	if (access(full, F_OK) == 0)
	{
		read_back(file, path, options);
		if (file->written == size && checksum_is(file, file->expected))
			return true;
		if (unlink(full) != 0)
			fatal("could not remove file \"%s\": %m", full);
	}
	file->resume = RESUME_NOT;
	return false;
}

/*
 * Puts the ranges of a file together.  If it shrank meanwhile, and then grew again,
 * there is a hole.
 */
static void
join_parts(BackupFile *file, const BackupOptions *options)
{
	pg_crc32c	crc = file->parts[0].crc;
	bool		hole = false;

	file->written = file->parts[0].got;
	for (int i = 1; i < file->nparts; i++)
	{
		const FilePart *part = &file->parts[i];

		if (part->got == 0)
			continue;
		hole |= file->written < part->start;
		file->written = part->start + part->got;
		crc = crc32c_combine(crc, part->crc, part->got);
	}
	file->gone &= file->written == 0;
	if (options->checksum == CHECKSUM_TYPE_NONE || file->gone)
		return;
	if (hole || file->parts[0].got == 0)
		read_back(file, file->path, options);
	else
	{
		file->checksum_len = sizeof(crc);
		memcpy(file->checksum, &crc, sizeof(crc));
	}
}

/*
 * Writing
 */

static void
begin_checksum(Writing *writing, pg_checksum_type type)
{
	if (pg_checksum_init(&writing->checksum, type) < 0)
		fatal("could not initialize checksum of file \"%s\"", writing->path);
}

/* Blocks go to their places. */
static void
write_patch(Writing *writing, const char *bytes, size_t len)
{
	for (size_t at = 0; at < len; at += BLCKSZ)
		target_write(writing->fd, writing->path, bytes + at, BLCKSZ,
					 (uint64) writing->patch[writing->next_patch++] * BLCKSZ);
}

static void
write_bytes(Writing *writing, const char *bytes, size_t len)
{
	if (writing->archived)
		archives_write(writing->archived, bytes, len);
	else
		target_write(writing->fd, writing->path, bytes, len, writing->position);
	if (pg_checksum_update(&writing->checksum, (const uint8 *) bytes, len) < 0)
		fatal("could not update checksum of file \"%s\"", writing->path);
	writing->position += len;
	if (!writing->archived && writing->position - writing->behind >= WRITE_BEHIND_BYTES)
	{
		write_behind(writing->fd, writing->path, writing->behind, writing->position - writing->behind);
		writing->behind = writing->position;
	}
}

/* The header of a file of blocks, whose numbers are in network byte order. */
static void
write_header(Writing *writing, uint32 truncation, uint32 nblocks, const char *numbers)
{
	size_t		len = incremental_header_len(nblocks);
	BlockNumber *blocks = pg_malloc(Max(nblocks, 1) * sizeof(BlockNumber));
	char	   *header = pg_malloc(len);

	for (uint32 i = 0; i < nblocks; i++)
		blocks[i] = copy_u32(numbers + i * sizeof(BlockNumber));
	incremental_header_build(header, nblocks, truncation, blocks);
	write_bytes(writing, header, len);
	pg_free(header);
	pg_free(blocks);
}

/*
 * Begins a file, of which so many bytes will come; or, of one that is there, a part
 * or blocks.  Ranges of a file are written by several connections, of which any is
 * first.
 */
static void
begin_writing(Writing *writing, BackupFile *file, FilePart *part, uint64 size, const Fetch *fetch)
{
	memset(writing, 0, sizeof(*writing));
	writing->file = file;
	writing->part = part;
	path_in_backup(writing->path, file);
	report_debug("receiving file \"%s\"", writing->path);
	if (fetch->options->as_archives)
		writing->archived = archives_begin(writing->path, size, file->modified);
	else
		writing->fd = target_open(writing->path, O_WRONLY | (file->resume ? 0 : O_CREAT) |
								  (part || file->resume ? 0 : O_EXCL));
	writing->position = writing->behind = part ? part->start : 0;
	begin_checksum(writing, fetch->options->checksum);
}

static void
end_file(BackupFile *file)
{
	resume_note(file);
	progress_add_file();
}

/* What there may be of a file that is gone by now. */
static void
remove_gone(const BackupFile *file)
{
	char		full[MAXPGPATH];

	target_path(full, file->path);
	if (unlink(full) != 0 && errno != ENOENT)
		fatal("could not remove file \"%s\": %m", full);
}

/* One range of a file is there, or known to be gone; the last one to be completes it. */
static void
end_part(BackupFile *file, const BackupOptions *options)
{
	if (atomic_fetch_sub(&file->parts_left, 1) > 1)
		return;
	join_parts(file, options);
	if (file->gone)
		remove_gone(file);
	else
		end_file(file);
}

static void
end_writing(Writing *writing, const BackupOptions *options)
{
	BackupFile *file = writing->file;
	uint8		checksum[PG_CHECKSUM_MAX_LENGTH];
	int			len;

	if (writing->archived)
		archives_end(writing->archived);
	else
	{
		write_behind(writing->fd, writing->path, writing->behind, writing->position - writing->behind);
		target_close(writing->fd, writing->path);
	}
	writing->file = NULL;
	len = pg_checksum_final(&writing->checksum, checksum);
	if (len < 0)
		fatal("could not finalize checksum of file \"%s\"", writing->path);
	if (writing->part)
	{
		writing->part->got = writing->position - writing->part->start;
		memcpy(&writing->part->crc, checksum, Min(len, (int) sizeof(pg_crc32c)));
		end_part(file, options);
		return;
	}
	if (writing->patch)
	{
		pg_free(writing->patch);
		read_back(file, writing->path, options);
	}
	else
	{
		file->written = writing->position;
		file->checksum_len = len;
		memcpy(file->checksum, checksum, len);
	}
	end_file(file);
}

/* A file of which nothing has changed. */
static void
write_unchanged(BackupFile *file, const Fetch *fetch)
{
	Writing		writing;

	begin_writing(&writing, file, NULL, INCREMENTAL_FIXED, fetch);
	write_header(&writing, (uint32) (file->size / BLCKSZ), 0, NULL);
	end_writing(&writing, fetch->options);
}

/*
 * Receiving
 */

static void
note_damaged(BackupFile *file, const char *header)
{
	file->damaged = true;
	report_warning("checksum verification failed in file \"%s\", block %u", file->path,
				   copy_u32(header + 24));
	atomic_fetch_add(&damaged_pages, 1);
}

/* The file is gone; so is, of a range, what this connection would have got. */
static void
take_gone(BackupFile *file, const Unit *unit, const BackupOptions *options)
{
	file->gone = true;
	if (unit->part >= 0)
		end_part(file, options);
	else if (file->resume)
		remove_gone(file);
}

/* The numbers of the blocks that follow, and how many the file has. */
static void
begin_blocks(Writing *writing, uint32 length, uint32 nblocks, const char *numbers)
{
	if (writing->file->resume == RESUME_NOT)
	{
		write_header(writing, length, nblocks, numbers);
		return;
	}
	if (ftruncate(writing->fd, (off_t) length * BLCKSZ) != 0)
		fatal("could not truncate file \"%s\": %m", writing->path);
	writing->patch = pg_malloc(Max(nblocks, 1) * sizeof(BlockNumber));
	for (uint32 i = 0; i < nblocks; i++)
		writing->patch[i] = copy_u32(numbers + i * sizeof(BlockNumber));
}

/* One part, in the form that backup_read.h describes. */
static void
receive_part(const Fetch *fetch, const Unit *unit, Writing *writing, const char *bytes, int len)
{
	uint8		flags;
	uint32		number;
	BackupFile *file;

	if (bytes == NULL || len < PART_HEADER_LEN)
		fatal("unexpected data from the server: a part of a file is too short");
	flags = (uint8) bytes[0];
	number = copy_u32(bytes + 4);
	if (number >= (uint32) unit->nfiles)
		fatal("unexpected data from the server: a file that was not asked for");
	file = unit->files[number];
	if (flags & PART_DAMAGED)
	{
		note_damaged(file, bytes);
		return;
	}
	if (flags & PART_GONE)
	{
		take_gone(file, unit, fetch->options);
		return;
	}
	if (flags & PART_BEGIN)
	{
		uint64		size = copy_u64(bytes + 8);

		if (flags & PART_BLOCKS)
			size += incremental_header_len(copy_u32(bytes + 24));
		file->modified = (int64) copy_u64(bytes + 16);
		begin_writing(writing, file, unit->part < 0 ? NULL : &file->parts[unit->part], size, fetch);
	}
	if (writing->file != file)
		fatal("unexpected data from the server: parts of files are mixed up");
	if ((flags & PART_BLOCKS) && (flags & PART_BEGIN))
	{
		uint32		nblocks = copy_u32(bytes + 24);

		if ((uint64) len != PART_HEADER_LEN + (uint64) nblocks * sizeof(BlockNumber))
			fatal("unexpected data from the server: the list of a file's blocks has not its length");
		begin_blocks(writing, copy_u32(bytes + 28), nblocks, bytes + PART_HEADER_LEN);
	}
	else
	{
		if (writing->patch)
			write_patch(writing, bytes + PART_HEADER_LEN, len - PART_HEADER_LEN);
		else
			write_bytes(writing, bytes + PART_HEADER_LEN, len - PART_HEADER_LEN);
		progress_add_bytes(len - PART_HEADER_LEN);
		limit_rate(len, fetch->options->max_rate);
	}
	if (flags & PART_END)
		end_writing(writing, fetch->options);
}

static void
append_array(PQExpBuffer command, PGconn *conn, const Unit *unit)
{
	appendPQExpBufferStr(command, "ARRAY[");
	for (int i = 0; i < unit->nfiles; i++)
	{
		if (i > 0)
			appendPQExpBufferChar(command, ',');
		append_literal(command, conn, unit->files[i]->path);
	}
	appendPQExpBufferStr(command, "]::text[]");
}

static void
append_map(PQExpBuffer command, const BackupFile *file)
{
	static const char digits[] = "0123456789abcdef";

	appendPQExpBufferStr(command, "'\\x");
	for (uint32 i = 0; i < file->map_len; i++)
	{
		char		hex[] = {digits[file->map[i] >> 4], digits[file->map[i] & 15]};

		appendBinaryPQExpBuffer(command, hex, 2);
	}
	appendPQExpBufferChar(command, '\'');
}

/*
 * Blocks from that one on are not in the map, and wanted: those that were added since
 * the file was listed; and those that are not there of a file that was kept.
 */
static int64
known_blocks(const BackupFile *file)
{
	int64		size = file->resume ? Min(file->size, (int64) file->written) : file->size;

	return size / BLCKSZ;
}

static void
append_blocks(PQExpBuffer command, const Unit *unit)
{
	appendPQExpBufferStr(command, ", ARRAY[");
	for (int i = 0; i < unit->nfiles; i++)
	{
		if (i > 0)
			appendPQExpBufferChar(command, ',');
		append_map(command, unit->files[i]);
	}
	appendPQExpBufferStr(command, "]::bytea[], ARRAY[");
	for (int i = 0; i < unit->nfiles; i++)
		appendPQExpBuffer(command, "%s" INT64_FORMAT, i > 0 ? "," : "",
						  known_blocks(unit->files[i]));
	appendPQExpBufferStr(command, "]::bigint[]");
}

/* The command that has the server send a unit. */
static void
build_command(PQExpBuffer command, PGconn *conn, const Fetch *fetch, const Unit *unit)
{
	const BackupServer *server = fetch->server;
	bool		blocks = unit->method == TAKE_BLOCKS || unit->files[0]->resume == RESUME_PATCH;

	resetPQExpBuffer(command);
	appendPQExpBuffer(command, "COPY (SELECT %s.%s(", server->schema,
					  blocks ? "ptrack_backup_read_blocks" : "ptrack_backup_read");
	append_array(command, conn, unit);
	if (blocks)
		append_blocks(command, unit);
	else if (unit->part >= 0)
		appendPQExpBuffer(command, ", " UINT64_FORMAT ", " UINT64_FORMAT,
						  unit->files[0]->parts[unit->part].start,
						  unit->files[0]->parts[unit->part].length);
	else
		appendPQExpBuffer(command, ", 0, " INT64_FORMAT, PG_INT64_MAX);
	if (fetch->options->no_verify)
		appendPQExpBufferStr(command, ", NULL");
	else
		appendPQExpBuffer(command, ", '%X/%X'", LSN_FORMAT_ARGS(server->start));
	appendPQExpBufferStr(command, ")) TO STDOUT (FORMAT binary)");
	if (PQExpBufferBroken(command))
		fatal("out of memory");
}

static void
fetch_unit(PGconn *conn, const Fetch *fetch, const Unit *unit, PQExpBuffer command)
{
	CopyReader	copy;
	Writing		writing = {0};

	for (int i = 0; unit->method == TAKE_NOTHING && i < unit->nfiles; i++)
		write_unchanged(unit->files[i], fetch);
	if (unit->method == TAKE_NOTHING)
		return;
	if (unit->files[0]->resume && is_as_expected(unit->files[0], fetch->options) &&
		unit->files[0]->resume == RESUME_KEEP)
	{
		end_file(unit->files[0]);
		return;
	}
	build_command(command, conn, fetch, unit);
	copy_begin(&copy, conn, command->data);
	while (copy_row(&copy))
	{
		int			len;
		const char *bytes = copy_field(&copy, &len);

		receive_part(fetch, unit, &writing, bytes, len);
	}
	if (writing.file != NULL)
		fatal("unexpected data from the server: file \"%s\" does not end", writing.path);
}

static void
fetch_units(void *arg, int number)
{
	Fetch	   *fetch = arg;
	PGconn	   *conn = connection_open(&fetch->options->connection, false);
	PQExpBuffer command = createPQExpBuffer();
	LargeFile  *own = NULL;
	Unit		unit;

	server_require_same(fetch->server, conn);
	server_join(fetch->server, conn);
	while (units_next(fetch->units, &own, &unit))
	{
		if (workers_stopping())
			give_up();
		fetch_unit(conn, fetch, &unit, command);
	}
	destroyPQExpBuffer(command);
	PQfinish(conn);
	if (atomic_fetch_sub(&fetch->busy, 1) == 1)
		close(fetch->all_done[1]);
}

/* One thread more sees to it that the connection is there that holds the backup. */
static void
fetch_or_watch(void *arg, int number)
{
	Fetch	   *fetch = arg;

	if (number < fetch->options->jobs)
		fetch_units(fetch, number);
	while (number == fetch->options->jobs && atomic_load(&fetch->busy) > 0)
		connection_watch(fetch->server->conn, fetch->all_done[0]);
}

/*
 * All of it
 */

/* Of a file that did not change, the server sends nothing. */
static int
files_to_fetch(const BackupPlan *plan)
{
	int			count = 0;

	for (int i = 0; i < plan->nfiles; i++)
		count += plan->files[i].method != TAKE_NOTHING;
	return count;
}

/*
 * Fetches all files of the plan but pg_control.
 */
void
fetch_files(BackupPlan *plan, const BackupServer *server, BackupOptions *options)
{
	Fetch		fetch = {.server = server,.options = options};

	fetch.units = units_make(plan, options);
	server_progress(server, "'streaming database files', " UINT64_FORMAT ", %d", plan->bytes,
					files_to_fetch(plan));
	atomic_init(&fetch.busy, options->jobs);
	if (pipe(fetch.all_done) != 0)
		fatal("could not create a pipe: %m");
	if (!options->as_archives && !options->target.no_sync && !options->target.sync_file_systems)
		write_behind_begin();
	workers_run(options->jobs + 1, fetch_or_watch, &fetch);
	write_behind_end();
	close(fetch.all_done[0]);
	units_free(fetch.units);
}

/*
 * Fetches one file, on a connection that is there.
 */
void
fetch_file(PGconn *conn, const BackupServer *server, const BackupOptions *options,
		   BackupFile *file)
{
	BackupOptions copy = *options;
	Fetch		fetch = {.server = server,.options = &copy};
	Unit		unit = {.files = &file,.nfiles = 1,.part = -1,.method = TAKE_WHOLE};
	PQExpBuffer command = createPQExpBuffer();

	fetch_unit(conn, &fetch, &unit, command);
	destroyPQExpBuffer(command);
}

/*
 * How many pages had wrong checksums.
 */
int
fetch_damaged_pages(void)
{
	return atomic_load(&damaged_pages);
}
