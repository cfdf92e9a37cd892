/*
 * backup.c
 *		pg_ptrack backup: full and incremental base backups.
 */
#include "postgres_fe.h"

#include <signal.h>

#include "archive_writer.h"
#include "backup.h"
#include "backup_archives.h"
#include "backup_resume.h"
#include "backup_stream.h"
#include "commands.h"
#include "common/string.h"
#include "fe_utils/option_utils.h"
#include "getopt_long.h"
#include "progress.h"
#include "report.h"
#include "workers.h"

static void
help(void)
{
	printf("pg_ptrack backup makes a base backup of a running PostgreSQL server.\n\n"
		   "Usage:\n  pg_ptrack backup [OPTION]...\n\n"
		   "Options controlling the output:\n"
		   "  -D, --pgdata=DIRECTORY  receive base backup into directory; - with tar format:\n"
		   "                          to standard output\n"
		   "  -F, --format=p|t        output format (plain (default), tar)\n"
		   "  -i, --incremental=OLDMANIFEST\n"
		   "                          take only what has changed since that backup\n"
		   "  -r, --max-rate=RATE     maximum transfer rate to transfer data directory\n"
		   "                          (in kB/s, or use suffix \"k\" or \"M\")\n"
		   "  -R, --write-recovery-conf\n"
		   "                          write configuration for replication\n"
		   "  -T, --tablespace-mapping=OLDDIR=NEWDIR\n"
		   "                          relocate tablespace in OLDDIR to NEWDIR\n"
		   "  -X, --wal-method=none|fetch|stream\n"
		   "                          include required WAL files with specified method\n"
		   "                          (default: fetch)\n"
		   "  -z, --gzip              compress tar output\n"
		   "  -Z, --compress=METHOD[:DETAIL]\n"
		   "                          compress tar output with gzip, lz4 or zstd\n"
		   "\nGeneral options:\n"
		   "  -c, --checkpoint=fast|spread\n"
		   "                          set fast or spread (default) checkpointing\n"
		   "  -j, --jobs=NUM          use this many connections to fetch files (default: 1)\n"
		   "  -l, --label=LABEL       set backup label\n"
		   "      --log-json          write messages as JSON, a line each\n"
		   "      --manifest-checksums=SHA{224,256,384,512}|CRC32C|NONE\n"
		   "                          use algorithm for manifest checksums\n"
		   "  -n, --no-clean          do not clean up after errors\n"
		   "      --no-manifest       suppress generation of backup manifest\n"
		   "      --no-slot           prevent creation of temporary replication slot\n"
		   "  -N, --no-sync           do not wait for changes to be written safely to disk\n"
		   "      --no-verify-checksums\n"
		   "                          do not verify checksums\n"
		   "  -P, --progress          show progress information\n"
		   "      --resume            go on with a backup that was interrupted, and keep what\n"
		   "                          is there if this one is\n"
		   "      --sync-method=METHOD\n"
		   "                          set method for syncing files to disk: fsync (default)\n"
		   "                          or syncfs\n"
		   "  -v, --verbose           output verbose messages\n"
		   "  -?, --help              show this help, then exit\n"
		   "\nConnection options:\n"
		   "  -d, --dbname=CONNSTR    database that has the extension, or connection string\n"
		   "                          (default: postgres)\n"
		   "  -h, --host=HOSTNAME     database server host or socket directory\n"
		   "  -p, --port=PORT         database server port number\n"
		   "  -U, --username=NAME     connect as specified database user\n"
		   "  -w, --no-password       never prompt for password\n"
		   "  -W, --password          force password prompt (should happen automatically)\n");
}

/* Bytes a second. */
static int64
parse_rate(const char *text)
{
	char	   *end;
	double		value;

	errno = 0;
	value = strtod(text, &end);
	if (end == text ||errno == ERANGE)
		fatal("transfer rate \"%s\" is not a valid value", text);
	if (value <= 0)
		fatal("transfer rate must be greater than zero");
	if (strcmp(end, "M") == 0)
		value *= 1024;
	else if (*end != '\0' && strcmp(end, "k") != 0)
		fatal("invalid --max-rate unit: \"%s\"", end);
	if (value < 32 || value > 1024.0 * 1024 * 1024)
		fatal("transfer rate \"%s\" is out of range", text);
	return (int64) (value * 1024);
}

static WalMethod
parse_wal_method(const char *text)
{
	if (strcmp(text, "none") == 0 || strcmp(text, "n") == 0)
		return WAL_NONE;
	if (strcmp(text, "fetch") == 0 || strcmp(text, "f") == 0)
		return WAL_FETCH;
	if (strcmp(text, "stream") != 0 && strcmp(text, "s") != 0)
		fatal("invalid wal-method option \"%s\", must be \"fetch\", \"stream\", or \"none\"", text);
	return WAL_STREAM;
}

