/*
 * combine_place.c
 *		Combining a full backup with increments in its own directory.
 *
 * What is read and written is what changed.  Whatever interrupts a run, doing the
 * same again completes it, and until then the directory is not a backup: no server
 * starts there, and no program takes it for one.  The steps, each durable before
 * the next begins:
 *
 *	1. The journal is there: a file that says which increments are applied.  As
 *	   no manifest has it, verifying the backup fails as long as it exists.
 *	2. The full backup's manifest, label and control file have other names, in
 *	   that order; the directory lacks them.  A later run reads them there.
 *	3. All files but these three are as in the result.  Each step of this can be
 *	   done again after it was done in part, for nothing is read from the files
 *	   that are changed: blocks come from the increments, lengths from their
 *	   headers, and what else becomes a part of a file is zeros.
 *	4. The new control file and label are there, under their names.
 *	5. The new manifest is.  With it, the result is complete: a later run, to
 *	   which a manifest and the last increment's label say so, has but to tidy.
 *	6. The old manifest, label and control file are gone.
 *	7. The journal is gone.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "combine_build.h"
#include "combine_dir.h"
#include "combine_output.h"
#include "combine_place.h"
#include "common/file_perm.h"
#include "paths.h"
#include "port/pg_crc32c.h"
#include "pqexpbuffer.h"
#include "progress.h"
#include "report.h"
#include "target.h"
#include "workers.h"

/* All of our own files begin with this. */
#define OWN_PREFIX		"ptrack_combine."
#define JOURNAL			OWN_PREFIX "journal"
#define NEW_JOURNAL		OWN_PREFIX "new_journal"
#define OLD_MANIFEST	OWN_PREFIX "manifest"
#define OLD_LABEL		OWN_PREFIX "label"
#define OLD_CONTROL		OWN_PREFIX "control"
#define NEW_MANIFEST	OWN_PREFIX "new_manifest"
#define NEW_LABEL		OWN_PREFIX "new_label"
#define UNPACKED		OWN_PREFIX "unpacked"

/* What the full backup has, and the result does not. */
typedef struct Vanished
{
	struct Vanished *next;
	char	   *path;
	bool		is_dir;			/* and not the link that leads to one */
} Vanished;

typedef struct Place
{
	const CombineOptions *options;
	Chain	   *chain;
	const char *dir;
	Plan	   *plan;
	Vanished   *vanished;		/* what is in a directory comes before it */
	Builder   **builders;		/* a thread each */
} Place;

static bool unfinished = false;

static void
tell_unfinished(void)
{
	if (unfinished)
	{
		report_error("the directory is no backup until this is complete");
		report_hint("Run the same command again.");
	}
}

/*
 * A backup in which others are being combined is none.
 */
void
place_refuse(const char *dir)
{
	if (dir_has(dir, JOURNAL))
		fatal_hint("Complete that first, by running the same command again.",
				   "backups are being combined in place in directory \"%s\"", dir);
}

/* Nobody else does the same there, for as long as this program runs. */
static void
lock_directory(const char *dir)
{
	if (!target_try_lock(dir))
		fatal("backups are being combined in place in directory \"%s\" by another program", dir);
	if (dir_has(dir, "postmaster.pid"))
		fatal("directory \"%s\" has a server's lock file \"postmaster.pid\"", dir);
}

/*
 * Names
 */

static void
rename_in(const char *dir, const char *from, const char *to)
{
	char		from_path[MAXPGPATH];
	char		to_path[MAXPGPATH];

	path_join(from_path, dir, from);
	path_join(to_path, dir, to);
	if (rename(from_path, to_path) < 0)
		fatal("could not rename file \"%s\" to \"%s\": %m", from_path, to_path);
}

static void
remove_in(const char *dir, const char *name)
{
	char		path[MAXPGPATH];

	path_join(path, dir, name);
	if (unlink(path) < 0 && errno != ENOENT)
		fatal("could not remove file \"%s\": %m", path);
}

static void
sync_in(const Place *place, const char *name, bool is_dir)
{
	char		path[MAXPGPATH];

	if (!place->options->sync)
		return;
	path_join(path, place->dir, name);
	output_sync_path(path, is_dir);
}

/* Puts a small file in its place, whole and durable. */
static void
publish(const Place *place, const char *temporary, const char *name)
{
	sync_in(place, temporary, false);
	rename_in(place->dir, temporary, name);
	sync_in(place, ".", true);
}

/*
 * The journal
 */

static pg_crc32c
crc_of_manifest(const Backup *backup)
{
	char		buffer[8192];
	struct stat st;
	int			fd = dir_open(backup->dir, backup->manifest_name, O_RDONLY | PG_BINARY, &st);
	ssize_t		got;
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		COMP_CRC32C(crc, buffer, got);
	if (got < 0)
		fatal("could not read file \"%s/%s\": %m", backup->dir, backup->manifest_name);
	FIN_CRC32C(crc);
	close(fd);
	return crc;
}

