/*
 * connection.c
 *		Connections to the server.
 */
#include "postgres_fe.h"

#include <poll.h>

#include "common/string.h"
#include "connection.h"
#include "fe_utils/string_utils.h"
#include "getopt_long.h"
#include "port/pg_bswap.h"
#include "report.h"
#include "workers.h"

/* How long to wait for the server before looking around. */
#define WAIT_MS		200

/* What no setting of the server, a database or a role should interfere with. */
static const char *const session_settings =
"SET search_path = ''; SET statement_timeout = 0; SET lock_timeout = 0; "
"SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; "
"SET bytea_output = hex; SET extra_float_digits = 1; SET client_encoding = sql_ascii; SET DateStyle = ISO; "
"SET standard_conforming_strings = on";

/*
 * Opening
 */

/*
 * Takes an option that getopt_long found; false if it is none of how to connect.
 */
bool
connection_option(ConnectionOptions *connection, int c)
{
	switch (c)
	{
		case 'd':
			connection->connstr = optarg;
			return true;
		case 'h':
			connection->host = optarg;
			return true;
		case 'p':
			connection->port = optarg;
			return true;
		case 'U':
			connection->user = optarg;
			return true;
		case 'w':
			connection->never_ask = true;
			return true;
		case 'W':
			connection->ask_password = true;
			return true;
		default:
			return false;
	}
}

static PGconn *
try_connect(const ConnectionOptions *options, bool replication)
{
	const char *keywords[16];
	const char *values[16];
	int			n = 0;

#define ADD(keyword, value) \
	do { \
		if ((value) != NULL) \
		{ \
			keywords[n] = (keyword); \
			values[n++] = (value); \
		} \
	} while (0)

	/* A connection string comes first, so that options override it. */
	ADD("dbname", options->connstr ? options->connstr : "postgres");
	ADD("host", options->host);
	ADD("port", options->port);
	ADD("user", options->user);
	ADD("password", options->password);
	ADD("replication", replication ? "true" : NULL);
	ADD("fallback_application_name", "pg_ptrack");
#undef ADD
	keywords[n] = NULL;
	values[n] = NULL;
	return PQconnectdbParams(keywords, values, true);
}

static void
check_server(PGconn *conn)
{
	int			version = PQserverVersion(conn);

	if (version < 150000)
		fatal("server version %d is not supported", version);
	if (strcmp(PQparameterStatus(conn, "integer_datetimes"), "on") != 0)
		fatal("integer_datetimes compile flag does not match server");
}

/* A notice is a message of ours. */
static void
on_notice(void *arg, const PGresult *result)
{
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	if (severity && strcmp(severity, "WARNING") == 0)
		report_warning("%s", text ? text : "");

	/* It ends the connection, on which nothing was being asked for. */
	if (severity && strcmp(severity, "FATAL") == 0)
		report_error("%s", text ? text : "");
}

static PGconn *
open_one(ConnectionOptions *options, bool may_ask, bool replication)
{
	PGconn	   *conn;

	if (may_ask && options->ask_password && options->password == NULL)
		options->password = simple_prompt("Password: ", false);
	for (;;)
	{
		conn = try_connect(options, replication);
		if (conn == NULL)
			fatal("out of memory");
		if (PQstatus(conn) == CONNECTION_OK)
			break;
		if (!may_ask || options->never_ask || !PQconnectionNeedsPassword(conn) ||
			options->password != NULL)
		{
			report_error("%s", PQerrorMessage(conn));
			give_up();
		}
		PQfinish(conn);
		options->password = simple_prompt("Password: ", false);
	}
	check_server(conn);
	PQsetNoticeReceiver(conn, on_notice, NULL);
	return conn;
}

/*
 * Connects to a database.  may_ask: for a password, which is kept in the options.
 */
PGconn *
connection_open(ConnectionOptions *options, bool may_ask)
{
	PGconn	   *conn = open_one(options, may_ask, false);

	connection_command(conn, session_settings);
	if (PQserverVersion(conn) >= 170000)
		connection_command(conn, "SET transaction_timeout = 0");
	return conn;
}

