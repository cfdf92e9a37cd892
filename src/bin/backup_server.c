/*
 * backup_server.c
 *		Starting and stopping a backup, and what the server says.
 *
 * The connection on which a backup was started holds it: when that ends before
 * the backup is stopped, however it ends, the server cleans up.
 */
#include "postgres_fe.h"

#include "backup.h"
#include "backup_read.h"
#include "report.h"

static uint64
value_u64(PGconn *conn, const char *query)
{
	char	   *text = connection_value(conn, query);
	uint64		value;

	if (text == NULL)
		fatal("the server says nothing to: %s", query);
	value = strtoull(text, NULL, 10);
	pg_free(text);
	return value;
}

static bool
value_is(PGconn *conn, const char *query, const char *expected)
{
	char	   *text = connection_value(conn, query);
	bool		is = text !=NULL && strcmp(text, expected) == 0;

	pg_free(text);
	return is;
}

static XLogRecPtr
parse_lsn(const char *text)
{
	uint32		high;
	uint32		low;

	if (text == NULL || sscanf(text, "%X/%X", &high, &low) != 2)
		fatal("could not parse LSN \"%s\" from the server", text ? text : "");
	return (uint64) high << 32 | low;
}

/* Block and segment sizes are this program's own. */
static void
check_sizes(PGconn *conn)
{
	if (value_u64(conn, "SELECT pg_catalog.current_setting('block_size')") != BLCKSZ)
		fatal("the server's block size is not %d, with which this program was built", BLCKSZ);
	if (value_u64(conn, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'segment_size'") !=
		RELSEG_SIZE)
		fatal("the server's segment size is not %d blocks, with which this program was built",
			  RELSEG_SIZE);
}

/*
 * By which process the server is to show the backup; 0 if this role may not have
 * it shown, which is no reason not to make it.  The server is asked, since what
 * libpq knows may be a connection pooler's.
 */
static int
find_progress(const BackupServer *server)
{
	char	   *pid = connection_value(server->conn,
									   "SELECT pg_catalog.pg_backend_pid() FROM pg_catalog.pg_proc p "
									   "JOIN pg_catalog.pg_extension e ON e.extnamespace = p.pronamespace "
									   "WHERE e.extname = 'ptrack' AND p.proname IN ('ptrack_backup_progress', 'ptrack_backup_join') "
									   "AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE') "
									   "HAVING pg_catalog.count(*) = 2");
	int			found = pid ? atoi(pid) : 0;

	pg_free(pid);
	return found;
}

/* What tells a running server from others, be they copies of it: when it started. */
static char *
find_instance(PGconn *conn)
{
	return connection_value(conn,
							"SELECT pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())");
}

/*
 * Gives up if that is a connection to another server.  One name may stand for
 * several; and a standby may be behind, so that what it has is not what WAL from
 * the backup's start on makes right.
 */
void
server_require_same(const BackupServer *server, PGconn *conn)
{
	char	   *instance = find_instance(conn);

	if (instance == NULL || strcmp(instance, server->instance) != 0)
		fatal_hint("Use connection parameters that lead to one server only.",
				   "a connection is to another server than that on which the backup was started");
	pg_free(instance);
}

/*
 * Connects, and looks at the server.
 */
void
server_connect(BackupServer *server, BackupOptions *options)
{
	PGconn	   *conn;

	memset(server, 0, sizeof(*server));
	server->conn = conn = connection_open(&options->connection, true);
	server->version = PQserverVersion(conn);
	server->schema = connection_extension_schema(conn);
	server->instance = find_instance(conn);
	server->progress_pid = find_progress(server);
	check_sizes(conn);
	server->system_identifier =
		value_u64(conn, "SELECT system_identifier FROM pg_catalog.pg_control_system()");
	server->wal_segment_size = (uint32)
		value_u64(conn, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'");
	server->checksums = value_is(conn, "SHOW data_checksums", "on");
	server->group_access = value_is(conn, "SHOW data_directory_mode", "0750");
	server->is_standby = value_is(conn, "SELECT pg_catalog.pg_is_in_recovery()", "t");
}

/*
 * Progress
 */

/*
 * Has the server show how far the backup is: arguments of ptrack_backup_progress.
 */
void
server_progress(const BackupServer *server, const char *format,...)
{
	char		arguments[256];
	char		query[512];
	va_list		args;

	if (server->progress_pid == 0)
		return;
	va_start(args, format);
	vsnprintf(arguments, sizeof(arguments), format, args);
	va_end(args);
	snprintf(query, sizeof(query), "SELECT %s.ptrack_backup_progress(%s)", server->schema, arguments);
	PQclear(connection_query(server->conn, query));
}

/*
 * Has the server count what it sends through that connection.
 */
void
server_join(const BackupServer *server, PGconn *conn)
{
	char		query[512];

	if (server->progress_pid == 0)
		return;
	snprintf(query, sizeof(query), "SELECT %s.ptrack_backup_join(%d)", server->schema,
			 server->progress_pid);
	PQclear(connection_query(conn, query));
}

/*
 * Starting
 */

/* Until the backup is stopped and its WAL fetched, the server keeps it. */
static void
hold_wal(BackupServer *server)
{
	char		query[256];

	snprintf(query, sizeof(query),
			 "SELECT pg_catalog.pg_create_physical_replication_slot('pg_ptrack_%d', true, true)",
			 PQbackendPID(server->conn));
	PQclear(connection_query(server->conn, query));
}

/*
 * The timeline that the backup starts on, and the LSN of the checkpoint that it
 * starts from, are those of the latest checkpoint or restartpoint, which
 * pg_backup_start has made or waited for.  Its redo point is where the backup
 * starts; another one may have been made since.
 */
static TimeLineID
start_timeline(BackupServer *server)
{
	char		query[256];

	snprintf(query, sizeof(query),
			 "SELECT pg_catalog.substr(pg_catalog.pg_walfile_name('%X/%X'), 1, 8)",
			 LSN_FORMAT_ARGS(server->start));
	if (server->is_standby)
		snprintf(query, sizeof(query),
				 "SELECT pg_catalog.lpad(pg_catalog.to_hex(timeline_id), 8, '0') FROM pg_catalog.pg_control_checkpoint()");
	return (TimeLineID) strtoul(connection_value(server->conn, query), NULL, 16);
}

/* What tells this history from others; NULL if the server does not know. */
static char *
start_lineage(BackupServer *server)
{
	char		query[256];

	if (value_u64(server->conn, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'ptrack.map_size'") == 0)
	{
		report_warning("tracking of changes is disabled on the server: no incremental backup can be relative to this one");
		return NULL;
	}

	/* So that the copy of what ptrack knows is complete. */
	snprintf(query, sizeof(query), "SELECT %s.ptrack_await_summary('%X/%X', 60)",
			 server->schema, LSN_FORMAT_ARGS(server->start));
	if (!value_is(server->conn, query, "t"))
		report_warning("ptrack on the server is late: in a copy of this backup, changes will be known from its start on");
	snprintf(query, sizeof(query), "SELECT %s.ptrack_lineage('%X/%X')",
			 server->schema, LSN_FORMAT_ARGS(server->start));
	return connection_value(server->conn, query);
}

/*
 * Starts the backup, which takes a checkpoint.
 */
void
server_start(BackupServer *server, const BackupOptions *options)
{
	PQExpBufferData query;
	char	   *lsn;

	if (options->wal == WAL_FETCH)
		hold_wal(server);
	server_progress(server, "'waiting for checkpoint to finish', incremental => %s",
					options->prior_manifest ? "true" : "false");
	initPQExpBuffer(&query);
	appendPQExpBufferStr(&query, "SELECT pg_catalog.pg_backup_start(");
	append_literal(&query, server->conn, options->label);
	appendPQExpBuffer(&query, ", %s)", options->fast_checkpoint ? "true" : "false");
	lsn = connection_value(server->conn, query.data);
	server->start = parse_lsn(lsn);
	server->start_tli = start_timeline(server);
	server->lineage = start_lineage(server);
	report_debug("write-ahead log start point: %X/%X on timeline %u",
				 LSN_FORMAT_ARGS(server->start), server->start_tli);
	termPQExpBuffer(&query);
	pg_free(lsn);
}

/*
 * The history file of a timeline, in malloc'd memory; empty if there is none.
 */
char *
server_history(const BackupServer *server, TimeLineID tli)
{
	char		query[256];
	char	   *history;

	snprintf(query, sizeof(query),
			 "SELECT pg_catalog.convert_from(pg_catalog.substr(%s.ptrack_backup_read("
			 "ARRAY['pg_wal/%08X.history'], 0, 1000000, NULL), %d), 'SQL_ASCII')",
			 server->schema, tli, PART_HEADER_LEN + 1);
	history = connection_value(server->conn, query);
	return history ? history : pg_strdup("");
}

/* Goes to the next line of a history file that names a timeline; false at the end. */
static bool
next_timeline(const char **history, TimeLineID *tli, XLogRecPtr *end)
{
	while (**history != '\0')
	{
		const char *line = *history;
		uint32		high;
		uint32		low;

		*history += strcspn(line, "\n");
		*history += **history == '\n';
		if (sscanf(line, "%u %X/%X", tli, &high, &low) == 3)
		{
			*end = (uint64) high << 32 | low;
			return true;
		}
	}
	return false;
}

/*
 * Where a timeline ended, by the history of a later one.  False if it is not in it.
 */
bool
history_end(const char *history, TimeLineID tli, XLogRecPtr *end)
{
	TimeLineID	found;

	while (next_timeline(&history, &found, end))
	{
		if (found == tli)
			return true;
	}
	return false;
}

/*
 * The timeline before that one, by the history of it or of a later one; 0 if there
 * is none.
 */
TimeLineID
history_before(const char *history, TimeLineID tli)
{
	TimeLineID	before = 0;
	TimeLineID	found;
	XLogRecPtr	end;

	while (next_timeline(&history, &found, &end))
	{
		if (found < tli)
			before = Max(before, found);
	}
	return before;
}

/*
 * Stopping
 */

/* The number after that text in a line of its own; 0 if there is none. */
static uint32
label_number(const char *label, const char *name)
{
	const char *found = strstr(label, name);

	if (found == NULL || (found != label && found[-1] != '\n'))
		return 0;
	return (uint32) strtoul(found + strlen(name), NULL, 10);
}

/*
 * The timeline that the backup ended on.  A standby may have come to a later one by
 * now.
 */
static TimeLineID
stop_timeline(BackupServer *server)
{
	TimeLineID	tli = server->start_tli;
	char	   *history;
	XLogRecPtr	end;

	if (!server->is_standby)
		return tli;
	tli = (TimeLineID) value_u64(server->conn,
								 "SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()");
	if (tli <= server->start_tli)
		return server->start_tli;
	history = server_history(server, tli);
	while (tli > server->start_tli && history_before(history, tli) != 0 &&
		   history_end(history, history_before(history, tli), &end) && server->stop <= end)
		tli = history_before(history, tli);
	pg_free(history);
	return tli;
}

/*
 * Stops the backup.
 */
void
server_stop(BackupServer *server, bool wait_for_archive)
{
	PGresult   *result;
	char		query[128];
	TimeLineID	tli;

	snprintf(query, sizeof(query),
			 "SELECT lsn, labelfile, spcmapfile FROM pg_catalog.pg_backup_stop(%s)",
			 wait_for_archive ? "true" : "false");
	result = connection_query(server->conn, query);
	server->stop = parse_lsn(PQgetvalue(result, 0, 0));
	server->label = pg_strdup(PQgetvalue(result, 0, 1));
	server->tablespace_map = pg_strdup(PQgetvalue(result, 0, 2));
	PQclear(result);

	tli = label_number(server->label, "START TIMELINE: ");
	if (tli == 0)
		fatal("could not parse the backup label from the server");
	server->start_tli = tli;
	server->stop_tli = stop_timeline(server);
	report_debug("write-ahead log end point: %X/%X on timeline %u",
				 LSN_FORMAT_ARGS(server->stop), server->stop_tli);
}