/* What tells the increments from any others, in malloc'd memory. */
static char *
journal_text(Chain *chain)
{
	PQExpBufferData text;

	initPQExpBuffer(&text);
	appendPQExpBufferStr(&text, "pg_ptrack combine --in-place, journal 1\n");
	for (int i = 1; i < chain->count; i++)
	{
		Backup	   *backup = &chain->backups[i];

		label_read(&backup->label, backup);
		appendPQExpBuffer(&text, "%d: timeline %u, start %X/%X, manifest %08X\n", i,
						  backup->label.start_tli, LSN_FORMAT_ARGS(backup->label.start),
						  crc_of_manifest(backup));
	}
	if (PQExpBufferDataBroken(text))
		fatal("out of memory");
	return text.data;
}

/* Is there a journal, of what is to be done now? */
static bool
has_journal(const char *dir, const char *expected)
{
	size_t		len;
	char	   *found;
	bool		same;

	if (!dir_has(dir, JOURNAL))
		return false;
	found = dir_read(dir, JOURNAL, &len);
	same = len == strlen(expected) && memcmp(found, expected, len) == 0;
	pg_free(found);
	if (!same)
		fatal_hint("Complete that first, with the same increments as then.",
				   "other backups are being combined in place in directory \"%s\"", dir);
	return true;
}

/* Is there nothing left to do but to tidy? */
static bool
is_complete(const Place *place)
{
	BackupLabel label;

	/* Before the old label has its other name, the old manifest has. */
	if (!dir_has(place->dir, MANIFEST_NAME))
		return false;
	label_read(&label, &place->chain->backups[0]);
	return label.start == chain_last(place->chain)->label.start;
}

/* Has an earlier run done all of it? */
static bool
is_done(const Place *place)
{
	Backup		first = place->chain->backups[0];
	Backup		last = *chain_last(place->chain);

	label_read(&first.label, &first);
	if (first.label.incremental || first.label.start != last.label.start ||
		first.label.start_tli != last.label.start_tli)
		return false;
	control_read(&first);
	control_read(&last);
	return first.system_identifier == last.system_identifier;
}

/* Where the full backup's own files are, if an earlier run has got so far. */
static void
find_old_files(const Place *place)
{
	Backup	   *first = &place->chain->backups[0];

	place->chain->resumed = dir_has(place->dir, OLD_MANIFEST);
	if (place->chain->resumed)
		first->manifest_name = OLD_MANIFEST;
	if (dir_has(place->dir, OLD_LABEL))
		first->label_name = OLD_LABEL;
	if (dir_has(place->dir, OLD_CONTROL))
		first->control_name = OLD_CONTROL;
}

/* What has the old name now is the old one, unless that has its other name. */
static void
put_aside(const Place *place, const char *name, const char *other)
{
	if (!dir_has(place->dir, other))
		rename_in(place->dir, name, other);
}

static void
begin(const Place *place, const char *journal)
{
	output_write_text(place->dir, NEW_JOURNAL, journal, strlen(journal));
	publish(place, NEW_JOURNAL, JOURNAL);
	unfinished = true;
	put_aside(place, MANIFEST_NAME, OLD_MANIFEST);
	sync_in(place, ".", true);
	put_aside(place, LABEL_NAME, OLD_LABEL);
	put_aside(place, CONTROL_NAME, OLD_CONTROL);
	sync_in(place, ".", true);
	sync_in(place, "global", true);
}

/*
 * Directories, and what is gone
 */

static const Directory *
find_directory(const Plan *plan, const char *path)
{
	for (const Directory *directory = plan->directories; directory; directory = directory->next)
	{
		if (strcmp(directory->path, path) == 0)
			return directory;
	}
	return NULL;
}

/*
 * What is not part of the result is removed.  But not another backup, be it one of
 * the increments or one that is wanted later.  Where a server's directory has one, its
 * backups have that without the manifest.
 */
static void
refuse_inner(const Place *place, const char *path)
{
	const char *name = path_file_name(path);

	if (name != path && strcmp(name, MANIFEST_NAME) == 0)
		fatal("backup \"%s/%.*s\" is in directory \"%s\", which is to be changed in place",
			  place->dir, (int) (name - path - 1), path, place->dir);
}

