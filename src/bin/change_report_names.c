/*
 * change_report_names.c
 *		How names and numbers are shown in a report.
 */
#include "postgres_fe.h"

#include <time.h>

#include "change_report.h"
#include "mb/pg_wchar.h"

/* Instead of what cannot be shown. */
#define REPLACEMENT_CHARACTER	"\357\277\275"

/*
 * Reads an LSN; false if the text is none.
 */
bool
lsn_from_text(const char *text, XLogRecPtr *lsn)
{
	static const char *const digits = "0123456789ABCDEFabcdef";
	size_t		high = strspn(text, digits);
	size_t		low = text[high] == '/' ? strspn(text + high + 1, digits) : 0;

	if (high < 1 || high > 8 || low < 1 || low > 8 || text[high + 1 + low] != '\0')
		return false;
	*lsn = (uint64) strtoul(text, NULL, 16) << 32 | strtoul(text +high + 1, NULL, 16);
	return true;
}

/* Would a terminal take that character, of so many bytes, for a command? */
static bool
is_control(const unsigned char *c, int len)
{
	if (len == 1)
		return *c < ' ' || *c == 0x7f;
	return len == 2 && c[0] == 0xc2 && c[1] < 0xa0;
}

/*
 * A copy of what is supposed to be UTF-8, in malloc'd memory: what is not, and
 * control characters, are replaced.
 */
char *
clean_text(const char *text)
{
	PQExpBufferData out;
	int			len;

	initPQExpBuffer(&out);
	for (const unsigned char *c = (const unsigned char *) text; *c; c += Max(len, 1))
	{
		len = pg_encoding_verifymbchar(PG_UTF8, (const char *) c,
									   strnlen((const char *) c, MAX_MULTIBYTE_CHAR_LEN));
		if (len <= 0 || is_control(c, len))
			appendPQExpBufferStr(&out, REPLACEMENT_CHARACTER);
		else
			appendBinaryPQExpBuffer(&out, (const char *) c, len);
	}
	return out.data;
}

/*
 * A number of bytes, in malloc'd memory, as are those below.
 */
char *
size_text(int64 bytes)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	double		size = (double) bytes;
	size_t		unit = 0;

	for (; size >= 1024 && unit + 1 < lengthof(units); unit++)
		size /= 1024;
	return psprintf("%.*f %s", unit == 0 ? 0 : 1, size, units[unit]);
}

/*
 * A time in seconds since 1970.
 */
char *
time_text(int64 seconds)
{
	time_t		when = (time_t) seconds;
	struct tm	broken_down;
	char text[	64];

	if (seconds == 0 || gmtime_r(&when, &broken_down) == NULL ||
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S GMT", &broken_down) == 0)
		return pg_strdup("unknown time");
	return pg_strdup(text);
}

/*
 * What that is of: the relation's name, or else its number.
 */
char *
relation_text(const ReportFork *fork)
{
	if (fork->fork == NULL)
		return pg_strdup("(all relations)");
	if (fork->relation)
		return pg_strdup(fork->relation);
	return psprintf("%u", fork->relfilenode);
}

/*
 * The database's name, or else its number.
 */
char *
database_text(const ReportFork *fork)
{
	if (fork->database_name)
		return pg_strdup(fork->database_name);
	if (fork->database != InvalidOid)
		return psprintf("%u", fork->database);
	return pg_strdup(fork->tablespace == InvalidOid && fork->fork == NULL && fork->forks == 1 ?
					 "(all databases)" : "(shared)");
}
