/*
 * combine.c
 *		pg_ptrack combine: make one backup of a chain of them.
 */
#include "postgres_fe.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "archive_writer.h"
#include "combine.h"
#include "combine_build.h"
#include "combine_dir.h"
#include "combine_output.h"
#include "combine_place.h"
#include "combine_to_archives.h"
#include "progress.h"
#include "commands.h"
#include "common/file_perm.h"
#include "getopt_long.h"
#include "paths.h"
#include "report.h"
#include "workers.h"

/* The name, for a moment, of what compressed archives are unpacked to. */
#define UNPACKED	"ptrack_combine.unpacked"

/* What the threads share. */
typedef struct Combining
{
	const CombineOptions *options;
	const Plan *plan;
	Builder   **builders;		/* a thread each */
	atomic_int	next_archive;
} Combining;

/* An archive whose files one of them makes. */
typedef struct Turn
{
	Combining  *combining;
	int			thread;
} Turn;

enum
{
	OPT_HELP = 256,
	OPT_CLONE,
	OPT_COPY,
	OPT_COPY_FILE_RANGE,
	OPT_IN_PLACE,
	OPT_LOG_JSON,
	OPT_MANIFEST_CHECKSUMS,
	OPT_NO_CLEAN,
	OPT_NO_MANIFEST,
	OPT_SYNC_METHOD,
};

static const struct option long_options[] = {
	{"clone", no_argument, NULL, OPT_CLONE},
	{"compress", required_argument, NULL, 'Z'},
	{"copy", no_argument, NULL, OPT_COPY},
	{"copy-file-range", no_argument, NULL, OPT_COPY_FILE_RANGE},
	{"debug", no_argument, NULL, 'd'},
	{"dry-run", no_argument, NULL, 'n'},
	{"format", required_argument, NULL, 'F'},
	{"gzip", no_argument, NULL, 'z'},
	{"help", no_argument, NULL, OPT_HELP},
	{"in-place", no_argument, NULL, OPT_IN_PLACE},
	{"jobs", required_argument, NULL, 'j'},
	{"link", no_argument, NULL, 'k'},
	{"log-json", no_argument, NULL, OPT_LOG_JSON},
	{"manifest-checksums", required_argument, NULL, OPT_MANIFEST_CHECKSUMS},
	{"no-clean", no_argument, NULL, OPT_NO_CLEAN},
	{"no-manifest", no_argument, NULL, OPT_NO_MANIFEST},
	{"no-sync", no_argument, NULL, 'N'},
	{"output", required_argument, NULL, 'o'},
	{"progress", no_argument, NULL, 'P'},
	{"sync-method", required_argument, NULL, OPT_SYNC_METHOD},
	{"tablespace-mapping", required_argument, NULL, 'T'},
	{NULL, 0, NULL, 0},
};

static void
usage(void)
{
	printf("pg_ptrack combine makes one backup of a chain of them.\n\n"
		   "Usage:\n"
		   "  pg_ptrack combine [OPTION]... DIRECTORY...\n\n"
		   "The oldest backup comes first.  If that is a full one, so is the result; if it\n"
		   "is an increment, the result is an increment over the whole range.\n\n"
		   "Options:\n"
		   "  -d, --debug               write what is done with each file\n"
		   "  -F, --format=p|t          make a plain directory (default) or tar archives\n"
		   "      --in-place            apply increments to the first, full backup\n"
		   "  -j, --jobs=NUM            work with that many threads (default: 1)\n"
		   "      --log-json            write messages as JSON, an object a line\n"
		   "  -n, --dry-run             check what can be, but make nothing\n"
		   "  -N, --no-sync             do not wait for changes to be written safely to disk\n"
		   "  -o, --output=DIRECTORY    where the result is to be; required without --in-place\n"
		   "  -P, --progress            show progress information\n"
		   "  -T, --tablespace-mapping=OLDDIR=NEWDIR\n"
		   "                            relocate tablespace in OLDDIR to NEWDIR\n"
		   "  -z, --gzip                compress archives\n"
		   "  -Z, --compress=METHOD[:DETAIL]\n"
		   "                            compress archives with gzip, lz4 or zstd\n"
		   "      --clone               clone (reflink) files instead of copying\n"
		   "      --copy                copy files (default)\n"
		   "      --copy-file-range     copy using copy_file_range() system call\n"
		   "  -k, --link                link files instead of copying\n"
		   "      --manifest-checksums=SHA{224,256,384,512}|CRC32C|NONE\n"
		   "                            use algorithm for manifest checksums\n"
		   "      --no-clean            do not clean up after errors\n"
		   "      --no-manifest         suppress generation of backup manifest\n"
		   "      --sync-method=METHOD  set method for syncing files to disk: fsync (default)\n"
		   "                            or syncfs\n"
		   "  -?, --help                show this help, then exit\n");
}

