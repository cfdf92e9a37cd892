/*
 * verify_wal.c
 *		The WAL that a backup needs.
 *
 * Segments may come in any order, and from an archive that is read once: so each
 * is checked for itself, by its name and size, and they are compared later with
 * what is needed and with pg_control.
 */
#include "postgres_fe.h"

#include <unistd.h>

#include "fe_utils/string_utils.h"
#include "verify.h"
#include "workers.h"

/* More missing segments of a range than these are only counted. */
#define MISSING_SHOWN	10

/* All magic numbers of WAL pages, which differ from one major to another. */
#define MAGIC_MASK		0xff00
#define MAGIC_COMMON	(XLOG_PAGE_MAGIC & MAGIC_MASK)

static XLogSegNo
last_segno(const WalRange *range, uint32 segment_size)
{
	XLogSegNo	segno;

	XLByteToPrevSeg(range->end, segno, segment_size);
	return segno;
}

/* The range that needs something of that segment, or NULL. */
static const WalRange *
range_of(const Verify *verify, TimeLineID tli, XLogSegNo segno, uint32 segment_size)
{
	for (int i = 0; i < verify->nranges; i++)
	{
		const WalRange *range = &verify->ranges[i];

		if (range->tli == tli && range->start < range->end &&
			segno >= range->start / segment_size && segno <= last_segno(range, segment_size))
			return range;
	}
	return NULL;
}

/*
 * Notes that a segment file is there, and where its data are.  Returns NULL if
 * they do not matter.
 */
FoundSegment *
verify_wal_note(Verify *verify, const char *name, uint64 size, const char *path, int64 offset)
{
	FoundSegment *segment;
	TimeLineID	tli;
	XLogSegNo	segno;

	if (IsValidWalSegSize(size))
	{
		XLogFromFileName(name, &tli, &segno, (int) size);
		if (range_of(verify, tli, segno, (uint32) size) == NULL)
			return NULL;
	}
	segment = pg_malloc0(sizeof(FoundSegment));
	strlcpy(segment->name, name, sizeof(segment->name));
	segment->size = size;
	segment->path = pg_strdup(path);
	segment->offset = offset;

	/* Of those no more can be said than that the size is wrong. */
	segment->read = !IsValidWalSegSize(size);
	pthread_mutex_lock(&verify->lock);
	verify->segments = pg_realloc(verify->segments,
								  (verify->nsegments + 1) * sizeof(FoundSegment *));
	verify->segments[verify->nsegments++] = segment;
	pthread_mutex_unlock(&verify->lock);
	return segment->read ? NULL : segment;
}

/*
 * Pages of a segment
 */

typedef struct SegmentPages
{
	FoundSegment *segment;
	const WalRange *range;
	TimeLineID	file_tli;
	TimeLineID	last_tli;		/* of the page before */
	XLogRecPtr	start;			/* of the segment */
} SegmentPages;

/* The first page of a segment: returns what is wrong with it, or NULL. */
static const char *
long_header_problem(SegmentPages *pages, const char *page)
{
	XLogLongPageHeaderData header;

	memcpy(&header, page, sizeof(header));
	if ((header.std.xlp_magic & MAGIC_MASK) != MAGIC_COMMON)
		return "a bad magic number";
	if ((header.std.xlp_info & XLP_LONG_HEADER) == 0)
		return "no long header";
	if (header.xlp_seg_size != pages->segment->size)
		return "another segment size";
	if (header.xlp_xlog_blcksz != XLOG_BLCKSZ)
		return "another block size";
	pages->segment->magic = header.std.xlp_magic;
	pages->segment->system_identifier = header.xlp_sysid;
	return NULL;
}

/*
 * A timeline begins inside of a page of the one before, whose header stays; only
 * pages that were begun later name it.
 */
static const char *
header_problem(SegmentPages *pages, const char *page, XLogRecPtr address)
{
	XLogPageHeaderData header;
	bool		first = address == pages->start;

	memcpy(&header, page, sizeof(header));
	if (header.xlp_magic != pages->segment->magic)
		return "a bad magic number";
	if ((header.xlp_info & ~XLP_ALL_FLAGS) != 0 ||
		((header.xlp_info & XLP_LONG_HEADER) != 0) != first)
		return "invalid flags";
	if (header.xlp_pageaddr != address)
		return "the address of another page";
	if (header.xlp_tli < pages->last_tli || header.xlp_tli > pages->file_tli ||
		(address >= pages->range->start && header.xlp_tli != pages->file_tli))
		return "an unexpected timeline";
	pages->last_tli = header.xlp_tli;
	return NULL;
}

