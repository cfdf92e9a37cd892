/*
 * combine_output.c
 *		The directory that the result is in.
 *
 * The manifest is written last, so that what is there before is not taken for a
 * backup.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "combine_dir.h"
#include "combine_output.h"
#include "common/file_perm.h"
#include "common/file_utils.h"
#include "paths.h"
#include "report.h"

/* Which files of which backup are needed. */
typedef struct Needed
{
	const Plan *plan;
	int			backup;
} Needed;

/*
 * Directories
 */

/*
 * Where a tablespace is to be, that is in the last backup where a link leads to.
 * NULL: nobody has said.
 */
const char *
output_mapped(const CombineOptions *options, const char *link)
{
	char		old_dir[MAXPGPATH];

	strlcpy(old_dir, link, MAXPGPATH);
	canonicalize_path(old_dir);
	for (const TablespaceMapping *map = options->mappings; map != NULL; map = map->next)
	{
		if (strcmp(map->old_dir, old_dir) == 0)
			return map->new_dir;
	}
	return NULL;
}

static void
check_empty(const char *dir)
{
	int			state = pg_check_dir(dir);

	if (state < 0)
		fatal("could not access directory \"%s\": %m", dir);
	if (state > 1)
		fatal("directory \"%s\" exists but is not empty", dir);
}

static bool
is_tablespace(const Directory *directory)
{
	return directory->link != NULL && strncmp(directory->path, "pg_tblspc/", 10) == 0;
}

static const char *
must_be_mapped(const CombineOptions *options, const Directory *directory)
{
	const char *mapped = output_mapped(options, directory->link);

	if (mapped == NULL)
		fatal_hint("Use --tablespace-mapping to say where it is to be.",
				   "tablespace at \"%s\" has no tablespace mapping", directory->link);
	return mapped;
}

/*
 * Gives up if a directory, of which any part may be missing, is in one of the backups.
 */
void
output_check_outside(const char *dir, const Chain *chain)
{
	char		existing[MAXPGPATH];
	char	   *real;

	strlcpy(existing, dir, sizeof(existing));
	canonicalize_path(existing);
	while ((real = realpath(existing[0] ? existing : ".", NULL)) == NULL && errno == ENOENT &&
		   existing[0])
		get_parent_directory(existing);
	if (real == NULL)
		fatal("could not access directory \"%s\": %m", dir);
	for (int i = 0; i < chain->count; i++)
	{
		char	   *backup = realpath(chain->backups[i].dir, NULL);

		if (backup && path_is_prefix_of_path(backup, real))
			fatal("directory \"%s\" is in backup \"%s\"", dir, chain->backups[i].dir);
		free(backup);
	}
	free(real);
}

static void
check_place(const char *dir, const Chain *chain)
{
	check_empty(dir);
	output_check_outside(dir, chain);
}

/*
 * Checks that nothing is in the way, and that the result will not be in any of the
 * backups that it is made of.
 */
void
output_check(const CombineOptions *options, const Plan *plan)
{
	check_place(options->output, plan->chain);
	for (const Directory *directory = plan->directories; directory; directory = directory->next)
	{
		if (!options->archives && is_tablespace(directory))
			check_place(must_be_mapped(options, directory), plan->chain);
	}
}

/*
 * Makes the result's own directory.  From now on, what is in it is removed if the
 * program fails.
 */
void
output_create_root(const CombineOptions *options)
{
	TargetOptions target = {
		.directory = options->output,
		.mappings = options->mappings,
		.group_access = pg_dir_create_mode == PG_DIR_MODE_GROUP,
		.no_clean = !options->clean,
		.no_sync = !options->sync,
		.sync_file_systems = options->syncfs,
	};

	target_create(&target);
}

/* How many directories a path is below the backup's. */
static int
depth_of(const char *path)
{
	int			depth = 0;

	for (; *path; path++)
		depth += *path == '/';
	return depth;
}

/*
 * Makes all directories in it.  Where pg_wal was elsewhere, it now is where it
 * belongs.
 */
void
output_make_directories(const Plan *plan)
{
	bool		more = true;

	/* Archives come in any order, so that a directory may be listed before its own. */
	for (int depth = 0; more; depth++)
	{
		more = false;
		for (const Directory *directory = plan->directories; directory; directory = directory->next)
		{
			more |= depth_of(directory->path) > depth;
			if (depth_of(directory->path) != depth)
				continue;
			if (is_tablespace(directory))
				target_make_tablespace(directory->path, directory->link);
			else
				target_make_directory(directory->path);
		}
	}
}

/*
 * Compressed archives
 */

/*
 * Are there any among the backups?
 */
bool
output_must_unpack(const Chain *chain)
{
	for (int i = 0; i < chain->count; i++)
	{
		if (chain->backups[i].input.archives &&
			archives_compressed(chain->backups[i].input.archives))
			return true;
	}
	return false;
}

static bool
is_needed(void *arg, const char *path)
{
	const Needed *needed = arg;

	return plan_needs(needed->plan, needed->backup, path);
}

/*
 * Unpacks what is needed of them, to a file that has this name but for a moment.
 */
