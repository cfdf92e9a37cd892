/*
 * break_call.c
 *		Kills the program that it is loaded into, by LD_PRELOAD, at one of the
 *		calls by which it changes files; or has that call fail.
 *
 * KILL_AT says at which one: 1 is the first.  The call is not made then; but a
 * write is, in half.  FAIL_AT says at which one instead that fails, with errno
 * FAIL_ERRNO.  INTERRUPT_AT says at which one the program is interrupted, and may
 * go on.  The number of calls is written to the file that KILL_COUNT names, if the
 * program comes to its end.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls = 0;

enum outcome
{
	MADE, KILLED, FAILED
};

static int
is_at(const char *name, long call)
{
	const char *at = getenv(name);

	return at && atol(at) == call;
}

/* What is to become of this call? */
static enum outcome
next_call(void)
{
	long		call = atomic_fetch_add(&calls, 1) + 1;

	if (is_at("INTERRUPT_AT", call))
		kill(getpid(), SIGINT);
	if (is_at("KILL_AT", call))
		return KILLED;
	if (!is_at("FAIL_AT", call))
		return MADE;
	errno = atoi(getenv("FAIL_ERRNO"));
	return FAILED;
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
	enum outcome outcome = next_call(); \
 \
	if (outcome == KILLED) \
		raise(SIGKILL); \
	return outcome == FAILED ? -1 : REAL(name) arguments; \
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
	enum outcome outcome = next_call(); \
 \
	if (outcome == KILLED) \
	{ \
		REAL(name) (fd, bytes, len / 2, at); \
		raise(SIGKILL); \
	} \
	return outcome == FAILED ? -1 : REAL(name) (fd, bytes, len, at); \
}

KILLING_WRITE(pwrite, off_t)
KILLING_WRITE(pwrite64, off64_t)
