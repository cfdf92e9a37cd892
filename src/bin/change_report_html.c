/*
 * change_report_html.c
 *		A report as one HTML page, which needs nothing else.
 *
 * What was made of tables is HTML; charts and heat maps are drawn by the page's
 * script from the data that is in the page as JSON.  Whatever comes from the server
 * is escaped for where it stands; should some of it ever pass for a script all the
 * same, no browser runs it: the page's policy permits the script with its nonce,
 * which nobody could know before, and nothing from elsewhere.
 */
#include "postgres_fe.h"

#include "change_report.h"
#include "report.h"

/* Made from the files of that name. */
static const char *const style =
#include "change_report_css.inc"
;
static const char *const script =
#include "change_report_js.inc"
;

/*
 * Escaping
 */

/* As text between tags, or in a quoted attribute.  Frees it. */
static void
append_html(PQExpBuffer page, char *text)
{
	for (const char *c = text; *c; c++)
	{
		if (strchr("<>&\"'", *c))
			appendPQExpBuffer(page, "&#%d;", *c);
		else
			appendPQExpBufferChar(page, *c);
	}
	pg_free(text);
}

/* As JSON in a script element, which ends at the first "</script". */
static void
append_json(PQExpBuffer page, const char *text)
{
	if (text == NULL)
	{
		appendPQExpBufferStr(page, "null");
		return;
	}
	appendPQExpBufferChar(page, '"');
	for (const char *c = text; *c; c++)
	{
		if (strchr("<>&\"\\'", *c) || (unsigned char) *c < ' ')
			appendPQExpBuffer(page, "\\u%04x", *c);
		else
			appendPQExpBufferChar(page, *c);
	}
	appendPQExpBufferChar(page, '"');
}

static void
append_json_number(PQExpBuffer page, const char *name, int64 value)
{
	if (value == NOT_KNOWN)
		appendPQExpBuffer(page, "\"%s\": null", name);
	else
		appendPQExpBuffer(page, "\"%s\": " INT64_FORMAT, name, value);
}

static void
append_json_lsn(PQExpBuffer page, const char *name, XLogRecPtr lsn)
{
	if (lsn == InvalidXLogRecPtr)
		appendPQExpBuffer(page, "\"%s\": null", name);
	else
		appendPQExpBuffer(page, "\"%s\": \"%X/%X\"", name, LSN_FORMAT_ARGS(lsn));
}

/*
 * Data
 */

static void
append_fork_data(PQExpBuffer page, const ReportFork *fork)
{
	appendPQExpBufferStr(page, "{\"database\": ");
	append_json(page, fork->database_name);
	appendPQExpBuffer(page, ", \"database_oid\": %u, \"relation\": ", fork->database);
	append_json(page, fork->relation);
	appendPQExpBuffer(page, ", \"tablespace\": %u, \"relfilenode\": %u, \"fork\": ",
					  fork->tablespace, fork->relfilenode);
	append_json(page, fork->fork);
	appendPQExpBufferStr(page, ", ");
	append_json_number(page, "forks", fork->forks);
	appendPQExpBufferStr(page, ", ");
	append_json_number(page, "changed", fork->changed);
	appendPQExpBufferStr(page, ", ");
	append_json_number(page, "increment", fork->increment);
	appendPQExpBufferStr(page, ", ");
	append_json_number(page, "blocks", fork->blocks);
	appendPQExpBufferStr(page, ", ");
	append_json_number(page, "limit", fork->limit);
	appendPQExpBufferStr(page, "}");
}

static void
append_forks_data(PQExpBuffer page, const char *name, const ReportFork *forks, int nforks)
{
	appendPQExpBuffer(page, ",\n\"%s\": [", name);
	for (int i = 0; i < nforks; i++)
	{
		appendPQExpBufferStr(page, i > 0 ? ",\n" : "\n");
		append_fork_data(page, &forks[i]);
	}
	appendPQExpBufferStr(page, "]");
}

static void
append_cell_data(PQExpBuffer page, const ReportCell *cell)
{
	if (cell->changed == 0 && cell->limit == NOT_KNOWN)
	{
		appendPQExpBufferStr(page, "null");
		return;
	}
	appendPQExpBufferStr(page, "{");
	append_json_number(page, "changed", cell->changed);
	appendPQExpBufferStr(page, ", ");
	append_json_number(page, "limit", cell->limit);
	appendPQExpBufferStr(page, ", ");
	append_json_number(page, "width", cell->region_blocks);
	appendPQExpBuffer(page, ", \"regions\": %s}", cell->regions ? cell->regions : "[]");
}

