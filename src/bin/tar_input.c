/*
 * tar_input.c
 *		Reading backups that are tar archives.
 *
 * An archive may come from anywhere.  A member is passed on only if a backup can
 * have it and if it does not lead out of the backup.
 */
#include "postgres_fe.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "paths.h"
#include "report.h"
#include "tar_input.h"

#define READ_SIZE		(256 * 1024)

/* Where in a header of 512 bytes, in all kinds of archives, there is what. */
#define TAR_BLOCK		512
#define TAR_SIZE		124
#define TAR_SIZE_LEN	12
#define TAR_TYPE		156
#define TAR_MAGIC		257
#define TAR_SPARSE		386		/* with GNU's magic */
#define GNU_MAGIC		"ustar  "

/* So many headers may come before a member's own. */
#define MAX_HEADERS		4

/* A name that was seen.  A hash stands for it: a backup may have millions. */
typedef struct NameHash
{
	uint64		first;
	uint64		second;
} NameHash;

typedef struct SeenName
{
	NameHash	hash;
	char		status;
} SeenName;

#define SH_PREFIX			seen
#define SH_ELEMENT_TYPE		SeenName
#define SH_KEY_TYPE			NameHash
#define SH_KEY				hash
#define SH_HASH_KEY(tb, key)	((uint32) (key).first)
#define SH_EQUAL(tb, a, b)	((a).first == (b).first && (a).second == (b).second)
#define SH_SCOPE			static inline
#define SH_RAW_ALLOCATOR	pg_malloc0
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct TarInput
{
	struct archive *archive;
	char	   *name;			/* for messages */
	char	   *prefix;
	int			fd;
	const char *memory;			/* instead of a file */
	int64		len;			/* of that; 0: data are not there as they are */
	seen_hash  *seen;
	char		path[MAXPGPATH];	/* of the latest file, */
	uint64		left;			/* and what is left of it to be read, in bytes */
	char		problem[4 * MAXPGPATH];
};

/*
 * Archives of a directory
 */

/*
 * Is that the name of an archive of a backup?
 */
bool
tar_archive_recognize(const char *name, TarArchive *archive)
{
	static const char *const endings[] = {".tar", ".tar.gz", ".tar.lz4", ".tar.zst"};
	const char *dot = strchr(name, '.');
	bool		known = false;
	int			stem_len;

	if (dot == NULL || strlen(name) >= sizeof(archive->name) ||
		dot - name >= (ptrdiff_t) sizeof(archive->stem))
		return false;
	for (size_t i = 0; i < lengthof(endings); i++)
		known |= strcmp(dot, endings[i]) == 0;
	stem_len = (int) (dot - name);
	if (!known || stem_len == 0)
		return false;

	strlcpy(archive->name, name, sizeof(archive->name));
	snprintf(archive->stem, sizeof(archive->stem), "%.*s", stem_len, name);
	if (strcmp(archive->stem, "base") == 0)
		archive->prefix[0] = '\0';
	else if (strcmp(archive->stem, "pg_wal") == 0)
		strlcpy(archive->prefix, "pg_wal/", sizeof(archive->prefix));
	else if (strspn(name, "0123456789") == (size_t) stem_len && stem_len <= 10 && name[0] != '0')
		snprintf(archive->prefix, sizeof(archive->prefix), "pg_tblspc/%s/", archive->stem);
	else
		return false;
	return true;
}

/* The main one first, then tablespaces', then WAL. */
static int
compare_archives(const void *a, const void *b)
{
	const TarArchive *left = a;
	const TarArchive *right = b;
	int			order = strcmp(left->prefix, right->prefix);

	if (order != 0 && strncmp(left->prefix, "pg_w", 4) == 0)
		return 1;
	if (order != 0 && strncmp(right->prefix, "pg_w", 4) == 0)
		return -1;
	return order != 0 ? order : strcmp(left->name, right->name);
}

/*
 * The archives of a backup, in malloc'd memory.  Returns NULL, or what is wrong
 * with them.
 */
