/*
 * combine_plan.c
 *		What the result of combining consists of, and where that comes from.
 *
 * The result has the files that the last backup has.  Of each, the backups are
 * looked through from the newest to the oldest, up to the first one that has it
 * whole: these are its sources.  What older backups have besides is not even
 * remembered, so that memory is needed for the sources only.
 */
#include "postgres_fe.h"

#include <stdatomic.h>

#include "combine_dir.h"
#include "combine_plan.h"
#include "common/hashfn.h"
#include "paths.h"
#include "report.h"
#include "workers.h"

#define LINEAGE			"ptrack/lineage."
#define LINEAGE_PRIOR	"ptrack/lineage_prior."

typedef struct TargetEntry
{
	const char *path;
	Target	   *target;
	uint32		status;
} TargetEntry;

#define SH_PREFIX		targets
#define SH_ELEMENT_TYPE	TargetEntry
#define SH_KEY_TYPE		const char *
#define SH_KEY			path
#define SH_HASH_KEY(tb, key)	hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(tb, a, b)		(strcmp(a, b) == 0)
#define SH_SCOPE		static inline
#define SH_RAW_ALLOCATOR	pg_malloc0
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Which history an LSN belongs to, by a backup. */
typedef struct LineagePoint
{
	struct LineagePoint *next;
	int			backup;
	bool		is_prior;		/* what it is relative to */
	char		point[32];		/* timeline and LSN */
	char		lineage[64];
} LineagePoint;

/* Work on all targets. */
typedef struct TargetWork
{
	const Plan *plan;
	target_fn	work;
	void	   *arg;
	atomic_size_t next;
} TargetWork;

/* A backup whose files are gone through. */
typedef struct Listing
{
	Plan	   *plan;
	int			backup;
} Listing;

static const char *
backup_dir(const Plan *plan, int backup)
{
	return plan->chain->backups[backup].dir;
}

/*
 * The target of that path, or NULL.
 */
Target *
plan_find(const Plan *plan, const char *path)
{
	TargetEntry *entry = targets_lookup(plan->by_path, path);

	return entry ? entry->target : NULL;
}

static Target *
add_target(Plan *plan, const char *path)
{
	Target	   *target = pg_malloc0(sizeof(Target));
	bool		found;

	target->path = pg_strdup(path);
	targets_insert(plan->by_path, target->path, &found)->target = target;
	if (plan->target_count == plan->target_room)
	{
		plan->target_room = Max(1024, plan->target_room * 2);
		plan->targets = pg_realloc(plan->targets, plan->target_room * sizeof(Target *));
	}
	plan->targets[plan->target_count++] = target;
	return target;
}

/*
 * Will the result have it whole?
 */
bool
target_is_whole(const Target *target)
{
	return !target->oldest->incremental;
}

/* The name, in MAXPGPATH bytes, of a file or of what changed of it. */
static void
name_of(char *path, const Target *target, bool incremental)
{
	if (!incremental)
		strlcpy(path, target->path, MAXPGPATH);
	else if (!path_to_incremental(path, MAXPGPATH, target->path))
		fatal("file name \"%s\" is too long", target->path);
}

/*
 * The name of a file of the result, in MAXPGPATH bytes.
 */
void
result_path(char *path, const Target *target)
{
	name_of(path, target, !target_is_whole(target));
}

/*
 * The name that a source has in its backup.
 */
void
source_path(char *path, const Target *target, const Source *source)
{
	name_of(path, target, source->incremental);
}

/*
 * Gives the name of the whole file, and says if this one is what changed of it.
 * That name alone does not tell; any file may have it.
 */
static bool
whole_name(char *whole, const char *path)
{
	ForkNumber	fork;
	unsigned	segment;

	if (path_is_incremental(path) && path_from_incremental(whole, MAXPGPATH, path) &&
		path_is_relation(whole, &fork, &segment))
		return true;
	strlcpy(whole, path, MAXPGPATH);
	return false;
}

static bool
is_wal(const char *path)
{
	return strncmp(path, "pg_wal/", 7) == 0;
}

static bool
is_prior_lineage(const char *path)
{
	return strncmp(path, LINEAGE_PRIOR, strlen(LINEAGE_PRIOR)) == 0;
}

/*
 * Does the result not get this one?  What it is relative to, if anything, is what
 * the first backup is relative to.
 */
