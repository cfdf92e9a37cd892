/*
 * verify_content.c
 *		What is in the files of a backup.
 *
 * Each file is read once: for its checksum, and for those few whose meaning can be
 * checked, the beginning of it is kept.
 */
#include "postgres_fe.h"

#include "catalog/pg_control.h"
#include "incremental_file.h"
#include "paths.h"
#include "port/pg_crc32c.h"
#include "progress.h"
#include "verify.h"
#include "workers.h"

/* No more is kept: the block numbers of an increment are the longest. */
#define HEAD_MAX		(INCREMENTAL_FIXED + RELSEG_SIZE * sizeof(BlockNumber))
#define LABEL_MAX		(64 * 1024)

typedef enum ContentKind
{
	CONTENT_ANY,
	CONTENT_CONTROL,
	CONTENT_LABEL,
	CONTENT_INCREMENTAL,
} ContentKind;

typedef struct Content
{
	Verify	   *verify;
	const ListedFile *file;
	ContentKind kind;
	bool		summing;
	pg_checksum_context sum;
	uint8		computed[PG_CHECKSUM_MAX_LENGTH];
	uint64		len;			/* bytes that came so far */
	char	   *head;
	size_t		head_len;
	size_t		head_wanted;
} Content;

void
verify_buffers_create(VerifyBuffers *buffers)
{
	buffers->data = pg_malloc(VERIFY_READ_SIZE);
	buffers->head = pg_malloc(HEAD_MAX + 1);
}

void
verify_buffers_free(VerifyBuffers *buffers)
{
	pg_free(buffers->data);
	pg_free(buffers->head);
}

/*
 * Reads as much as there is room for.  Less came only at the end; -1: it was
 * reported.
 */
ssize_t
verify_fill(content_read_fn read, void *arg, char *data)
{
	size_t		len = 0;

	while (len < VERIFY_READ_SIZE)
	{
		ssize_t		got = read(arg, data + len, VERIFY_READ_SIZE - len);

		if (got < 0)
			return -1;
		if (got == 0)
			break;
		len += got;
	}
	return (ssize_t) len;
}

static ContentKind
content_kind(const char *path)
{
	char		whole[MAXPGPATH];
	ForkNumber	fork;
	unsigned	segment;

	if (strcmp(path, CONTROL_NAME) == 0)
		return CONTENT_CONTROL;
	if (strcmp(path, LABEL_NAME) == 0)
		return CONTENT_LABEL;
	if (path_is_incremental(path) && path_from_incremental(whole, sizeof(whole), path) &&
		path_is_relation(whole, &fork, &segment))
		return CONTENT_INCREMENTAL;
	return CONTENT_ANY;
}

/*
 * Is that file to be read at all?
 */
bool
verify_wants(const Verify *verify, const ListedFile *file)
{
	const uint8 *expected;
	int			len;

	listed_checksum(file, &expected, &len);
	return (len > 0 && !verify->options.skip_checksums) || content_kind(file->path) != CONTENT_ANY;
}

static void
content_begin(Content *content)
{
	const uint8 *expected;
	int			len;
	pg_checksum_type type = listed_checksum(content->file, &expected, &len);

	content->kind = content_kind(content->file->path);
	content->summing = !content->verify->options.skip_checksums && len > 0;
	if (content->summing && pg_checksum_init(&content->sum, type) < 0)
		fatal("could not initialize checksum of file \"%s\"", content->file->path);
	switch (content->kind)
	{
		case CONTENT_ANY:
			content->head_wanted = 0;
			break;
		case CONTENT_CONTROL:
			content->head_wanted = PG_CONTROL_FILE_SIZE;
			break;
		case CONTENT_LABEL:
			content->head_wanted = LABEL_MAX;
			break;
		case CONTENT_INCREMENTAL:
			content->head_wanted = INCREMENTAL_FIXED;
			break;
	}
}

/* Keeps what is wanted of the beginning.  That may turn out to be more. */
static void
keep_head(Content *content, const char *data, size_t len)
{
	while (content->head_len < content->head_wanted && len > 0)
	{
		size_t		part = Min(len, content->head_wanted - content->head_len);
		IncrementalHeader header;

		memcpy(content->head + content->head_len, data, part);
		content->head_len += part;
		data += part;
		len -= part;
		if (content->kind == CONTENT_INCREMENTAL && content->head_len == INCREMENTAL_FIXED &&
			incremental_fixed_parse(content->head, &header) == NULL)
			content->head_wanted += header.nblocks * sizeof(BlockNumber);
	}
}

