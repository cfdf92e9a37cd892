/*
 * paths.c
 *		Names of files in a backup.
 *
 * They are relative to its directory, with '/' between components.
 */
#include "postgres_fe.h"

#include "paths.h"

/*
 * The last component.
 */
const char *
path_file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

bool
path_is_incremental(const char *path)
{
	return strncmp(path_file_name(path), INCREMENTAL_PREFIX, INCREMENTAL_PREFIX_LEN) == 0;
}

/*
 * The name of the file that has what changed of that one.  False if there is no
 * room for it.
 */
bool
path_to_incremental(char *to, size_t room, const char *path)
{
	const char *name = path_file_name(path);

	return snprintf(to, room, "%.*s" INCREMENTAL_PREFIX "%s", (int) (name - path), path,
					name) < (int) room;
}

/*
 * The reverse.
 */
bool
path_from_incremental(char *to, size_t room, const char *path)
{
	const char *name = path_file_name(path);

	return snprintf(to, room, "%.*s%s", (int) (name - path), path,
					name + INCREMENTAL_PREFIX_LEN) < (int) room;
}

/* Digits without a leading zero; returns what follows, or NULL. */
static const char *
skip_number(const char *text)
{
	size_t		digits = strspn(text, "0123456789");

	return digits == 0 || digits > 10 || text[0] == '0' ? NULL : text +digits;
}

/* Is the directory part "global/", "base/N/" or "pg_tblspc/N/PG_.../N/"? */
static bool
is_relation_directory(const char *path, const char *name)
{
	const char *next;

	if (strncmp(path, "global/", 7) == 0)
		return path + 7 == name;
	if (strncmp(path, "base/", 5) == 0)
		next = path + 5;
	else if (strncmp(path, "pg_tblspc/", 10) == 0)
	{
		next = skip_number(path + 10);
		if (next == NULL || strncmp(next, "/PG_", 4) != 0)
			return false;
		next = strchr(next + 1, '/');
		if (next == NULL)
			return false;
		next++;
	}
	else
		return false;
	next = skip_number(next);
	return next != NULL && *next == '/' && next + 1 == name;
}

/*
 * Is that a segment file of a relation that is not temporary?
 */
bool
path_is_relation(const char *path, ForkNumber *fork, unsigned *segment)
{
	const char *name = path_file_name(path);
	const char *next = skip_number(name);

	if (next == NULL || !is_relation_directory(path, name))
		return false;
	*fork = MAIN_FORKNUM;
	*segment = 0;
	if (*next == '_')
	{
		for (int f = MAIN_FORKNUM + 1; f <= MAX_FORKNUM; f++)
		{
			size_t		len = strlen(forkNames[f]);

			if (strncmp(next + 1, forkNames[f], len) == 0 &&
				(next[1 + len] == '\0' || next[1 + len] == '.'))
			{
				*fork = (ForkNumber) f;
				next += 1 + len;
				break;
			}
		}
	}
	if (*next == '.')
	{
		const char *number = next + 1;

		next = skip_number(number);
		if (next == NULL)
			return false;
		*segment = (unsigned) strtoul(number, NULL, 10);
	}
	return *next == '\0';
}

/*
 * Does that hold settings of recovery, which may be changed in a backup?  What its
 * manifest says of these does not count.
 */
bool
path_is_recovery_settings(const char *path)
{
	static const char *const names[] = {"postgresql.auto.conf", "recovery.signal", "standby.signal"};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (strcmp(path, names[i]) == 0)
			return true;
	}
	return false;
}
