/*
 * connection.h
 *		Connections to the server.
 *
 * Whatever fails here is reported, and ends the worker or the program.  While
 * waiting for the server, everybody looks whether to stop.
 */
#ifndef PTRACK_CONNECTION_H
#define PTRACK_CONNECTION_H

#include "libpq-fe.h"
#include "pqexpbuffer.h"

/* How to connect; NULL: not given. */
typedef struct ConnectionOptions
{
	const char *connstr;		/* database name, or connection string */
	const char *host;
	const char *port;
	const char *user;
	bool		ask_password;
	bool		never_ask;
	char	   *password;
} ConnectionOptions;

extern bool connection_option(ConnectionOptions *options, int c);
extern PGconn *connection_open(ConnectionOptions *options, bool may_ask);
extern PGconn *connection_open_replication(ConnectionOptions *options);
extern void connection_watch(PGconn *conn, int pipe_end);
extern void connection_command(PGconn *conn, const char *command);
extern PGresult *connection_query(PGconn *conn, const char *query);
extern char *connection_value(PGconn *conn, const char *query);
extern char *connection_extension_schema(PGconn *conn);

/* Reading what COPY ... TO STDOUT (FORMAT binary) sends, a row at a time. */
typedef struct CopyReader
{
	PGconn	   *conn;
	bool		begun;			/* the header was read */
	char	   *message;		/* from libpq; NULL: none */
	int			len;
	int			next;			/* in the message */
	int			fields;			/* of the row that are left */
} CopyReader;

extern void copy_begin(CopyReader *copy, PGconn *conn, const char *command);
extern bool copy_row(CopyReader *copy);
extern const char *copy_field(CopyReader *copy, int *len);
extern uint32 copy_u32(const char *bytes);
extern uint64 copy_u64(const char *bytes);

extern void append_literal(PQExpBuffer buffer, PGconn *conn, const char *text);

#endif							/* PTRACK_CONNECTION_H */