static void
note_vanished(void *arg, const char *path, const struct stat *st, const char *link)
{
	Place	   *place = arg;
	Vanished   *vanished;

	refuse_inner(place, path);
	if (S_ISDIR(st->st_mode) ? find_directory(place->plan, path) != NULL :
		plan_find(place->plan, path) != NULL)
		return;
	if (strncmp(path, OWN_PREFIX, strlen(OWN_PREFIX)) == 0 || strcmp(path, LABEL_NAME) == 0 ||
		strcmp(path, MANIFEST_NAME) == 0)
		return;
	vanished = pg_malloc0(sizeof(Vanished));
	vanished->path = pg_strdup(path);
	vanished->is_dir = S_ISDIR(st->st_mode) && link == NULL;
	vanished->next = place->vanished;
	place->vanished = vanished;
}

static void
remove_vanished(const Place *place)
{
	for (const Vanished *vanished = place->vanished; vanished != NULL; vanished = vanished->next)
	{
		char		path[MAXPGPATH];

		if (workers_stopping())
			give_up();
		path_join(path, place->dir, vanished->path);
		if ((vanished->is_dir ? rmdir(path) : unlink(path)) < 0)
			fatal("could not remove \"%s\": %m", path);
	}
}

/* Is there a directory, or what leads to one? */
static bool
directory_exists(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
	{
		if (!S_ISDIR(st.st_mode))
			fatal("\"%s\" is not a directory", path);
		return true;
	}
	if (errno != ENOENT)
		fatal("could not stat file \"%s\": %m", path);
	return false;
}

/* Is there such a directory?  Gives up if a tablespace cannot be put there. */
static bool
location_exists(const char *location)
{
	int			state = pg_check_dir(location);

	if (state > 1)
		fatal("directory \"%s\" exists but is not empty", location);
	if (state < 0)
		fatal("could not access directory \"%s\": %m", location);
	return state > 0;
}

/* Is it a tablespace that is to be made, elsewhere? */
static bool
is_new_tablespace(const Place *place, const Directory *directory)
{
	char		path[MAXPGPATH];

	path_join(path, place->dir, directory->path);
	return directory->link && strcmp(directory->path, "pg_wal") != 0 && !directory_exists(path);
}

/* Gives up if a tablespace before that one is to be there, too. */
static void
check_only_one(const Place *place, const Directory *directory, const char *location)
{
	for (const Directory *other = place->plan->directories; other != directory; other = other->next)
	{
		const char *mapped = is_new_tablespace(place, other) ?
			output_mapped(place->options, other->link) : NULL;

		if (mapped && strcmp(mapped, location) == 0)
			fatal("directory \"%s\" cannot be used twice", location);
	}
}

/* Gives up if a tablespace that is new cannot be where it is to be, or nobody said where. */
static void
check_tablespaces(const Place *place)
{
	for (const Directory *directory = place->plan->directories; directory;
		 directory = directory->next)
	{
		const char *mapped;

		if (!is_new_tablespace(place, directory))
			continue;
		mapped = output_mapped(place->options, directory->link);
		if (mapped == NULL)
			fatal_hint("Use --tablespace-mapping to say where it is to be.",
					   "tablespace at \"%s\" has no tablespace mapping", directory->link);
		(void) location_exists(mapped);
		output_check_outside(mapped, place->chain);
		check_only_one(place, directory, mapped);
	}
}

/* Makes a directory, and a link that leads to it.  An earlier run may have made it. */
static void
make_tablespace(const char *path, const char *location)
{
	if (!location_exists(location) && pg_mkdir_p(pg_strdup(location), pg_dir_create_mode) < 0)
		fatal("could not create directory \"%s\": %m", location);
	if (symlink(location, path) < 0)
		fatal("could not create symbolic link \"%s\": %m", path);
}

static void
make_directories(const Place *place)
{
	for (const Directory *directory = place->plan->directories; directory;
		 directory = directory->next)
	{
		const char *mapped = NULL;
		char		path[MAXPGPATH];

		path_join(path, place->dir, directory->path);
		if (directory_exists(path))
			continue;
		if (directory->link)
			mapped = output_mapped(place->options, directory->link);
		if (mapped)
			make_tablespace(path, mapped);
		else if (mkdir(path, pg_dir_create_mode) < 0)
			fatal("could not create directory \"%s\": %m", path);
	}
}

/*
 * Files
 */

/* Puts a file in the place of what is there of that name. */
static void
replace(const Place *place, Builder *builder, Target *target)
{
	char		name[MAXPGPATH];
	char		path[MAXPGPATH];

	if (snprintf(name, sizeof(name), "%s" FRESH_SUFFIX, target->path) >= (int) sizeof(name))
		fatal("file name \"%s\" is too long", target->path);
	remove_in(place->dir, name);
	path_join(path, place->dir, name);
	build_file(builder, target, path);
	rename_in(place->dir, name, target->path);
}