static void
append_steps_data(PQExpBuffer page, const ChangeReport *changes)
{
	appendPQExpBufferStr(page, ",\n\"steps\": [");
	for (int i = 0; i < changes->nsteps; i++)
	{
		const ReportStep *step = &changes->steps[i];

		appendPQExpBufferStr(page, i > 0 ? ",\n{" : "\n{");
		append_json_lsn(page, "start", step->start);
		appendPQExpBufferStr(page, ", ");
		append_json_lsn(page, "end", step->end);
		appendPQExpBuffer(page, ", \"start_time\": " INT64_FORMAT ", \"end_time\": " INT64_FORMAT
						  ", \"changed\": " INT64_FORMAT ", \"coarse\": %s, \"forks\": [",
						  step->start_time, step->end_time, step->changed,
						  step->coarse ? "true" : "false");
		for (int n = 0; n < changes->nforks; n++)
		{
			appendPQExpBufferStr(page, n > 0 ? ", " : "");
			append_cell_data(page, &step->cells[n]);
		}
		appendPQExpBufferStr(page, "]}");
	}
	appendPQExpBufferStr(page, "]");
}

static void
append_increments_data(PQExpBuffer page, const ChangeReport *changes)
{
	appendPQExpBufferStr(page, ",\n\"increments\": [");
	for (int i = 0; i < changes->nincrements; i++)
	{
		const ReportIncrement *increment = &changes->increments[i];

		appendPQExpBufferStr(page, i > 0 ? ",\n{" : "\n{");
		append_json_lsn(page, "since", increment->since);
		appendPQExpBuffer(page, ", \"time\": " INT64_FORMAT ", \"files\": " INT64_FORMAT
						  ", \"blocks\": " INT64_FORMAT "}",
						  increment->time, increment->files, increment->blocks);
	}
	appendPQExpBufferStr(page, "]");
}

static void
append_data(PQExpBuffer page, const ChangeReport *changes)
{
	appendPQExpBufferStr(page, "<script id=\"data\" type=\"application/json\">\n{\"server\": ");
	append_json(page, changes->server);
	appendPQExpBufferStr(page, ", ");
	append_json_lsn(page, "start", changes->start);
	appendPQExpBufferStr(page, ", ");
	append_json_lsn(page, "end", changes->end);
	appendPQExpBuffer(page, ", \"start_time\": " INT64_FORMAT ", \"end_time\": " INT64_FORMAT
					  ", \"block_size\": " INT64_FORMAT, changes->start_time,
					  changes->end_time, changes->block_size);
	append_forks_data(page, "databases", changes->databases, changes->ndatabases);
	append_forks_data(page, "forks", changes->forks, changes->nforks);
	append_steps_data(page, changes);
	append_increments_data(page, changes);
	appendPQExpBufferStr(page, "}\n</script>\n");
}

/*
 * Tables
 */

static void
append_number_cell(PQExpBuffer page, int64 value)
{
	if (value == NOT_KNOWN)
		appendPQExpBufferStr(page, "<td class=\"number\">&ndash;</td>");
	else
		appendPQExpBuffer(page, "<td class=\"number\">" INT64_FORMAT "</td>", value);
}

/* A name, whose characters do not turn around those after it. */
static void
append_name_cell(PQExpBuffer page, char *name)
{
	appendPQExpBufferStr(page, "<td><bdi>");
	append_html(page, name);
	appendPQExpBufferStr(page, "</bdi></td>");
}

static void
append_share_cell(PQExpBuffer page, const ChangeReport *changes, int64 changed)
{
	double		share = 100.0 * changed / Max(changes->total.changed, 1);

	if (changed == NOT_KNOWN)
	{
		append_number_cell(page, changed);
		return;
	}
	appendPQExpBuffer(page, "<td class=\"number\"><meter max=\"100\" value=\"%.1f\"></meter> %.1f %%</td>",
					  share, share);
}

static void
append_increments(PQExpBuffer page, const ChangeReport *changes)
{
	appendPQExpBufferStr(page, "<h2>What an increment would take</h2>\n"
						 "<p>Blocks of relation files, if a backup that started there is the prior one. "
						 "Other files come on top.</p>\n"
						 "<table id=\"increments\"><thead><tr><th>Since</th><th>Reached</th><th>Files</th>"
						 "<th>Blocks</th><th>Size</th></tr></thead><tbody>\n");
	for (int i = 0; i < changes->nincrements; i++)
	{
		const ReportIncrement *increment = &changes->increments[i];

		appendPQExpBuffer(page, "<tr><td>%X/%X</td>", LSN_FORMAT_ARGS(increment->since));
		append_name_cell(page, time_text(increment->time));
		append_number_cell(page, increment->files);
		append_number_cell(page, increment->blocks);
		appendPQExpBufferStr(page, "<td class=\"number\">");
		append_html(page, size_text(increment->blocks * changes->block_size));
		appendPQExpBufferStr(page, "</td></tr>\n");
	}
	appendPQExpBufferStr(page, "</tbody></table>\n");
}

