/*
 * verify_list.c
 *		What there is in a backup.
 *
 * Files are only listed here, to be read later in order of size, except for those
 * that can only be read when an archive comes by them.
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <sys/stat.h>

#include "paths.h"
#include "verify.h"
#include "workers.h"

static void
add_to_read(Verify *verify, ListedFile *file)
{
	if (verify->nto_read == verify->to_read_room)
	{
		verify->to_read_room = Max(1024, 2 * verify->to_read_room);
		verify->to_read = pg_realloc(verify->to_read,
									 verify->to_read_room * sizeof(ListedFile *));
	}
	verify->to_read[verify->nto_read++] = file;
}

/*
 * Notes that a file is there.  Returns it if it should be read, else NULL.
 */
static ListedFile *
note_file(Verify *verify, const char *path, uint64 size)
{
	ListedFile *file;
	bool		again;

	if (verify_ignores(verify, path))
		return NULL;
	file = verify_files_find(&verify->files, path);
	if (file == NULL)
	{
		verify_problem(verify, "\"%s\" is in the backup but not in the manifest", path);
		return NULL;
	}
	pthread_mutex_lock(&verify->lock);
	again = file->seen;
	file->seen = true;
	pthread_mutex_unlock(&verify->lock);
	if (again)
		verify_problem(verify, "\"%s\" is in two archives", path);
	else if (size != file->size)
		verify_problem(verify, "\"%s\" has size " UINT64_FORMAT " in the backup but "
					   UINT64_FORMAT " in the manifest", path, size, file->size);
	else if (verify_wants(verify, file))
		return file;
	return NULL;
}

/*
 * Directories
 */

static void list_directory(Verify *verify, const char *relative);

/* Reports it, too, if it cannot be opened. */
static DIR *
open_directory(Verify *verify, const char *path)
{
	DIR		   *dir = opendir(path);

	if (dir == NULL)
		verify_problem(verify, "could not open directory \"%s\": %m", path);
	return dir;
}

/* Only of tablespaces are symbolic links followed. */
static bool
is_tablespace_link(const char *relative, const struct stat *st)
{
	return S_ISLNK(st->st_mode) && strncmp(relative, "pg_tblspc/", 10) == 0 &&
		strchr(relative + 10, '/') == NULL;
}

static void
list_entry(Verify *verify, const char *relative)
{
	char		full[2 * MAXPGPATH];
	struct stat st;
	ListedFile *file;

	if (verify_ignores(verify, relative))
		return;
	snprintf(full, sizeof(full), "%s/%s", verify->options.backup, relative);
	if (lstat(full, &st) != 0 || (is_tablespace_link(relative, &st) && stat(full, &st) != 0))
		verify_problem(verify, "could not stat file or directory \"%s\": %m", full);
	else if (S_ISDIR(st.st_mode))
		list_directory(verify, relative);
	else if (!S_ISREG(st.st_mode))
		verify_problem(verify, "\"%s\" is not a regular file or directory", full);
	else if ((file = note_file(verify, relative, st.st_size)) != NULL)
		add_to_read(verify, file);
}

static void
list_directory(Verify *verify, const char *relative)
{
	char		full[2 * MAXPGPATH];
	DIR		   *dir;
	struct dirent *entry;

	snprintf(full, sizeof(full), "%s%s%s", verify->options.backup,
			 relative[0] ? "/" : "", relative);
	dir = open_directory(verify, full);
	if (dir == NULL)
		return;
	while (errno = 0, (entry = readdir(dir)) != NULL)
	{
		char		child[MAXPGPATH];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (snprintf(child, sizeof(child), "%s%s%s", relative, relative[0] ? "/" : "",
					 entry->d_name) >= (int) sizeof(child))
			verify_problem(verify, "a file name in directory \"%s\" is too long", full);
		else
			list_entry(verify, child);
	}
	if (errno != 0)
		verify_problem(verify, "could not read directory \"%s\": %m", full);
	closedir(dir);
}

/*
 * Lists the files of a backup that is not in archives.
 */
void
verify_list_plain(Verify *verify)
{
	list_directory(verify, "");
}

/*
 * Lists the WAL segments that are needed of that directory.
 */
