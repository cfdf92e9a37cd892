/*
 * backup_resume.c
 *		Going on with a backup that was interrupted.
 *
 * While files are fetched, a journal in the backup's directory tells which of them
 * were completely written, and where the backup started.  Going on makes a new
 * backup, with a start of its own, and asks the server what changed since the
 * journal's: a file that did not change, nor its length, is kept, of one that did the
 * blocks are fetched that changed, and everything else is fetched anew.  What is kept must
 * still have the checksum that the journal gives; so it does not matter what a crash
 * of this machine left of files, or of the journal.
 *
 * The journal, a line each:
 *
 *		pg_ptrack journal 2
 *		SYSTEM-IDENTIFIER CHECKSUM-ALGORITHM START-LSN START-TLI START-LINEAGE PRIOR-LSN PRIOR-TLI
 *		METHOD PAGES SIZE CHECKSUM SERVER PATH	for each file; the last one counts
 *
 * PAGES: "v" if checksums of pages were verified; else "u", and if they are to be, the
 * file is not kept.
 *
 * The start stays that of the first attempt: what is right since then is right
 * since later, too.  But nothing tells where an attempt ended.  If the server has come
 * to another timeline since, files may hold what never happened on it, and none is
 * kept.  Nor does a standby keep what it has not sent itself: it may be behind, and
 * the backup would end before what is in the files.
 *
 * The journal is made before anything else in the directory, and removed after
 * everything else is done.  So whatever is interrupted can be gone on with.
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup_resume.h"
#include "incremental_file.h"
#include "paths.h"
#include "port/pg_bitutils.h"
#include "report.h"

#define JOURNAL_TITLE	"pg_ptrack journal 2\n"

/* A file that was completely written. */
typedef struct Completed
{
	char	   *path;
	TakeMethod	method;
	uint64		size;
	char		checksum[2 * PG_CHECKSUM_MAX_LENGTH + 1];
	int			number;			/* in the journal */
} Completed;

static bool going_on;
static char *start_line;		/* the second line; NULL: nothing can be kept */
static XLogRecPtr start;
static TimeLineID start_tli;
static char lineage[37];
static Completed *completed;
static int	ncompleted;
static int	room;

static FILE *journal;
static bool noting;				/* files in the journal */
static char verified;			/* PAGES of the files that are noted */
static const char *instance;	/* of the server that sends them */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/*
 * Writing
 */

static char *
describe(const BackupServer *server, const BackupOptions *options, const PriorBackup *prior,
		 XLogRecPtr since, TimeLineID since_tli, const char *since_lineage)
{
	return psprintf(UINT64_FORMAT " %s %X/%X %u %s %X/%X %u\n", server->system_identifier,
					pg_checksum_type_name(options->checksum), LSN_FORMAT_ARGS(since),
					since_tli, since_lineage, LSN_FORMAT_ARGS(prior ? prior->start : InvalidXLogRecPtr),
					prior ? prior->tli : 0);
}

/* If the server is on another timeline now, what the journal tells of is of no use. */
static void
check_timeline(const BackupServer *server, const BackupOptions *options)
{
	if (start_line == NULL || start_tli == server->start_tli)
		return;
	report_warning("nothing is kept of the backup in \"%s\", which was begun on timeline %u: the server is on timeline %u",
				   options->target.directory, start_tli, server->start_tli);
	pg_free(start_line);
	start_line = NULL;
	ncompleted = 0;
}

/*
 * Begins a journal, or goes on with the one that was read.  The backup has started.
 * Without a lineage, or checksums, there will be nothing to keep, but it marks the
 * directory as ours.
 */
void
resume_begin(const BackupServer *server, const BackupOptions *options, const PriorBackup *prior)
{
	char		path[MAXPGPATH];

	check_timeline(server, options);
	target_path(path, JOURNAL_NAME);
	journal = fopen(path, start_line ? "a" : "w");
	if (journal == NULL)
		fatal("could not open file \"%s\": %m", path);
	instance = server->instance;
	verified = options->no_verify ? 'u' : 'v';
	noting = server->lineage && options->checksum != CHECKSUM_TYPE_NONE;
	if (start_line == NULL)
	{
		char	   *line = noting ? describe(server, options, prior, server->start,
											 server->start_tli, server->lineage) : NULL;

		fprintf(journal, "%s%s", JOURNAL_TITLE, line ? line : "");
		pg_free(line);
	}
	if (fflush(journal) != 0)
		fatal("could not write to file \"%s\": %m", path);
}

/*
 * A file was completely written.  Any worker says so.  One that has damaged pages is
 * fetched again when the backup is gone on with, so that these are told again.
 */
