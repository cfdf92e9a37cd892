/*
 * io_faults.c
 *		Makes chosen system calls on the store fail, in a running server.
 *
 * To be loaded by LD_PRELOAD, with IO_FAULTS naming the control file, of
 * sizeof(Control) bytes, which every process of the server maps.  Whoever
 * writes to that file changes what happens from then on.
 *
 * Calls count when they are about the directory "ptrack" or what is below, by a
 * path relative to the data directory, as the server uses them, or by a file
 * descriptor or directory that was opened so; or, for open, about the data
 * directory itself.  The calls of each kind are counted from the time when the
 * control file was written; the one chosen fails with the error chosen, after
 * it has been made if it is a close.  Error 0 means that a read or write stops
 * half-way.  Only processes count whose title has the given string in it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum Kind
{
	KIND_NONE,
	KIND_OPEN,
	KIND_READ,
	KIND_WRITE,
	KIND_FSYNC,
	KIND_CLOSE,
	KIND_RENAME,
	KIND_MKDIR,
	KIND_RMDIR,
	KIND_UNLINK,
	KIND_OPENDIR,
	KIND_READDIR,
	KIND_STAT,
	KINDS
} Kind;

typedef struct Control
{
	uint32_t	kind;			/* of call to fail; KIND_NONE: only count */
	uint32_t	first;			/* the first that fails, from 1 */
	uint32_t	times;			/* how many fail */
	uint32_t	error;			/* errno; 0: stop half-way */
	char		process[32];	/* in its title; empty: any */
	uint32_t	hits;			/* how many have failed */
	uint32_t	counts[KINDS];
} Control;

#define MAX_FDS		4096

static Control *control;
static bool ours[MAX_FDS];		/* descriptors of the store */