char *
tar_archives_list(const char *directory, TarArchive **archives, int *count)
{
	DIR		   *dir = opendir(directory);
	int			room = 16;
	struct dirent *entry;

	*count = 0;
	*archives = NULL;
	if (dir == NULL)
		return psprintf("could not open directory \"%s\": %m", directory);
	*archives = pg_malloc(room * sizeof(TarArchive));
	while (errno = 0, (entry = readdir(dir)) != NULL)
	{
		if (*count == room)
			*archives = pg_realloc(*archives, (room *= 2) * sizeof(TarArchive));
		if (tar_archive_recognize(entry->d_name, &(*archives)[*count]))
			(*count)++;
	}
	if (errno != 0)
	{
		char	   *problem = psprintf("could not read directory \"%s\": %m", directory);

		closedir(dir);
		return problem;
	}
	closedir(dir);
	qsort(*archives, *count, sizeof(TarArchive), compare_archives);
	for (int i = 1; i < *count; i++)
	{
		if (strcmp((*archives)[i].stem, (*archives)[i - 1].stem) == 0)
			return psprintf("directory \"%s\" has both \"%s\" and \"%s\"", directory,
							(*archives)[i - 1].name, (*archives)[i].name);
	}
	return NULL;
}

/*
 * One archive
 */

static TarResult bad(TarInput *input, const char *fmt,...) pg_attribute_printf(2, 3);

static TarResult
bad(TarInput *input, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(input->problem, sizeof(input->problem), fmt, args);
	va_end(args);
	return TAR_BAD;
}

static TarResult
bad_archive(TarInput *input)
{
	const char *problem = archive_error_string(input->archive);

	return bad(input, "could not read archive \"%s\": %s", input->name,
			   problem ? problem : strerror(archive_errno(input->archive)));
}

static TarInput *
create_input(const char *name, const char *prefix)
{
	TarInput   *input = pg_malloc0(sizeof(TarInput));

	input->name = pg_strdup(name);
	input->prefix = pg_strdup(prefix);
	input->fd = -1;
	input->seen = seen_create(64, NULL);
	input->archive = archive_read_new();
	if (input->archive == NULL)
		fatal("out of memory");
	archive_read_support_format_tar(input->archive);
	archive_read_support_filter_gzip(input->archive);
	archive_read_support_filter_lz4(input->archive);
	archive_read_support_filter_zstd(input->archive);
	return input;
}

/*
 * Opens an archive, "-" being standard input.  The prefix goes before all names.
 * If it cannot be opened, there is a problem.
 */
TarInput *
tar_input_open(const char *path, const char *prefix)
{
	bool		standard = strcmp(path, "-") == 0;
	TarInput   *input = create_input(standard ? "standard input" : path, prefix);
	struct stat st;

	input->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | PG_BINARY, 0);
	if (input->fd < 0 || fstat(input->fd, &st) != 0)
		bad(input, "could not open file \"%s\": %m", path);
	else if (archive_read_open_fd(input->archive, input->fd, READ_SIZE) != ARCHIVE_OK)
		bad_archive(input);
	else if (archive_filter_code(input->archive, 0) == ARCHIVE_FILTER_NONE &&
			 S_ISREG(st.st_mode) && !standard)
		input->len = st.st_size;
	return input;
}

/*
 * The same for one in memory, which has to stay.  For tests.
 */
TarInput *
tar_input_open_memory(const void *data, size_t len, const char *prefix)
{
	TarInput   *input = create_input("memory", prefix);

	if (archive_read_open_memory(input->archive, data, len) != ARCHIVE_OK)
		bad_archive(input);
	input->memory = data;
	if (archive_filter_code(input->archive, 0) == ARCHIVE_FILTER_NONE)
		input->len = (int64) len;
	return input;
}

/*
 * What is wrong, once there was TAR_BAD or -1; before, an empty string.
 */
const char *
tar_input_problem(const TarInput *input)
{
	return input->problem;
}

