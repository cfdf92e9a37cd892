/*
 * backup_finish.c
 *		Label, WAL and manifest of a backup.
 *
 * The manifest comes last, under its name only when everything else is durable:
 * a directory that has one is a backup that was completed.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "backup.h"
#include "backup_archives.h"
#include "backup_output.h"
#include "backup_resume.h"
#include "backup_stream.h"
#include "compat.h"
#include "fe_utils/recovery_gen.h"
#include "paths.h"
#include "report.h"
#include "workers.h"

#define MANIFEST_TEMPORARY	MANIFEST_NAME ".tmp"

/*
 * Files that come from here
 */

static BackupFile *
add_own_file(BackupPlan *plan, const char *path)
{
	BackupFile *file;

	plan->files = pg_realloc(plan->files, (plan->nfiles + 1) * sizeof(BackupFile));
	file = &plan->files[plan->nfiles++];
	memset(file, 0, sizeof(*file));
	file->path = pg_strdup(path);
	file->modified = (int64) time(NULL);
	return file;
}

/* Writes a file, and adds it to the plan, and so to the manifest. */
static void
write_own_file(BackupPlan *plan, const BackupOptions *options, const char *path,
			   const char *text)
{
	BackupFile *file = add_own_file(plan, path);
	pg_checksum_context checksum;

	output_bytes(options, file->path, text, strlen(text));
	file->written = strlen(text);
	if (pg_checksum_init(&checksum, options->checksum) < 0 ||
		pg_checksum_update(&checksum, (const uint8 *) text, strlen(text)) < 0 ||
		(file->checksum_len = pg_checksum_final(&checksum, file->checksum)) < 0)
		fatal("could not compute checksum of file \"%s\"", path);
}

/* Files whose names say which history this backup, and its prior one, is of. */
static void
write_lineage(BackupPlan *plan, const BackupServer *server, const BackupOptions *options,
			  const PriorBackup *prior)
{
	char		path[MAXPGPATH];

	if (server->lineage == NULL)
		return;
	if (!options->as_archives)
		target_make_directory("ptrack");
	snprintf(path, sizeof(path), "ptrack/lineage.%08X.%08X%08X.%s", server->start_tli,
			 LSN_FORMAT_ARGS(server->start), server->lineage);
	write_own_file(plan, options, path, "");
	if (prior == NULL || prior->lineage[0] == '\0')
		return;
	snprintf(path, sizeof(path), "ptrack/lineage_prior.%08X.%08X%08X.%s", prior->tli,
			 LSN_FORMAT_ARGS(prior->start), prior->lineage);
	write_own_file(plan, options, path, "");
}

/*
 * The label.  A server from 17 on refuses to start from an increment, by the lines
 * at its end.  An older one does not look there, but at the first line, which it
 * must not understand.
 */
static void
write_label(BackupPlan *plan, const BackupServer *server, const BackupOptions *options,
			const PriorBackup *prior)
{
	PQExpBufferData lines;
	PQExpBufferData label;

	initPQExpBuffer(&lines);
	initPQExpBuffer(&label);
	if (prior)
		appendPQExpBuffer(&lines, "INCREMENTAL FROM LSN: %X/%X\nINCREMENTAL FROM TLI: %u\n",
						  LSN_FORMAT_ARGS(prior->start), prior->tli);
	if (server->version >= 170000)
		appendPQExpBuffer(&label, "%s%s", server->label, lines.data);
	else
		appendPQExpBuffer(&label, "%s%s", lines.data, server->label);
	write_own_file(plan, options, LABEL_NAME, label.data);
	termPQExpBuffer(&lines);
	termPQExpBuffer(&label);
}

/*
 * WAL
 */

/* Fetches a file of pg_wal; false if the server has it no more. */
static bool
fetch_wal_file(const BackupServer *server, const BackupOptions *options, const char *name,
			   uint64 *size)
{
	BackupFile	file = {0};
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "pg_wal/%s", name);
	file.path = path;
	fetch_file(server->conn, server, options, &file);
	*size = file.written;
	if (!file.gone && !options->as_archives)
		target_sync(path);
	return !file.gone;
}

/*
 * The WAL that a server needs which starts from this backup: a range of each
 * timeline, the newest first.  Returns how many.
 */
static int
needed_wal(const BackupServer *server, WalRange **ranges)
{
	char	   *history = server_history(server, server->stop_tli);
	WalRange	range = {server->stop_tli, server->start, server->stop};
	TimeLineID	before;
	int			count = 0;

	*ranges = pg_malloc((server->stop_tli - server->start_tli + 1) * sizeof(WalRange));
	while (range.tli > server->start_tli &&
		   (before = history_before(history, range.tli)) != 0)
	{
		(void) history_end(history, before, &range.start);
		(*ranges)[count++] = range;
		range = (WalRange)
		{
			before, server->start, range.start
		};
	}
	(*ranges)[count++] = range;
	pg_free(history);
	return count;
}