/* The function that this one hides. */
#define REAL(name) \
	static __typeof__(name) *real; \
	if (real == NULL) \
		real = (__typeof__(name) *) dlsym(RTLD_NEXT, #name)

static void __attribute__((constructor))
attach(void)
{
	const char *path = getenv("IO_FAULTS");
	int			fd = path ? open(path, O_RDWR) : -1;
	void	   *map = MAP_FAILED;

	if (fd >= 0)
	{
		map = mmap(NULL, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
	}
	if (map != MAP_FAILED)
		control = map;
}

/* Before attach, even strcmp may not be ready, if it is a sanitizer's. */
static bool
is_store_path(const char *path)
{
	return control &&
		(strcmp(path, "ptrack") == 0 || strncmp(path, "ptrack/", 7) == 0);
}

static bool
is_store_fd(int fd)
{
	return fd >= 0 && fd < MAX_FDS && ours[fd];
}

static void
note_fd(int fd, bool is_ours)
{
	if (fd >= 0 && fd < MAX_FDS)
		ours[fd] = is_ours;
}

/* The server keeps the title where the command line was. */
static bool
is_chosen_process(void)
{
	char		title[256] = {0};
	FILE	   *file;

	if (control->process[0] == '\0')
		return true;
	file = fopen("/proc/self/cmdline", "r");
	if (file == NULL)
		return false;
	if (fread(title, 1, sizeof(title) - 1, file) == 0)
		title[0] = '\0';
	fclose(file);
	return strstr(title, control->process) != NULL;
}

/*
 * Counts a call of the store, and tells whether it shall fail.  Leaves errno
 * alone.
 */
static bool
shall_fail(Kind kind)
{
	int			saved = errno;
	uint32_t	n;

	if (!is_chosen_process())
	{
		errno = saved;
		return false;
	}
	errno = saved;
	n = __atomic_add_fetch(&control->counts[kind], 1, __ATOMIC_SEQ_CST);
	if (control->kind != (uint32_t) kind || n < control->first ||
		n - control->first >= control->times)
		return false;
	__atomic_add_fetch(&control->hits, 1, __ATOMIC_SEQ_CST);
	return true;
}

static int
fail(void)
{
	errno = (int) control->error;
	return -1;
}

/* How much of a read or write is made; 0: it fails. */
static size_t
allowed(Kind kind, int fd, size_t len)
{
	if (!is_store_fd(fd) || !shall_fail(kind))
		return len;
	return control->error == 0 ? (len + 1) / 2 : 0;
}

int
open(const char *path, int flags, ...)
{
	va_list		args;
	mode_t		mode;
	bool		is_ours = is_store_path(path);
	int			fd;

	REAL(open);
	va_start(args, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	if ((is_ours || (control && strcmp(path, ".") == 0)) && shall_fail(KIND_OPEN))
		return fail();
	fd = real(path, flags, mode);
	note_fd(fd, is_ours);
	return fd;
}

int
close(int fd)
{
	bool		was_ours = is_store_fd(fd);
	int			result;

	REAL(close);
	result = real(fd);
	note_fd(fd, false);
	return was_ours && shall_fail(KIND_CLOSE) ? fail() : result;
}

ssize_t
write(int fd, const void *data, size_t len)
{
	size_t		part = allowed(KIND_WRITE, fd, len);

	REAL(write);
	return part == 0 && len > 0 ? fail() : real(fd, data, part);
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	size_t		part = allowed(KIND_WRITE, fd, len);

	REAL(pwrite);
	return part == 0 && len > 0 ? fail() : real(fd, data, part, offset);
}

ssize_t
read(int fd, void *data, size_t len)
{
	size_t		part = allowed(KIND_READ, fd, len);

	REAL(read);
	return part == 0 && len > 0 ? fail() : real(fd, data, part);
}

ssize_t
pread(int fd, void *data, size_t len, off_t offset)
{
	size_t		part = allowed(KIND_READ, fd, len);

	REAL(pread);
	return part == 0 && len > 0 ? fail() : real(fd, data, part, offset);
}

int
fsync(int fd)
{
	REAL(fsync);
	return is_store_fd(fd) && shall_fail(KIND_FSYNC) ? fail() : real(fd);
}

int
fdatasync(int fd)
{
	REAL(fdatasync);
	return is_store_fd(fd) && shall_fail(KIND_FSYNC) ? fail() : real(fd);
}

int
rename(const char *from, const char *to)
{
	REAL(rename);
	return is_store_path(to) && shall_fail(KIND_RENAME) ? fail() : real(from, to);
}

int
mkdir(const char *path, mode_t mode)
{
	REAL(mkdir);
	return is_store_path(path) && shall_fail(KIND_MKDIR) ? fail() : real(path, mode);
}

int
rmdir(const char *path)
{
	REAL(rmdir);
	return is_store_path(path) && shall_fail(KIND_RMDIR) ? fail() : real(path);
}

int
unlink(const char *path)
{
	REAL(unlink);
	return is_store_path(path) && shall_fail(KIND_UNLINK) ? fail() : real(path);
}

int
stat(const char *restrict path, struct stat *restrict result)
{
	REAL(stat);
	return is_store_path(path) && shall_fail(KIND_STAT) ? fail() : real(path, result);
}

int
lstat(const char *restrict path, struct stat *restrict result)
{
	REAL(lstat);
	return is_store_path(path) && shall_fail(KIND_STAT) ? fail() : real(path, result);
}

DIR *
opendir(const char *path)
{
	DIR		   *dir;

	REAL(opendir);
	if (is_store_path(path) && shall_fail(KIND_OPENDIR))
	{
		fail();
		return NULL;
	}
	dir = real(path);
	if (dir)
		note_fd(dirfd(dir), is_store_path(path));
	return dir;
}

struct dirent *
readdir(DIR *dir)
{
	REAL(readdir);
	if (is_store_fd(dirfd(dir)) && shall_fail(KIND_READDIR))
	{
		fail();
		return NULL;
	}
	return real(dir);
}

int
closedir(DIR *dir)
{
	REAL(closedir);
	note_fd(dirfd(dir), false);
	return real(dir);
}