/*
 * Connects for the replication protocol.
 */
PGconn *
connection_open_replication(ConnectionOptions *options)
{
	return open_one(options, false, true);
}

/*
 * Waiting
 */

/* Tells the server that nobody wants the answer any more. */
static void
cancel(PGconn *conn)
{
	PGcancel   *cancel = PQgetCancel(conn);
	char		problem[256];

	if (cancel)
	{
		(void) PQcancel(cancel, problem, sizeof(problem));
		PQfreeCancel(cancel);
	}
}

/* Waits until there is something to read from the server. */
static void
wait_for_input(PGconn *conn)
{
	struct pollfd poll_fd = {.fd = PQsocket(conn),.events = POLLIN};

	if (workers_stopping())
	{
		cancel(conn);
		give_up();
	}
	if (poll(&poll_fd, 1, WAIT_MS) < 0 && errno != EINTR)
		fatal("could not wait for the server: %m");
	if (!PQconsumeInput(conn))
		fatal("%s", PQerrorMessage(conn));
}

/*
 * Waits for a moment, while nothing is asked for on that connection; or until the
 * other end of a pipe is closed.  Gives up if the connection has ended.
 */
void
connection_watch(PGconn *conn, int pipe_end)
{
	struct pollfd poll_fds[] = {
		{.fd = PQsocket(conn),.events = POLLIN},
		{.fd = pipe_end,.events = POLLIN}
	};

	if (workers_stopping())
		give_up();
	if (poll(poll_fds, lengthof(poll_fds), WAIT_MS) < 0 && errno != EINTR)
		fatal("could not wait for the server: %m");
	if (poll_fds[0].revents != 0 && (!PQconsumeInput(conn) || PQstatus(conn) != CONNECTION_OK))
		fatal("%s", PQerrorMessage(conn));
}

static PGresult *
next_result(PGconn *conn)
{
	while (PQisBusy(conn))
		wait_for_input(conn);
	return PQgetResult(conn);
}

/* What the server says is wrong, in the form of our messages. */
static void
fail_with(const PGresult *result, PGconn *conn)
{
	const char *text = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *detail = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL) : NULL;
	const char *hint = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_HINT) : NULL;

	if (workers_stopping())
		give_up();
	report_error("%s", text ? text : PQerrorMessage(conn));
	if (detail)
		report_detail("%s", detail);
	if (hint)
		report_hint("%s", hint);
	give_up();
}

static PGresult *
run(PGconn *conn, const char *query)
{
	PGresult   *last = NULL;
	PGresult   *result;

	if (!PQsendQuery(conn, query))
		fatal("could not send a query: %s", PQerrorMessage(conn));
	while ((result = next_result(conn)) != NULL)
	{
		ExecStatusType status = PQresultStatus(result);

		if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
			fail_with(result, conn);
		PQclear(last);
		last = result;
	}
	if (last == NULL)
		fail_with(NULL, conn);
	return last;
}

/*
 * Runs commands.
 */
void
connection_command(PGconn *conn, const char *command)
{
	PQclear(run(conn, command));
}

/*
 * Runs a query; the result is for the caller to clear.
 */
PGresult *
connection_query(PGconn *conn, const char *query)
{
	PGresult   *result = run(conn, query);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fatal("a query gave no rows: %s", query);
	return result;
}

/*
 * Runs a query for one value, which is returned in malloc'd memory; NULL if it is
 * null, or if there is no row.
 */
char *
connection_value(PGconn *conn, const char *query)
{
	PGresult   *result = connection_query(conn, query);
	char	   *value = NULL;

	if (PQntuples(result) > 0 && !PQgetisnull(result, 0, 0))
		value = pg_strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	return value;
}

/*
 * The schema that the extension is in, quoted if need be, in malloc'd memory.
 */
