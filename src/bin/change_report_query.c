/*
 * change_report_query.c
 *		Asking the server for what a report shows.
 *
 * The server counts: what comes from it is as long as what is shown, however many
 * relations and blocks changed.
 */
#include "postgres_fe.h"

#include "change_report.h"
#include "report.h"

/* At most so many ranges, and regions of a fork, that are told apart on a page. */
#define MAX_STEPS			48
#define REGIONS				64

/* Redo points for which the size of an increment is predicted, besides those asked for. */
#define MAX_INCREMENTS		8

typedef struct ReportPoint
{
	XLogRecPtr	lsn;
	int64		time;
} ReportPoint;

typedef struct Asking
{
	PGconn	   *conn;
	char	   *schema;
	ChangeReport *changes;
	ReportPoint *points;		/* ascending */
	int			npoints;
} Asking;

/* Runs a query, which is freed. */
static PGresult *
ask(const Asking *asking, char *query)
{
	PGresult   *result = connection_query(asking->conn, query);

	pg_free(query);
	return result;
}

/*
 * Fields
 */

static int64
field_number(const PGresult *result, int row, int column)
{
	const char *text = PQgetvalue(result, row, column);
	char	   *end;
	int64		value;

	if (PQgetisnull(result, row, column))
		return NOT_KNOWN;
	errno = 0;
	value = strtoi64(text, &end, 10);
	if (errno != 0 || *text == '\0' || *end != '\0')
		fatal("unexpected data from the server: \"%s\" is not a number", text);
	return value;
}

/* What counts as nothing if the server does not have it. */
static int64
field_count(const PGresult *result, int row, int column)
{
	return Max(field_number(result, row, column), 0);
}

static char *
field_text(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : clean_text(PQgetvalue(result, row, column));
}

static XLogRecPtr
field_lsn(const PGresult *result, int row, int column)
{
	XLogRecPtr	lsn;

	if (!lsn_from_text(PQgetvalue(result, row, column), &lsn))
		fatal("could not parse LSN \"%s\" from the server", PQgetvalue(result, row, column));
	return lsn;
}

/*
 * What changed
 */

/* Which server, from where, and up to where. */
static void
ask_server(Asking *asking, const ReportOptions *options)
{
	ChangeReport *changes = asking->changes;
	const char *host = PQhost(asking->conn);
	PGresult   *result;
	char	   *name;

	/* What is not tracked has no LSN: then the next question says so. */
	result = ask(asking, psprintf("SELECT pg_catalog.current_setting('block_size'), "
								  "coalesce(s.coverage_start, '0/0'), coalesce(s.coverage_end, '0/0'), "
								  "pg_catalog.date_part('epoch', pg_catalog.now())::bigint, "
								  "pg_catalog.current_setting('server_version') FROM %s.ptrack_stat() s",
								  asking->schema));
	changes->block_size = field_number(result, 0, 0);
	changes->start = options->nsince > 0 ? options->since[0] : field_lsn(result, 0, 1);
	changes->end = field_lsn(result, 0, 2);
	changes->end_time = field_number(result, 0, 3);
	name = psprintf("%s:%s, PostgreSQL %s", host ? host : "", PQport(asking->conn),
					PQgetvalue(result, 0, 4));
	changes->server = clean_text(name);
	pg_free(name);
	PQclear(result);
}

static void
take_fork(ReportFork *fork, const PGresult *result, int row)
{
	fork->database = (Oid) field_count(result, row, 1);
	fork->database_name = field_text(result, row, 2);
	fork->tablespace = (Oid) field_count(result, row, 3);
	fork->relfilenode = (Oid) field_count(result, row, 4);
	fork->relation = field_text(result, row, 5);
	fork->fork = field_text(result, row, 6);
	fork->forks = field_count(result, row, 7);
	fork->changed = field_number(result, row, 8);
	fork->increment = field_number(result, row, 9);
	fork->blocks = field_number(result, row, 10);
	fork->limit = field_number(result, row, 11);
	fork->unknown = field_count(result, row, 12);
}

static void
add_to_total(ReportFork *total, const ReportFork *database)
{
	total->forks += database->forks;
	total->unknown += database->unknown;
	total->changed += Max(database->changed, 0);
	total->increment += Max(database->increment, 0);
}