static void
__attribute__((noreturn))
bad_usage(const char *message)
{
	report_error("%s", message);
	report_hint("Try \"pg_ptrack combine --help\" for more information.");
	exit(1);
}

/*
 * Options
 */

static int
parse_jobs(const char *text)
{
	char	   *end;
	long		jobs = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0' || jobs < 1 || jobs > 1024)
		fatal("invalid number of jobs \"%s\", must be from 1 to 1024", text);
	return (int) jobs;
}

/* Is it archives? */
static bool
parse_format(const char *text)
{
	if (strcmp(text, "p") == 0 || strcmp(text, "plain") == 0)
		return false;
	if (strcmp(text, "t") == 0 || strcmp(text, "tar") == 0)
		return true;
	fatal("invalid output format \"%s\", must be \"plain\" or \"tar\"", text);
}

static bool
parse_sync_method(const char *text)
{
	if (strcmp(text, "fsync") == 0)
		return false;
#if defined(HAVE_SYNCFS)
	if (strcmp(text, "syncfs") == 0)
		return true;
#endif
	fatal("unrecognized sync method: %s", text);
}

static void
set_copying(CombineOptions *options, int c)
{
	switch (c)
	{
		case OPT_CLONE:
			options->method = METHOD_CLONE;
			break;
		case OPT_COPY:
			options->method = METHOD_COPY;
			break;
		case OPT_COPY_FILE_RANGE:
			options->method = METHOD_COPY_FILE_RANGE;
			break;
		case 'k':
			options->method = METHOD_LINK;
			break;
	}
}

static void
set_option(CombineOptions *options, int c)
{
	switch (c)
	{
		case 'd':
			pg_logging_increase_verbosity();
			break;
		case 'F':
			options->archives = parse_format(optarg);
			break;
		case 'j':
			options->jobs = parse_jobs(optarg);
			break;
		case 'n':
			options->dry_run = true;
			break;
		case 'N':
			options->sync = false;
			break;
		case 'o':
			options->output = optarg;
			break;
		case 'P':
			options->progress = true;
			break;
		case 'T':
			tablespace_mapping_add(&options->mappings, optarg);
			break;
		case 'z':
			pack_parse_compression("gzip", &options->compression);
			break;
		case 'Z':
			pack_parse_compression(optarg, &options->compression);
			break;
		case OPT_IN_PLACE:
			options->in_place = true;
			break;
		case OPT_LOG_JSON:
			report_as_json();
			break;
		case OPT_MANIFEST_CHECKSUMS:
			if (!pg_checksum_parse_type(optarg, &options->checksum_type))
				fatal("unrecognized checksum algorithm: \"%s\"", optarg);
			break;
		case OPT_NO_CLEAN:
			options->clean = false;
			break;
		case OPT_NO_MANIFEST:
			options->manifest = false;
			break;
		case OPT_SYNC_METHOD:
			options->syncfs = parse_sync_method(optarg);
			break;
		default:
			set_copying(options, c);
	}
}