static bool
is_special(const Plan *plan, int backup, const char *path)
{
	if (is_prior_lineage(path))
		return plan->chain->full || backup != 0;
	return strcmp(path, MANIFEST_NAME) == 0 || strcmp(path, LABEL_NAME) == 0 ||
		(plan->skip_map && strcmp(path, TABLESPACE_MAP_NAME) == 0);
}

/*
 * Lineages
 */

/* Takes apart a name that has a timeline, an LSN and a lineage. */
static bool
parse_lineage(const char *path, LineagePoint *point)
{
	const char *hex = "0123456789ABCDEFabcdef";
	size_t		skip = strlen(LINEAGE);

	if (strncmp(path, LINEAGE, skip) != 0)
	{
		skip = strlen(LINEAGE_PRIOR);
		if (strncmp(path, LINEAGE_PRIOR, skip) != 0)
			return false;
	}
	path += skip;
	if (strspn(path, hex) != 8 || path[8] != '.' || strspn(path + 9, hex) != 16 || path[25] != '.')
		return false;
	strlcpy(point->point, path, 26);
	return strlcpy(point->lineage, path + 26, sizeof(point->lineage)) < sizeof(point->lineage);
}

/*
 * Two clones of one server have the same identifier, timeline and LSNs; only
 * their lineages differ.  So what any two backups say of one point must be the
 * same: of their starts, and of what they are relative to.
 */
static void
note_lineage(Plan *plan, int backup, const char *path)
{
	LineagePoint *point = pg_malloc0(sizeof(LineagePoint));

	if (!parse_lineage(path, point))
	{
		pg_free(point);
		return;
	}
	for (LineagePoint *other = plan->lineages; other != NULL; other = other->next)
	{
		if (strcmp(other->point, point->point) != 0 || strcmp(other->lineage, point->lineage) == 0)
			continue;
		report_error("backups \"%s\" and \"%s\" are of different histories", backup_dir(plan, backup),
					 backup_dir(plan, other->backup));
		report_detail("At %s, the lineage is %s in the one and %s in the other.", point->point,
					  point->lineage, other->lineage);
		give_up();
	}
	point->backup = backup;
	point->is_prior = is_prior_lineage(path);
	point->next = plan->lineages;
	plan->lineages = point;
}

/* Does ptrack say what changed since the backup before? */
static bool
is_tracked(const Plan *plan, int backup)
{
	for (const LineagePoint *point = plan->lineages; point != NULL; point = point->next)
	{
		if (point->backup == backup && point->is_prior)
			return true;
	}
	return false;
}

/*
 * pg_checksums writes every page without a trace in the WAL.  To ptrack, everything has
 * changed then; PostgreSQL's own increments do not have these pages.
 */
static void
check_page_checksums(const Plan *plan)
{
	const Backup *backups = plan->chain->backups;

	for (int i = 1; i < plan->chain->count; i++)
	{
		if (!backups[i].checksums || backups[i - 1].checksums || is_tracked(plan, i))
			continue;
		report_warning("checksums of pages were enabled between backups \"%s\" and \"%s\"",
					   backups[i - 1].dir, backups[i].dir);
		report_hint("Before a server is started from the result, use pg_checksums to disable and enable them there.");
	}
}

/*
 * Sources
 */

static void
add_source(Target *target, int backup, bool incremental, const ManifestFile *file)
{
	int			checksum_len = file ? file->checksum_len : 0;
	Source	   *source = pg_malloc0(offsetof(Source, checksum) + checksum_len);

	source->backup = backup;
	source->incremental = incremental;
	if (file)
	{
		source->known = true;
		source->size = file->size;
		source->checksum_type = file->checksum_type;
		source->checksum_len = checksum_len;
		memcpy(source->checksum, file->checksum, checksum_len);
	}
	if (target->newest == NULL)
		target->newest = source;
	else
		target->oldest->older = source;
	target->oldest = source;
	target->source_count++;
}

/* What the first of merged increments is relative to. */
static Target *
add_prior_lineage(Plan *plan, const char *path, const ManifestFile *file)
{
	Target	   *target = add_target(plan, path);

	target->in_manifest = true;
	target->weight = file ? file->size : 0;
	return target;
}

