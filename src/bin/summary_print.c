/*
 * summary_print.c
 *		Ways to print a change summary.
 *
 * What is printed is never kept, so that summaries may be of any length.  JSON is
 * an object a line for each summary; it is well-formed even when the summary turns
 * out to be damaged, which is its last member.
 */
#include "postgres_fe.h"

#include <time.h>

#include "common/relpath.h"
#include "report.h"
#include "summary_print.h"

/* Entries that stand for more than a relation fork, see change_item.h. */
static bool
is_everything(const ChangeKey *key)
{
	return key->where == CHANGE_EVERYTHING_WHERE && change_relation(key) == 0;
}

static bool
is_reset(const ChangeKey *key)
{
	return change_relation(key) == 0;
}

static void
format_lineage(char *hex, const Lineage *lineage)
{
	for (int i = 0; i < LINEAGE_LEN; i++)
		sprintf(hex + 2 * i, "%02x", lineage->id[i]);
}

static bool
lineage_is_known(const Lineage *lineage)
{
	for (int i = 0; i < LINEAGE_LEN; i++)
	{
		if (lineage->id[i] != 0)
			return true;
	}
	return false;
}

/*
 * For people
 */

static void
text_time(const char *what, int64 seconds)
{
	time_t		when = (time_t) seconds;
	struct tm	broken_down;
	char text[	64];

	if (seconds == 0)
		printf("%s unknown", what);
	else if (gmtime_r(&when, &broken_down) == NULL ||
			 strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S GMT", &broken_down) == 0)
		printf("%s " INT64_FORMAT " s after 1970", what, seconds);
	else
		printf("%s %s", what, text);
}

static void
text_lineage(const Lineage *lineage)
{
	char		hex[2 * LINEAGE_LEN + 1];

	format_lineage(hex, lineage);
	printf("%s", lineage_is_known(lineage) ? hex : "unknown");
}

static void
text_redo_point(const RedoPoint *point)
{
	printf("%X/%X on timeline %u\n    lineage: ", LSN_FORMAT_ARGS(point->lsn), point->tli);
	text_lineage(&point->lineage);
	text_time("\n    checkpoint:", point->time_min);
	if (point->time_max != point->time_min)
		text_time(" to", point->time_max);
	printf("\n    data checksums: %s\n", point->flags & POINT_CHECKSUMS ? "on" : "off");
	if (point->flags & POINT_MINIMAL)
		printf("    wal_level: minimal\n");
}

static void
text_begin(SummaryPrinter *printer, const SummaryHeader *header)
{
	printf("%s:\n  system identifier: " UINT64_FORMAT "\n", printer->file,
		   header->system_identifier);
	printf("  block size: %u, blocks in a segment: %u\n", header->block_size,
		   header->segment_blocks);
	if (header->flags & SUMMARY_COARSE)
		printf("  coarse: more counts as changed than did change\n");
	if (header->flags & SUMMARY_BEYOND_WAL)
		printf("  beyond WAL: WAL may not tell all of it\n");
	printf("  start: %X/%X\n    lineage: ", LSN_FORMAT_ARGS(header->start));
	text_lineage(&header->start_lineage);
	text_time("\n    reached:", header->start_time);
	printf("\n  end: ");
	text_redo_point(&header->end);
	text_time("    reached:", header->end_time);
	printf("\n");
}

static void
text_point(SummaryPrinter *printer, const RedoPoint *point)
{
	printf("  redo point: ");
	text_redo_point(point);
}

static void
text_entry(SummaryPrinter *printer, const ChangeItem *entry)
{
	const ChangeKey *key = &entry->key;

	if (is_everything(key))
	{
		printf("  everything");
		return;
	}
	printf("  tablespace %u, database %u", change_tablespace(key), change_database(key));
	if (is_reset(key))
	{
		printf(": all relations are new");
		return;
	}
	printf(", relation %u, fork %s:", change_relation(key), forkNames[change_fork(key)]);
	if (entry->limit != InvalidBlockNumber)
		printf(" limit block %u", entry->limit);
}

static void
text_run(SummaryPrinter *printer, BlockNumber first, BlockNumber last)
{
	printf("%s%u", printer->runs > 0 ? ", " :
		   printer->entry.limit != InvalidBlockNumber ? ", blocks " : " blocks ", first);
	if (last > first)
		printf("-%u", last);
}

static void
text_end_entry(SummaryPrinter *printer)
{
	printf("\n");
}

static void
text_end(SummaryPrinter *printer, const char *problem)
{
	if (problem == NULL)
		printf("  in all: " UINT64_FORMAT " relation forks, " UINT64_FORMAT " blocks\n",
			   printer->entries, printer->blocks);
}

/*
 * JSON
 */

static void
json_lineage(const char *name, const Lineage *lineage)
{
	char		hex[2 * LINEAGE_LEN + 1];

	format_lineage(hex, lineage);
	if (lineage_is_known(lineage))
		printf("\"%s\": \"%s\"", name, hex);
	else
		printf("\"%s\": null", name);
}

static void
json_time(const char *name, int64 seconds)
{
	if (seconds == 0)
		printf(", \"%s\": null", name);
	else
		printf(", \"%s\": " INT64_FORMAT, name, seconds);
}

static const char *
json_boolean(bool value)
{
	return value ? "true" : "false";
}

static void
json_redo_point(const RedoPoint *point)
{
	printf("{\"lsn\": \"%X/%X\", \"timeline\": %u, ", LSN_FORMAT_ARGS(point->lsn), point->tli);
	json_lineage("lineage", &point->lineage);
	json_time("checkpoint_time_min", point->time_min);
	json_time("checkpoint_time_max", point->time_max);
	printf(", \"data_checksums\": %s, \"wal_level_minimal\": %s}",
		   json_boolean(point->flags & POINT_CHECKSUMS), json_boolean(point->flags & POINT_MINIMAL));
}

static void
json_begin(SummaryPrinter *printer, const SummaryHeader *header)
{
	char	   *name = json_quoted(printer->file);

	printf("{\"file\": %s, \"system_identifier\": " UINT64_FORMAT ", \"start_lsn\": \"%X/%X\", ",
		   name, header->system_identifier, LSN_FORMAT_ARGS(header->start));
	free(name);
	json_lineage("start_lineage", &header->start_lineage);
	json_time("start_time", header->start_time);
	json_time("end_time", header->end_time);
	printf(", \"end\": ");
	json_redo_point(&header->end);
	printf(", \"block_size\": %u, \"segment_blocks\": %u, \"coarse\": %s, \"beyond_wal\": %s, "
		   "\"redo_points\": [", header->block_size, header->segment_blocks,
		   json_boolean(header->flags & SUMMARY_COARSE),
		   json_boolean(header->flags & SUMMARY_BEYOND_WAL));
}

static void
json_point(SummaryPrinter *printer, const RedoPoint *point)
{
	printf("%s", printer->points > 1 ? ", " : "");
	json_redo_point(point);
}

static void
json_entry(SummaryPrinter *printer, const ChangeItem *entry)
{
	const ChangeKey *key = &entry->key;

	printf("%s{\"tablespace\": %u, \"database\": %u, \"relation\": %u, \"fork\": \"%s\", \"limit\": ",
		   printer->entries > 1 ? ", " : "], \"changes\": [", change_tablespace(key),
		   change_database(key), change_relation(key), forkNames[change_fork(key)]);
	if (entry->limit == InvalidBlockNumber)
		printf("null, \"blocks\": [");
	else
		printf("%u, \"blocks\": [", entry->limit);
}

static void
json_run(SummaryPrinter *printer, BlockNumber first, BlockNumber last)
{
	printf("%s[%u, %u]", printer->runs > 0 ? ", " : "", first, last);
}

static void
json_end_entry(SummaryPrinter *printer)
{
	printf("]}");
}

static void
json_end(SummaryPrinter *printer, const char *problem)
{
	char	   *quoted = problem ? json_quoted(problem) : NULL;

	if (printer->quiet || printer->entries == 0)
		printf("], \"changes\": [");
	printf("], \"forks_changed\": " UINT64_FORMAT ", \"blocks_changed\": " UINT64_FORMAT
		   ", \"problem\": %s}\n", printer->entries, printer->blocks, quoted ? quoted : "null");
	free(quoted);
}

/*
 * As pg_walsummary does
 */

static void
core_fork(const ChangeKey *key)
{
	printf("TS %u, DB %u, REL %u, FORK %s: ", change_tablespace(key), change_database(key),
		   change_relation(key), forkNames[change_fork(key)]);
}

static void
core_entry(SummaryPrinter *printer, const ChangeItem *entry)
{
	if (entry->limit == InvalidBlockNumber)
		return;
	core_fork(&entry->key);
	printf("limit %u\n", entry->limit);
}

static void
core_run(SummaryPrinter *printer, BlockNumber first, BlockNumber last)
{
	core_fork(&printer->entry.key);
	if (first == last)
		printf("block %u\n", first);
	else
		printf("blocks %u..%u\n", first, last);
}

/*
 * All of them
 */

static const SummaryForm forms[] = {
	{"text", text_begin, text_point, text_entry, text_run, text_end_entry, text_end},
	{"json", json_begin, json_point, json_entry, json_run, json_end_entry, json_end},
	{"core", NULL, NULL, core_entry, core_run, NULL, NULL},
};

/*
 * The form of that name, or NULL.
 */
const SummaryForm *
summary_form(const char *name)
{
	for (size_t i = 0; i < lengthof(forms); i++)
	{
		if (strcmp(forms[i].name, name) == 0)
			return &forms[i];
	}
	return NULL;
}

/*
 * Begins a summary.
 */
void
summary_print_begin(SummaryPrinter *printer, const char *file, const SummaryHeader *header)
{
	printer->file = file;
	printer->begun = true;
	printer->points = printer->entries = printer->blocks = 0;
	printer->any_run = false;
	if (printer->form->begin)
		printer->form->begin(printer, header);
}

/*
 * A redo point inside of its range.
 */
void
summary_print_point(SummaryPrinter *printer, const RedoPoint *point)
{
	printer->points++;
	if (printer->form->point)
		printer->form->point(printer, point);
}

static void
flush_run(SummaryPrinter *printer)
{
	if (printer->any_run && !printer->quiet)
		printer->form->run(printer, printer->first, printer->last);
	printer->runs += printer->any_run;
	printer->any_run = false;
}

static void
end_entry(SummaryPrinter *printer)
{
	flush_run(printer);
	if (printer->entries > 0 && !printer->quiet && printer->form->end_entry)
		printer->form->end_entry(printer);
}

/* A changed block.  They come in ascending order. */
static void
add_block(SummaryPrinter *printer, BlockNumber block)
{
	printer->blocks++;
	if (printer->any_run && !printer->individual && block == printer->last + 1)
	{
		printer->last = block;
		return;
	}
	flush_run(printer);
	printer->any_run = true;
	printer->first = printer->last = block;
}

/*
 * What changed.
 */
void
summary_print_item(SummaryPrinter *printer, const ChangeItem *item)
{
	if (change_is_entry(&item->key))
	{
		end_entry(printer);
		printer->entries++;
		printer->entry = *item;
		printer->runs = 0;
		if (!printer->quiet)
			printer->form->entry(printer, item);
		return;
	}
	for (BlockNumber i = 0; i < PIECE_BLOCKS; i++)
	{
		if (item->bits[i / 32] >> (i % 32) & 1)
			add_block(printer, change_first_block(&item->key) + i);
	}
}

/*
 * Ends it.  A problem is that the summary is damaged.
 */
void
summary_print_end(SummaryPrinter *printer, const char *problem)
{
	if (!printer->begun)
		return;
	end_entry(printer);
	if (printer->form->end)
		printer->form->end(printer, problem);
	printer->begun = false;
}