static void
check_options(const CombineOptions *options, int dir_count)
{
	if (dir_count == 0)
		bad_usage("no input directories specified");
	if (options->archives && options->method != METHOD_COPY)
		bad_usage("archives can only be made by copying");
	if (!options->archives && options->compression.algorithm != PG_COMPRESSION_NONE)
		bad_usage("only archives can be compressed");
	if (!options->in_place)
	{
		if (options->output == NULL)
			bad_usage("no output directory specified");
		return;
	}
	if (options->output != NULL)
		bad_usage("options --in-place and -o/--output cannot be used together");
	if (options->archives)
		bad_usage("options --in-place and -F/--format cannot be used together");
	if (!options->manifest)
		bad_usage("options --in-place and --no-manifest cannot be used together");
	if (options->method == METHOD_LINK)
		bad_usage("options --in-place and -k/--link cannot be used together");
	if (dir_count == 1)
		bad_usage("no increments specified");
}

static void
parse_options(CombineOptions *options, int argc, char **argv)
{
	int			c;

	while ((c = getopt_long(argc, argv, "dF:j:knNo:PT:zZ:?", long_options, NULL)) != -1)
	{
		if (c == OPT_HELP || (c == '?' && strcmp(argv[optind - 1], "-?") == 0))
		{
			usage();
			exit(0);
		}
		if (c == '?')
		{
			report_hint("Try \"pg_ptrack combine --help\" for more information.");
			exit(1);
		}
		set_option(options, c);
	}
	check_options(options, argc - optind);
}

/*
 * Combining
 */

static void
on_signal(int signal_number)
{
	workers_stop();
}

/* The result's files may be read by whom the last backup's may. */
static void
set_modes(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) < 0)
		fatal("could not stat directory \"%s\": %m", dir);
	SetDataDirectoryCreatePerm(st.st_mode);
	umask(pg_mode_mask);
}

static void
build_target(void *arg, int thread, Target *target)
{
	const Combining *combining = arg;
	Builder    *builder = combining->builders[thread];
	char		name[MAXPGPATH];
	char		path[MAXPGPATH];

	if (combining->options->dry_run)
	{
		build_check(builder, target);
		return;
	}

	/* In its turn, if it can only be made of what is come by. */
	if (source_is_streamed(builder->chain, target->oldest) && builder->stream == NULL)
		return;
	result_path(name, target);
	path_join(path, combining->options->output, name);
	build_file(builder, target, path);
}

static void
build_of_stream(void *arg, const char *path, TarInput *input)
{
	const Turn *turn = arg;
	const Combining *combining = turn->combining;
	Builder    *builder = combining->builders[turn->thread];
	Target	   *target = plan_find(combining->plan, path);

	if (target == NULL || !source_is_streamed(builder->chain, target->oldest))
		return;
	builder->stream = input;
	build_target(turn->combining, turn->thread, target);
	builder->stream = NULL;
}

static void
stream_archives(void *shared, int thread)
{
	Combining  *combining = shared;
	const Archives *archives = combining->plan->chain->backups[0].input.archives;
	Turn		turn = {.combining = combining,.thread = thread};

	while (!workers_stopping())
	{
		int			next = atomic_fetch_add(&combining->next_archive, 1);

		if (next >= archives_count(archives))
			break;
		archives_stream(archives, next, build_of_stream, &turn);
	}
}

/* Makes the files that the first backup is a source of, as they are come by. */
static void
build_streamed(Combining *combining)
{
	const Plan *plan = combining->plan;

	workers_run(combining->options->jobs, stream_archives, combining);
	for (size_t i = 0; i < plan->target_count; i++)
	{
		if (!plan->targets[i]->written)
			fatal("file \"%s\" is missing in backup \"%s\"", plan->targets[i]->path,
				  plan->chain->backups[0].dir);
	}
}

