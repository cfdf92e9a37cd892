/*
 * combine_archives.c
 *		Backups that are tar archives: finding, opening and listing files.
 *
 * The archives are gone through once to note where each member is; there it is
 * read from later, at any place.
 *
 * In a compressed archive, no place can be gone to.  A file of the result is made
 * of pieces of several backups, and each archive has its files in an order of its
 * own.  So once it is known which members are needed at all, a second pass unpacks
 * those to a file that has no name, and goes when the program ends.  It takes as
 * much room on disk as they do: for increments, that is what changed; for a full
 * backup, it is its size.  In memory, there is what is known of each member, and
 * the few small files that have to be read before it is known what is needed.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "combine_archives.h"
#include "common/hashfn.h"
#include "paths.h"
#include "report.h"
#include "tar_input.h"
#include "workers.h"

#define UNPACK_SIZE		(256 * 1024)
#define MAX_KEPT		(1024 * 1024)

typedef struct Member
{
	const char *path;
	TarMemberType type;
	int			archive;		/* index */
	int			fd;				/* where it is unpacked, or -1 */
	int64		offset;			/* of its data; -1: compressed */
	uint64		size;
	int64		modified;
	char	   *link;
	char	   *contents;		/* of a compressed one that is needed early */
} Member;

typedef struct MemberEntry
{
	const char *path;
	size_t		number;
	uint32		status;
} MemberEntry;

#define SH_PREFIX		members
#define SH_ELEMENT_TYPE	MemberEntry
#define SH_KEY_TYPE		const char *
#define SH_KEY			path
#define SH_HASH_KEY(tb, key)	hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(tb, a, b)		(strcmp(a, b) == 0)
#define SH_SCOPE		static inline
#define SH_RAW_ALLOCATOR	pg_malloc0
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct Archives
{
	const char *dir;
	TarArchive *archives;
	int			count;
	Member	   *members;		/* in the order of the archives */
	size_t		member_count;
	size_t		member_room;
	members_hash *by_path;
	bool		compressed;		/* any of them */
};

static Member *
find_member(const Archives *archives, const char *path)
{
	MemberEntry *entry = members_lookup(archives->by_path, path);

	return entry ? &archives->members[entry->number] : NULL;
}

/* Reads a member's data from an archive to memory. */
static char *
read_data(const char *path, TarInput *input, uint64 size)
{
	char	   *data;
	uint64		done = 0;
	ssize_t		got;

	if (size > MAX_KEPT)
		fatal("file \"%s\" is too large", path);
	data = pg_malloc(size + 1);
	while (done < size && (got = tar_input_read(input, data + done, size - done)) != 0)
	{
		if (got < 0)
			fatal("%s", tar_input_problem(input));
		done += got;
	}
	if (done != size)
		fatal("file \"%s\" ends early", path);
	data[size] = '\0';
	return data;
}

static void
add_member(Archives *archives, int archive, const TarMember *found, TarInput *input)
{
	Member	   *member = find_member(archives, found->path);
	bool		exists;

	/* pg_wal may be in the main archive, too, but then has nothing in it. */
	if (member && member->type == TAR_DIRECTORY && found->type == TAR_DIRECTORY)
		return;
	if (member)
		fatal("file \"%s\" is twice in backup \"%s\"", found->path, archives->dir);
	if (archives->member_count == archives->member_room)
	{
		archives->member_room = Max(1024, archives->member_room * 2);
		archives->members = pg_realloc(archives->members,
									   archives->member_room * sizeof(Member));
	}
	member = &archives->members[archives->member_count];
	memset(member, 0, sizeof(*member));
	member->path = pg_strdup(found->path);
	member->type = found->type;
	member->archive = archive;
	member->fd = -1;
	member->offset = found->data_offset;
	member->size = found->size;
	member->modified = found->modified;
	if (found->type == TAR_LINK)
		member->link = pg_strdup(found->target);
	if (found->type == TAR_FILE && found->data_offset < 0)
	{
		archives->compressed = true;
		if (strcmp(found->path, LABEL_NAME) == 0 || strcmp(found->path, CONTROL_NAME) == 0)
			member->contents = read_data(found->path, input, found->size);
	}
	members_insert(archives->by_path, member->path, &exists)->number = archives->member_count++;
}

static TarInput *
open_archive(const Archives *archives, int number)
{
	const TarArchive *archive = &archives->archives[number];
	char		path[MAXPGPATH];

	path_join(path, archives->dir, archive->name);
	return tar_input_open(path, archive->prefix);
}

static bool
next_member(TarInput *input, TarMember *member)
{
	TarResult	result = tar_input_next(input, member);

	if (workers_stopping())
		give_up();
	if (result == TAR_BAD)
		fatal("%s", tar_input_problem(input));
	return result == TAR_MEMBER;
}

/*
 * The archives of a backup.  Returns NULL if the directory has none.
 */
