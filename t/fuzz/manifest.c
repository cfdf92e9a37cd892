/*
 * manifest.c
 *		Fuzzing of the reader of backup manifests: any bytes whatever.
 *
 * The input is a manifest.  It is read as it is, and once more with the checksum in
 * its last line made right: in one piece, and in many.
 *
 * What must hold, besides that nothing is read out of bounds:
 *
 * - names of files do not lead out of the backup, checksums have the length of
 *   their kind, ranges of WAL do not end before they start;
 * - how the input is cut up makes no difference;
 * - what is bad has a problem, and what is good has none;
 * - what is good, and is written again, reads as the same.
 */
#include "postgres_fe.h"

#include "bin/manifest.h"
#include "bin/paths.h"
#include "harness.h"
#include "common/sha2.h"
#include "port/pg_crc32c.h"

#define CHECKSUM_FIELD	"\"Manifest-Checksum\": \""

/* What came of reading a manifest. */
typedef struct Outcome
{
	bool		good;
	ManifestInfo info;
	uint64		files;
	uint64		ranges;
	pg_crc32c	hash_files;
	pg_crc32c	hash_ranges;
	char		problem[256];
	ManifestWriter *writer;		/* if it is written again; files only then */
	WalRange   *kept;			/* ranges, which are written last */
} Outcome;

static void
take_file(void *arg, const ManifestFile *file)
{
	Outcome    *outcome = arg;

	REQUIRE(path_is_safe(file->path));
	REQUIRE(file->checksum_len >= 0 && file->checksum_len <= PG_CHECKSUM_MAX_LENGTH);
	REQUIRE((file->checksum_len == 0) == (file->checksum_type == CHECKSUM_TYPE_NONE));
	outcome->files++;
	COMP_CRC32C(outcome->hash_files, file->path, strlen(file->path) + 1);
	COMP_CRC32C(outcome->hash_files, &file->size, sizeof(file->size));
	COMP_CRC32C(outcome->hash_files, &file->checksum_type, sizeof(file->checksum_type));
	COMP_CRC32C(outcome->hash_files, file->checksum, file->checksum_len);
	if (outcome->writer)
		manifest_write_file(outcome->writer, file);
}

static void
take_range(void *arg, const WalRange *range)
{
	Outcome    *outcome = arg;

	REQUIRE(range->tli != 0 && range->start <= range->end);
	outcome->ranges++;
	COMP_CRC32C(outcome->hash_ranges, &range->tli, sizeof(range->tli));
	COMP_CRC32C(outcome->hash_ranges, &range->start, sizeof(range->start));
	COMP_CRC32C(outcome->hash_ranges, &range->end, sizeof(range->end));
	if (outcome->writer)
	{
		outcome->kept = realloc(outcome->kept, outcome->ranges * sizeof(WalRange));
		outcome->kept[outcome->ranges - 1] = *range;
	}
}

/* Reads in pieces, if cuts, the state of a generator of lengths, is not 0. */
static void
read_manifest(Outcome *outcome, const uint8_t *data, size_t size, uint32 cuts)
{
	ManifestHandler handler = {outcome, take_file, take_range};
	ManifestParser *parser = manifest_parser_create(&handler);
	bool		good = true;

	INIT_CRC32C(outcome->hash_files);
	INIT_CRC32C(outcome->hash_ranges);
	for (size_t at = 0; at < size && good;)
	{
		size_t		len = size - at;
		char	   *piece;

		if (cuts != 0)
		{
			cuts = cuts * 1664525 + 1013904223;
			len = Min(len, 1 + (cuts >> 24) % 40);
		}
		/* Nothing past it may be read. */
		piece = malloc(len);
		memcpy(piece, data + at, len);
		good = manifest_parser_feed(parser, piece, len);
		free(piece);
		at += len;
	}
	outcome->good = good && manifest_parser_end(parser, &outcome->info);
	strlcpy(outcome->problem, manifest_parser_problem(parser), sizeof(outcome->problem));
	REQUIRE(outcome->good == (outcome->problem[0] == '\0'));
	manifest_parser_free(parser);
}

/* What is written goes here. */
static char *written;
static size_t written_len;
static size_t written_room;

static void
keep(void *arg, const char *data, size_t len)
{
	if (written_len + len > written_room)
	{
		written_room = 2 * (written_len + len);
		written = realloc(written, written_room);
	}
	memcpy(written + written_len, data, len);
	written_len += len;
}

static void
round_trip(const uint8_t *data, size_t size, const Outcome *first)
{
	ManifestWriter writer;
	Outcome		copied = {.writer = &writer};
	Outcome		again = {0};

	written_len = 0;
	manifest_write_begin(&writer, keep, NULL, &first->info);
	read_manifest(&copied, data, size, 0);
	for (uint64 i = 0; i < copied.ranges; i++)
		manifest_write_range(&writer, &copied.kept[i]);
	manifest_write_end(&writer);
	free(copied.kept);

	read_manifest(&again, (const uint8_t *) written, written_len, 0);
	REQUIRE(again.good);
	REQUIRE(again.files == first->files && again.ranges == first->ranges);
	REQUIRE(again.hash_files == first->hash_files && again.hash_ranges == first->hash_ranges);
	REQUIRE(again.info.version == first->info.version);
	REQUIRE(first->info.version < 2 ||
			again.info.system_identifier == first->info.system_identifier);
}

static void
read_every_way(const uint8_t *data, size_t size)
{
	Outcome		whole = {0};
	Outcome		pieces = {0};

	read_manifest(&whole, data, size, 0);
	read_manifest(&pieces, data, size, 1 + whole.hash_files);
	REQUIRE(whole.good == pieces.good);
	if (!whole.good)
		return;
	REQUIRE(whole.files == pieces.files && whole.ranges == pieces.ranges);
	REQUIRE(whole.hash_files == pieces.hash_files && whole.hash_ranges == pieces.hash_ranges);
	round_trip(data, size, &whole);
}

/* Makes the checksum of the last line right, if there is one. */
static void
mend(uint8_t *data, size_t size)
{
	size_t		field = strlen(CHECKSUM_FIELD);
	size_t		line = size;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);

	if (line > 0 && data[line - 1] == '\n')
		line--;
	while (line > 0 && data[line - 1] != '\n')
		line--;
	REQUIRE(pg_cryptohash_init(hash) == 0 && pg_cryptohash_update(hash, data, line) == 0 &&
			pg_cryptohash_final(hash, digest, sizeof(digest)) == 0);
	pg_cryptohash_free(hash);
	if (size - line < field + 2 * sizeof(digest) || memcmp(data + line, CHECKSUM_FIELD, field) != 0)
		return;
	for (size_t i = 0; i < 2 * sizeof(digest); i++)
		data[line + field + i] = "0123456789abcdef"[digest[i / 2] >> (i % 2 ? 0 : 4) & 15];
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t    *mended = malloc(size + 1);

	memcpy(mended, data, size);
	mend(mended, size);
	read_every_way(mended, size);
	if (memcmp(mended, data, size) != 0)
		read_every_way(data, size);
	free(mended);
	return 0;
}