/* Databases, and the forks with most changes, of one and the same answer. */
static void
ask_forks(Asking *asking, const ReportOptions *options)
{
	ChangeReport *changes = asking->changes;
	PGresult   *result = ask(asking, psprintf("WITH f AS MATERIALIZED (SELECT *, greatest(changed_blocks, increment_blocks, 0) AS weight "
											  "FROM %s.ptrack_report('%X/%X')), "
											  "top AS (SELECT * FROM f ORDER BY weight DESC, reldatabase, reltablespace, relfilenode, fork LIMIT %d) "
											  "SELECT 0, reldatabase, max(datname::text), NULL::oid, NULL::oid, NULL::text, NULL::text, count(*), "
											  "sum(changed_blocks), sum(increment_blocks), NULL::bigint, NULL::bigint, "
											  "count(*) FILTER (WHERE changed_blocks IS NULL), sum(weight) AS weight "
											  "FROM f GROUP BY reldatabase "
											  "UNION ALL SELECT 1, reldatabase, datname::text, reltablespace, relfilenode, relation::text, fork, 1, "
											  "changed_blocks, increment_blocks, blocks, limit_block, (changed_blocks IS NULL)::int, weight FROM top "
											  "ORDER BY 1, weight DESC, 2, 4, 5, 7",
											  asking->schema, LSN_FORMAT_ARGS(changes->start), options->top));
	int			rows = PQntuples(result);

	changes->databases = pg_malloc0(sizeof(ReportFork) * Max(rows, 1));
	changes->forks = pg_malloc0(sizeof(ReportFork) * Max(rows, 1));
	for (int row = 0; row < rows; row++)
	{
		if (field_number(result, row, 0) == 1)
			take_fork(&changes->forks[changes->nforks++], result, row);
		else
		{
			take_fork(&changes->databases[changes->ndatabases], result, row);
			add_to_total(&changes->total, &changes->databases[changes->ndatabases++]);
		}
	}
	PQclear(result);
}

static void
ask_points(Asking *asking)
{
	PGresult   *result = ask(asking, psprintf("SELECT lsn, pg_catalog.date_part('epoch', reached)::bigint "
											  "FROM %s.ptrack_redo_points() ORDER BY lsn", asking->schema));

	asking->npoints = PQntuples(result);
	asking->points = pg_malloc0(sizeof(ReportPoint) * Max(asking->npoints, 1));
	for (int i = 0; i < asking->npoints; i++)
	{
		asking->points[i].lsn = field_lsn(result, i, 0);
		asking->points[i].time = field_count(result, i, 1);
	}
	PQclear(result);
}

/* The redo point that a range from there on is widened to; -1: none is known. */
static int
point_before(const Asking *asking, XLogRecPtr lsn)
{
	int			found = -1;

	while (found + 1 < asking->npoints && asking->points[found + 1].lsn <= lsn)
		found++;
	return found;
}

static int64
time_at(const Asking *asking, XLogRecPtr lsn)
{
	int			point = point_before(asking, lsn);

	return point < 0 ? 0 : asking->points[point].time;
}

/*
 * When and where
 */

/* The forks that are shown, as a list of values with their numbers. */
static char *
fork_values(const Asking *asking)
{
	const ChangeReport *changes = asking->changes;
	PQExpBufferData values;

	initPQExpBuffer(&values);
	appendPQExpBufferStr(&values, "(NULL::int, NULL::oid, NULL::oid, NULL::oid, NULL::text)");
	for (int i = 0; i < changes->nforks; i++)
	{
		const ReportFork *fork = &changes->forks[i];

		appendPQExpBuffer(&values, ", (%d, %u, %u, %u, ", i, fork->database, fork->tablespace,
						  fork->relfilenode);
		if (fork->fork)
			append_literal(&values, asking->conn, fork->fork);
		else
			appendPQExpBufferStr(&values, "NULL");
		appendPQExpBufferChar(&values, ')');
	}
	if (PQExpBufferDataBroken(values))
		fatal("out of memory");
	return values.data;
}

static void
take_cell(ReportCell *cell, const PGresult *result, int row)
{
	const char *regions = PQgetvalue(result, row, 4);

	cell->changed = field_number(result, row, 1);
	cell->limit = field_number(result, row, 2);
	cell->region_blocks = field_count(result, row, 3);
	if (PQgetisnull(result, row, 4))
		return;
	if (strspn(regions, "[0123456789,]") != strlen(regions))
		fatal("unexpected data from the server: \"%s\" is not an array of numbers", regions);
	cell->regions = pg_strdup(regions);
}

/* What changed in one step, of the forks that are shown and of all. */
static void
ask_step(const Asking *asking, const char *values, ReportStep *step)
{
	char		end[64] = "NULL";
	PGresult   *result;

	if (step->end != InvalidXLogRecPtr)
		snprintf(end, sizeof(end), "'%X/%X'", LSN_FORMAT_ARGS(step->end));
	result = ask(asking, psprintf("WITH f AS MATERIALIZED (SELECT *, %s.ptrack_fork_name(relforknumber) AS fork "
								  "FROM %s.ptrack_changed_forks('%X/%X', %s, %d)) "
								  "SELECT NULL::int, sum(changed_blocks), NULL::bigint, NULL::bigint, NULL::json, "
								  "count(*) FILTER (WHERE changed_blocks IS NULL) FROM f "
								  "UNION ALL SELECT n, changed_blocks, limit_block, region_blocks, "
								  "pg_catalog.array_to_json(region_changed), 0 "
								  "FROM f JOIN (VALUES %s) t(n, d, s, r, k) ON f.reldatabase = t.d "
								  "AND f.reltablespace = t.s AND f.relfilenode = t.r AND f.fork IS NOT DISTINCT FROM t.k",
								  asking->schema, asking->schema, LSN_FORMAT_ARGS(step->start), end, REGIONS, values));
	step->cells = pg_malloc0(sizeof(ReportCell) * Max(asking->changes->nforks, 1));
	for (int i = 0; i < asking->changes->nforks; i++)
		step->cells[i].limit = NOT_KNOWN;
	for (int row = 0; row < PQntuples(result); row++)
	{
		int64		n = field_number(result, row, 0);

		if (n >= asking->changes->nforks)
			fatal("unexpected data from the server: there is no relation fork " INT64_FORMAT, n);
		if (n != NOT_KNOWN)
			take_cell(&step->cells[n], result, row);
		else
		{
			step->changed = field_count(result, row, 1);
			step->coarse = field_count(result, row, 5) > 0;
		}
	}
	PQclear(result);
}

