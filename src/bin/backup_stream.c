/*
 * backup_stream.c
 *		WAL that is received while files are fetched.
 *
 * A connection of its own, for the replication protocol, has a temporary slot that
 * holds WAL from before the backup's start, unless there is to be none.  A thread
 * receives it from the segment on that the backup starts in, and writes a segment
 * when it is whole; the last one is filled up with zeros, as the server does.
 */
#include "postgres_fe.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/time.h>

#include "access/xlog_internal.h"
#include "backup_output.h"
#include "backup_stream.h"
#include "port/pg_bswap.h"
#include "report.h"
#include "workers.h"

#define WAIT_MS			200

/* How often to tell the server how far we are, in milliseconds. */
#define STATUS_MS		5000

/* The header of a message with WAL: tag, start, end of WAL, time. */
#define DATA_HEADER_LEN	(1 + 8 + 8 + 8)

static const BackupOptions *options;
static PGconn *conn;
static TimeLineID tli;
static uint32 segment_size;
static char *segment;			/* what was received of the one that is not
								 * whole */
static XLogRecPtr position;		/* of what comes next */
static _Atomic XLogRecPtr stop; /* up to there; 0: not known yet */
static Worker *receiver;

/*
 * The connection must be to the server that the backup is going to be started on.
 * Its process is shown there, or its slot, which is found also if a connection pooler
 * gives its processes other numbers.
 */
static void
check_server(const BackupServer *server)
{
	char		query[256];
	char	   *found;

	snprintf(query, sizeof(query), options->no_slot ?
			 "SELECT 1 FROM pg_catalog.pg_stat_replication WHERE pid = %d" :
			 "SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = 'pg_ptrack_%d'",
			 PQbackendPID(conn));
	found = connection_value(server->conn, query);
	if (found == NULL)
		fatal_hint("Use connection parameters that lead to one server only.",
				   "the connection for WAL is to another server than that for the backup");
	pg_free(found);
}

/*
 * Opens the connection, and has the server hold WAL from now on, unless other means
 * are to.
 */
void
stream_open(const BackupServer *server, BackupOptions *of)
{
	char		command[128];

	options = of;
	conn = connection_open_replication(&of->connection);
	if (!of->no_slot)
	{
		snprintf(command, sizeof(command),
				 "CREATE_REPLICATION_SLOT pg_ptrack_%d TEMPORARY PHYSICAL RESERVE_WAL",
				 PQbackendPID(conn));
		connection_command(conn, command);
	}
	check_server(server);
	segment_size = server->wal_segment_size;
	segment = pg_malloc(segment_size);
}

/* Writes the segment that ends at the position, or that it is in. */
static void
write_segment(void)
{
	char		name[MAXFNAMELEN];
	char		path[MAXPGPATH];
	XLogSegNo	segno;
	uint32		filled = XLogSegmentOffset(position - 1, segment_size) + 1;

	XLByteToPrevSeg(position, segno, segment_size);
	XLogFileName(name, tli, segno, segment_size);
	snprintf(path, sizeof(path), "pg_wal/%s", name);
	memset(segment + filled, 0, segment_size - filled);
	output_bytes(options, path, segment, segment_size);
	if (!options->as_archives)
		target_sync(path);
}

static void
take_data(const char *message, int len)
{
	const char *data = message + DATA_HEADER_LEN;

	if (len < DATA_HEADER_LEN || copy_u64(message + 1) != position)
		fatal("unexpected data from the server: WAL is not what follows at %X/%X",
			  LSN_FORMAT_ARGS(position));
	for (len -= DATA_HEADER_LEN; len > 0;)
	{
		uint32		offset = XLogSegmentOffset(position, segment_size);
		uint32		part = Min((uint32) len, segment_size - offset);

		memcpy(segment + offset, data, part);
		position += part;
		data += part;
		len -= part;
		if (offset + part == segment_size)
			write_segment();
	}
}