static void
apply_target(void *arg, int thread, Target *target)
{
	const Place *place = arg;

	if (strcmp(target->path, CONTROL_NAME) == 0)
		return;
	if (target->oldest->backup == 0)
		build_in_place(place->builders[thread], target);
	else
		replace(place, place->builders[thread], target);
}

static void
check_target(void *arg, int thread, Target *target)
{
	const Place *place = arg;

	build_check(place->builders[thread], target);
}

static void
finish(const Place *place)
{
	Target	   *control = plan_find(place->plan, CONTROL_NAME);
	char	   *label = label_of_result(place->chain);

	replace(place, place->builders[0], control);
	sync_in(place, CONTROL_NAME, false);
	sync_in(place, "global", true);
	output_write_text(place->dir, NEW_LABEL, label, strlen(label));
	publish(place, NEW_LABEL, LABEL_NAME);
	plan_sort_by_path(place->plan);
	output_write_manifest(place->options, place->plan, place->dir, NEW_MANIFEST, label,
						  NULL);
	publish(place, NEW_MANIFEST, MANIFEST_NAME);
}

static void
tidy(const Place *place)
{
	static const char *const leftovers[] = {
		OLD_LABEL, OLD_CONTROL, OLD_MANIFEST, NEW_LABEL, NEW_MANIFEST, NEW_JOURNAL
	};

	/* An earlier run may have been interrupted before this was durable. */
	sync_in(place, ".", true);
	for (size_t i = 0; i < lengthof(leftovers); i++)
		remove_in(place->dir, leftovers[i]);
	sync_in(place, ".", true);
	remove_in(place->dir, JOURNAL);
	sync_in(place, ".", true);
	unfinished = false;
}

/* No backup has files that are called as ours are. */
static void
check_names(const Plan *plan)
{
	for (size_t i = 0; i < plan->target_count; i++)
	{
		if (strncmp(plan->targets[i]->path, OWN_PREFIX, strlen(OWN_PREFIX)) == 0)
			fatal("backup \"%s\" has a file \"%s\"", chain_last(plan->chain)->dir,
				  plan->targets[i]->path);
	}
}

static void
make_plan(Place *place)
{
	int			jobs = place->options->jobs;

	chain_read(place->chain);
	if (!place->chain->full)
		fatal("backup \"%s\" is not a full backup", place->dir);
	if (!dir_has(place->dir, place->chain->backups[0].manifest_name))
		fatal("backup \"%s\" has no manifest", place->dir);
	place->plan = plan_create(place->chain, false);
	check_tablespaces(place);
	if (plan_find(place->plan, CONTROL_NAME) == NULL)
		fatal("file \"%s\" is missing in backup \"%s\"", CONTROL_NAME,
			  chain_last(place->chain)->dir);
	check_names(place->plan);
	dir_walk(place->dir, note_vanished, place);
	plan_sort_by_weight(place->plan);
	place->builders = pg_malloc0(jobs * sizeof(Builder *));
	for (int i = 0; i < jobs; i++)
		place->builders[i] = builder_create(place->options, place->chain);
}

static void
unpack(const Place *place)
{
	char		path[MAXPGPATH];

	remove_in(place->dir, UNPACKED);
	path_join(path, place->dir, UNPACKED);
	output_unpack(place->plan, path);
}

/*
 * Applies increments to the first backup of a chain that nothing was read from.
 */
void
place_combine(const CombineOptions *options, Chain *chain)
{
	Place		place = {.options = options,.chain = chain,.dir = chain->backups[0].dir};
	char	   *journal;

	if (chain->backups[0].input.archives)
		fatal("archives in directory \"%s\" cannot be changed in place", place.dir);
	lock_directory(place.dir);
	for (int i = 1; i < chain->count; i++)
		place_refuse(chain->backups[i].dir);
	journal = journal_text(chain);
	atexit(tell_unfinished);
	if (has_journal(place.dir, journal))
	{
		unfinished = true;
		if (is_complete(&place))
		{
			if (!options->dry_run)
				tidy(&place);
			return;
		}
		find_old_files(&place);
	}
	else if (is_done(&place))
	{
		report_info("backup \"%s\" has been combined with these before", place.dir);
		return;
	}
	make_plan(&place);
	if (options->dry_run && output_must_unpack(chain))
	{
		report_info("what is in compressed archives is not checked");
		return;
	}

	/* What is found to be wrong later might never be completed. */
	unpack(&place);
	plan_for_each(place.plan, options->jobs, check_target, &place);
	if (options->dry_run)
		return;
	begin(&place, journal);
	if (options->progress)
		progress_begin("combine", place.plan->weight, place.plan->target_count);
	remove_vanished(&place);
	make_directories(&place);
	plan_for_each(place.plan, options->jobs, apply_target, &place);
	output_sync(options, place.plan, place.dir);
	finish(&place);
	tidy(&place);
	progress_end();
}