/* Ranges from the start on, about as many redo points in each. */
static void
ask_steps(Asking *asking)
{
	ChangeReport *changes = asking->changes;
	int			first = Max(point_before(asking, changes->start), 0);
	int			points = asking->npoints - first;
	char	   *values = fork_values(asking);

	changes->nsteps = Min(points, MAX_STEPS);
	changes->steps = pg_malloc0(sizeof(ReportStep) * Max(changes->nsteps, 1));
	for (int i = 0; i < changes->nsteps; i++)
	{
		ReportStep *step = &changes->steps[i];
		const ReportPoint *start = &asking->points[first + i * points / changes->nsteps];

		step->start = i > 0 ? start->lsn : changes->start;
		step->start_time = start->time;
		step->end_time = changes->end_time;
		if (i > 0)
		{
			step[-1].end = start->lsn;
			step[-1].end_time = start->time;
		}
	}
	for (int i = 0; i < changes->nsteps; i++)
		ask_step(asking, values, &changes->steps[i]);
	pg_free(values);
}

/*
 * Increments
 */

/* Adds an LSN, in ascending order, unless it is there. */
static void
add_increment(ChangeReport *changes, XLogRecPtr since)
{
	int			at = changes->nincrements;

	while (at > 0 && changes->increments[at - 1].since >= since)
		at--;
	if (at < changes->nincrements && changes->increments[at].since == since)
		return;
	memmove(&changes->increments[at + 1], &changes->increments[at],
			(changes->nincrements - at) * sizeof(ReportIncrement));
	changes->increments[at].since = since;
	changes->nincrements++;
}

static void
ask_increments(Asking *asking, const ReportOptions *options)
{
	ChangeReport *changes = asking->changes;
	int			some = Min(changes->nsteps, MAX_INCREMENTS);

	changes->increments = pg_malloc0(sizeof(ReportIncrement) * (options->nsince + some + 1));
	add_increment(changes, changes->start);
	for (int i = 0; i < options->nsince; i++)
		add_increment(changes, options->since[i]);
	for (int i = 0; i < some; i++)
	{
		XLogRecPtr	since = changes->steps[(i + 1) * changes->nsteps / some - 1].start;

		if (since > changes->start)
			add_increment(changes, since);
	}
	for (int i = 0; i < changes->nincrements; i++)
	{
		ReportIncrement *increment = &changes->increments[i];
		PGresult   *result = ask(asking, psprintf("SELECT files, pages FROM %s.ptrack_get_change_stat('%X/%X')",
												  asking->schema, LSN_FORMAT_ARGS(increment->since)));

		increment->time = time_at(asking, increment->since);
		increment->files = field_count(result, 0, 0);
		increment->blocks = field_count(result, 0, 1);
		PQclear(result);
	}
}

/*
 * Has names come as UTF-8.  What should be that already comes as it is, so that a
 * name that is not, such as one of a database with another encoding, is no error.
 */
static void
use_utf8(PGconn *conn)
{
	const char *encoding = PQparameterStatus(conn, "server_encoding");

	if (strcmp(encoding, "UTF8") != 0 && strcmp(encoding, "SQL_ASCII") != 0)
		connection_command(conn, "SET client_encoding = 'UTF8'");
}

/*
 * Asks for everything that the report shows; for a page, that is more.
 */
void
change_report_ask(ChangeReport *changes, ReportOptions *options)
{
	Asking		asking = {.changes = changes};

	memset(changes, 0, sizeof(*changes));
	asking.conn = connection_open(&options->connection, true);
	use_utf8(asking.conn);
	asking.schema = connection_extension_schema(asking.conn);
	ask_server(&asking, options);
	ask_forks(&asking, options);
	ask_points(&asking);
	changes->start_time = time_at(&asking, changes->start);
	if (options->html)
		ask_steps(&asking);
	ask_increments(&asking, options);
	pg_free(asking.points);
	PQfinish(asking.conn);
}