void
tar_input_close(TarInput *input)
{
	archive_read_free(input->archive);
	seen_destroy(input->seen);
	if (input->fd > STDIN_FILENO)
		close(input->fd);
	pg_free(input->name);
	pg_free(input->prefix);
	pg_free(input);
}

static bool
seen_before(TarInput *input, const char *path)
{
	const unsigned char *bytes = (const unsigned char *) path;
	int			len = (int) strlen(path);
	NameHash	hash = {
		hash_bytes_extended(bytes, len, 1), hash_bytes_extended(bytes, len, 2)
	};
	bool		found;

	seen_insert(input->seen, hash, &found);
	return found;
}

/* Reads the block at that place, if it can be done. */
static bool
read_block(TarInput *input, int64 at, char *block)
{
	if (at < 0 || at > input->len - TAR_BLOCK)
		return false;
	if (input->memory)
		memcpy(block, input->memory + at, TAR_BLOCK);
	else if (pread(input->fd, block, TAR_BLOCK, at) != TAR_BLOCK)
		return false;
	return true;
}

/* The digits of a header's size, which are octal; or -1. */
static int64
header_size(const char *block)
{
	char		digits[TAR_SIZE_LEN + 1] = {0};
	size_t		len;

	memcpy(digits, block + TAR_SIZE, TAR_SIZE_LEN);
	len = strspn(digits, "01234567");
	return len == 0 || (digits[len] != '\0' && digits[len] != ' ') ? -1 : strtoll(digits, NULL, 8);
}

/*
 * Where the data of the member begins whose headers libarchive has found at its
 * position.  Only a long name may come before its own: attributes can mean that
 * the data are not there as they are.
 */
static int64
find_data(TarInput *input, int64 member_size)
{
	int64		at = archive_read_header_position(input->archive);
	char		block[TAR_BLOCK];

	for (int i = 0; i < MAX_HEADERS && read_block(input, at, block); i++)
	{
		int64		size = header_size(block);

		at += TAR_BLOCK;
		if (block[TAR_TYPE] == '0' || block[TAR_TYPE] == '\0')
		{
			bool		sparse = memcmp(block + TAR_MAGIC, GNU_MAGIC, sizeof(GNU_MAGIC)) == 0 &&
				block[TAR_SPARSE] != '\0';

			return sparse || size != member_size ? -1 : at;
		}
		if ((block[TAR_TYPE] != 'L' && block[TAR_TYPE] != 'K') || size < 0)
			return -1;
		at += TYPEALIGN64(TAR_BLOCK, size);
	}
	return -1;
}

/* The name in the backup.  Sets it to "" for what the archive's own root is. */
static TarResult
set_path(TarInput *input, struct archive_entry *entry, TarMember *member)
{
	const char *name = archive_entry_pathname(entry);
	size_t		len;

	/* It has no form in this locale's encoding; libarchive knows another one. */
	if (name == NULL)
		name = archive_entry_pathname_utf8(entry);
	if (name == NULL || name[0] == '\0')
		return bad(input, "archive \"%s\" has a member without a name", input->name);
	while (name[0] == '.' && name[1] == '/')
		name += 2;
	len = strlen(name);
	if (archive_entry_filetype(entry) == AE_IFDIR && len > 0 && name[len - 1] == '/')
		len--;
	member->path[0] = '\0';
	if (len == 0 || (len == 1 && name[0] == '.'))
		return TAR_MEMBER;

	if (snprintf(member->path, sizeof(member->path), "%s%.*s", input->prefix, (int) len, name)
		>= (int) sizeof(member->path))
		return bad(input, "file name \"%s\" in archive \"%s\" is too long", name, input->name);
	if (!path_is_safe(member->path))
		return bad(input, "file name \"%s\" in archive \"%s\" leads outside of the backup",
				   name, input->name);
	if (seen_before(input, member->path))
		return bad(input, "file \"%s\" is twice in archive \"%s\"", member->path, input->name);
	return TAR_MEMBER;
}