/* A file of a backup.  file: what its manifest says, or NULL. */
static void
add_file(Plan *plan, int backup, const char *path, const ManifestFile *file)
{
	char		whole[MAXPGPATH];
	bool		incremental = whole_name(whole, path);
	bool		settings = path_is_recovery_settings(path);
	Target	   *target;

	if (workers_stopping())
		give_up();
	note_lineage(plan, backup, path);
	if (is_special(plan, backup, path) || is_wal(path))
		return;
	target = plan_find(plan, whole);
	if (backup == plan->chain->count - 1 && !settings &&
		(target == NULL || target->incremental != incremental))
		fatal("file \"%s\" is in the manifest of backup \"%s\", but not on disk", path,
			  backup_dir(plan, backup));
	if (target == NULL && is_prior_lineage(path))
		target = add_prior_lineage(plan, path, file);
	if (target == NULL)
		return;
	if (target->oldest != NULL && target->oldest->backup == backup)
		fatal("file \"%s\" is twice in backup \"%s\"", target->path, backup_dir(plan, backup));
	if (target->oldest == NULL || target->oldest->incremental)
		add_source(target, backup, incremental, settings ? NULL : file);
}

static void
manifest_file(void *arg, const ManifestFile *file)
{
	Listing    *listing = arg;
	const Backup *backup = &listing->plan->chain->backups[listing->backup];

	if (strcmp(file->path, LABEL_NAME) == 0)
		label_check(backup, file);
	if (strcmp(file->path, TABLESPACE_MAP_NAME) == 0 && backup->input.archives &&
		backup == chain_last(listing->plan->chain))
		tablespace_map_check(backup, file);
	add_file(listing->plan, listing->backup, file->path, file);
}

static void
manifest_range(void *arg, const WalRange *range)
{
	Listing    *listing = arg;
	Plan	   *plan = listing->plan;

	if (listing->backup != plan->chain->count - 1)
		return;
	plan->ranges = pg_realloc(plan->ranges, (plan->range_count + 1) * sizeof(WalRange));
	plan->ranges[plan->range_count++] = *range;
}

/* Reads a backup's manifest.  False: it has none. */
static bool
list_by_manifest(Plan *plan, int number)
{
	const Backup *backup = &plan->chain->backups[number];
	Listing		listing = {.plan = plan,.backup = number};
	ManifestHandler handler = {.arg = &listing,.file = manifest_file,.wal_range = manifest_range};
	ManifestInfo info;
	char		path[MAXPGPATH];

	if (!dir_has(backup->dir, backup->manifest_name))
	{
		report_warning("backup \"%s\" has no manifest", backup->dir);
		return false;
	}
	path_join(path, backup->dir, backup->manifest_name);
	manifest_read(path, &handler, &info);
	if (info.has_system_identifier && info.system_identifier != backup->system_identifier)
		fatal("manifest \"%s\" has system identifier " UINT64_FORMAT ", but the control file has " UINT64_FORMAT,
			  path, info.system_identifier, backup->system_identifier);
	if (number == plan->chain->count - 1)
	{
		plan->info = info;
		plan->has_info = true;
	}
	return true;
}

static void
walked_file(void *arg, const char *path, const struct stat *st, const char *link)
{
	Listing    *listing = arg;

	if (S_ISREG(st->st_mode))
		add_file(listing->plan, listing->backup, path, NULL);
}

/*
 * The last backup
 */

static void
add_directory(Plan *plan, const char *path, const char *link)
{
	Directory  *directory = pg_malloc0(sizeof(Directory));

	directory->path = pg_strdup(path);
	directory->link = link ? pg_strdup(link) : NULL;
	*plan->directories_end = directory;
	plan->directories_end = &directory->next;
}

/* A file or directory that the last backup has. */
static void
add_entry(void *arg, const char *path, const struct stat *st, const char *link)
{
	Plan	   *plan = arg;
	char		whole[MAXPGPATH];
	bool		incremental = whole_name(whole, path);
	Target	   *target;

	if (S_ISDIR(st->st_mode))
	{
		add_directory(plan, path, link);
		return;
	}
	if (is_special(plan, plan->chain->count - 1, path))
		return;
	if (plan_find(plan, whole))
		fatal("file \"%s\" is twice in backup \"%s\"", whole, chain_last(plan->chain)->dir);
	target = add_target(plan, whole);
	target->incremental = incremental;
	target->weight = st->st_size;
	target->in_manifest = !is_wal(path);
}