Archives *
archives_open(const char *dir)
{
	Archives   *archives = pg_malloc0(sizeof(Archives));
	char	   *problem = tar_archives_list(dir, &archives->archives, &archives->count);

	if (problem)
		fatal("%s", problem);
	if (archives->count == 0 || strcmp(archives->archives[0].stem, "base") != 0)
		return NULL;
	archives->dir = dir;
	archives->by_path = members_create(1024, NULL);
	for (int i = 0; i < archives->count; i++)
	{
		TarInput   *input = open_archive(archives, i);
		TarMember	member;

		while (next_member(input, &member))
			add_member(archives, i, &member, input);
		tar_input_close(input);
	}
	return archives;
}

/*
 * Do members have to be unpacked?
 */
bool
archives_compressed(const Archives *archives)
{
	return archives->compressed;
}

static void
set_stat(struct stat *st, const Member *member)
{
	memset(st, 0, sizeof(*st));
	st->st_mode = member->type == TAR_FILE ? S_IFREG : S_IFDIR;
	st->st_size = (off_t) member->size;
	st->st_mtime = (time_t) member->modified;
	st->st_nlink = 1;
}

/*
 * Opens what has a file's data, from *start on.  Returns -1 if there is no such
 * file.
 */
int
archives_try_open(const Archives *archives, const char *path, struct stat *st, uint64 *start)
{
	const Member *member = find_member(archives, path);
	char		archive_path[MAXPGPATH];
	int			fd;

	if (member == NULL || member->type != TAR_FILE)
	{
		errno = ENOENT;
		return -1;
	}
	set_stat(st, member);
	*start = (uint64) member->offset;
	if (member->fd >= 0)
	{
		fd = dup(member->fd);
		if (fd < 0)
			fatal("could not duplicate file descriptor: %m");
		return fd;
	}
	if (member->offset < 0)
		fatal("file \"%s\" of backup \"%s\" is not unpacked", path, archives->dir);
	path_join(archive_path, archives->dir, archives->archives[member->archive].name);
	fd = open(archive_path, O_RDONLY | PG_BINARY, 0);
	if (fd < 0)
		fatal("could not open file \"%s\": %m", archive_path);
	return fd;
}

/*
 * A small file, in malloc'd memory, with a zero byte behind it.
 */
char *
archives_read(const Archives *archives, const char *path, size_t *len)
{
	const Member *member = find_member(archives, path);
	struct stat st;
	uint64		start;
	char	   *data;
	ssize_t		got;
	int			fd;

	if (member == NULL || member->type != TAR_FILE)
		fatal("file \"%s\" is missing in backup \"%s\"", path, archives->dir);
	*len = member->size;
	if (member->size > MAX_KEPT)
		fatal("file \"%s\" is too large", path);
	data = pg_malloc0(member->size + 1);
	if (member->contents)
	{
		memcpy(data, member->contents, member->size);
		return data;
	}
	fd = archives_try_open(archives, path, &st, &start);
	got = pread(fd, data, member->size, start);
	if (got < 0)
		fatal("could not read file \"%s\" of backup \"%s\": %m", path, archives->dir);
	if ((uint64) got != member->size)
		fatal("could not read file \"%s\" of backup \"%s\": read %zd of " UINT64_FORMAT, path,
			  archives->dir, got, member->size);
	close(fd);
	return data;
}

/*
 * Tells of everything in them, in their order.
 */
void
archives_walk(const Archives *archives, dir_entry_fn entry, void *arg)
{
	for (size_t i = 0; i < archives->member_count; i++)
	{
		const Member *member = &archives->members[i];
		struct stat st;

		if (workers_stopping())
			give_up();
		set_stat(&st, member);
		entry(arg, member->path, &st, member->link);
	}
}

/* Appends a member's data to a file. */
static void
unpack_member(const Archives *archives, const Member *member, TarInput *input, int fd, uint64 at)
{
	char	   *buffer = pg_malloc(UNPACK_SIZE);
	uint64		done = 0;
	ssize_t		got;

	while ((got = tar_input_read(input, buffer, UNPACK_SIZE)) > 0)
	{
		errno = 0;
		if (pwrite(fd, buffer, got, at + done) != got)
			fatal("could not write what is unpacked of file \"%s\": %s", member->path,
				  strerror(errno ? errno : ENOSPC));
		done += got;
	}
	if (got < 0)
		fatal("%s", tar_input_problem(input));
	if (done != member->size)
		fatal("file \"%s\" of backup \"%s\" has " UINT64_FORMAT " bytes, and not " UINT64_FORMAT,
			  member->path, archives->dir, done, member->size);
	pg_free(buffer);
}

/*
 * Unpacks those compressed members that are needed to a file of that length.
 */
void
archives_unpack(Archives *archives, int fd, uint64 *len, file_needed_fn needed, void *arg)
{
	for (int i = 0; archives->compressed && i < archives->count; i++)
	{
		TarInput   *input = open_archive(archives, i);
		TarMember	found;

		while (next_member(input, &found))
		{
			Member	   *member = find_member(archives, found.path);

			if (found.type != TAR_FILE || found.data_offset >= 0 || !needed(arg, found.path))
				continue;
			if (member == NULL)
				fatal("file \"%s\" was added to backup \"%s\" meanwhile", found.path,
					  archives->dir);
			unpack_member(archives, member, input, fd, *len);
			member->fd = fd;
			member->offset = (int64) *len;
			*len += member->size;
		}
		tar_input_close(input);
	}
}
