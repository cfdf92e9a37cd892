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
#include "crc32c_combine.h"
#include "incremental_file.h"
#include "paths.h"
#include "portability/instr_time.h"
#include "progress.h"
#include "report.h"
#include "workers.h"

/* Files of more than two of these are taken in ranges of that size. */
#define RANGE_BYTES		(128 * 1024 * 1024)

/* How much goes into a unit of several files, at most. */
#define UNIT_BYTES		(4 * 1024 * 1024)
#define UNIT_FILES		256
#define UNIT_MAP_BYTES	(256 * 1024)

/* How much is written before the kernel is told to write it, too. */
#define FLUSH_BYTES		(8 * 1024 * 1024)

typedef struct Unit
{
	BackupFile **files;			/* in the array of all units */
	int			nfiles;
	int			part;			/* of the only file; -1: all of each file */
	TakeMethod	method;
	uint64		cost;			/* bytes, about */
} Unit;

/* What the connections share. */
typedef struct Fetch
{
	const BackupServer *server;
	BackupOptions *options;
	Unit	   *units;			/* by falling cost */
	int			nunits;
	int			room;
	atomic_int	busy;			/* connections that have not come to the end */
	BackupFile **order;			/* files of units */
	atomic_int	next;
} Fetch;

/* A file that is being written. */
typedef struct Writing
{
	BlockNumber *patch;			/* of a file that is patched: the numbers of
								 * the */
	uint32		next_patch;		/* blocks that come; NULL: it is written anew */
	BackupFile *file;			/* NULL: none */
	FilePart   *part;			/* NULL: all of it */
	char		path[MAXPGPATH];	/* in the backup */
	ArchiveFile *archived;		/* NULL: it is a file of its own */
	int			fd;
	uint64		position;		/* in the file */
	uint64		flushed;
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
	char	   *buffer = pg_malloc(UNIT_BYTES);
	int			fd = target_open(path, O_RDONLY);
	ssize_t		got;

	file->written = 0;
	if (pg_checksum_init(&checksum, options->checksum) < 0)
		fatal("could not initialize checksum of file \"%s\"", path);
	while ((got = read(fd, buffer, UNIT_BYTES)) > 0)
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
	if (!writing->archived && writing->position - writing->flushed >= FLUSH_BYTES)
	{
		target_flush_early(writing->fd, writing->flushed, writing->position - writing->flushed);
		writing->flushed = writing->position;
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
	if (fetch->options->as_archives)
		writing->archived = archives_begin(writing->path, size, file->modified);
	else
		writing->fd = target_open(writing->path, O_WRONLY | (file->resume ? 0 : O_CREAT) |
								  (part || file->resume ? 0 : O_EXCL));
	writing->position = writing->flushed = part ? part->start : 0;
	begin_checksum(writing, fetch->options->checksum);
}

static void
end_file(BackupFile *file)
{
	resume_note(file);
	progress_add_file();
}

/* One range of a file is there, or known to be gone; the last one to be completes it. */
static void
end_part(BackupFile *file, const BackupOptions *options)
{
	if (atomic_fetch_sub(&file->parts_left, 1) > 1)
		return;
	join_parts(file, options);
	if (!file->gone)
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
		target_flush_early(writing->fd, writing->flushed, writing->position - writing->flushed);
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
note_damaged(const BackupFile *file, const char *header)
{
	report_warning("checksum verification failed in file \"%s\", block %u", file->path,
				   copy_u32(header + 24));
	atomic_fetch_add(&damaged_pages, 1);
}

/* The file is gone; so is, of a range, what this connection would have got. */
static void
take_gone(BackupFile *file, const Unit *unit, const BackupOptions *options)
{
	char		full[MAXPGPATH];

	file->gone = true;
	if (unit->part >= 0)
		end_part(file, options);
	else if (file->resume)
	{
		target_path(full, file->path);
		if (unlink(full) != 0)
			fatal("could not remove file \"%s\": %m", full);
	}
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

/* Blocks from that one on are not in the map, and wanted. */
static int64
known_blocks(const BackupFile *file)
{
	return file->resume ? (int64) (file->written / BLCKSZ) : file->size / BLCKSZ;
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
	int			next;

	server_join(fetch->server, conn);
	while ((next = atomic_fetch_add(&fetch->next, 1)) < fetch->nunits)
	{
		if (workers_stopping())
			give_up();
		fetch_unit(conn, fetch, &fetch->units[next], command);
	}
	destroyPQExpBuffer(command);
	PQfinish(conn);
	atomic_fetch_sub(&fetch->busy, 1);
}

/* One thread more sees to it that the connection is there that holds the backup. */
static void
fetch_or_watch(void *arg, int number)
{
	Fetch	   *fetch = arg;

	if (number < fetch->options->jobs)
		fetch_units(fetch, number);
	while (number == fetch->options->jobs && atomic_load(&fetch->busy) > 0)
		connection_watch(fetch->server->conn);
}

/*
 * Units
 */

static Unit *
add_unit(Fetch *fetch, BackupFile **files, int nfiles, TakeMethod method, uint64 cost)
{
	Unit	   *unit;

	if (fetch->nunits == fetch->room)
	{
		fetch->room = Max(256, fetch->room * 2);
		fetch->units = pg_realloc(fetch->units, fetch->room * sizeof(Unit));
	}
	unit = &fetch->units[fetch->nunits++];
	*unit = (Unit)
	{
		.files = files,.nfiles = nfiles,.part = -1,.method = method,.cost = cost
	};
	return unit;
}

/* Cuts a large file into ranges. */
static void
add_ranges(Fetch *fetch, BackupFile **file)
{
	uint64		size = (uint64) (*file)->size;

	(*file)->nparts = (int) ((size + RANGE_BYTES - 1) / RANGE_BYTES);
	(*file)->parts = pg_malloc0((*file)->nparts * sizeof(FilePart));
	atomic_init(&(*file)->parts_left, (*file)->nparts);
	for (int i = 0; i < (*file)->nparts; i++)
	{
		FilePart   *part = &(*file)->parts[i];

		part->start = (uint64) i * RANGE_BYTES;
		part->length = Min(size - part->start, RANGE_BYTES);
		add_unit(fetch, file, 1, TAKE_WHOLE, part->length)->part = i;
	}
}

static uint64
cost_of(const BackupFile *file)
{
	switch (file->method)
	{
		case TAKE_WHOLE:
			return file->size;
		case TAKE_BLOCKS:
			return (uint64) file->changed * BLCKSZ;
		case TAKE_NOTHING:
			break;
	}
	return 0;
}

/* Puts files of one method together, as many as go into a unit each. */
static void
add_batches(Fetch *fetch, BackupFile **files, int count)
{
	int			first = 0;
	uint64		cost = 0;
	uint64		maps = 0;

	for (int i = 0; i < count; i++)
	{
		cost += cost_of(files[i]);
		maps += files[i]->map_len;
		if (i + 1 < count && cost + cost_of(files[i + 1]) <= UNIT_BYTES &&
			maps + files[i + 1]->map_len <= UNIT_MAP_BYTES && i + 1 - first < UNIT_FILES)
			continue;
		add_unit(fetch, files + first, i + 1 - first, files[first]->method, cost);
		first = i + 1;
		cost = maps = 0;
	}
}

/* SHA checksums are of a file from its beginning to its end, and so are archives. */
static bool
can_be_split(const BackupFile *file, const BackupOptions *options)
{
	return file->size > 2 * (int64) RANGE_BYTES && !options->as_archives &&
		(options->checksum == CHECKSUM_TYPE_CRC32C || options->checksum == CHECKSUM_TYPE_NONE);
}

static int
unit_cmp(const void *a, const void *b)
{
	uint64		x = ((const Unit *) a)->cost;
	uint64		y = ((const Unit *) b)->cost;

	return x > y ? -1 : x < y;
}

/* A file that is a unit by itself, or several. */
static void
add_alone(Fetch *fetch, BackupFile *file)
{
	/* It stands where nothing else is put. */
	BackupFile **own = pg_malloc(sizeof(BackupFile *));

	*own = file;
	if (file->resume)
		add_unit(fetch, own, 1, file->method, (uint64) file->changed_since * BLCKSZ + file->size / 4);
	else
		add_ranges(fetch, own);
}

static void
make_units(Fetch *fetch, BackupPlan *plan)
{
	BackupFile **next = fetch->order = pg_malloc(Max(plan->nfiles, 1) * sizeof(BackupFile *));

	for (TakeMethod method = TAKE_WHOLE; method <= TAKE_NOTHING; method++)
	{
		BackupFile **first = next;

		for (int i = 0; i < plan->nfiles; i++)
		{
			BackupFile *file = &plan->files[i];

			/* The last of all. */
			if (file->method != method || strcmp(file->path, CONTROL_NAME) == 0)
				continue;
			if (file->resume || (method == TAKE_WHOLE && can_be_split(file, fetch->options)))
				add_alone(fetch, file);
			else
				*next++ = file;
		}
		add_batches(fetch, first, (int) (next - first));
	}
	if (fetch->nunits > 0)
		qsort(fetch->units, fetch->nunits, sizeof(Unit), unit_cmp);
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

	make_units(&fetch, plan);
	server_progress(server, "'streaming database files', " UINT64_FORMAT ", %d", plan->bytes,
					files_to_fetch(plan));
	atomic_init(&fetch.busy, options->jobs);
	workers_run(options->jobs + 1, fetch_or_watch, &fetch);
	pg_free(fetch.units);
	pg_free(fetch.order);
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