/* Files that the last backup's manifest did not have. */
static void
add_unlisted(Plan *plan, bool has_manifest)
{
	const Backup *last = chain_last(plan->chain);

	for (size_t i = 0; i < plan->target_count; i++)
	{
		Target	   *target = plan->targets[i];

		if (target->newest != NULL)
			continue;
		if (has_manifest && target->in_manifest)
			report_warning("manifest \"%s/%s\" contains no entry for file \"%s\"", last->dir,
						   last->manifest_name, target->path);
		add_source(target, plan->chain->count - 1, target->incremental, NULL);
	}
}

/*
 * The older ones
 */

/* Has the backup what newer ones are relative to? */
static void
check_sources(const Plan *plan, int backup)
{
	for (size_t i = 0; i < plan->target_count; i++)
	{
		const Target *target = plan->targets[i];

		if (!target->oldest->incremental)
			continue;
		if (target->oldest->backup != backup)
			fatal("file \"%s\" is incremental in backup \"%s\", but it is not in backup \"%s\"",
				  target->path, backup_dir(plan, target->oldest->backup), backup_dir(plan, backup));
		if (backup == 0 && plan->chain->full)
			fatal("file \"%s\" is incremental in full backup \"%s\"", target->path,
				  backup_dir(plan, backup));
	}
}

static void
list_backup(Plan *plan, int backup)
{
	Listing		listing = {.plan = plan,.backup = backup};
	bool		last = backup == plan->chain->count - 1;
	bool		has_manifest = list_by_manifest(plan, backup);

	if (!has_manifest && !last)
		input_walk(&plan->chain->backups[backup].input, walked_file, &listing);
	if (last)
		add_unlisted(plan, has_manifest);
	check_sources(plan, backup);
}

static void
add_weights(Plan *plan)
{
	for (size_t i = 0; i < plan->target_count; i++)
	{
		Target	   *target = plan->targets[i];

		/* What is read from a file that is whole will be most of it. */
		if (target->oldest->known && target->oldest != target->newest)
			target->weight = Max(target->weight, target->oldest->size);
		plan->weight += target->weight;
	}
}

/*
 * Is that file of a backup a source of any target?
 */
bool
plan_needs(const Plan *plan, int backup, const char *path)
{
	char		whole[MAXPGPATH];
	bool		incremental = whole_name(whole, path);
	const Target *target = plan_find(plan, whole);
	const Source *source = target ? target->newest : NULL;

	while (source != NULL && source->backup > backup)
		source = source->older;
	return source != NULL && source->backup == backup && source->incremental == incremental;
}

/*
 * Finds out what there is to do for a chain that has been read.  Where tablespaces
 * are is said by links, in a directory, or by tablespace_map, with archives; so if
 * one is made of the other, the last backup's map is none of the result's.
 */
Plan *
plan_create(const Chain *chain, bool for_archives)
{
	Plan	   *plan = pg_malloc0(sizeof(Plan));

	plan->chain = chain;
	plan->by_path = targets_create(1024, NULL);
	plan->directories_end = &plan->directories;
	plan->skip_map = for_archives || chain_last(chain)->input.archives != NULL;
	input_walk(&chain_last(chain)->input, add_entry, plan);
	for (int i = chain->count - 1; i >= 0; i--)
		list_backup(plan, i);
	check_page_checksums(plan);
	add_weights(plan);
	return plan;
}

static void
work_on_targets(void *shared, int number)
{
	TargetWork *all = shared;

	while (!workers_stopping())
	{
		size_t		next = atomic_fetch_add(&all->next, 1);

		if (next >= all->plan->target_count)
			break;
		all->work(all->arg, number, all->plan->targets[next]);
	}
}

/*
 * Does something with each target, in so many threads.
 */
void
plan_for_each(const Plan *plan, int threads, target_fn work, void *arg)
{
	TargetWork	all = {.plan = plan,.work = work,.arg = arg};

	workers_run(threads, work_on_targets, &all);
}

static int
compare_weight(const void *a, const void *b)
{
	uint64		left = (*(Target *const *) a)->weight;
	uint64		right = (*(Target *const *) b)->weight;

	return left > right ? -1 : left < right;
}

static int
compare_path(const void *a, const void *b)
{
	return strcmp((*(Target *const *) a)->path, (*(Target *const *) b)->path);
}

/*
 * The largest first.
 */
void
plan_sort_by_weight(Plan *plan)
{
	qsort(plan->targets, plan->target_count, sizeof(Target *), compare_weight);
}

void
plan_sort_by_path(Plan *plan)
{
	qsort(plan->targets, plan->target_count, sizeof(Target *), compare_path);
}
