/*
 * combine_dir.c
 *		Backups that are directories: opening, reading and listing files.
 *
 * What is in a backup is not trusted.  A symbolic link is followed only where
 * PostgreSQL has them: pg_wal, and the tablespaces in pg_tblspc.  Anywhere else
 * it could lead to a file that nobody meant to be copied, or written to.
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "combine_dir.h"
#include "report.h"
#include "workers.h"

/* Files that are read at once, as labels, are not longer. */
#define MAX_SMALL_FILE	(1024 * 1024)

typedef struct Walk
{
	const char *dir;
	dir_entry_fn entry;
	void	   *arg;
} Walk;

/*
 * The name of a file in a directory, in MAXPGPATH bytes.
 */
void
path_join(char *to, const char *dir, const char *path)
{
	if (snprintf(to, MAXPGPATH, "%s/%s", dir, path) >= MAXPGPATH)
		fatal("file name \"%s/%s\" is too long", dir, path);
}

/* May the directory be reached by a symbolic link? */
static bool
may_be_link(const char *path, size_t len)
{
	if (len == 6 && strncmp(path, "pg_wal", 6) == 0)
		return true;
	return len > 10 && strncmp(path, "pg_tblspc/", 10) == 0 &&
		strspn(path + 10, "0123456789") == len - 10;
}

static void
close_keeping_errno(int fd)
{
	int			saved_errno = errno;

	close(fd);
	errno = saved_errno;
}

/* The directory that has the file, or -1.  *name: the file's name in it. */
static int
open_parent(const char *dir, const char *path, const char **name)
{
	int			fd = open(dir, O_RDONLY | O_DIRECTORY, 0);
	const char *slash;

	*name = path;
	while (fd >= 0 && (slash = strchr(*name, '/')) != NULL)
	{
		int			flags = O_RDONLY | O_DIRECTORY;
		char		part[MAXPGPATH];
		int			next;

		if (!may_be_link(path, slash - path))
			flags |= O_NOFOLLOW;
		strlcpy(part, *name, Min(slash - *name + 1, MAXPGPATH));
		next = openat(fd, part, flags, 0);
		close_keeping_errno(fd);
		fd = next;
		*name = slash + 1;
	}
	return fd;
}

/* Opens a regular file.  Returns -1 if there is none of that name. */
static int
dir_try_open(const char *dir, const char *path, int flags, struct stat *st)
{
	const char *name;
	int			parent = open_parent(dir, path, &name);
	int			fd = -1;

	if (parent >= 0)
	{
		/* Not to wait for the other end of a named pipe. */
		fd = openat(parent, name, flags | O_NOFOLLOW | O_NONBLOCK, 0);
		close_keeping_errno(parent);
	}
	if (fd < 0 && errno == ENOENT)
		return -1;
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		fatal("could not open file \"%s/%s\": there is a symbolic link, or no directory, on the way to it",
			  dir, path);
	if (fd < 0)
		fatal("could not open file \"%s/%s\": %m", dir, path);
	if (fstat(fd, st) < 0)
		fatal("could not stat file \"%s/%s\": %m", dir, path);
	if (!S_ISREG(st->st_mode))
		fatal("\"%s/%s\" is not a regular file", dir, path);
	return fd;
}

/*
 * Opens a regular file.
 */
int
dir_open(const char *dir, const char *path, int flags, struct stat *st)
{
	int			fd = dir_try_open(dir, path, flags, st);

	if (fd < 0)
		fatal("could not open file \"%s/%s\": %m", dir, path);
	return fd;
}

bool
dir_has(const char *dir, const char *path)
{
	struct stat st;
	int			fd = dir_try_open(dir, path, O_RDONLY, &st);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/*
 * A small file, in malloc'd memory, with a zero byte behind it.
 */
char *
dir_read(const char *dir, const char *path, size_t *len)
{
	struct stat st;
	int			fd = dir_open(dir, path, O_RDONLY | PG_BINARY, &st);
	char	   *text;
	ssize_t		got;

	if (st.st_size > MAX_SMALL_FILE)
		fatal("file \"%s/%s\" is too large", dir, path);
	text = pg_malloc(st.st_size + 1);

	got = read(fd, text, st.st_size);
	if (got < 0)
		fatal("could not read file \"%s/%s\": %m", dir, path);
	if (got != st.st_size)
		fatal("could not read file \"%s/%s\": read %zd of %lld", dir, path, got,
			  (long long) st.st_size);
	text[		got] = '\0';

	*len = got;
	close(fd);
	return text;
}

static void walk(const Walk *w, int fd, const char *path);

static void
walk_directory(const Walk *w, int parent, const char *name, const char *path, int flags)
{
	int			fd = openat(parent, name, O_RDONLY | O_DIRECTORY | flags, 0);

	if (fd < 0)
		fatal("could not open directory \"%s/%s\": %m", w->dir, path);
	walk(w, fd, path);
}

static void
walk_link(const Walk *w, int parent, const char *name, const char *path)
{
	char		link[MAXPGPATH];
	struct stat st;
	ssize_t		len;

	if (!may_be_link(path, strlen(path)))
		fatal("\"%s/%s\" is a symbolic link", w->dir, path);
	len = readlinkat(parent, name, link, sizeof(link));
	if (len < 0 || fstatat(parent, name, &st, 0) < 0)
		fatal("could not read symbolic link \"%s/%s\": %m", w->dir, path);
	if (len >= (ssize_t) sizeof(link))
		fatal("symbolic link \"%s/%s\" target is too long", w->dir, path);
	link[len] = '\0';
	w->entry(w->arg, path, &st, link);
	walk_directory(w, parent, name, path, 0);
}

static void
walk_entry(const Walk *w, int parent, const char *name, const char *path)
{
	struct stat st;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		fatal("could not stat file \"%s/%s\": %m", w->dir, path);
	if (S_ISLNK(st.st_mode))
		walk_link(w, parent, name, path);
	else if (S_ISDIR(st.st_mode))
	{
		w->entry(w->arg, path, &st, NULL);
		walk_directory(w, parent, name, path, O_NOFOLLOW);
	}
	else if (S_ISREG(st.st_mode))
		w->entry(w->arg, path, &st, NULL);
	else
		fatal("\"%s/%s\" is neither a file nor a directory", w->dir, path);
}

/* Closes fd. */
static void
walk(const Walk *w, int fd, const char *path)
{
	DIR		   *stream = fdopendir(fd);
	struct dirent *de;

	if (stream == NULL)
		fatal("could not open directory \"%s/%s\": %m", w->dir, path);
	while (errno = 0, (de = readdir(stream)) != NULL)
	{
		char		child[MAXPGPATH];

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (workers_stopping())
			give_up();
		if (path[0] == '\0')
			strlcpy(child, de->d_name, MAXPGPATH);
		else
			path_join(child, path, de->d_name);
		walk_entry(w, fd, de->d_name, child);
	}
	if (errno != 0)
		fatal("could not read directory \"%s/%s\": %m", w->dir, path);
	closedir(stream);
}

/*
 * Tells of everything in a directory, each directory before what is in it.
 */
void
dir_walk(const char *dir, dir_entry_fn entry, void *arg)
{
	Walk		w = {.dir = dir,.entry = entry,.arg = arg};
	int			fd = open(dir, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		fatal("could not open directory \"%s\": %m", dir);
	walk(&w, fd, "");
}
