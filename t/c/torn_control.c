/*
 * torn_control.c
 *		Has a server write its control file in two halves, with a pause in between.
 *		To be loaded by LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAUSE_US	200000
#define FIRST_HALF	100

static int
is_control(int fd)
{
	static const char name[] = "/global/pg_control";
	char		link[64];
	char		path[PATH_MAX];
	ssize_t		len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path));
	return len >= (ssize_t) sizeof(name) - 1 &&
		memcmp(path + len - (sizeof(name) - 1), name, sizeof(name) - 1) == 0;
}

ssize_t
write(int fd, const void *bytes, size_t len)
{
	__typeof__(&write) real = (__typeof__(&write)) dlsym(RTLD_NEXT, "write");
	ssize_t		rest;

	if (len <= FIRST_HALF || !is_control(fd))
		return real(fd, bytes, len);
	if (real(fd, bytes, FIRST_HALF) != FIRST_HALF)
		return -1;
	usleep(PAUSE_US);
	rest = real(fd, (const char *) bytes + FIRST_HALF, len - FIRST_HALF);
	return rest < 0 ? rest : rest + FIRST_HALF;
}