/* What is wrong with an increment, or NULL. */
static const char *
incremental_problem(Content *content)
{
	IncrementalHeader header;
	const char *problem;

	if (content->head_len < INCREMENTAL_FIXED)
		return "it is too short";
	problem = incremental_fixed_parse(content->head, &header);
	if (problem == NULL && content->head_len < content->head_wanted)
		problem = "it is too short";
	if (problem == NULL)
		problem = incremental_blocks_parse(content->head + INCREMENTAL_FIXED, &header);
	if (problem == NULL &&
		content->file->size != incremental_header_len(header.nblocks) + (uint64) header.nblocks * BLCKSZ)
		problem = "its size does not fit the number of its blocks";
	incremental_header_free(&header);
	return problem;
}

static void
check_incremental(Content *content)
{
	Verify	   *verify = content->verify;
	const char *path = content->file->path;
	const char *problem = incremental_problem(content);
	char		whole[MAXPGPATH];

	if (problem)
		verify_problem(verify, "incremental file \"%s\" is damaged: %s", path, problem);
	if (path_from_incremental(whole, sizeof(whole), path) &&
		verify_files_find(&verify->files, whole) != NULL)
		verify_problem(verify, "backup has both \"%s\" and \"%s\"", path, whole);
	pthread_mutex_lock(&verify->lock);
	verify->any_incremental = true;
	pthread_mutex_unlock(&verify->lock);
}

/*
 * The contents' length depends on the major version, and the CRC of what comes
 * before it is the end: so it is where it fits.
 */
static bool
control_crc_is_right(const char *control)
{
	pg_crc32c	crc;
	size_t		shortest = offsetof(ControlFileData, xlog_seg_size) + sizeof(uint32);

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, control, shortest);
	for (size_t len = shortest; len + sizeof(crc) <= PG_CONTROL_MAX_SAFE_SIZE; len += sizeof(crc))
	{
		pg_crc32c	here = crc;
		pg_crc32c	there;

		FIN_CRC32C(here);
		memcpy(&there, control + len, sizeof(there));
		if (EQ_CRC32C(here, there))
			return true;
		COMP_CRC32C(crc, control + len, sizeof(crc));
	}
	return false;
}

/* The members that are used are at the same place in every major from 15 to 18. */
static void
check_control(Content *content)
{
	Verify	   *verify = content->verify;
	ControlFileData control;

	if (content->head_len < PG_CONTROL_FILE_SIZE)
	{
		verify_problem(verify, "file \"%s\" is too short", content->file->path);
		return;
	}
	if (!control_crc_is_right(content->head))
	{
		verify_problem(verify, "file \"%s\" has an incorrect CRC", content->file->path);
		return;
	}
	memcpy(&control, content->head, sizeof(control));
	if (verify->info.has_system_identifier &&
		control.system_identifier != verify->info.system_identifier)
		verify_problem(verify, "manifest system identifier is " UINT64_FORMAT
					   ", but file \"%s\" has " UINT64_FORMAT, verify->info.system_identifier,
					   content->file->path, control.system_identifier);
	if (control.blcksz != BLCKSZ || control.relseg_size != RELSEG_SIZE ||
		control.xlog_blcksz != XLOG_BLCKSZ || !IsValidWalSegSize(control.xlog_seg_size))
	{
		verify_problem(verify, "file \"%s\" is of a server whose blocks or segments have other sizes",
					   content->file->path);
		return;
	}
	pthread_mutex_lock(&verify->lock);
	verify->control = (FoundControl)
	{
		true, control.system_identifier, control.xlog_seg_size
	};
	pthread_mutex_unlock(&verify->lock);
}

/* The rest of the line that begins with that, or NULL. */
static const char *
label_line(const char *label, const char *begin)
{
	size_t		len = strlen(begin);

	for (const char *line = label; line; line = strchr(line, '\n'))
	{
		line += *line == '\n';
		if (strncmp(line, begin, len) == 0)
			return line + len;
	}
	return NULL;
}