static void
append_databases(PQExpBuffer page, const ChangeReport *changes)
{
	appendPQExpBufferStr(page, "<h2>Databases</h2>\n<table id=\"databases\"><thead><tr><th>Database</th>"
						 "<th>Forks</th><th>Changed</th><th>Share</th><th>Increment</th></tr></thead><tbody>\n");
	for (int i = 0; i < changes->ndatabases; i++)
	{
		const ReportFork *database = &changes->databases[i];

		appendPQExpBufferStr(page, "<tr>");
		append_name_cell(page, database_text(database));
		append_number_cell(page, database->forks);
		append_number_cell(page, database->changed);
		append_share_cell(page, changes, database->changed);
		append_number_cell(page, database->increment);
		appendPQExpBufferStr(page, "</tr>\n");
	}
	appendPQExpBufferStr(page, "</tbody></table>\n");
}

static void
append_forks(PQExpBuffer page, const ChangeReport *changes)
{
	appendPQExpBufferStr(page, "<h2>Relations</h2>\n<p>The map of a fork has its blocks from top to bottom, and time from left to "
						 "right. The darker, the more of a region changed; grey was cut off, or is new.</p>\n"
						 "<table id=\"forks\"><thead><tr><th>Database</th><th>Relation</th><th>Fork</th><th>Changed</th>"
						 "<th>Share</th><th>Increment</th><th>Blocks</th><th>Limit</th><th>Map</th></tr></thead><tbody>\n");
	for (int i = 0; i < changes->nforks; i++)
	{
		const ReportFork *fork = &changes->forks[i];

		appendPQExpBufferStr(page, "<tr>");
		append_name_cell(page, database_text(fork));
		append_name_cell(page, relation_text(fork));
		append_name_cell(page, pg_strdup(fork->fork ? fork->fork : ""));
		append_number_cell(page, fork->changed);
		append_share_cell(page, changes, fork->changed);
		append_number_cell(page, fork->increment);
		append_number_cell(page, fork->blocks);
		append_number_cell(page, fork->limit);
		appendPQExpBuffer(page, "<td><canvas data-fork=\"%d\"></canvas></td></tr>\n", i);
	}
	appendPQExpBufferStr(page, "</tbody></table>\n");
	if (changes->total.forks > changes->nforks)
		appendPQExpBuffer(page, "<p>And " INT64_FORMAT " more.</p>\n", changes->total.forks - changes->nforks);
}

/*
 * The page
 */

static void
make_nonce(char *nonce, size_t room)
{
	uint8		random[16];

	Assert(room > 2 * sizeof(random));
	if (!pg_strong_random(random, sizeof(random)))
		fatal("could not generate random bytes");
	for (size_t i = 0; i < sizeof(random); i++)
		sprintf(nonce + 2 * i, "%02x", random[i]);
}

static void
append_heading(PQExpBuffer page, const ChangeReport *changes)
{
	appendPQExpBufferStr(page, "<h1>What changed</h1>\n<p>Server <bdi>");
	append_html(page, pg_strdup(changes->server));
	appendPQExpBuffer(page, "</bdi>, from %X/%X (", LSN_FORMAT_ARGS(changes->start));
	append_html(page, time_text(changes->start_time));
	appendPQExpBuffer(page, ") to %X/%X (", LSN_FORMAT_ARGS(changes->end));
	append_html(page, time_text(changes->end_time));
	appendPQExpBuffer(page, "): %s<b id=\"changed\">" INT64_FORMAT "</b> blocks, <b>",
					  changes->total.unknown > 0 ? "at least " : "", changes->total.changed);
	append_html(page, size_text(changes->total.changed * changes->block_size));
	appendPQExpBuffer(page, "</b>, of <b>" INT64_FORMAT "</b> relation forks.</p>\n", changes->total.forks);
	appendPQExpBufferStr(page, "<h2>When</h2>\n<p>Changed blocks between redo points, oldest first.</p>\n"
						 "<div id=\"churn\"></div>\n");
}

/*
 * Appends the page of a report.
 */
void
change_report_page(PQExpBuffer page, const ChangeReport *changes)
{
	char		nonce[64];

	make_nonce(nonce, sizeof(nonce));
	appendPQExpBuffer(page, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
					  "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
					  "style-src 'nonce-%s'; script-src 'nonce-%s'; base-uri 'none'; form-action 'none'\">\n"
					  "<title>What changed</title>\n<style nonce=\"%s\">\n", nonce, nonce, nonce);
	appendPQExpBufferStr(page, style);
	appendPQExpBufferStr(page, "</style></head><body>\n");
	append_heading(page, changes);
	append_increments(page, changes);
	append_databases(page, changes);
	append_forks(page, changes);
	append_data(page, changes);
	appendPQExpBuffer(page, "<script nonce=\"%s\">\n", nonce);
	appendPQExpBufferStr(page, script);
	appendPQExpBufferStr(page, "</script>\n</body></html>\n");
}
