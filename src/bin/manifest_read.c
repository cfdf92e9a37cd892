/*
 * manifest_read.c
 *		Reading backup manifests.
 *
 * A manifest ends with a line that has the SHA-256 of all lines before.  To know
 * which one that is, bytes are kept back from the last line's beginning on until
 * another one begins.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>
#include <yajl/yajl_parse.h>

#include "common/sha2.h"
#include "manifest.h"
#include "paths.h"
#include "report.h"

/* A line, and a string of it, may be so long. */
#define MAX_LINE	(64 * 1024)

#define READ_SIZE	(256 * 1024)

typedef enum Place
{
	AT_START,					/* before the object that everything is in */
	AT_TOP,
	AT_FILES,
	AT_FILE,
	AT_RANGES,
	AT_RANGE,
	AT_END,
} Place;

typedef enum Key
{
	KEY_NONE,
	KEY_VERSION,
	KEY_SYSTEM_IDENTIFIER,
	KEY_FILES,
	KEY_RANGES,
	KEY_MANIFEST_CHECKSUM,
	KEY_PATH,
	KEY_ENCODED_PATH,
	KEY_SIZE,
	KEY_MODIFIED,
	KEY_ALGORITHM,
	KEY_CHECKSUM,
	KEY_TIMELINE,
	KEY_START_LSN,
	KEY_END_LSN,
} Key;

static const struct
{
	Place		place;
	Key			key;
	const char *name;
}			known_keys[] =

{
	{AT_TOP, KEY_VERSION, "PostgreSQL-Backup-Manifest-Version"},
	{AT_TOP, KEY_SYSTEM_IDENTIFIER, "System-Identifier"},
	{AT_TOP, KEY_FILES, "Files"},
	{AT_TOP, KEY_RANGES, "WAL-Ranges"},
	{AT_TOP, KEY_MANIFEST_CHECKSUM, "Manifest-Checksum"},
	{AT_FILE, KEY_PATH, "Path"},
	{AT_FILE, KEY_ENCODED_PATH, "Encoded-Path"},
	{AT_FILE, KEY_SIZE, "Size"},
	{AT_FILE, KEY_MODIFIED, "Last-Modified"},
	{AT_FILE, KEY_ALGORITHM, "Checksum-Algorithm"},
	{AT_FILE, KEY_CHECKSUM, "Checksum"},
	{AT_RANGE, KEY_TIMELINE, "Timeline"},
	{AT_RANGE, KEY_START_LSN, "Start-LSN"},
	{AT_RANGE, KEY_END_LSN, "End-LSN"},
};

#define KEY_BIT(key) (1U << (key))

struct ManifestParser
{
	ManifestHandler handler;
	yajl_handle json;
	Place		place;
	Key			key;			/* whose value comes next */
	uint32		top_seen;		/* KEY_BITs */
	uint32		seen;			/* of the file or range */
	ManifestInfo info;
	char		path[MAXPGPATH];
	char		checksum[2 * PG_CHECKSUM_MAX_LENGTH + 1];
	ManifestFile file;
	WalRange	range;
	char		expected[2 * PG_SHA256_DIGEST_LENGTH + 1];
	pg_cryptohash_ctx *hash;
	char		line[MAX_LINE]; /* what is kept back */
	size_t		line_len;
	bool		line_whole;		/* it ends with a newline */
	char		problem[256];	/* empty: none */
};

/* Notes what is wrong; returns what tells yajl to stop. */
static int	fail(ManifestParser *parser, const char *fmt,...) pg_attribute_printf(2, 3);

static int
fail(ManifestParser *parser, const char *fmt,...)
{
	va_list		args;

	if (parser->problem[0] != '\0')
		return 0;
	va_start(args, fmt);
	vsnprintf(parser->problem, sizeof(parser->problem), fmt, args);
	va_end(args);
	return 0;
}

static bool
has(uint32 seen, Key key)
{
	return (seen & KEY_BIT(key)) != 0;
}

/* A text of that length as a terminated string.  False if that has no room. */
static bool
copy_text(char *to, size_t room, const unsigned char *text, size_t len)
{
	if (len >= room || memchr(text, '\0', len) != NULL)
		return false;
	memcpy(to, text, len);
	to[len] = '\0';
	return true;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The number of bytes, or -1 if these are not hexadecimal digits, or too many. */
static int
from_hex(uint8 *bytes, size_t room, const char *hex, size_t len)
{
	if (len % 2 != 0 || len / 2 > room)
		return -1;
	for (size_t i = 0; i < len; i += 2)
	{
		int			high = hex_digit(hex[i]);
		int			low = hex_digit(hex[i + 1]);

		if (high < 0 || low < 0)
			return -1;
		bytes[i / 2] = (uint8) (high << 4 | low);
	}
	return (int) (len / 2);
}

static bool
parse_u64(const char *text, size_t len, uint64 *value)
{
	*value = 0;
	if (len == 0)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		int			digit = text[i] - '0';

		if (digit < 0 || digit > 9 || *value > (PG_UINT64_MAX - digit) / 10)
			return false;
		*value = *value * 10 + digit;
	}
	return true;
}