static void
check_label(Content *content)
{
	Verify	   *verify = content->verify;
	FoundLabel	found = {.found = true};
	uint32		high;
	uint32		low;
	const char *start;
	const char *tli;

	content->head[content->head_len] = '\0';
	start = label_line(content->head, "START WAL LOCATION: ");
	tli = label_line(content->head, "START TIMELINE: ");
	if (start == NULL || sscanf(start, "%8X/%8X", &high, &low) != 2 ||
		tli == NULL || sscanf(tli, "%9u", &found.tli) != 1)
	{
		verify_problem(verify, "file \"%s\" does not tell where the backup starts",
					   content->file->path);
		return;
	}
	found.start = (uint64) high << 32 | low;
	found.incremental = label_line(content->head, "INCREMENTAL FROM LSN: ") != NULL;
	pthread_mutex_lock(&verify->lock);
	verify->label = found;
	pthread_mutex_unlock(&verify->lock);
}

static void
check_sum(Content *content)
{
	const uint8 *expected;
	int			len;

	if (content->len != content->file->size)
	{
		verify_problem(content->verify, "file \"%s\" should contain " UINT64_FORMAT
					   " bytes, but read " UINT64_FORMAT, content->file->path,
					   content->file->size, content->len);
		return;
	}
	listed_checksum(content->file, &expected, &len);
	if (memcmp(content->computed, expected, len) != 0)
		verify_problem(content->verify, "checksum mismatch for file \"%s\"", content->file->path);
}

static void
content_end(Content *content)
{
	if (content->summing)
		check_sum(content);
	switch (content->kind)
	{
		case CONTENT_ANY:
			break;
		case CONTENT_CONTROL:
			check_control(content);
			break;
		case CONTENT_LABEL:
			check_label(content);
			break;
		case CONTENT_INCREMENTAL:
			check_incremental(content);
			break;
	}
}

/* Reads as far as is needed.  False: it was reported, or the worker is to stop. */
static bool
content_read(Content *content, char *data, content_read_fn read, void *arg)
{
	ssize_t		got = VERIFY_READ_SIZE;

	while ((content->summing || content->head_len < content->head_wanted) &&
		   got == VERIFY_READ_SIZE)
	{
		if (workers_stopping())
			return false;
		got = verify_fill(read, arg, data);
		if (got < 0)
			return false;
		content->len += got;
		keep_head(content, data, got);
		if (content->summing && pg_checksum_update(&content->sum, (uint8 *) data, got) < 0)
			fatal("could not update checksum of file \"%s\"", content->file->path);
		progress_add_bytes(got);
	}
	return true;
}

/*
 * Reads a file and checks it.  That its size is right is known.
 */
void
verify_file(Verify *verify, VerifyBuffers *buffers, ListedFile *file, content_read_fn read,
			void *arg)
{
	Content		content = {.verify = verify,.file = file,.head = buffers->head};
	bool		whole;

	content_begin(&content);
	whole = content_read(&content, buffers->data, read, arg);
	if (content.summing && pg_checksum_final(&content.sum, content.computed) < 0)
		fatal("could not finalize checksum of file \"%s\"", file->path);
	if (whole)
		content_end(&content);
	else
		verify_failed(verify);
	progress_add_file();
}

/* Where the backup starts, by its label and by its manifest. */
static void
compare_label(Verify *verify)
{
	for (int i = 0; i < verify->nranges; i++)
	{
		if (verify->ranges[i].tli == verify->label.tli &&
			verify->ranges[i].start == verify->label.start)
			return;
	}
	verify_problem(verify, "file \"%s\" says that the backup starts at %X/%X on timeline %u, "
				   "but the manifest has no WAL range that does", LABEL_NAME,
				   LSN_FORMAT_ARGS(verify->label.start), verify->label.tli);
}

/*
 * Compares what was found in different files.
 */
void
verify_found(Verify *verify)
{
	if (!verify_ignores(verify, CONTROL_NAME) &&
		verify_files_find(&verify->files, CONTROL_NAME) == NULL)
		verify_problem(verify, "\"%s\" is not in the manifest", CONTROL_NAME);
	if (verify_ignores(verify, LABEL_NAME))
		return;
	if (verify_files_find(&verify->files, LABEL_NAME) == NULL)
		verify_problem(verify, "\"%s\" is not in the manifest", LABEL_NAME);
	if (!verify->label.found)
		return;
	compare_label(verify);
	if (verify->any_incremental && !verify->label.incremental)
		verify_problem(verify, "backup has incremental files, but is a full one by its \"%s\"",
					   LABEL_NAME);
}