void
resume_note(const BackupFile *file)
{
	if (!noting || file->checksum_len == 0 || file->damaged)
		return;
	pthread_mutex_lock(&lock);
	fprintf(journal, "%d %c " UINT64_FORMAT " ", (int) file->method, verified, file->written);
	for (int i = 0; i < file->checksum_len; i++)
		fprintf(journal, "%02x", file->checksum[i]);
	fprintf(journal, " %s %s\n", instance, file->path);
	(void) fflush(journal);
	pthread_mutex_unlock(&lock);
}

/*
 * The backup is complete and durable.
 */
void
resume_end(void)
{
	char		path[MAXPGPATH];

	if (journal == NULL)
		return;
	fclose(journal);
	journal = NULL;
	target_path(path, JOURNAL_NAME);
	if (unlink(path) != 0)
		fatal("could not remove file \"%s\": %m", path);
	target_sync("");
}

/*
 * Reading
 */

/* One line of the journal, of which the last may be cut.  False if it is none. */
static bool
take_line(char *line, const BackupServer *server, const BackupOptions *options)
{
	char		sender[65];
	char		pages;
	Completed  *file;
	int			method;
	int			at = -1;
	unsigned long long size;
	size_t		len = strlen(line);

	if (len == 0 || line[len - 1] != '\n')
		return false;
	line[len - 1] = '\0';
	if (ncompleted == room)
	{
		room = Max(1024, room * 2);
		completed = pg_realloc(completed, room * sizeof(Completed));
	}
	file = &completed[ncompleted];
	if (sscanf(line, "%d %c %llu %128[0-9a-f] %64[0-9.] %n", &method, &pages, &size, file->checksum,
			   sender, &at) != 5 || at < 0 || method < TAKE_WHOLE || method > TAKE_NOTHING || !path_is_safe(line + at))
		return false;
	if ((server->is_standby && strcmp(sender, server->instance) != 0) ||
		(pages != 'v' && !options->no_verify))
		return true;
	file->method = (TakeMethod) method;
	file->size = size;
	file->path = pg_strdup(line + at);
	file->number = ncompleted++;
	return true;
}

static int
completed_cmp(const void *a, const void *b)
{
	const Completed *x = a;
	const Completed *y = b;
	int			cmp = strcmp(x->path, y->path);

	return cmp != 0 ? cmp : x->number - y->number;
}

/*
 * Is there a backup in that directory that was interrupted?  If so, nobody else goes
 * on with it.
 */
bool
resume_find(const BackupOptions *options)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/%s", options->target.directory, JOURNAL_NAME);
	if (access(path, F_OK) != 0)
		return false;
	target_lock(options->target.directory);
	return access(path, F_OK) == 0;
}

/* The journal must be of a backup as this one is to be. */
static void
check_start_line(const BackupServer *server, const BackupOptions *options,
				 const PriorBackup *prior, const char *path)
{
	uint32		high;
	uint32		low;
	char	   *expected;

	if (sscanf(start_line, "%*u %*s %X/%X %u %36[0-9a-f-]", &high, &low, &start_tli, lineage) != 4)
		fatal("\"%s\" is not a journal of this program", path);
	start = (uint64) high << 32 | low;
	expected = describe(server, options, prior, start, start_tli, lineage);
	if (strcmp(start_line, expected) != 0)
		fatal_hint("Remove the directory, or run the command that was interrupted.",
				   "the backup in \"%s\" is of another server, relative to another backup, or has other checksums",
				   options->target.directory);
	pg_free(expected);
}

/*
 * Reads the journal.  Gives up if the backup is not the one that is to be made.  One
 * that tells of no files, or that was just begun, leaves nothing to keep.
 */
void
resume_read(const BackupServer *server, const BackupOptions *options, const PriorBackup *prior)
{
	char		path[MAXPGPATH];
	char		line[MAXPGPATH + 256];
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/%s", options->target.directory, JOURNAL_NAME);
	file = fopen(path, "r");
	if (file == NULL)
		fatal("could not open file \"%s\": %m", path);
	going_on = true;
	if (fgets(line, sizeof(line), file) && strncmp(line, JOURNAL_TITLE, strlen(line)) != 0)
		fatal("\"%s\" is not a journal of this program", path);
	if (fgets(line, sizeof(line), file) && line[strlen(line) - 1] == '\n')
	{
		start_line = pg_strdup(line);
		check_start_line(server, options, prior, path);
		while (fgets(line, sizeof(line), file) != NULL && take_line(line, server, options))
			 /* the next one */ ;
	}
	if (ferror(file))
		fatal("could not read file \"%s\": %m", path);
	fclose(file);
	if (ncompleted > 0)
		qsort(completed, ncompleted, sizeof(Completed), completed_cmp);
}

/*
 * Planning
 */

/*
 * Does what is there of a file's blocks say that it is as long as it is now?  A
 * truncation leaves no changed blocks, but those that it cut off must not be taken
 * from the prior backup.
 */