static bool
parse_lsn(const char *text, XLogRecPtr *lsn)
{
	uint32		high;
	uint32		low;
	int			end = -1;

	if (strspn(text, "0123456789ABCDEFabcdef/") != strlen(text) || strlen(text) > 17 ||
		sscanf(text, "%8X/%8X%n", &high, &low, &end) != 2 || text[end] != '\0')
		return false;
	*lsn = (uint64) high << 32 | low;
	return true;
}

/*
 * Values
 */

static int
on_key(void *arg, const unsigned char *text, size_t len)
{
	ManifestParser *parser = arg;
	uint32	   *seen = parser->place == AT_TOP ? &parser->top_seen : &parser->seen;

	for (size_t i = 0; i < lengthof(known_keys); i++)
	{
		if (known_keys[i].place != parser->place || strlen(known_keys[i].name) != len ||
			memcmp(known_keys[i].name, text, len) != 0)
			continue;
		if (has(*seen, known_keys[i].key))
			return fail(parser, "\"%s\" is there twice", known_keys[i].name);
		*seen |= KEY_BIT(known_keys[i].key);
		parser->key = known_keys[i].key;
		return 1;
	}
	return fail(parser, "unrecognized field \"%.*s\"", (int) Min(len, 64), text);
}

static int
on_number(void *arg, const char *text, size_t len)
{
	ManifestParser *parser = arg;
	Key			key = parser->key;
	uint64		value;

	parser->key = KEY_NONE;
	if (!parse_u64(text, len, &value))
		return fail(parser, "\"%.*s\" is not a number that can be here", (int) Min(len, 64), text);
	switch (key)
	{
		case KEY_VERSION:
			if (value != 1 && value != 2)
				return fail(parser, "unexpected manifest version");
			parser->info.version = (int) value;
			return 1;
		case KEY_SYSTEM_IDENTIFIER:
			parser->info.has_system_identifier = true;
			parser->info.system_identifier = value;
			return 1;
		case KEY_SIZE:
			parser->file.size = value;
			return 1;
		case KEY_TIMELINE:
			if (value == 0 || value > PG_UINT32_MAX)
				return fail(parser, "timeline is not an integer that can be one");
			parser->range.tli = (TimeLineID) value;
			return 1;
		default:
			return fail(parser, "unexpected number");
	}
}

static int
set_path(ManifestParser *parser, const char *path)
{
	if (!path_is_safe(path))
		return fail(parser, "file name \"%s\" leads outside of the backup", path);
	return 1;
}

static int
on_string(void *arg, const unsigned char *text, size_t len)
{
	ManifestParser *parser = arg;
	Key			key = parser->key;
	char		word[64];
	int			bytes;

	parser->key = KEY_NONE;
	switch (key)
	{
		case KEY_PATH:
			if (!copy_text(parser->path, sizeof(parser->path), text, len))
				return fail(parser, "file name is too long, or none");
			return set_path(parser, parser->path);
		case KEY_ENCODED_PATH:
			bytes = from_hex((uint8 *) parser->path, sizeof(parser->path) - 1,
							 (const char *) text, len);
			if (bytes <= 0 || memchr(parser->path, '\0', bytes) != NULL)
				return fail(parser, "could not decode file name");
			parser->path[bytes] = '\0';
			return set_path(parser, parser->path);
		case KEY_MODIFIED:
			return 1;
		case KEY_ALGORITHM:
			if (!copy_text(word, sizeof(word), text, len) ||
				!pg_checksum_parse_type(word, &parser->file.checksum_type) ||
				parser->file.checksum_type == CHECKSUM_TYPE_NONE)
				return fail(parser, "unrecognized checksum algorithm");
			return 1;
		case KEY_CHECKSUM:
			if (!copy_text(parser->checksum, sizeof(parser->checksum), text, len))
				return fail(parser, "checksum is too long");
			return 1;
		case KEY_START_LSN:
		case KEY_END_LSN:
			if (!copy_text(word, sizeof(word), text, len) ||
				!parse_lsn(word, key == KEY_START_LSN ? &parser->range.start : &parser->range.end))
				return fail(parser, "could not parse an LSN of a WAL range");
			return 1;
		case KEY_MANIFEST_CHECKSUM:
			if (len != sizeof(parser->expected) - 1 ||
				!copy_text(parser->expected, sizeof(parser->expected), text, len))
				return fail(parser, "manifest checksum has not the length of a SHA-256");
			return 1;
		default:
			return fail(parser, "unexpected string");
	}
}

