/*
 * backup_plan.c
 *		Which files are backed up, and how each of them is taken.
 *
 * In an incremental backup, a file of a relation of which the prior backup has a
 * copy is taken as its changed blocks; if there are none, without looking at it
 * again.  The order matters: first the backup starts, then files are listed, then
 * the server is asked what changed.  What changes after the start is in the WAL
 * that a restored server replays, so whatever is missed later does no harm.
 */
#include "postgres_fe.h"

#include "access/xlog_internal.h"
#include "backup.h"
#include "backup_archives.h"
#include "paths.h"
#include "port/pg_bitutils.h"
#include "report.h"

/* A file of which more than that has changed is taken whole. */
#define MOSTLY_CHANGED(changed, blocks)	((uint64) (changed) * 10 > (uint64) (blocks) * 9)

/*
 * The list
 */

static BackupFile *
add_file(BackupPlan *plan, int *room)
{
	if (plan->nfiles == *room)
	{
		*room = Max(1024, *room * 2);
		plan->files = pg_realloc(plan->files, *room * sizeof(BackupFile));
	}
	memset(&plan->files[plan->nfiles], 0, sizeof(BackupFile));
	return &plan->files[plan->nfiles++];
}

static void
add_directory(BackupPlan *plan, char *path)
{
	if (plan->ndirectories % 256 == 0)
		plan->directories = pg_realloc(plan->directories,
									   (plan->ndirectories + 256) * sizeof(char *));
	plan->directories[plan->ndirectories++] = path;
}

static char *
field_text(CopyReader *copy)
{
	int			len;
	const char *text = copy_field(copy, &len);
	char	   *result;

	if (text == NULL)
		return NULL;
	result = pg_malloc(len + 1);
	memcpy(result, text, len);
	result[len] = '\0';
	return result;
}

static int64
field_int64(CopyReader *copy)
{
	int			len;
	const char *bytes = copy_field(copy, &len);

	if (bytes == NULL || len != 8)
		fatal("unexpected data from the server: this is not a bigint");
	return (int64) copy_u64(bytes);
}

static void
make_directory(const BackupOptions *options, const char *path)
{
	if (options->as_archives)
		archives_add_directory(path);
	else
		target_make_directory(path);
}

static void
take_entry(BackupPlan *plan, const BackupOptions *options, CopyReader *copy, int *room)
{
	char	   *path = field_text(copy);
	char	   *kind = field_text(copy);
	int64		size = field_int64(copy);
	int64		modified = field_int64(copy);
	char	   *target = field_text(copy);

	if (path == NULL || kind == NULL || (kind[0] == 'l' && target == NULL))
		fatal("unexpected data from the server: an entry of the list of files is not complete");
	if (kind[0] == 'd')
	{
		make_directory(options, path);
		add_directory(plan, path);
		path = NULL;
	}
	else if (kind[0] == 'l')
	{
		if (options->as_archives)
			archives_add_tablespace(path);
		else
			target_make_tablespace(path, target);
		add_directory(plan, path);
		path = NULL;
	}
	else
	{
		BackupFile *file = add_file(plan, room);

		file->path = path;
		file->size = size;
		file->modified = modified;
		path = NULL;
	}
	pg_free(path);
	pg_free(kind);
	pg_free(target);
}

static int
file_cmp(const void *a, const void *b)
{
	return strcmp(((const BackupFile *) a)->path, ((const BackupFile *) b)->path);
}

/*
 * The file of that path; NULL if it is not in the plan.
 */
BackupFile *
backup_find(const BackupPlan *plan, const char *path)
{
	BackupFile	key = {.path = unconstify(char *, path)};

	return bsearch(&key, plan->files, plan->nfiles, sizeof(BackupFile), file_cmp);
}

/*
 * Lists all files, to be taken whole.  Directories and tablespaces are made.
 */