static void
put_u64(char *bytes, uint64 value)
{
	value = pg_hton64(value);
	memcpy(bytes, &value, sizeof(value));
}

/* Tells the server how far we are; nothing of it is durable yet. */
static void
send_status(void)
{
	char		message[1 + 4 * 8 + 1] = {'r'};
	struct timeval now;

	gettimeofday(&now, NULL);
	put_u64(message + 1, position);
	put_u64(message + 25, (uint64) (now.tv_sec - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
									SECS_PER_DAY) * USECS_PER_SEC + now.tv_usec);
	if (PQputCopyData(conn, message, sizeof(message)) <= 0 || PQflush(conn) != 0)
		fatal("could not send feedback packet: %s", PQerrorMessage(conn));
}

/* The server asks for an answer. */
static void
take_keepalive(const char *message, int len)
{
	if (len < 1 + 8 + 8 + 1)
		fatal("unexpected data from the server: a keepalive message is too short");
	if (message[17])
		send_status();
}

static bool
is_complete(void)
{
	XLogRecPtr	end = atomic_load(&stop);

	return !XLogRecPtrIsInvalid(end) && position >= end;
}

/* Waits for the next message; false when the server ends the stream. */
static bool
next_message(char **message, int *len)
{
	static int	waited = 0;

	while ((*len = PQgetCopyData(conn, message, true)) == 0)
	{
		struct pollfd poll_fd = {.fd = PQsocket(conn),.events = POLLIN};

		if (workers_stopping())
			give_up();
		if ((waited += WAIT_MS) >= STATUS_MS)
		{
			send_status();
			waited = 0;
		}
		if (poll(&poll_fd, 1, WAIT_MS) < 0 && errno != EINTR)
			fatal("could not wait for the server: %m");
		if (!PQconsumeInput(conn))
			fatal("could not receive data from WAL stream: %s", PQerrorMessage(conn));
		if (is_complete())
			return false;
	}
	if (*len == -2)
		fatal("could not receive data from WAL stream: %s", PQerrorMessage(conn));
	return *len > 0;
}

static void
receive(void *unused, int number)
{
	char	   *message;
	int			len;

	while (!is_complete() && next_message(&message, &len))
	{
		if (message[0] == 'w')
			take_data(message, len);
		else if (message[0] == 'k')
			take_keepalive(message, len);
		else
			fatal("unrecognized streaming header: \"%c\"", message[0]);
		PQfreemem(message);
	}
	if (!is_complete())
		fatal_hint("Use -X fetch for a backup of a server that may switch timelines.",
				   "the server ended the WAL stream at %X/%X", LSN_FORMAT_ARGS(position));
	if (XLogSegmentOffset(position, segment_size) != 0)
		write_segment();
}

/*
 * Begins to receive, once it is known where the backup starts.
 */
void
stream_begin(const BackupServer *server)
{
	char		slot[64] = "";
	char		command[128];
	PGresult   *result;

	if (!options->no_slot)
		snprintf(slot, sizeof(slot), "SLOT pg_ptrack_%d ", PQbackendPID(conn));
	tli = server->start_tli;
	position = server->start - XLogSegmentOffset(server->start, segment_size);
	snprintf(command, sizeof(command), "START_REPLICATION %s%X/%X TIMELINE %u",
			 slot, LSN_FORMAT_ARGS(position), tli);
	result = PQexec(conn, command);
	if (PQresultStatus(result) != PGRES_COPY_BOTH)
		fatal("could not send replication command \"%s\": %s", command, PQerrorMessage(conn));
	PQclear(result);
	receiver = worker_begin(receive, NULL, 0);
}

/*
 * Waits until WAL was received up to where the backup ended.
 */
void
stream_end(const BackupServer *server)
{
	atomic_store(&stop, server->stop);
	worker_end(receiver);
	if (workers_stopping())
		give_up();
	PQfinish(conn);
	pg_free(segment);
}
