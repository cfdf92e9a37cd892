/*
 * archive_writer.c
 *		Writing a tar archive.
 */
#include "postgres_fe.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "archive_writer.h"
#include "common/file_perm.h"
#include "report.h"

/* The owner, as PostgreSQL has it in archives. */
#define OWNER_NAME	"postgres"
#define OWNER_UID	04000
#define OWNER_GID	02000

struct Pack
{
	char	   *path;
	int			fd;
	struct archive *archive;
};

static void __attribute__((noreturn))
bad_pack(const Pack *pack)
{
	fatal("could not write archive \"%s\": %s", pack->path,
		  archive_error_string(pack->archive));
}

/*
 * Takes METHOD[:DETAIL], as an option has it.  Gives up if that is none.
 */
void
pack_parse_compression(const char *text, pg_compress_specification *compression)
{
	char	   *method = pg_strdup(text);
	char	   *detail = strchr(method, ':');
	char	   *problem;

	if (detail)
		*detail++ = '\0';
	if (!parse_compress_algorithm(method, &compression->algorithm))
		fatal("unrecognized compression algorithm: \"%s\"", method);
	parse_compress_specification(compression->algorithm, detail, compression);
	problem = validate_compress_specification(compression);
	if (problem)
		fatal("invalid compression specification: %s", problem);
#ifdef PG_COMPRESSION_OPTION_LONG_DISTANCE
	/* libarchive has it only in later versions. */
	if (compression->long_distance)
		fatal("long-distance mode of compression is not supported");
#endif
	pg_free(method);
}

/*
 * What is added to the name of an archive that is compressed like that; NULL: not at
 * all.
 */
const char *
pack_suffix(const pg_compress_specification *compression)
{
	switch (compression ? compression->algorithm : PG_COMPRESSION_NONE)
	{
		case PG_COMPRESSION_GZIP:
			return ".gz";
		case PG_COMPRESSION_LZ4:
			return ".lz4";
		case PG_COMPRESSION_ZSTD:
			return ".zst";
		case PG_COMPRESSION_NONE:
			break;
	}
	return "";
}

static void
set_filter_option(Pack *pack, const char *name, int value)
{
	char		value_text[16];

	snprintf(value_text, sizeof(value_text), "%d", value);
	if (archive_write_set_filter_option(pack->archive, NULL, name, value_text) != ARCHIVE_OK)
		bad_pack(pack);
}

static void
set_compression(Pack *pack, const pg_compress_specification *compression)
{
	int			done = ARCHIVE_FATAL;

	switch (compression ? compression->algorithm : PG_COMPRESSION_NONE)
	{
		case PG_COMPRESSION_NONE:
			done = archive_write_add_filter_none(pack->archive);
			break;
		case PG_COMPRESSION_GZIP:
			done = archive_write_add_filter_gzip(pack->archive);
			break;
		case PG_COMPRESSION_LZ4:
			done = archive_write_add_filter_lz4(pack->archive);
			break;
		case PG_COMPRESSION_ZSTD:
			done = archive_write_add_filter_zstd(pack->archive);
			break;
	}
	if (done != ARCHIVE_OK)
		bad_pack(pack);
	if (*pack_suffix(compression) == '\0')
		return;

	/*
	 * Only zstd has levels below zero; elsewhere, that is the method's
	 * default.
	 */
	if (compression->level > 0 ||
		(compression->level < 0 && compression->algorithm == PG_COMPRESSION_ZSTD))
		set_filter_option(pack, "compression-level", compression->level);
	if (compression->options & PG_COMPRESSION_OPTION_WORKERS)
		set_filter_option(pack, "threads", compression->workers);
}

/*
 * Begins an archive that does not exist; "-" is standard output.  It is compressed
 * if that is not NULL.
 */
Pack *
pack_create(const char *path, const pg_compress_specification *compression)
{
	Pack	   *pack = pg_malloc0(sizeof(Pack));

	pack->path = pg_strdup(path);
	if (strcmp(path, "-") == 0)
		pack->fd = STDOUT_FILENO;
	else
		pack->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, pg_file_create_mode);
	if (pack->fd < 0)
		fatal("could not create file \"%s\": %m", path);
	pack->archive = archive_write_new();
	if (pack->archive == NULL)
		fatal("out of memory");

	/* It has room for sizes and names of any length, without attributes. */
	if (archive_write_set_format_gnutar(pack->archive) != ARCHIVE_OK)
		bad_pack(pack);
	set_compression(pack, compression);

	/* Else what is compressed would be followed by zeros, if that is a pipe. */
	(void) archive_write_set_bytes_in_last_block(pack->archive, 1);
	if (archive_write_open_fd(pack->archive, pack->fd) != ARCHIVE_OK)
		bad_pack(pack);
	return pack;
}

static void
begin_entry(Pack *pack, const char *name, mode_t type, mode_t mode, uint64 size, int64 modified)
{
	struct archive_entry *entry = archive_entry_new();

	if (entry == NULL)
		fatal("out of memory");
	archive_entry_set_pathname(entry, name);
	archive_entry_set_filetype(entry, type);
	archive_entry_set_perm(entry, mode);
	archive_entry_set_size(entry, (int64) size);
	archive_entry_set_mtime(entry, (time_t) modified, 0);
	archive_entry_set_uid(entry, OWNER_UID);
	archive_entry_set_gid(entry, OWNER_GID);
	archive_entry_set_uname(entry, OWNER_NAME);
	archive_entry_set_gname(entry, OWNER_NAME);

	/* Warnings are about names that are not of this locale. */
	if (archive_write_header(pack->archive, entry) < ARCHIVE_WARN)
		bad_pack(pack);
	archive_entry_free(entry);
}

void
pack_directory(Pack *pack, const char *name)
{
	begin_entry(pack, name, AE_IFDIR, pg_dir_create_mode, 0, time(NULL));
}

/*
 * Begins a file, whose contents follow.
 */
void
pack_file(Pack *pack, const char *name, uint64 size, int64 modified)
{
	begin_entry(pack, name, AE_IFREG, pg_file_create_mode, size, modified);
}

/*
 * Adds to a file's contents.
 */
void
pack_write(Pack *pack, const void *data, size_t len)
{
	la_ssize_t	written = archive_write_data(pack->archive, data, len);

	if (written < 0)
		bad_pack(pack);
	if ((size_t) written != len)
		fatal("could not write archive \"%s\": wrote %zd of %zu", pack->path, (ssize_t) written,
			  len);
}

/*
 * Ends an archive, and makes it durable if that is wanted.
 */
void
pack_close(Pack *pack, bool sync)
{
	if (archive_write_close(pack->archive) != ARCHIVE_OK)
		bad_pack(pack);
	if (sync && pack->fd != STDOUT_FILENO && fsync(pack->fd) < 0)
		fatal("could not fsync file \"%s\": %m", pack->path);
	if (close(pack->fd) < 0)
		fatal("could not close file \"%s\": %m", pack->path);
	archive_write_free(pack->archive);
	pg_free(pack->path);
	pg_free(pack);
}
