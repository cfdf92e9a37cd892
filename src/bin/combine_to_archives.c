/*
 * combine_to_archives.c
 *		Results that are tar archives.
 *
 * They are those that pg_basebackup makes: base.tar, OID.tar for each tablespace,
 * and pg_wal.tar; where tablespaces are is said by tablespace_map.  Each archive is
 * written by one thread, from its beginning to its end.
 */
#include "postgres_fe.h"

#include <stdatomic.h>
#include <time.h>

#include "combine_build.h"
#include "combine_output.h"
#include "archive_writer.h"
#include "combine_to_archives.h"
#include "paths.h"
#include "pqexpbuffer.h"
#include "report.h"
#include "workers.h"

typedef struct NewArchive
{
	char		prefix[32];		/* of what is in it, with '/' at its end, or
								 * "" */
	char		name[32];
} NewArchive;

/* What the threads share. */
typedef struct Packing
{
	const CombineOptions *options;
	const Plan *plan;
	const char *label;
	const char *map;			/* tablespace_map, or NULL if there is none */
	NewArchive *archives;
	int			count;
	Builder   **builders;		/* a thread each */
	atomic_int	next;
} Packing;

/* Is that the path of a tablespace? */
static bool
is_tablespace_path(const char *path)
{
	return strncmp(path, "pg_tblspc/", 10) == 0 && path[10] != '\0' &&
		strspn(path + 10, "0123456789") == strlen(path + 10);
}

/* All paths that are in an archive begin alike, but for those in the main one. */
static bool
is_in(const NewArchive *archive, const char *path)
{
	size_t		len = strlen(archive->prefix);

	if (len > 0)
		return strncmp(path, archive->prefix, len) == 0;
	if (strncmp(path, "pg_wal/", 7) == 0)
		return false;
	return strncmp(path, "pg_tblspc/", 10) != 0 ||
		strspn(path + 10, "0123456789") != strcspn(path + 10, "/");
}

static void
add_archive(Packing *packing, const char *prefix, const char *stem)
{
	NewArchive *archive = &packing->archives[packing->count++];

	if (snprintf(archive->prefix, sizeof(archive->prefix), "%s", prefix) >=
		(int) sizeof(archive->prefix))
		fatal("directory name \"%s\" is too long", prefix);
	snprintf(archive->name, sizeof(archive->name), "%.16s.tar", stem);
}

/* The archives, and tablespace_map. */
static void
list_archives(Packing *packing)
{
	int			room = 2;
	PQExpBufferData map;

	initPQExpBuffer(&map);
	for (const Directory *d = packing->plan->directories; d; d = d->next)
		room++;
	packing->archives = pg_malloc0(room * sizeof(NewArchive));
	add_archive(packing, "", "base");
	for (const Directory *d = packing->plan->directories; d; d = d->next)
	{
		char		prefix[MAXPGPATH];

		if (!is_tablespace_path(d->path))
			continue;
		path_join(prefix, d->path, "");
		add_archive(packing, prefix, d->path + 10);
		if (d->link)
		{
			const char *mapped = output_mapped(packing->options, d->link);

			appendPQExpBuffer(&map, "%s ", d->path + 10);
			for (const char *c = mapped ? mapped : d->link; *c; c++)
			{
				if (*c == '\n' || *c == '\r' || *c == '\\')
					appendPQExpBufferChar(&map, '\\');
				appendPQExpBufferChar(&map, *c);
			}
			appendPQExpBufferChar(&map, '\n');
		}
	}
	if (PQExpBufferDataBroken(map))
		fatal("out of memory");
	packing->map = map.len > 0 ? map.data : NULL;
	add_archive(packing, "pg_wal/", "pg_wal");
}

static void
pack_text(Pack *pack, const char *name, const char *text)
{
	pack_file(pack, name, strlen(text), time(NULL));
	pack_write(pack, text, strlen(text));
}

/* Those in pg_wal are in the main archive, whoever fills them. */
static void
pack_directories(const Packing *packing, const NewArchive *archive, Pack *pack)
{
	bool		is_main = archive->prefix[0] == '\0';

	for (const Directory *d = packing->plan->directories; d; d = d->next)
	{
		bool		in_wal = strncmp(d->path, "pg_wal/", 7) == 0;

		if (!is_tablespace_path(d->path) && (in_wal ? is_main : is_in(archive, d->path)))
			pack_directory(pack, d->path + strlen(archive->prefix));
	}
}

static void
pack_target(const NewArchive *archive, Pack *pack, Builder *builder, Target *target)
{
	char		path[MAXPGPATH];

	result_path(path, target);
	builder->pack = pack;
	build_file(builder, target, path + strlen(archive->prefix));
	builder->pack = NULL;
}

/* Is there anything to be put into it? */
static bool
is_wanted(const Packing *packing, const NewArchive *archive)
{
	if (strcmp(archive->prefix, "pg_wal/") != 0)
		return true;
	for (size_t i = 0; i < packing->plan->target_count; i++)
	{
		if (is_in(archive, packing->plan->targets[i]->path))
			return true;
	}
	return false;
}

static void
write_archive(const Packing *packing, const NewArchive *archive, Builder *builder)
{
	const Plan *plan = packing->plan;
	bool		is_main = archive->prefix[0] == '\0';
	char		path[MAXPGPATH];
	Pack	   *pack;

	if (!is_wanted(packing, archive))
		return;
	path_join(path, packing->options->output, archive->name);
	if (strlcat(path, pack_suffix(&packing->options->compression), sizeof(path)) >= sizeof(path))
		fatal("path of archive \"%s\" is too long", path);
	pack = pack_create(path, &packing->options->compression);
	if (is_main)
		pack_text(pack, LABEL_NAME, packing->label);
	if (is_main && packing->map)
		pack_text(pack, TABLESPACE_MAP_NAME, packing->map);
	pack_directories(packing, archive, pack);
	for (size_t i = 0; i < plan->target_count; i++)
	{
		Target	   *target = plan->targets[i];

		if (workers_stopping())
			give_up();
		if (is_in(archive, target->path) && strcmp(target->path, CONTROL_NAME) != 0)
			pack_target(archive, pack, builder, target);
	}
	/* Last, so that what was unpacked but in part is no server. */
	if (is_main && plan_find(plan, CONTROL_NAME))
		pack_target(archive, pack, builder, plan_find(plan, CONTROL_NAME));
	pack_close(pack, packing->options->sync && !packing->options->syncfs);
}

static void
write_archives(void *arg, int thread)
{
	Packing    *packing = arg;

	while (!workers_stopping())
	{
		int			next = atomic_fetch_add(&packing->next, 1);

		if (next >= packing->count)
			break;
		write_archive(packing, &packing->archives[next], packing->builders[thread]);
	}
}

/*
 * Makes all archives of a result, in a directory that is there, and its manifest.
 */
void
make_archives(const CombineOptions *options, Plan *plan, const char *label)
{
	Packing		packing = {.options = options,.plan = plan,.label = label};

	plan_sort_by_path(plan);
	list_archives(&packing);
	packing.builders = pg_malloc0(options->jobs * sizeof(Builder *));
	for (int i = 0; i < options->jobs; i++)
		packing.builders[i] = builder_create(options, plan->chain);
	workers_run(options->jobs, write_archives, &packing);
	if (options->manifest)
		output_write_manifest(options, plan, options->output, MANIFEST_NAME, label, packing.map);
}