/* also_newer: what the segment has is in one of a newer timeline, too. */
static void
fetch_segment(const BackupServer *server, const BackupOptions *options, TimeLineID tli,
			  XLogSegNo segno, bool also_newer)
{
	char		name[MAXFNAMELEN];
	uint64		size;

	XLogFileName(name, tli, segno, server->wal_segment_size);
	if (!fetch_wal_file(server, options, name, &size))
	{
		if (also_newer)
			return;
		fatal("requested WAL segment %s has already been removed", name);
	}
	if (size != server->wal_segment_size)
		fatal("WAL segment \"%s\" has %llu bytes instead of %u", name,
			  (unsigned long long) size, server->wal_segment_size);
}

/*
 * The segment that a timeline begins in has the end of the one before, too.  A
 * server that got it from an archive has no other; one that did not has both, and
 * who verifies the backup asks for both.
 */
static void
fetch_wal(const BackupServer *server, const BackupOptions *options)
{
	WalRange   *ranges;
	int			count = needed_wal(server, &ranges);

	for (int i = 0; i < count; i++)
	{
		XLogSegNo	segno;
		XLogSegNo	last;

		XLByteToSeg(ranges[i].start, segno, server->wal_segment_size);
		XLByteToPrevSeg(ranges[i].end, last, server->wal_segment_size);
		for (; segno <= last; segno++)
		{
			bool		also_newer = i > 0 &&
				XLByteInSeg(ranges[i - 1].start, segno, server->wal_segment_size);

			fetch_segment(server, options, ranges[i].tli, segno, also_newer);
		}
	}
	pg_free(ranges);
}

static void
fetch_histories(const BackupServer *server, const BackupOptions *options)
{
	uint64		size;

	for (TimeLineID tli = 2; tli <= server->stop_tli; tli++)
	{
		char		name[MAXFNAMELEN];

		TLHistoryFileName(name, tli);
		(void) fetch_wal_file(server, options, name, &size);
	}
}

/*
 * The manifest
 */

/*
 * Where it is written to: collects what is to be written in one go; or all of it,
 * since a file in an archive begins with its length.
 */
typedef struct ManifestFileWriter
{
	PQExpBuffer memory;			/* NULL: it is a file of its own */
	int			fd;
	uint64		position;
	size_t		used;
	char		buffer[64 * 1024];
} ManifestFileWriter;

static void
flush_manifest(ManifestFileWriter *out)
{
	if (out->memory)
		appendBinaryPQExpBuffer(out->memory, out->buffer, out->used);
	else
		target_write(out->fd, MANIFEST_TEMPORARY, out->buffer, out->used, out->position);
	out->position += out->used;
	out->used = 0;
}

static void
put_manifest(void *arg, const char *data, size_t len)
{
	ManifestFileWriter *out = arg;

	while (len > 0)
	{
		size_t		part = Min(len, sizeof(out->buffer) - out->used);

		memcpy(out->buffer + out->used, data, part);
		out->used += part;
		data += part;
		len -= part;
		if (out->used == sizeof(out->buffer))
			flush_manifest(out);
	}
}

static void
archive_manifest(PQExpBuffer manifest)
{
	ArchiveFile *file;

	if (PQExpBufferBroken(manifest))
		fatal("out of memory");
	file = archives_begin(MANIFEST_NAME, manifest->len, (int64) time(NULL));
	archives_write(file, manifest->data, manifest->len);
	archives_end(file);
	destroyPQExpBuffer(manifest);
}

static void
put_file(ManifestWriter *writer, const BackupFile *file, const BackupOptions *options)
{
	ManifestFile entry = {0};
	char		path[MAXPGPATH];

	if (file->gone)
		return;
	entry.path = file->path;
	if (file->method != TAKE_WHOLE)
	{
		(void) path_to_incremental(path, sizeof(path), file->path);
		entry.path = path;
	}
	entry.size = file->written;
	entry.modified = file->modified;
	entry.checksum_type = options->checksum;
	entry.checksum_len = options->checksum == CHECKSUM_TYPE_NONE ? 0 : file->checksum_len;
	memcpy(entry.checksum, file->checksum, entry.checksum_len);
	manifest_write_file(writer, &entry);
}

/* The newest timeline first, as the server does. */
static void
put_ranges(ManifestWriter *writer, const BackupServer *server)
{
	WalRange   *ranges;
	int			count = needed_wal(server, &ranges);

	for (int i = 0; i < count; i++)
		manifest_write_range(writer, &ranges[i]);
	pg_free(ranges);
}