static void
take_sync_method(const char *text, TargetOptions *target)
{
	if (strcmp(text, "syncfs") == 0)
	{
#ifdef HAVE_SYNCFS
		target->sync_file_systems = true;
#else
		fatal("this build does not support sync method \"%s\"", "syncfs");
#endif
	}
	else if (strcmp(text, "fsync") != 0)
		fatal("unrecognized sync method: %s", text);
}

/* What does not go together. */
static void
check_options(const BackupOptions *options)
{
	if (backup_to_stdout(options) && !options->as_archives)
		fatal("only tar mode can write to standard output");
	if (options->compression.algorithm != PG_COMPRESSION_NONE && !options->as_archives)
		fatal("only tar mode backups can be compressed");
	/* The server puts it into a line of backup_label. */
	if (strpbrk(options->label, "\r\n"))
		fatal("a backup's label cannot have more than one line");
	/* Files that nothing holds may be reused while they are read. */
	if (options->no_slot && options->wal == WAL_FETCH)
		fatal("WAL cannot be fetched without a replication slot, only streamed");
	if (options->as_archives && options->resume)
		fatal("a backup in tar format cannot be resumed");
	if (options->as_archives && options->write_recovery)
		fatal("cannot write recovery settings to a backup in tar format");
	if (options->as_archives && options->target.mappings)
		fatal("tablespaces cannot be relocated in a backup in tar format");
}

enum
{
	OPT_CHECKSUMS = 1000,
	OPT_NO_MANIFEST,
	OPT_NO_SLOT,
	OPT_NO_VERIFY,
	OPT_SYNC_METHOD,
	OPT_LOG_JSON,
	OPT_RESUME,
};

static const struct option long_options[] = {
	{"checkpoint", required_argument, NULL, 'c'},
	{"dbname", required_argument, NULL, 'd'},
	{"compress", required_argument, NULL, 'Z'},
	{"format", required_argument, NULL, 'F'},
	{"gzip", no_argument, NULL, 'z'},
	{"help", no_argument, NULL, '?'},
	{"host", required_argument, NULL, 'h'},
	{"incremental", required_argument, NULL, 'i'},
	{"jobs", required_argument, NULL, 'j'},
	{"label", required_argument, NULL, 'l'},
	{"log-json", no_argument, NULL, OPT_LOG_JSON},
	{"manifest-checksums", required_argument, NULL, OPT_CHECKSUMS},
	{"max-rate", required_argument, NULL, 'r'},
	{"no-clean", no_argument, NULL, 'n'},
	{"no-manifest", no_argument, NULL, OPT_NO_MANIFEST},
	{"no-password", no_argument, NULL, 'w'},
	{"no-slot", no_argument, NULL, OPT_NO_SLOT},
	{"no-sync", no_argument, NULL, 'N'},
	{"no-verify-checksums", no_argument, NULL, OPT_NO_VERIFY},
	{"password", no_argument, NULL, 'W'},
	{"pgdata", required_argument, NULL, 'D'},
	{"port", required_argument, NULL, 'p'},
	{"progress", no_argument, NULL, 'P'},
	{"resume", no_argument, NULL, OPT_RESUME},
	{"sync-method", required_argument, NULL, OPT_SYNC_METHOD},
	{"tablespace-mapping", required_argument, NULL, 'T'},
	{"username", required_argument, NULL, 'U'},
	{"verbose", no_argument, NULL, 'v'},
	{"wal-method", required_argument, NULL, 'X'},
	{"write-recovery-conf", no_argument, NULL, 'R'},
	{NULL, 0, NULL, 0}
};

static void
try_help(void)
{
	report_hint("Try \"pg_ptrack backup --help\" for more information.");
	give_up();
}

/* Options of where to; false if it is none of them. */
static bool
target_option(TargetOptions *target, int c)
{
	switch (c)
	{
		case 'D':
			target->directory = optarg;
			return true;
		case 'n':
			target->no_clean = true;
			return true;
		case 'N':
			target->no_sync = true;
			return true;
		case 'T':
			tablespace_mapping_add(&target->mappings, optarg);
			return true;
		case OPT_SYNC_METHOD:
			take_sync_method(optarg, target);
			return true;
		default:
			return false;
	}
}