static TarResult
set_file(TarInput *input, struct archive_entry *entry, TarMember *member)
{
	if (!archive_entry_size_is_set(entry) || archive_entry_size(entry) < 0)
		return bad(input, "file \"%s\" in archive \"%s\" has no size", member->path, input->name);
	if (archive_entry_sparse_count(entry) > 0)
		return bad(input, "file \"%s\" in archive \"%s\" is sparse", member->path, input->name);
	member->type = TAR_FILE;
	member->size = (uint64) archive_entry_size(entry);
	strlcpy(input->path, member->path, sizeof(input->path));
	input->left = member->size;
	member->data_offset = find_data(input, archive_entry_size(entry));

	/* As it is skipped by seeking, libarchive might not find out. */
	if (member->data_offset >= 0 && member->size > (uint64) (input->len - member->data_offset))
		return bad(input, "archive \"%s\" ends inside of file \"%s\"", input->name, member->path);
	return TAR_MEMBER;
}

/* Servers have no other symbolic links than those of tablespaces. */
static TarResult
set_link(TarInput *input, struct archive_entry *entry, TarMember *member)
{
	const char *target = archive_entry_symlink(entry);

	if (target == NULL)
		target = archive_entry_symlink_utf8(entry);
	if (strncmp(member->path, "pg_tblspc/", 10) != 0 || strchr(member->path + 10, '/') != NULL)
		return bad(input, "\"%s\" in archive \"%s\" is a symbolic link but not a tablespace's",
				   member->path, input->name);
	if (target == NULL || target[0] == '\0' ||
		strlcpy(member->target, target, sizeof(member->target)) >= sizeof(member->target))
		return bad(input, "symbolic link \"%s\" in archive \"%s\" has no target, or too long a one",
				   member->path, input->name);
	member->type = TAR_LINK;
	return TAR_MEMBER;
}

static TarResult
set_member(TarInput *input, struct archive_entry *entry, TarMember *member)
{
	input->left = 0;
	memset(member, 0, offsetof(TarMember, target));
	member->target[0] = '\0';
	if (set_path(input, entry, member) == TAR_BAD)
		return TAR_BAD;
	member->mode = archive_entry_perm(entry);
	member->modified = archive_entry_mtime(entry);
	member->data_offset = -1;
	if (archive_entry_hardlink(entry) != NULL)
		return bad(input, "\"%s\" in archive \"%s\" is a hard link", member->path, input->name);
	switch (archive_entry_filetype(entry))
	{
		case AE_IFREG:
			return set_file(input, entry, member);
		case AE_IFDIR:
			member->type = TAR_DIRECTORY;
			return TAR_MEMBER;

		case AE_IFLNK:
			return set_link(input, entry, member);
		default:
			return bad(input, "\"%s\" in archive \"%s\" is not a file, directory or symbolic link",
					   member->path, input->name);
	}
}

/*
 * The next member.  What is left of the one before is passed over.  After
 * TAR_BAD there is nothing more.
 */
TarResult
tar_input_next(TarInput *input, TarMember *member)
{
	while (input->problem[0] == '\0')
	{
		struct archive_entry *entry;
		int			result = archive_read_next_header(input->archive, &entry);

		if (result == ARCHIVE_EOF)
			return TAR_END;

		/* Warnings are about attributes. */
		if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
			return bad_archive(input);
		if (set_member(input, entry, member) == TAR_BAD)
			return TAR_BAD;
		if (member->path[0] != '\0')
			return TAR_MEMBER;
	}
	return TAR_BAD;
}

/*
 * More of the member's data.  Returns the number of bytes, 0 at the end, -1 if it
 * cannot be read.
 */
ssize_t
tar_input_read(TarInput *input, void *data, size_t len)
{
	ssize_t		got;

	if (input->problem[0] != '\0')
		return -1;
	got = archive_read_data(input->archive, data, len);
	if (got < 0)
		bad_archive(input);
	else if (len > 0 && ((uint64) got > input->left || (got == 0 && input->left > 0)))
		bad(input, "file \"%s\" in archive \"%s\" has not the size that it says", input->path,
			input->name);
	if (input->problem[0] != '\0')
		return -1;
	input->left -= got;
	return got;
}