/* Is something of that page needed?  A segment's first page always is. */
static bool
is_needed(const SegmentPages *pages, XLogRecPtr address)
{
	return address == pages->start || (address + XLOG_BLCKSZ > pages->range->start &&
									   address < pages->range->end);
}

static bool
check_pages(Verify *verify, SegmentPages *pages, const char *data, size_t len, XLogRecPtr address)
{
	for (size_t at = 0; at + XLOG_BLCKSZ <= len; at += XLOG_BLCKSZ, address += XLOG_BLCKSZ)
	{
		const char *problem = NULL;

		if (!is_needed(pages, address))
			continue;
		if (address == pages->start)
			problem = long_header_problem(pages, data + at);
		if (problem == NULL)
			problem = header_problem(pages, data + at, address);
		if (problem == NULL)
			continue;
		verify_problem(verify, "page at %X/%X in WAL segment \"%s\" has %s",
					   LSN_FORMAT_ARGS(address), pages->segment->name, problem);
		return false;
	}
	return true;
}

/*
 * Reads a segment and checks the headers of its pages.
 */
void
verify_wal_segment(Verify *verify, VerifyBuffers *buffers, FoundSegment *segment,
				   content_read_fn read, void *arg)
{
	SegmentPages pages = {.segment = segment,.last_tli = 1};
	XLogSegNo	segno;
	XLogRecPtr	address;
	XLogRecPtr	end;

	XLogFromFileName(segment->name, &pages.file_tli, &segno, (int) segment->size);
	XLogSegNoOffsetToRecPtr(segno, 0, (int) segment->size, pages.start);
	pages.range = range_of(verify, pages.file_tli, segno, (uint32) segment->size);
	segment->read = true;
	end = Min(pages.range->end, pages.start + segment->size);
	for (address = pages.start; address < end; address += VERIFY_READ_SIZE)
	{
		ssize_t		got;

		if (workers_stopping())
			return;
		got = verify_fill(read, arg, buffers->data);
		if (got < 0)
		{
			verify_failed(verify);
			return;
		}
		if (got < VERIFY_READ_SIZE && address + got < end)
		{
			verify_problem(verify, "WAL segment \"%s\" ends early", segment->name);
			return;
		}
		if (!check_pages(verify, &pages, buffers->data, got, address))
			return;
	}
	segment->good = true;
}

/*
 * Ranges
 */

static FoundSegment *
find_segment(const Verify *verify, TimeLineID tli, XLogSegNo segno, uint32 segment_size)
{
	char		name[MAXFNAMELEN];

	XLogFileName(name, tli, segno, (int) segment_size);
	for (int i = 0; i < verify->nsegments; i++)
	{
		if (strcmp(verify->segments[i]->name, name) == 0)
			return verify->segments[i];
	}
	return NULL;
}

/* As pg_control has it; if there is none, as the WAL itself does. */
static uint32
wal_segment_size(const Verify *verify)
{
	if (verify->control.found)
		return verify->control.segment_size;
	for (int i = 0; i < verify->nsegments; i++)
	{
		if (IsValidWalSegSize(verify->segments[i]->size))
			return (uint32) verify->segments[i]->size;
	}
	return DEFAULT_XLOG_SEG_SIZE;
}

/* False: it was reported what is wrong with it. */
static bool
compare_segment(Verify *verify, const FoundSegment *segment, uint32 segment_size)
{
	if (segment->size != segment_size)
	{
		verify_problem(verify, "WAL segment \"%s\" has size " UINT64_FORMAT " instead of %u",
					   segment->name, segment->size, segment_size);
		return false;
	}
	if (segment->good && verify->control.found &&
		segment->system_identifier != verify->control.system_identifier)
	{
		verify_problem(verify, "WAL segment \"%s\" is of a server with system identifier "
					   UINT64_FORMAT ", not " UINT64_FORMAT, segment->name,
					   segment->system_identifier, verify->control.system_identifier);
		return false;
	}
	return segment->good;
}