void
output_unpack(const Plan *plan, const char *path)
{
	const Chain *chain = plan->chain;
	uint64		len = 0;
	int			fd;

	if (!output_must_unpack(chain))
		return;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | PG_BINARY, pg_file_create_mode);
	if (fd < 0)
		fatal("could not create file \"%s\": %m", path);
	if (unlink(path) < 0)
		fatal("could not remove file \"%s\": %m", path);
	for (int i = 0; i < chain->count; i++)
	{
		const Input *input = &chain->backups[i].input;
		Needed		needed = {.plan = plan,.backup = i};

		if (input->archives && !input->streamed)
			archives_unpack(input->archives, fd, &len, is_needed, &needed);
	}
}

/*
 * Label and manifest
 */

/* Takes the place of a file of that name. */
static FILE *
create_file(char *path, const char *dir, const char *name)
{
	int			fd;
	FILE	   *file;

	path_join(path, dir, name);
	if (unlink(path) < 0 && errno != ENOENT)
		fatal("could not remove file \"%s\": %m", path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, pg_file_create_mode);
	file = fd < 0 ? NULL : fdopen(fd, PG_BINARY_W);
	if (file == NULL)
		fatal("could not create file \"%s\": %m", path);
	return file;
}

static void
close_file(FILE *file, const char *path)
{
	/* Once a write has failed, closing it may not. */
	if (ferror(file))
		fatal("could not write file \"%s\"", path);
	if (fclose(file) != 0)
		fatal("could not write file \"%s\": %m", path);
}

/*
 * Writes a small file, in the place of one of that name.
 */
void
output_write_text(const char *dir, const char *name, const char *text, size_t len)
{
	char		path[MAXPGPATH];
	FILE	   *file = create_file(path, dir, name);

	fwrite(text, 1, len, file);
	close_file(file, path);
}

static void
write_to_file(void *arg, const char *data, size_t len)
{
	fwrite(data, 1, len, arg);
}

static void
write_text_entry(const CombineOptions *options, ManifestWriter *writer, const char *path,
				 const char *text)
{
	ManifestFile file = {.path = path,.size = strlen(text),.modified = time(NULL)};
	pg_checksum_context sum;

	file.checksum_type = options->checksum_type;
	if (pg_checksum_init(&sum, options->checksum_type) < 0 ||
		pg_checksum_update(&sum, (const uint8 *) text, file.size) < 0)
		fatal("could not make checksum of file \"%s\"", path);
	file.checksum_len = pg_checksum_final(&sum, file.checksum);
	manifest_write_file(writer, &file);
}

/*
 * Writes the result's manifest.  label and map: contents of backup_label and
 * tablespace_map, NULL if there is none.
 */
void
output_write_manifest(const CombineOptions *options, const Plan *plan, const char *dir,
					  const char *name, const char *label, const char *map)
{
	ManifestWriter writer;
	char		path[MAXPGPATH];
	FILE	   *file = create_file(path, dir, name);

	manifest_write_begin(&writer, write_to_file, file, &plan->info);
	write_text_entry(options, &writer, LABEL_NAME, label);
	if (map)
		write_text_entry(options, &writer, TABLESPACE_MAP_NAME, map);
	for (size_t i = 0; i < plan->target_count; i++)
	{
		Target	   *target = plan->targets[i];
		char		whole_path[MAXPGPATH];

		if (!target->in_manifest)
			continue;
		result_path(whole_path, target);
		target->made.path = whole_path;
		manifest_write_file(&writer, &target->made);
	}
	for (int i = 0; i < plan->range_count; i++)
		manifest_write_range(&writer, &plan->ranges[i]);
	manifest_write_end(&writer);
	close_file(file, path);
}

/*
 * Durability
 */

/*
 * Makes a file or directory durable.
 */
void
output_sync_path(const char *path, bool is_dir)
{
	int			fd = open(path, is_dir ? O_RDONLY | O_DIRECTORY : O_RDWR | PG_BINARY, 0);

	if (fd < 0)
		fatal("could not open file \"%s\": %m", path);
	if (fsync(fd) < 0)
		fatal("could not fsync file \"%s\": %m", path);
	close(fd);
}

static void
sync_target(void *arg, int thread, Target *target)
{
	const char *dir = arg;
	char		name[MAXPGPATH];
	char		path[MAXPGPATH];

	if (!target->written)
		return;
	result_path(name, target);
	path_join(path, dir, name);
	output_sync_path(path, false);
}

static void
sync_file_system(const char *path)
{
#if defined(HAVE_SYNCFS)
	int			fd = open(path, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		fatal("could not open directory \"%s\": %m", path);
	if (syncfs(fd) < 0)
		fatal("could not synchronize file system for file \"%s\": %m", path);
	close(fd);
#endif
}

/*
 * Makes durable what was written to that directory, by targets, and its entries.
 */
void
output_sync(const CombineOptions *options, const Plan *plan, const char *dir)
{
	if (!options->sync)
		return;
	if (!options->syncfs)
		plan_for_each(plan, options->jobs, sync_target, (void *) dir);
	for (const Directory *directory = plan->directories; directory; directory = directory->next)
	{
		char		path[MAXPGPATH];

		path_join(path, dir, directory->path);
		if (!options->syncfs)
			output_sync_path(path, true);
		else if (is_tablespace(directory) || strcmp(directory->path, "pg_wal") == 0)
			sync_file_system(path);
	}
	if (options->syncfs)
		sync_file_system(dir);
	else
		output_sync_path(dir, true);
}
