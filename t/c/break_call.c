/*
 * break_call.c
 *		Kills the program that it is loaded into, by LD_PRELOAD, at one of the
 *		calls by which it changes files; or has that call fail.
 *
 * KILL_AT says at which one: 1 is the first.  The call is not made then; but a
 * write is, in half.  FAIL_AT says at which one instead that fails, with errno
 * FAIL_ERRNO; or FAIL_CALL, all calls of which function.  INTERRUPT_AT says at which
 * one the program is interrupted, and may go on.  The number of calls is written to
 * the file that KILL_COUNT names, if the program comes to its end.
 *
 * What is made durable, and what is renamed, is noted in the file that SYNC_LOG
 * names, in lines of the function's name and the path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* What is to become of this call of that function? */
static enum outcome
next_call(const char *function)
{
	const char *fails = getenv("FAIL_CALL");
	long		call = atomic_fetch_add(&calls, 1) + 1;

	if (is_at("INTERRUPT_AT", call))
		kill(getpid(), SIGINT);
	if (is_at("KILL_AT", call))
		return KILLED;
	if (!is_at("FAIL_AT", call) && !(fails && strcmp(fails, function) == 0))
		return MADE;
	errno = atoi(getenv("FAIL_ERRNO"));
	return FAILED;
}

/* One write, so that lines of several threads are not mixed up. */
static void
note(const char *function, const char *path)
{
	const char *name = getenv("SYNC_LOG");
	char		line[PATH_MAX + 64];
	int			fd = name ? open(name, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;

	if (fd < 0)
		return;
	snprintf(line, sizeof(line), "%s %s\n", function, path);
	if (write(fd, line, strlen(line)) < 0)
		abort();
	close(fd);
}

static void
note_fd(const char *function, int fd)
{
	char		link[64];
	char		path[PATH_MAX] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (readlink(link, path, sizeof(path) - 1) < 0)
		abort();
	note(function, path);
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

/* noting: what notes the call, if it is made. */
#define KILLING_NOTED(name, parameters, arguments, noting) \
int \
name parameters \
{ \
	enum outcome outcome = next_call(#name); \
 \
	if (outcome == KILLED) \
		raise(SIGKILL); \
	if (outcome == FAILED) \
		return -1; \
	noting; \
	return REAL(name) arguments; \
}

#define KILLING(name, parameters, arguments)	KILLING_NOTED(name, parameters, arguments, (void) 0)

KILLING_NOTED(rename, (const char *from, const char *to), (from, to), note("rename", to))
KILLING(unlink, (const char *path), (path))
KILLING(rmdir, (const char *path), (path))
KILLING(mkdir, (const char *path, mode_t mode), (path, mode))
KILLING(symlink, (const char *to, const char *path), (to, path))
KILLING(ftruncate, (int fd, off_t length), (fd, length))
KILLING(ftruncate64, (int fd, off64_t length), (fd, length))
KILLING_NOTED(fsync, (int fd), (fd), note_fd("fsync", fd))
KILLING_NOTED(syncfs, (int fd), (fd), note_fd("syncfs", fd))
KILLING_NOTED(sync_file_range, (int fd, off_t at, off_t len, unsigned int flags), (fd, at, len, flags),
			  note_fd("sync_file_range", fd))
KILLING_NOTED(sync_file_range64, (int fd, off64_t at, off64_t len, unsigned int flags), (fd, at, len, flags),
			  note_fd("sync_file_range", fd))

#define KILLING_WRITE(name, offset_type) \
ssize_t \
name(int fd, const void *bytes, size_t len, offset_type at) \
{ \
	enum outcome outcome = next_call(#name); \
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