static int
on_other(void *arg)
{
	return fail(arg, "unexpected value");
}

static int
on_boolean(void *arg, int value)
{
	return on_other(arg);
}

/*
 * Objects and arrays
 */

static int
on_map_start(void *arg)
{
	ManifestParser *parser = arg;

	switch (parser->place)
	{
		case AT_START:
			parser->place = AT_TOP;
			return 1;
		case AT_FILES:
			parser->place = AT_FILE;
			memset(&parser->file, 0, sizeof(parser->file));
			parser->checksum[0] = '\0';
			break;
		case AT_RANGES:
			parser->place = AT_RANGE;
			break;
		default:
			return fail(parser, "unexpected object");
	}
	parser->seen = 0;
	return 1;
}

static size_t
digest_length(pg_checksum_type type)
{
	switch (type)
	{
		case CHECKSUM_TYPE_NONE:
			return 0;
		case CHECKSUM_TYPE_CRC32C:
			return sizeof(pg_crc32c);
		case CHECKSUM_TYPE_SHA224:
			return PG_SHA224_DIGEST_LENGTH;
		case CHECKSUM_TYPE_SHA256:
			return PG_SHA256_DIGEST_LENGTH;
		case CHECKSUM_TYPE_SHA384:
			return PG_SHA384_DIGEST_LENGTH;
		case CHECKSUM_TYPE_SHA512:
			return PG_SHA512_DIGEST_LENGTH;
	}
	return 0;
}

static int
end_file(ManifestParser *parser)
{
	ManifestFile *file = &parser->file;

	if (has(parser->seen, KEY_PATH) == has(parser->seen, KEY_ENCODED_PATH))
		return fail(parser, "a file has no name, or two");
	if (!has(parser->seen, KEY_SIZE))
		return fail(parser, "size of file \"%s\" is missing", parser->path);
	if (has(parser->seen, KEY_ALGORITHM) != has(parser->seen, KEY_CHECKSUM))
		return fail(parser, "file \"%s\" has a checksum or its algorithm, but not both", parser->path);
	if (has(parser->seen, KEY_CHECKSUM))
	{
		file->checksum_len = from_hex(file->checksum, sizeof(file->checksum), parser->checksum,
									  strlen(parser->checksum));
		if (file->checksum_len != (int) digest_length(file->checksum_type))
			return fail(parser, "invalid checksum for file \"%s\": \"%s\"", parser->path,
						parser->checksum);
	}
	file->path = parser->path;
	parser->place = AT_FILES;
	if (parser->handler.file)
		parser->handler.file(parser->handler.arg, file);
	return 1;
}

static int
end_range(ManifestParser *parser)
{
	if (!has(parser->seen, KEY_TIMELINE) || !has(parser->seen, KEY_START_LSN) ||
		!has(parser->seen, KEY_END_LSN))
		return fail(parser, "a WAL range lacks its timeline, start or end");
	if (parser->range.end < parser->range.start)
		return fail(parser, "a WAL range ends before it starts");
	parser->place = AT_RANGES;
	if (parser->handler.wal_range)
		parser->handler.wal_range(parser->handler.arg, &parser->range);
	return 1;
}

static int
end_top(ManifestParser *parser)
{
	for (size_t i = 0; i < lengthof(known_keys); i++)
	{
		Key			key = known_keys[i].key;

		if (known_keys[i].place == AT_TOP && !has(parser->top_seen, key) &&
			(key != KEY_SYSTEM_IDENTIFIER || parser->info.version == 2))
			return fail(parser, "\"%s\" is missing", known_keys[i].name);
	}
	parser->place = AT_END;
	return 1;
}

static int
on_map_end(void *arg)
{
	ManifestParser *parser = arg;

	switch (parser->place)
	{
		case AT_TOP:
			return end_top(parser);
		case AT_FILE:
			return end_file(parser);
		case AT_RANGE:
			return end_range(parser);
		default:
			return fail(parser, "unexpected end of an object");
	}
}

static int
on_array_start(void *arg)
{
	ManifestParser *parser = arg;

	if (parser->place != AT_TOP || (parser->key != KEY_FILES && parser->key != KEY_RANGES))
		return fail(parser, "unexpected array");

	/* How to read what follows. */
	if (!has(parser->top_seen, KEY_VERSION) || parser->info.version == 0)
		return fail(parser, "the manifest version does not come first");
	parser->place = parser->key == KEY_FILES ? AT_FILES : AT_RANGES;
	parser->key = KEY_NONE;
	return 1;
}

static int
on_array_end(void *arg)
{
	ManifestParser *parser = arg;

	if (parser->place != AT_FILES && parser->place != AT_RANGES)
		return fail(parser, "unexpected end of an array");
	parser->place = AT_TOP;
	return 1;
}

