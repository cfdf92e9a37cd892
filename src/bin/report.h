/*
 * report.h
 *		Messages of pg_ptrack, and how it gives up.
 *
 * Messages go to standard error in the style of PostgreSQL's programs, or as a
 * JSON object a line.  Any thread may write them.
 */
#ifndef PTRACK_REPORT_H
#define PTRACK_REPORT_H

#include "common/logging.h"

extern void report_init(const char *argv0);
extern void report_as_json(void);
extern bool report_is_json(void);

extern void report(enum pg_log_level level, enum pg_log_part part,
				   const char *fmt,...) pg_attribute_printf(3, 4);
extern void report_json_line(const char *line);
extern char *json_quoted(const char *text);

#define report_error(...)	report(PG_LOG_ERROR, PG_LOG_PRIMARY, __VA_ARGS__)
#define report_warning(...)	report(PG_LOG_WARNING, PG_LOG_PRIMARY, __VA_ARGS__)
#define report_info(...)	report(PG_LOG_INFO, PG_LOG_PRIMARY, __VA_ARGS__)
#define report_debug(...)	report(PG_LOG_DEBUG, PG_LOG_PRIMARY, __VA_ARGS__)

/* More of the message before. */
#define report_detail(...)	report(PG_LOG_ERROR, PG_LOG_DETAIL, __VA_ARGS__)
#define report_hint(...)	report(PG_LOG_ERROR, PG_LOG_HINT, __VA_ARGS__)

/*
 * After an error: ends the program with status 1; in a worker, see workers.h.
 * No lock may be held.
 */
extern void give_up(void) __attribute__((noreturn));

#define fatal(...) \
	do { \
		report_error(__VA_ARGS__); \
		give_up(); \
	} while (0)

#define fatal_hint(hint, ...) \
	do { \
		report_error(__VA_ARGS__); \
		report_hint("%s", hint); \
		give_up(); \
	} while (0)

#endif							/* PTRACK_REPORT_H */