void
verify_list_wal(Verify *verify, const char *directory)
{
	DIR		   *dir = open_directory(verify, directory);
	struct dirent *entry;

	if (dir == NULL)
		return;
	while (errno = 0, (entry = readdir(dir)) != NULL)
	{
		char		full[2 * MAXPGPATH];
		struct stat st;

		if (!IsXLogFileName(entry->d_name))
			continue;
		snprintf(full, sizeof(full), "%s/%s", directory, entry->d_name);
		if (lstat(full, &st) != 0)
			verify_problem(verify, "could not stat file or directory \"%s\": %m", full);
		else if (S_ISREG(st.st_mode))
			verify_wal_note(verify, entry->d_name, st.st_size, full, 0);
	}
	if (errno != 0)
		verify_problem(verify, "could not read directory \"%s\": %m", directory);
	closedir(dir);
}

/*
 * Archives
 */

typedef struct ArchiveReader
{
	Verify	   *verify;
	int			number;
	TarInput   *input;
	VerifyBuffers buffers;
} ArchiveReader;

static ssize_t
read_member(void *arg, char *data, size_t len)
{
	TarInput   *input = arg;
	ssize_t		got = tar_input_read(input, data, len);

	if (got < 0)
		report_error("%s", tar_input_problem(input));
	return got;
}

/* WAL is in pg_wal/; if it is elsewhere, or not looked at, nothing there matters. */
static void
list_wal_member(ArchiveReader *reader, const TarMember *member)
{
	Verify	   *verify = reader->verify;
	const char *name = member->path + strlen("pg_wal/");
	FoundSegment *segment;

	if (verify->options.wal_directory || verify->options.skip_wal || !IsXLogFileName(name))
		return;
	segment = verify_wal_note(verify, name, member->size, verify->archives[reader->number].path,
							  member->data_offset);
	if (segment && member->data_offset < 0)
		verify_wal_segment(verify, &reader->buffers, segment, read_member, reader->input);
}

static void
list_member(ArchiveReader *reader, const TarMember *member)
{
	Verify	   *verify = reader->verify;
	ListedFile *file;

	if (member->type != TAR_FILE)
		return;
	if (strncmp(member->path, "pg_wal/", 7) == 0)
		list_wal_member(reader, member);
	file = note_file(verify, member->path, member->size);
	if (file == NULL)
		return;
	if (member->data_offset < 0)
	{
		verify_file(verify, &reader->buffers, file, read_member, reader->input);
		return;
	}
	file->archive = reader->number;
	file->offset = member->data_offset;
	pthread_mutex_lock(&verify->lock);
	add_to_read(verify, file);
	pthread_mutex_unlock(&verify->lock);
}

static void
list_archive(ArchiveReader *reader)
{
	const VerifyArchive *archive = &reader->verify->archives[reader->number];
	TarResult	result;
	TarMember	member;

	reader->input = tar_input_open(archive->path, archive->prefix);
	while (!workers_stopping() &&
		   (result = tar_input_next(reader->input, &member)) != TAR_END)
	{
		if (result == TAR_BAD)
		{
			verify_problem(reader->verify, "%s", tar_input_problem(reader->input));
			break;
		}
		list_member(reader, &member);
	}
	tar_input_close(reader->input);
}

static void
archive_worker(void *shared, int number)
{
	Verify	   *verify = shared;
	ArchiveReader reader = {.verify = verify};
	size_t		next;

	verify_buffers_create(&reader.buffers);
	while (!workers_stopping() &&
		   (next = atomic_fetch_add(&verify->next, 1)) < (size_t) verify->narchives)
	{
		reader.number = (int) next;
		list_archive(&reader);
	}
	verify_buffers_free(&reader.buffers);
}

/*
 * Lists the members of the archives, and reads those that are compressed.
 */
void
verify_list_archives(Verify *verify)
{
	atomic_store(&verify->next, 0);
	workers_run(Min(verify->options.jobs, verify->narchives), archive_worker, verify);
}

/*
 * What is missing
 */

static void
check_seen(void *arg, ListedFile *file)
{
	Verify	   *verify = arg;

	if (!file->seen && !verify_ignores(verify, file->path))
		verify_problem(verify, "\"%s\" is in the manifest but not in the backup", file->path);
}

/*
 * After all is listed.
 */
void
verify_list_missing(Verify *verify)
{
	verify_files_each(&verify->files, check_seen, verify);
}