static void
write_manifest(const BackupPlan *plan, const BackupServer *server, const BackupOptions *options)
{
	ManifestFileWriter *out = pg_malloc0(sizeof(ManifestFileWriter));
	ManifestInfo info = {0};
	ManifestWriter writer;

	info.version = server->version >= 170000 ? 2 : 1;
	info.system_identifier = server->system_identifier;
	if (backup_to_stdout(options))
		out->memory = createPQExpBuffer();
	else
		out->fd = target_open(MANIFEST_TEMPORARY, O_WRONLY | O_CREAT | O_EXCL);
	manifest_write_begin(&writer, put_manifest, out, &info);
	for (int i = 0; i < plan->nfiles; i++)
		put_file(&writer, &plan->files[i], options);
	put_ranges(&writer, server);
	manifest_write_end(&writer);
	flush_manifest(out);
	if (out->memory)
		archive_manifest(out->memory);
	else
		target_close(out->fd, MANIFEST_TEMPORARY);
	pg_free(out);
}

static void
rename_manifest(void)
{
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];

	target_sync(MANIFEST_TEMPORARY);
	target_path(from, MANIFEST_TEMPORARY);
	target_path(to, MANIFEST_NAME);
	if (rename(from, to) != 0)
		fatal("could not rename file \"%s\" to \"%s\": %m", from, to);
}

/*
 * Durability
 */

typedef struct SyncWork
{
	const BackupPlan *plan;
	void		(*act) (const char *path);
	atomic_int	next;
} SyncWork;

static void
sync_files(void *arg, int number)
{
	SyncWork   *work = arg;
	int			next;

	while ((next = atomic_fetch_add(&work->next, 1)) < work->plan->nfiles)
	{
		const BackupFile *file = &work->plan->files[next];
		char		path[MAXPGPATH];

		if (workers_stopping())
			give_up();
		if (file->gone)
			continue;
		strlcpy(path, file->path, sizeof(path));
		if (file->method != TAKE_WHOLE)
			(void) path_to_incremental(path, sizeof(path), file->path);
		work->act(path);
	}
}

static void
act_on_files(const BackupPlan *plan, const BackupOptions *options, void (*act) (const char *path))
{
	SyncWork	work = {.plan = plan,.act = act};

	workers_run(options->jobs, sync_files, &work);
}

static void
sync_tree(const BackupPlan *plan, const BackupOptions *options)
{
	if (!options->target.sync_file_systems)
	{
		act_on_files(plan, options, target_write_back);
		act_on_files(plan, options, target_sync);
	}
	for (int i = plan->ndirectories - 1; i >= 0; i--)
		target_sync(plan->directories[i]);
}

/*
 * Everything but the manifest's name.  Archives are synchronized when they are
 * closed, unless file systems are; what is left of them then are their names.
 */
static void
sync_backup(const BackupPlan *plan, const BackupOptions *options)
{
	if (options->target.no_sync)
		return;
	if (!options->as_archives)
		sync_tree(plan, options);
	target_sync_all();
}

static void
write_recovery_settings(const BackupServer *server, const BackupOptions *options)
{
	PQExpBuffer contents = generate_recovery_config(server->conn);

	WriteRecoveryConfig(server->conn, unconstify(char *, options->target.directory), contents);
	destroyPQExpBuffer(contents);
	target_sync("postgresql.auto.conf");
	target_sync("standby.signal");
}

/*
 * Stops the backup, whose files have been fetched, and adds what makes it one.
 *
 * pg_control is the last file that is read before that: on a standby, it has to
 * tell of everything that the others hold.
 */
void
finish_backup(BackupPlan *plan, BackupServer *server, BackupOptions *options,
			  const PriorBackup *prior)
{
	for (int i = 0; i < plan->nfiles; i++)
	{
		if (strcmp(plan->files[i].path, CONTROL_NAME) == 0)
			fetch_file(server->conn, server, options, &plan->files[i]);
	}
	if (options->wal == WAL_NONE)
		server_progress(server, "'waiting for wal archiving to finish'");
	else
		server_progress(server, "'transferring wal files'");
	server_stop(server, options->wal == WAL_NONE);
	write_label(plan, server, options, prior);
	if (options->as_archives && server->tablespace_map[0] != '\0')
		write_own_file(plan, options, TABLESPACE_MAP_NAME, server->tablespace_map);
	write_lineage(plan, server, options, prior);
	if (options->wal == WAL_STREAM)
		stream_end(server);
	if (options->wal == WAL_FETCH)
		fetch_wal(server, options);
	if (options->wal != WAL_NONE)
		fetch_histories(server, options);
	if (!options->no_manifest)
		write_manifest(plan, server, options);
	if (options->write_recovery)
		write_recovery_settings(server, options);
	if (options->as_archives)
		archives_close();
	if (backup_to_stdout(options))
		return;
	if (!options->target.no_sync)
		server_progress(server, "'syncing files'");
	sync_backup(plan, options);
	if (!options->no_manifest)
		rename_manifest();
	target_sync_all();
	resume_end();
	target_keep();
}