static const yajl_callbacks callbacks = {
	.yajl_null = on_other,
	.yajl_boolean = on_boolean,
	.yajl_number = on_number,
	.yajl_string = on_string,
	.yajl_start_map = on_map_start,
	.yajl_map_key = on_key,
	.yajl_end_map = on_map_end,
	.yajl_start_array = on_array_start,
	.yajl_end_array = on_array_end,
};

/*
 * Parsing
 */

/*
 * The handler is called while manifest_parser_feed runs.
 */
ManifestParser *
manifest_parser_create(const ManifestHandler *handler)
{
	ManifestParser *parser = pg_malloc0(sizeof(ManifestParser));

	parser->handler = *handler;
	parser->json = yajl_alloc(&callbacks, NULL, parser);
	parser->hash = pg_cryptohash_create(PG_SHA256);
	if (parser->json == NULL || parser->hash == NULL || pg_cryptohash_init(parser->hash) < 0)
		fatal("out of memory");
	return parser;
}

/* Adds bytes to the hash, but those that may be the last line. */
static bool
hash_lines(ManifestParser *parser, const char *data, size_t len)
{
	while (len > 0)
	{
		const char *newline = memchr(data, '\n', len);
		size_t		part = newline ? (size_t) (newline - data) + 1 : len;

		if (parser->line_whole)
		{
			if (pg_cryptohash_update(parser->hash, (const uint8 *) parser->line,
									 parser->line_len) < 0)
				return fail(parser, "could not update checksum of manifest");
			parser->line_len = 0;
		}
		if (parser->line_len + part > sizeof(parser->line))
			return fail(parser, "a line is too long");
		memcpy(parser->line + parser->line_len, data, part);
		parser->line_len += part;
		parser->line_whole = newline != NULL;
		data += part;
		len -= part;
	}
	return true;
}

/* After yajl_parse or yajl_complete_parse. */
static bool
parsed(ManifestParser *parser, yajl_status status)
{
	if (status == yajl_status_error)
		fail(parser, "it is not valid JSON");
	return status == yajl_status_ok;
}

/*
 * Reads more of it.  False: manifest_parser_problem has what is wrong.
 */
bool
manifest_parser_feed(ManifestParser *parser, const char *data, size_t len)
{
	return hash_lines(parser, data, len) &&
		parsed(parser, yajl_parse(parser->json, (const unsigned char *) data, len));
}

/*
 * There is no more.  Until this returns true, nothing that was said is to be
 * relied on.
 */
bool
manifest_parser_end(ManifestParser *parser, ManifestInfo *info)
{
	uint8		computed[PG_SHA256_DIGEST_LENGTH];
	uint8		expected[PG_SHA256_DIGEST_LENGTH];

	if (!parsed(parser, yajl_complete_parse(parser->json)))
		return false;
	if (parser->place != AT_END)
		return fail(parser, "it ends early");
	if (!parser->line_whole)
		return fail(parser, "its last line is not newline-terminated");
	if (pg_cryptohash_final(parser->hash, computed, sizeof(computed)) < 0)
		return fail(parser, "could not finalize checksum of manifest");
	if (from_hex(expected, sizeof(expected), parser->expected, strlen(parser->expected)) !=
		sizeof(expected))
		return fail(parser, "invalid manifest checksum: \"%s\"", parser->expected);
	if (memcmp(computed, expected, sizeof(computed)) != 0)
		return fail(parser, "manifest checksum mismatch");
	*info = parser->info;
	return true;
}

const char *
manifest_parser_problem(const ManifestParser *parser)
{
	return parser->problem;
}

void
manifest_parser_free(ManifestParser *parser)
{
	yajl_free(parser->json);
	pg_cryptohash_free(parser->hash);
	pg_free(parser);
}

/*
 * Reads a file.  Gives up if it is not a manifest that is whole.
 */
void
manifest_read(const char *path, const ManifestHandler *handler, ManifestInfo *info)
{
	ManifestParser *parser = manifest_parser_create(handler);
	char	   *buffer = pg_malloc(READ_SIZE);
	int			fd = open(path, O_RDONLY | PG_BINARY, 0);
	ssize_t		got = 0;
	bool		good = true;

	if (fd < 0)
		fatal("could not open file \"%s\": %m", path);
	while (good && (got = read(fd, buffer, READ_SIZE)) > 0)
		good = manifest_parser_feed(parser, buffer, got);
	if (got < 0)
		fatal("could not read file \"%s\": %m", path);
	if (!good || !manifest_parser_end(parser, info))
	{
		report_error("could not parse backup manifest \"%s\": %s", path, parser->problem);
		give_up();
	}
	close(fd);
	pg_free(buffer);
	manifest_parser_free(parser);
}
