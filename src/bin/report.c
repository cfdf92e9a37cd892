/*
 * report.c
 *		Messages of pg_ptrack, and how it gives up.
 */
#include "postgres_fe.h"

#include <pthread.h>

#include "pqexpbuffer.h"
#include "report.h"
#include "workers.h"

static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;
static bool as_json = false;

void
report_init(const char *argv0)
{
	pg_logging_init(argv0);
	set_pglocale_pgservice(argv0, PG_TEXTDOMAIN("pg_ptrack"));
}

/*
 * From now on, messages are JSON objects, a line each.
 */
void
report_as_json(void)
{
	as_json = true;
}

bool
report_is_json(void)
{
	return as_json;
}

/*
 * A JSON string, quotes included, in malloc'd memory.  Bytes that are not UTF-8
 * are for the reader to make sense of.
 */
char *
json_quoted(const char *text)
{
	PQExpBufferData out;

	initPQExpBuffer(&out);
	appendPQExpBufferChar(&out, '"');
	for (const char *c = text; *c; c++)
	{
		if (*c == '"' || *c == '\\')
			appendPQExpBuffer(&out, "\\%c", *c);
		else if ((unsigned char) *c < ' ')
			appendPQExpBuffer(&out, "\\u%04x", *c);
		else
			appendPQExpBufferChar(&out, *c);
	}
	appendPQExpBufferChar(&out, '"');
	if (PQExpBufferDataBroken(out))
		pg_fatal("out of memory");
	return out.data;
}

/*
 * Writes a line of JSON to standard error.
 */
void
report_json_line(const char *line)
{
	pthread_mutex_lock(&report_lock);
	fprintf(stderr, "%s\n", line);
	pthread_mutex_unlock(&report_lock);
}

static void
report_json(enum pg_log_level level, enum pg_log_part part, const char *text)
{
	static const char *const parts[] = {
		[PG_LOG_PRIMARY] = "message",[PG_LOG_DETAIL] = "detail",[PG_LOG_HINT] = "hint"
	};
	char	   *quoted = json_quoted(text);
	char	   *line = psprintf("{\"type\": \"%s\", \"level\": \"%s\", \"text\": %s}", parts[part],
								level == PG_LOG_ERROR ? "error" :
								level == PG_LOG_WARNING ? "warning" :
								level == PG_LOG_INFO ? "info" : "debug",
								quoted);

	report_json_line(line);
	pfree(line);
	free(quoted);
}

/*
 * Writes a message, or more of the one before.
 */
void
report(enum pg_log_level level, enum pg_log_part part, const char *fmt,...)
{
	int			saved_errno = errno;
	va_list		args;
	char text[	8192];

	if (level < __pg_log_level)
		return;
	va_start(args, fmt);
	errno = saved_errno;
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (as_json)
		report_json(level, part, text);
	else
	{
		pthread_mutex_lock(&report_lock);
		pg_log_generic(level, part, "%s", text);
		pthread_mutex_unlock(&report_lock);
	}
}

void
give_up(void)
{
	worker_give_up();
	exit(1);
}