static void
backup_option(BackupOptions *options, int c)
{
	switch (c)
	{
		case 'c':
			if (pg_strcasecmp(optarg, "fast") != 0 && pg_strcasecmp(optarg, "spread") != 0)
				fatal("invalid checkpoint argument \"%s\", must be \"fast\" or \"spread\"", optarg);
			options->fast_checkpoint = pg_strcasecmp(optarg, "fast") == 0;
			break;
		case 'F':
			if (strcmp(optarg, "p") != 0 && strcmp(optarg, "plain") != 0 &&
				strcmp(optarg, "t") != 0 && strcmp(optarg, "tar") != 0)
				fatal("invalid output format \"%s\", must be \"plain\" or \"tar\"", optarg);
			options->as_archives = optarg[0] == 't';
			break;
		case 'i':
			options->prior_manifest = optarg;
			break;
		case 'z':
			pack_parse_compression("gzip", &options->compression);
			break;
		case 'Z':
			pack_parse_compression(optarg, &options->compression);
			break;
		case 'j':
			if (!option_parse_int(optarg, "-j/--jobs", 1, 64, &options->jobs))
				give_up();
			break;
		case 'l':
			options->label = optarg;
			break;
		case 'P':
			options->progress = true;
			break;
		case 'r':
			options->max_rate = parse_rate(optarg);
			break;
		case 'R':
			options->write_recovery = true;
			break;
		case 'v':
			pg_logging_increase_verbosity();
			break;
		case 'X':
			options->wal = parse_wal_method(optarg);
			break;
		case OPT_CHECKSUMS:
			if (!pg_checksum_parse_type(optarg, &options->checksum))
				fatal("unrecognized checksum algorithm: \"%s\"", optarg);
			break;
		case OPT_NO_MANIFEST:
			options->no_manifest = true;
			break;
		case OPT_NO_SLOT:
			options->no_slot = true;
			break;
		case OPT_NO_VERIFY:
			options->no_verify = true;
			break;
		case OPT_RESUME:
			options->resume = true;
			break;
		case OPT_LOG_JSON:
			report_as_json();
			break;
		default:
			try_help();
	}
}

static void
parse_options(BackupOptions *options, int argc, char **argv)
{
	int			c;

	while ((c = getopt_long(argc, argv, "c:d:D:F:h:i:j:l:nNp:Pr:RT:U:vwWX:zZ:", long_options, NULL)) != -1)
	{
		if (!connection_option(&options->connection, c) && !target_option(&options->target, c))
			backup_option(options, c);
	}
	if (optind < argc)
	{
		report_error("too many command-line arguments (first is \"%s\")", argv[optind]);
		try_help();
	}
	if (options->target.directory == NULL)
	{
		report_error("no target directory specified");
		try_help();
	}
}

static void
on_interrupt(int signal)
{
	workers_stop();
}

static void
take_backup(BackupOptions *options)
{
	BackupServer server;
	PriorBackup prior;
	BackupPlan	plan;
	bool		incremental = options->prior_manifest != NULL;

	server_connect(&server, options);
	if (incremental)
		plan_prior(&prior, options, &server);
	options->target.group_access = server.group_access;
	if (options->resume && resume_find(options))
	{
		resume_read(&server, options, incremental ? &prior : NULL);
		report_info("going on with the backup that was interrupted");
		options->target.go_on = true;
	}
	options->target.no_clean |= options->resume;
	if (!backup_to_stdout(options))
		target_create(&options->target);
	if (options->as_archives)
		archives_create(options);
	report_info("starting the backup, and waiting for a checkpoint to complete");
	if (options->wal == WAL_STREAM)
		stream_open(&server, options);
	server_start(&server, options);
	if (!options->as_archives)
		resume_begin(&server, options, incremental ? &prior : NULL);
	plan_files(&plan, &server, options);
	if (incremental)
		plan_increment(&plan, &server, options, &prior);
	resume_plan(&plan, &server);
	if (options->wal == WAL_STREAM)
		stream_begin(&server);
	if (options->progress)
		progress_begin("backup", plan.bytes, plan.nfiles);
	fetch_files(&plan, &server, options);
	progress_end();
	finish_backup(&plan, &server, options, incremental ? &prior : NULL);
	PQfinish(server.conn);
}

/*
 * The command.
 */
int
backup_main(int argc, char **argv)
{
	BackupOptions options = {
		.label = "pg_ptrack base backup",
		.jobs = 1,
		.wal = WAL_FETCH,
		.checksum = CHECKSUM_TYPE_CRC32C,
	};

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
	{
		help();
		return 0;
	}
	parse_options(&options, argc, argv);
	check_options(&options);
	pqsignal(SIGINT, on_interrupt);
	pqsignal(SIGTERM, on_interrupt);
	pqsignal(SIGPIPE, SIG_IGN);
	take_backup(&options);
	if (fetch_damaged_pages() > 0)
	{
		report_error("checksum error occurred");
		return 1;
	}
	return 0;
}
