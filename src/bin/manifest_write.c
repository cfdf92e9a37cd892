/*
 * manifest_write.c
 *		Writing backup manifests.
 */
#include "postgres_fe.h"

#include <time.h>

#include "common/sha2.h"
#include "manifest.h"
#include "mb/pg_wchar.h"
#include "pqexpbuffer.h"
#include "report.h"

static void
put(ManifestWriter *writer, const char *data, size_t len, bool hashed)
{
	if (hashed && pg_cryptohash_update(writer->hash, (const uint8 *) data, len) < 0)
		fatal("could not update checksum of manifest");
	writer->write(writer->arg, data, len);
}

static void put_format(ManifestWriter *writer, const char *fmt,...) pg_attribute_printf(2, 3);

static void
put_format(ManifestWriter *writer, const char *fmt,...)
{
	char text[	512];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	put(writer, text, strlen(text), true);
}

static void
put_hex(ManifestWriter *writer, const uint8 *bytes, size_t len, bool hashed)
{
	for (size_t i = 0; i < len; i++)
	{
		char		hex[3];

		snprintf(hex, sizeof(hex), "%02x", bytes[i]);
		put(writer, hex, 2, hashed);
	}
}

/*
 * Begins a manifest.
 */
void
manifest_write_begin(ManifestWriter *writer, manifest_write_fn write, void *arg,
					 const ManifestInfo *info)
{
	memset(writer, 0, sizeof(*writer));
	writer->write = write;
	writer->arg = arg;
	writer->hash = pg_cryptohash_create(PG_SHA256);
	if (writer->hash == NULL || pg_cryptohash_init(writer->hash) < 0)
		fatal("out of memory");
	put_format(writer, "{ \"PostgreSQL-Backup-Manifest-Version\": %d,\n", info->version);
	if (info->version >= 2)
		put_format(writer, "\"System-Identifier\": " UINT64_FORMAT ",\n", info->system_identifier);
	put_format(writer, "\"Files\": [");
}

static void
put_path(ManifestWriter *writer, const char *path)
{
	size_t		len = strlen(path);

	/* As the server does, for names in an encoding that nobody knows. */
	if (pg_encoding_verifymbstr(PG_UTF8, path, (int) len) == (int) len)
	{
		char	   *quoted = json_quoted(path);

		put_format(writer, "{ \"Path\": ");
		put(writer, quoted, strlen(quoted), true);
		free(quoted);
	}
	else
	{
		put_format(writer, "{ \"Encoded-Path\": \"");
		put_hex(writer, (const uint8 *) path, len, true);
		put_format(writer, "\"");
	}
}

/*
 * Adds a file.
 */
void
manifest_write_file(ManifestWriter *writer, const ManifestFile *file)
{
	time_t		modified = (time_t) file->modified;
	struct tm	broken_down;
	char text[	64];

	put_format(writer, writer->any_file ? ",\n" : "\n");
	writer->any_file = true;
	put_path(writer, file->path);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", gmtime_r(&modified, &broken_down));
	put_format(writer, ", \"Size\": " UINT64_FORMAT ", \"Last-Modified\": \"%s GMT\"",
			   file->size, text);
	if (file->checksum_len > 0)
	{
		put_format(writer, ", \"Checksum-Algorithm\": \"%s\", \"Checksum\": \"",
				   pg_checksum_type_name(file->checksum_type));
		put_hex(writer, file->checksum, file->checksum_len, true);
		put_format(writer, "\"");
	}
	put_format(writer, " }");
}

static void
end_files(ManifestWriter *writer)
{
	put_format(writer, "\n],\n\"WAL-Ranges\": [");
}

/*
 * Adds a range of WAL, after all files.
 */
void
manifest_write_range(ManifestWriter *writer, const WalRange *range)
{
	if (!writer->any_range)
		end_files(writer);
	put_format(writer, "%s{ \"Timeline\": %u, \"Start-LSN\": \"%X/%X\", \"End-LSN\": \"%X/%X\" }",
			   writer->any_range ? ",\n" : "\n", range->tli,
			   LSN_FORMAT_ARGS(range->start), LSN_FORMAT_ARGS(range->end));
	writer->any_range = true;
}

/*
 * Ends it.
 */
void
manifest_write_end(ManifestWriter *writer)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	if (!writer->any_range)
		end_files(writer);
	put_format(writer, "\n],\n");
	if (pg_cryptohash_final(writer->hash, digest, sizeof(digest)) < 0)
		fatal("could not finalize checksum of manifest");
	put(writer, "\"Manifest-Checksum\": \"", strlen("\"Manifest-Checksum\": \""), false);
	put_hex(writer, digest, sizeof(digest), false);
	put(writer, "\"}\n", 3, false);
	pg_cryptohash_free(writer->hash);
}