char *
connection_extension_schema(PGconn *conn)
{
	/* A setting that only the configuration file knows is not in this view. */
	char	   *map_size = connection_value(conn,
											"SELECT setting FROM pg_catalog.pg_settings WHERE name = 'ptrack.map_size'");
	char	   *schema;

	if (map_size == NULL)
		fatal_hint("Add \"ptrack\" to \"shared_preload_libraries\" and restart the server.",
				   "ptrack is not loaded on this server");
	pg_free(map_size);
	schema = connection_value(conn,
							  "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e "
							  "JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'ptrack'");
	if (schema == NULL)
	{
		report_error("there is no extension \"ptrack\" in database \"%s\"", PQdb(conn));
		report_hint("Use CREATE EXTENSION ptrack there, or name a database that has it by -d.");
		give_up();
	}
	return schema;
}

/*
 * COPY
 */

static const char copy_signature[] = "PGCOPY\n\377\r\n";	/* its zero included */

#define COPY_HEADER_LEN		(sizeof(copy_signature) + 8)

/*
 * Begins to read what that command sends.
 */
void
copy_begin(CopyReader *copy, PGconn *conn, const char *command)
{
	PGresult   *result;

	memset(copy, 0, sizeof(*copy));
	copy->conn = conn;
	if (!PQsendQuery(conn, command))
		fatal("could not send a query: %s", PQerrorMessage(conn));
	result = next_result(conn);
	if (PQresultStatus(result) != PGRES_COPY_OUT)
		fail_with(result, conn);
	PQclear(result);
}

/* The end of the data: the command must have succeeded. */
static void
end_copy(CopyReader *copy)
{
	PGresult   *result;

	while ((result = next_result(copy->conn)) != NULL)
	{
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail_with(result, copy->conn);
		PQclear(result);
	}
}

/* Gets the next message; false at the end. */
static bool
next_message(CopyReader *copy)
{
	if (copy->message)
		PQfreemem(copy->message);
	copy->message = NULL;
	copy->next = 0;
	while ((copy->len = PQgetCopyData(copy->conn, &copy->message, true)) == 0)
		wait_for_input(copy->conn);
	if (copy->len == -1)
		end_copy(copy);
	else if (copy->len < 0)
		fail_with(NULL, copy->conn);
	return copy->len > 0;
}

/* So many bytes of the message, in which rows are whole. */
static const char *
take(CopyReader *copy, int len)
{
	const char *bytes = copy->message + copy->next;

	if (len < 0 || len > copy->len - copy->next)
		fatal("unexpected data from the server: a message ends in mid-row");
	copy->next += len;
	return bytes;
}

uint32
copy_u32(const char *bytes)
{
	uint32		value;

	memcpy(&value, bytes, sizeof(value));
	return pg_ntoh32(value);
}

uint64
copy_u64(const char *bytes)
{
	uint64		value;

	memcpy(&value, bytes, sizeof(value));
	return pg_ntoh64(value);
}

/*
 * Goes to the next row.  False: there is none, and the command has succeeded.
 */
bool
copy_row(CopyReader *copy)
{
	uint16		fields;

	if (copy->fields > 0)
		fatal("unexpected data from the server: a row has too many fields");
	while (copy->message == NULL || copy->next == copy->len)
	{
		if (!next_message(copy))
			return false;
		if (!copy->begun)
		{
			if (memcmp(take(copy, COPY_HEADER_LEN), copy_signature, sizeof(copy_signature)) != 0)
				fatal("unexpected data from the server: this is not COPY in binary format");
			copy->begun = true;
		}
	}
	memcpy(&fields, take(copy, 2), 2);
	copy->fields = (int16) pg_ntoh16(fields);
	if (copy->fields >= 0)
		return true;

	/* The trailer. */
	copy->fields = 0;
	if (next_message(copy))
		fatal("unexpected data from the server: something follows the end of the data");
	return false;
}

/*
 * The next field of the row, which stays until the next row; NULL if it is null.
 */
const char *
copy_field(CopyReader *copy, int *len)
{
	if (copy->fields-- <= 0)
		fatal("unexpected data from the server: a row has too few fields");
	*len = (int32) copy_u32(take(copy, 4));
	return *len < 0 ? NULL : take(copy, *len);
}

/*
 * Appends a text as a literal.
 */
void
append_literal(PQExpBuffer buffer, PGconn *conn, const char *text)
{
	appendStringLiteralConn(buffer, text, conn);
}
