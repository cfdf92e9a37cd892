/*
 * verify_files.c
 *		The files that a manifest lists, by name.
 */
#include "postgres_fe.h"

#include "common/hashfn.h"
#include "report.h"
#include "verify_files.h"

#define SH_PREFIX			listed
#define SH_ELEMENT_TYPE		ListedFile
#define SH_KEY_TYPE			const char *
#define SH_KEY				path
#define SH_HASH_KEY(tb, key)	hash_bytes((const unsigned char *) (key), (int) strlen(key))
#define SH_EQUAL(tb, a, b)	(strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)	((a)->hash)
#define SH_SCOPE			static inline
#define SH_RAW_ALLOCATOR	pg_malloc0
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define MEMORY_CHUNK	(1024 * 1024)

/* In front of a name: the checksum, its length, its type. */
#define TYPE_AT		(-1)
#define LEN_AT		(-2)

void
verify_files_create(VerifyFiles *files)
{
	files->table = listed_create(1024, NULL);
	files->memory = NULL;
	files->left = 0;
}

/* Memory that stays. */
static char *
take_memory(VerifyFiles *files, size_t len)
{
	char	   *taken;

	if (len > files->left)
	{
		files->memory = pg_malloc(MEMORY_CHUNK);
		files->left = MEMORY_CHUNK;
	}
	taken = files->memory;
	files->memory += len;
	files->left -= len;
	return taken;
}

/*
 * Adds a file.  Returns false if it is there already.
 */
bool
verify_files_add(VerifyFiles *files, const ManifestFile *file)
{
	size_t		front = file->checksum_len + 2;
	size_t		name_len = strlen(file->path) + 1;
	char	   *path = take_memory(files, front + name_len) + front;
	ListedFile *listed;
	bool		found;

	memcpy(path, file->path, name_len);
	path[TYPE_AT] = (char) file->checksum_type;
	path[LEN_AT] = (char) file->checksum_len;
	memcpy(path - front, file->checksum, file->checksum_len);
	listed = listed_insert(files->table, path, &found);
	if (found)
		return false;
	listed->size = file->size;
	listed->offset = 0;
	listed->archive = -1;
	listed->seen = false;
	return true;
}

/*
 * The file of that name, or NULL.
 */
ListedFile *
verify_files_find(VerifyFiles *files, const char *path)
{
	return listed_lookup(files->table, path);
}

/*
 * Calls that for each of them.
 */
void
verify_files_each(VerifyFiles *files, void (*call) (void *arg, ListedFile *file), void *arg)
{
	listed_iterator iterator;
	ListedFile *file;

	listed_start_iterate(files->table, &iterator);
	while ((file = listed_iterate(files->table, &iterator)) != NULL)
		call(arg, file);
}

/*
 * The checksum of a file; its length is 0 if it has none.
 */
pg_checksum_type
listed_checksum(const ListedFile *file, const uint8 **bytes, int *len)
{
	*len = file->path[LEN_AT];
	*bytes = (const uint8 *) file->path + LEN_AT - *len;
	return (pg_checksum_type) file->path[TYPE_AT];
}