/* Is all of the range there?  It may be of any length: a manifest says so. */
static bool
check_range(Verify *verify, const WalRange *range, uint32 segment_size)
{
	XLogSegNo	last = last_segno(range, segment_size);
	int			missing = 0;
	bool		good = true;

	for (XLogSegNo segno = range->start / segment_size; segno <= last; segno++)
	{
		FoundSegment *segment = find_segment(verify, range->tli, segno, segment_size);
		char		name[MAXFNAMELEN];

		if (segment)
		{
			good &= compare_segment(verify, segment, segment_size);
			continue;
		}
		if (missing++ == MISSING_SHOWN)
		{
			verify_problem(verify, "more WAL segments are missing");
			break;
		}
		XLogFileName(name, range->tli, segno, (int) segment_size);
		verify_problem(verify, "WAL segment \"%s\" is missing", name);
	}
	return good && missing == 0;
}

/*
 * Records
 */

/* The program of that name beside this one; false if there is none. */
static bool
find_beside(char *path, const char *name)
{
	char		own[MAXPGPATH];

	if (find_my_exec(program_invocation_name, own) != 0)
		return false;
	get_parent_directory(own);
	join_path_components(path, own, name);
	return access(path, X_OK) == 0;
}

/* Runs a command.  Returns what it says when it fails, else NULL. */
static char *
failure_of(const char *command)
{
	PQExpBufferData said;
	char		line[1024];
	FILE	   *output = popen(command, "r");
	int			status;

	if (output == NULL)
		return psprintf("could not execute command \"%s\": %m", command);
	initPQExpBuffer(&said);
	while (fgets(line, sizeof(line), output) != NULL)
		appendPQExpBufferStr(&said, line);
	status = pclose(output);
	if (status != 0 && said.len == 0)
	{
		char	   *reason = wait_result_to_str(status);

		appendPQExpBufferStr(&said, reason);
		pfree(reason);
	}
	while (said.len > 0 && said.data[said.len - 1] == '\n')
		said.data[--said.len] = '\0';
	if (status != 0)
		return said.data;
	termPQExpBuffer(&said);
	return NULL;
}

static void
check_records(Verify *verify, const WalRange *range, const char *program, const char *directory)
{
	PQExpBufferData command;
	char	   *failure;

	initPQExpBuffer(&command);
	appendShellString(&command, program);
	appendPQExpBufferStr(&command, " --quiet --path=");
	appendShellString(&command, directory);
	appendPQExpBuffer(&command, " --timeline=%u --start=%X/%X --end=%X/%X 2>&1", range->tli,
					  LSN_FORMAT_ARGS(range->start), LSN_FORMAT_ARGS(range->end));
	failure = failure_of(command.data);
	termPQExpBuffer(&command);
	if (failure == NULL)
		return;
	report_error("could not read WAL records from %X/%X to %X/%X on timeline %u",
				 LSN_FORMAT_ARGS(range->start), LSN_FORMAT_ARGS(range->end), range->tli);
	report_detail("%s", failure);
	verify_failed(verify);
	free(failure);
}

/* Why records cannot be read, or NULL. */
static const char *
no_records_because(const Verify *verify, const char *directory, char *program)
{
	if (directory == NULL)
		return "The WAL is in an archive.";
	for (int i = 0; i < verify->nsegments; i++)
	{
		if (verify->segments[i]->good && verify->segments[i]->magic != XLOG_PAGE_MAGIC)
			return "The WAL is of another major version of PostgreSQL.";
	}
	if (!find_beside(program, "pg_waldump"))
		return "There is no \"pg_waldump\" in the directory of this program.";
	return NULL;
}

/*
 * Is all WAL there that the manifest says is needed?  The directory is NULL if it
 * is in archives.
 */
void
verify_wal_ranges(Verify *verify, const char *directory)
{
	uint32		segment_size = wal_segment_size(verify);
	char		program[MAXPGPATH];
	const char *why_not = no_records_because(verify, directory, program);

	for (int i = 0; i < verify->nranges; i++)
	{
		const WalRange *range = &verify->ranges[i];

		if (range->start < range->end && check_range(verify, range, segment_size) && !why_not)
			check_records(verify, range, program, directory);
	}
	if (why_not && !verify->options.quiet)
	{
		report_info("WAL records were not checked, only the headers of WAL pages");
		report(PG_LOG_INFO, PG_LOG_DETAIL, "%s", why_not);
	}
}