void
plan_files(BackupPlan *plan, const BackupServer *server, const BackupOptions *options)
{
	CopyReader	copy;
	char		command[512];
	int			room = 0;

	memset(plan, 0, sizeof(*plan));
	server_progress(server, "'listing files'");
	snprintf(command, sizeof(command),
			 "COPY (SELECT path, kind, size, modified, target FROM %s.ptrack_backup_files()) "
			 "TO STDOUT (FORMAT binary)", server->schema);
	copy_begin(&copy, server->conn, command);
	while (copy_row(&copy))
		take_entry(plan, options, &copy, &room);
	if (plan->nfiles > 0)
		qsort(plan->files, plan->nfiles, sizeof(BackupFile), file_cmp);
	for (int i = 0; i < plan->nfiles; i++)
		plan->bytes += plan->files[i].size;
}

/*
 * The prior backup
 */

/* What "ptrack/lineage.TLI.LSN.UUID" says: the history at an LSN. */
typedef struct LineageMark
{
	TimeLineID	tli;
	XLogRecPtr	lsn;
	char		uuid[37];
} LineageMark;

/* A restored server may have left some in its own backups. */
#define MAX_MARKS	16

typedef struct PriorReader
{
	PriorBackup *prior;
	LineageMark marks[MAX_MARKS];
	int			nmarks;
} PriorReader;

static void
note_mark(void *arg, const ManifestFile *file)
{
	PriorReader *reader = arg;
	LineageMark *mark = &reader->marks[reader->nmarks];
	uint32		high;
	uint32		low;
	int			end = -1;

	if (reader->nmarks == MAX_MARKS ||
		sscanf(file->path, "ptrack/lineage.%8X.%8X%8X.%n", &mark->tli, &high, &low, &end) != 3 ||
		end < 0 || strlen(file->path + end) != sizeof(mark->uuid) - 1 ||
		strspn(file->path + end, "0123456789abcdef-") != sizeof(mark->uuid) - 1)
		return;
	mark->lsn = (uint64) high << 32 | low;
	strlcpy(mark->uuid, file->path + end, sizeof(mark->uuid));
	reader->nmarks++;
}

static void
note_range(void *arg, const WalRange *range)
{
	PriorBackup *prior = ((PriorReader *) arg)->prior;

	if (XLogRecPtrIsInvalid(prior->start) || range->start < prior->start)
	{
		prior->start = range->start;
		prior->tli = range->tli;
	}
	if (range->end > prior->last.end)
		prior->last = *range;
}

/*
 * Reads from the prior backup's manifest what it is, and gives up if it cannot be
 * one of this server.
 */
void
plan_prior(PriorBackup *prior, const BackupOptions *options, const BackupServer *server)
{
	PriorReader reader = {.prior = prior};
	ManifestHandler handler = {&reader, note_mark, note_range};
	ManifestInfo info;
	const char *path = options->prior_manifest;

	memset(prior, 0, sizeof(*prior));
	manifest_read(path, &handler, &info);
	if (info.has_system_identifier && info.system_identifier != server->system_identifier)
		fatal("system identifier in manifest \"%s\" is " UINT64_FORMAT ", but the server's is " UINT64_FORMAT,
			  path, info.system_identifier, server->system_identifier);
	if (XLogRecPtrIsInvalid(prior->start))
		fatal("manifest \"%s\" contains no required WAL ranges", path);
	for (int i = 0; i < reader.nmarks; i++)
	{
		if (reader.marks[i].lsn == prior->start && reader.marks[i].tli == prior->tli)
			strlcpy(prior->lineage, reader.marks[i].uuid, sizeof(prior->lineage));
	}
}

/*
 * The backup must start after its prior one has ended.  On a standby, it starts at
 * the latest restartpoint.
 */
static void
check_start(const PriorBackup *prior, const BackupServer *server)
{
	if (prior->last.end <= server->start)
		return;
	report_error("the prior backup ends at %X/%X, but this one starts at %X/%X",
				 LSN_FORMAT_ARGS(prior->last.end), LSN_FORMAT_ARGS(server->start));
	if (server->is_standby)
		report_hint("On a standby, a restartpoint has to be made in between, for which its primary has to make a checkpoint.");
	give_up();
}

/*
 * The prior backup must have ended in this history.  Its lineage only says that of
 * its start: if the timelines part after that, its files may hold what never
 * happened here.
 */