static void
build_all(const CombineOptions *options, const Plan *plan)
{
	Combining	combining = {.options = options,.plan = plan};

	combining.builders = pg_malloc0(options->jobs * sizeof(Builder *));
	for (int i = 0; i < options->jobs; i++)
		combining.builders[i] = builder_create(options, plan->chain);
	plan_for_each(plan, options->jobs, build_target, &combining);
	if (plan->chain->backups[0].input.streamed && !options->dry_run)
		build_streamed(&combining);
}

/* Makes a file of the result durable that is not a target. */
static void
sync_own_file(const CombineOptions *options, const char *name)
{
	char		path[MAXPGPATH];

	if (!options->sync || options->syncfs)
		return;
	path_join(path, options->output, name);
	output_sync_path(path, false);
}

static void
make_directory(const CombineOptions *options, Plan *plan, const char *label)
{
	output_make_directories(plan);
	build_all(options, plan);
	output_write_text(options->output, LABEL_NAME, label, strlen(label));
	sync_own_file(options, LABEL_NAME);
	output_sync(options, plan, options->output);
	if (options->manifest)
	{
		plan_sort_by_path(plan);
		output_write_manifest(options, plan, options->output, MANIFEST_NAME, label, NULL);
	}
}

static void
make_result(const CombineOptions *options, Plan *plan)
{
	char	   *label = label_of_result(plan->chain);
	char		path[MAXPGPATH];

	output_create_root(options);
	path_join(path, options->output, UNPACKED);
	output_unpack(plan, path);
	if (options->progress)
		progress_begin("combine", plan->weight, plan->target_count);
	if (options->archives)
		make_archives(options, plan, label);
	else
		make_directory(options, plan, label);
	if (options->manifest)
		sync_own_file(options, MANIFEST_NAME);
	target_sync_all();
	progress_end();
	target_keep();
}

/* What is a part of an archive has no file that could be shared. */
static void
check_method(const CombineOptions *options, const Chain *chain)
{
	for (int i = 0; i < chain->count; i++)
	{
		if (chain->backups[i].input.archives &&
			(options->method == METHOD_LINK || options->method == METHOD_CLONE))
			fatal("files cannot be linked or cloned from archives in directory \"%s\"",
				  chain->backups[i].dir);
	}
}

static void
combine(const CombineOptions *options, Chain *chain)
{
	Plan	   *plan;

	for (int i = 0; i < chain->count; i++)
		place_refuse(chain->backups[i].dir);
	chain_read(chain);
	plan = plan_create(chain, options->archives);
	if (options->manifest && !plan->has_info)
		fatal_hint("Use --no-manifest to do without one.",
				   "cannot make a manifest, as backup \"%s\" has none", chain_last(chain)->dir);
	plan_sort_by_weight(plan);
	if (chain->full && chain->backups[0].input.archives && !options->archives)
		chain->backups[0].input.streamed =
			archives_compressed(chain->backups[0].input.archives);
	output_check(options, plan);
	if (!options->dry_run)
		make_result(options, plan);
	else if (output_must_unpack(chain))
		report_info("what is in compressed archives is not checked");
	else
		build_all(options, plan);
	if (options->method == METHOD_LINK && !options->dry_run)
		report_warning("files are shared: changing the result may change the backups that it is made of");
}

int
combine_main(int argc, char **argv)
{
	CombineOptions options = {
		.checksum_type = CHECKSUM_TYPE_CRC32C,
		.jobs = 1,
		.manifest = true,
		.sync = true,
		.clean = true,
	};
	Chain	   *chain;

	parse_options(&options, argc, argv);
	pqsignal(SIGINT, on_signal);
	pqsignal(SIGTERM, on_signal);
	pqsignal(SIGPIPE, SIG_IGN);
	chain = chain_create(argc - optind, argv + optind);
	set_modes(chain_last(chain)->dir);
	check_method(&options, chain);
	if (options.in_place)
		place_combine(&options, chain);
	else
		combine(&options, chain);
	return 0;
}