static bool
tells_length(const BackupFile *file)
{
	char		path[MAXPGPATH];
	char		full[MAXPGPATH];
	char		fixed[INCREMENTAL_FIXED];
	IncrementalHeader header;
	ssize_t		got;
	int			fd;

	(void) path_to_incremental(path, sizeof(path), file->path);
	target_path(full, path);
	fd = open(full, O_RDONLY | O_NOFOLLOW | PG_BINARY, 0);
	if (fd < 0)
		return false;
	got = read(fd, fixed, sizeof(fixed));
	close(fd);
	return got == sizeof(fixed) && incremental_fixed_parse(fixed, &header) == NULL &&
		header.truncation == (uint64) file->size / BLCKSZ;
}

static void
plan_file(BackupPlan *plan, const Completed *done)
{
	BackupFile *file = backup_find(plan, done->path);
	ForkNumber	fork;
	unsigned	segment;

	/* WAL tells of other files nothing that could be asked for. */
	if (file == NULL || file->method != done->method || file->method == TAKE_NOTHING ||
		!path_is_relation(file->path, &fork, &segment) || fork == FSM_FORKNUM)
		return;
	if (file->method == TAKE_BLOCKS)
		file->resume = file->changed_since == 0 && tells_length(file) ? RESUME_KEEP : RESUME_NOT;
	else if (file->changed_since == 0 && done->size == (uint64) file->size)
		file->resume = RESUME_KEEP;
	else if (done->size % BLCKSZ == 0 && file->size % BLCKSZ == 0)
		file->resume = RESUME_PATCH;
	file->written = done->size;
	strlcpy(file->expected, done->checksum, sizeof(file->expected));
}

/* A row of the map since the journal's start. */
static void
note_change(BackupFile *file, const char *map, int len)
{
	file->changed_since = (uint32) pg_popcount(map, len);

	/* Of a file that is whole here, these are the blocks that it lacks. */
	if (file->method == TAKE_WHOLE)
	{
		file->map = pg_malloc(Max(len, 1));
		file->map_len = (uint32) len;
		memcpy(file->map, map, len);
	}
}

static bool
is_kept(const BackupPlan *plan, const char *path)
{
	char		name[MAXPGPATH];
	const BackupFile *file;
	bool		incremental = path_is_incremental(path);

	if (strcmp(path, JOURNAL_NAME) == 0)
		return true;
	strlcpy(name, path, sizeof(name));
	if (incremental && !path_from_incremental(name, sizeof(name), path))
		return false;
	file = backup_find(plan, name);
	return file && file->resume != RESUME_NOT && incremental == (file->method != TAKE_WHOLE);
}

static bool
is_directory(const BackupPlan *plan, const char *path)
{
	for (int i = 0; i < plan->ndirectories; i++)
	{
		if (strcmp(plan->directories[i], path) == 0)
			return true;
	}
	return false;
}

/* First of all, what is there is no backup any more. */
static void
remove_manifest(void)
{
	char		path[MAXPGPATH];

	target_path(path, MANIFEST_NAME);
	if (unlink(path) == 0)
		target_sync("");
	else if (errno != ENOENT)
		fatal("could not remove file \"%s\": %m", path);
}

/* Removes what is not kept of a directory, and what is below it. */
static void
sweep(const BackupPlan *plan, const char *path)
{
	char		full[MAXPGPATH];
	DIR		   *dir;
	struct dirent *de;

	target_path(full, path);
	dir = opendir(full);
	if (dir == NULL)
		fatal("could not open directory \"%s\": %m", full);
	while (errno = 0, (de = readdir(dir)) != NULL)
	{
		char		below[MAXPGPATH];
		struct stat st;
		bool		leads;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "/" : "", de->d_name);
		target_path(full, below);
		if (lstat(full, &st) != 0)
			fatal("could not stat file \"%s\": %m", full);
		/* The only links that are made are those of tablespaces. */
		leads = S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode);
		if (leads)
			sweep(plan, below);
		if (leads ? is_directory(plan, below) : is_kept(plan, below))
			continue;
		if ((S_ISDIR(st.st_mode) ? rmdir(full) : unlink(full)) != 0)
			fatal("could not remove file \"%s\": %m", full);
	}
	if (errno != 0)
		fatal("could not read directory \"%s\": %m", full);
	closedir(dir);
}

/*
 * Decides what is kept of the interrupted backup, after it was decided how files
 * are taken, and removes everything else.
 */
void
resume_plan(BackupPlan *plan, const BackupServer *server)
{
	if (!going_on)
		return;
	if (start_line)
		plan_maps(plan, server, start, lineage, note_change);
	for (int i = 0; i < ncompleted; i++)
	{
		if (i + 1 == ncompleted || strcmp(completed[i].path, completed[i + 1].path) != 0)
			plan_file(plan, &completed[i]);
	}
	remove_manifest();
	sweep(plan, "");
}
