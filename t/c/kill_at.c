/*
 * kill_at.c
 *		Kills the program that it is loaded into, by LD_PRELOAD, at one of the
 *		calls by which it changes files.
 *
 * KILL_AT says at which one: 1 is the first.  The call is not made then; but a
 * write is, in half.  Without that, the number of calls is written to the file
 * that KILL_COUNT names, when the program ends.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls = 0;

/* Is this the call? */
static int
is_chosen(void)
{
	const char *at = getenv("KILL_AT");

	return atomic_fetch_add(&calls, 1) + 1 == (at ? atol(at) : 0);
}

static void
maybe_die(void)
{
	if (is_chosen())
		raise(SIGKILL);
}

__attribute__((destructor))
static void
write_count(void)
{
	const char *name = getenv("KILL_COUNT");
	FILE	   *file = name ? fopen(name, "w") : NULL;

	if (file)
	{
		fprintf(file, "%ld\n", atomic_load(&calls));
		fclose(file);
	}
}

#define REAL(name)	((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

#define KILLING(name, parameters, arguments) \
int \
name parameters \
{ \
	maybe_die(); \
	return REAL(name) arguments; \
}

KILLING(rename, (const char *from, const char *to), (from, to))
KILLING(unlink, (const char *path), (path))
KILLING(rmdir, (const char *path), (path))
KILLING(mkdir, (const char *path, mode_t mode), (path, mode))
KILLING(symlink, (const char *to, const char *path), (to, path))
KILLING(ftruncate, (int fd, off_t length), (fd, length))
KILLING(ftruncate64, (int fd, off64_t length), (fd, length))
KILLING(fsync, (int fd), (fd))

#define KILLING_WRITE(name, offset_type) \
ssize_t \
name(int fd, const void *bytes, size_t len, offset_type at) \
{ \
	if (is_chosen()) \
	{ \
		REAL(name) (fd, bytes, len / 2, at); \
		raise(SIGKILL); \
	} \
	return REAL(name) (fd, bytes, len, at); \
}

KILLING_WRITE(pwrite, off_t)
KILLING_WRITE(pwrite64, off64_t)