static void
check_timeline(const PriorBackup *prior, const BackupServer *server)
{
	if (prior->last.tli == server->start_tli)
		return;
	if (prior->last.tli < server->start_tli)
	{
		char	   *history = server_history(server, server->start_tli);
		XLogRecPtr	ended;
		bool		led_here = history_end(history, prior->last.tli, &ended) &&
			prior->last.end <= ended;

		pg_free(history);
		if (led_here)
			return;
	}
	report_error("the prior backup ends at %X/%X on timeline %u, which did not lead to %X/%X on timeline %u",
				 LSN_FORMAT_ARGS(prior->last.end), prior->last.tli,
				 LSN_FORMAT_ARGS(server->start), server->start_tli);
	report_hint("Take a full backup.");
	give_up();
}

/*
 * The increment
 */

static void
note_prior_file(void *arg, const ManifestFile *file)
{
	char		path[MAXPGPATH];
	BackupFile *found;

	strlcpy(path, file->path, sizeof(path));
	if (path_is_incremental(path) && !path_from_incremental(path, sizeof(path), file->path))
		return;
	found = backup_find(arg, path);
	if (found)
		found->in_prior = true;
}

/* Notes in which blocks a file has changed. */
static void
take_map(BackupFile *file, const char *map, int len)
{
	file->map = pg_malloc(Max(len, 1));
	file->map_len = (uint32) len;
	memcpy(file->map, map, len);
	file->changed = (uint32) pg_popcount(map, len);
}

/*
 * Asks the server what changed since an LSN, in the history of that lineage if it
 * is not empty.
 */
void
plan_maps(BackupPlan *plan, const BackupServer *server, XLogRecPtr since,
		  const char *lineage, plan_map_fn note)
{
	CopyReader	copy;
	char		command[512];
	bool		known = lineage[0] != '\0';

	snprintf(command, sizeof(command),
			 "COPY (SELECT path, pagemap FROM %s.ptrack_get_pagemapset('%X/%X'%s%s%s)) TO STDOUT (FORMAT binary)",
			 server->schema, LSN_FORMAT_ARGS(since), known ? ", '" : "", lineage, known ? "'" : "");
	copy_begin(&copy, server->conn, command);
	while (copy_row(&copy))
	{
		char	   *path = field_text(&copy);
		BackupFile *file = backup_find(plan, path);
		int			len;
		const char *map = copy_field(&copy, &len);

		/* A file that was made since it was listed is all in the WAL. */
		if (file && map)
			note(file, map, len);
		pg_free(path);
	}
}

static void
choose_method(BackupFile *file)
{
	ForkNumber	fork;
	unsigned	segment;
	uint32		blocks = (uint32) (file->size / BLCKSZ);

	if (!file->in_prior || !path_is_relation(file->path, &fork, &segment) ||
		fork == FSM_FORKNUM || file->size == 0 || file->size % BLCKSZ != 0 ||
		blocks > RELSEG_SIZE || MOSTLY_CHANGED(file->changed, blocks))
		file->method = TAKE_WHOLE;
	else
		file->method = file->changed > 0 ? TAKE_BLOCKS : TAKE_NOTHING;
}

/*
 * Decides how each file is taken, relative to a prior backup.
 */
void
plan_increment(BackupPlan *plan, const BackupServer *server, const BackupOptions *options,
			   const PriorBackup *prior)
{
	ManifestHandler handler = {plan, note_prior_file, NULL};
	ManifestInfo info;

	check_start(prior, server);
	check_timeline(prior, server);
	manifest_read(options->prior_manifest, &handler, &info);
	server_progress(server, "'finding changed blocks'");
	plan_maps(plan, server, prior->start, prior->lineage, take_map);
	plan->bytes = 0;
	for (int i = 0; i < plan->nfiles; i++)
	{
		BackupFile *file = &plan->files[i];

		choose_method(file);
		if (file->method == TAKE_WHOLE)
			plan->bytes += file->size;
		else if (file->method == TAKE_BLOCKS)
			plan->bytes += (uint64) file->changed * BLCKSZ;
		if (file->method != TAKE_BLOCKS)
		{
			pg_free(file->map);
			file->map = NULL;
		}
	}
}
