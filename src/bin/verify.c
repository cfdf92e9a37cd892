/*
 * verify.c
 *		"pg_ptrack verify": is a backup as its manifest says?
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <sys/stat.h>

#include "commands.h"
#include "fe_utils/option_utils.h"
#include "getopt_long.h"
#include "paths.h"
#include "progress.h"
#include "verify.h"

#define MAX_JOBS	1024

/* What changes after a backup was made, or is not in its manifest. */
static const char *const always_ignored[] = {MANIFEST_NAME, "pg_wal"};

/*
 * There was a problem, and it has been reported.  No lock may be held.
 */
void
verify_failed(Verify *verify)
{
	atomic_store(&verify->failed, true);
	if (verify->options.exit_on_error)
		give_up();
}

/* Is it that, or in it? */
static bool
is_below(const char *path, const char *top)
{
	size_t		len = strlen(top);

	return strncmp(path, top, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/*
 * Does it not matter whether that is as the manifest says?
 */
bool
verify_ignores(const Verify *verify, const char *path)
{
	for (size_t i = 0; i < lengthof(always_ignored); i++)
	{
		if (is_below(path, always_ignored[i]))
			return true;
	}
	if (path_is_recovery_settings(path))
		return true;
	for (int i = 0; i < verify->options.nignored; i++)
	{
		if (is_below(path, verify->options.ignored[i]))
			return true;
	}
	return false;
}

/*
 * Options
 */

static void
usage(void)
{
	printf("pg_ptrack verify checks a backup against its manifest.\n\n"
		   "Usage:\n  pg_ptrack verify [OPTION]... BACKUP\n\n"
		   "BACKUP is a directory, or an archive that has all of the backup, or - for\n"
		   "standard input.\n\nOptions:\n"
		   "  -e, --exit-on-error         exit at the first problem\n"
		   "  -F, --format=p|t            format of the backup: plain or tar\n"
		   "  -i, --ignore=RELATIVE_PATH  ignore this file or directory\n"
		   "  -j, --jobs=NUMBER           read with so many threads (default: 1)\n"
		   "  -m, --manifest-path=PATH    use this manifest\n"
		   "  -n, --no-parse-wal          do not check WAL\n"
		   "  -P, --progress              show progress\n"
		   "  -q, --quiet                 print nothing but problems\n"
		   "  -s, --skip-checksums        do not check the checksums of files\n"
		   "  -w, --wal-directory=PATH    WAL is in this directory\n"
		   "      --log-json              write messages as JSON\n"
		   "  -?, --help                  show this help, then exit\n");
}

static void
usage_error(const char *what)
{
	report_error("%s", what);
	report_hint("Try \"pg_ptrack verify --help\" for more information.");
	exit(1);
}

static void
add_ignored(VerifyOptions *options, char *path)
{
	canonicalize_path(path);
	options->ignored = pg_realloc(options->ignored,
								  (options->nignored + 1) * sizeof(const char *));
	options->ignored[options->nignored++] = path;
}

static void
set_format(VerifyOptions *options, const char *name)
{
	if (strcmp(name, "p") == 0 || strcmp(name, "plain") == 0)
		options->format = 'p';
	else if (strcmp(name, "t") == 0 || strcmp(name, "tar") == 0)
		options->format = 't';
	else
		usage_error("invalid backup format, must be \"plain\" or \"tar\"");
}

static void
set_option(VerifyOptions *options, int letter, char *value)
{
	switch (letter)
	{
		case 'e':
			options->exit_on_error = true;
			break;
		case 'F':
			set_format(options, value);
			break;
		case 'i':
			add_ignored(options, value);
			break;
		case 'j':
			if (!option_parse_int(value, "-j/--jobs", 1, MAX_JOBS, &options->jobs))
				exit(1);
			break;
		case 'm':
			options->manifest = value;
			break;
		case 'n':
			options->skip_wal = true;
			break;
		case 'P':
			options->progress = true;
			break;
		case 'q':
			options->quiet = true;
			break;
		case 's':
			options->skip_checksums = true;
			break;
		case 'w':
			options->wal_directory = value;
			break;
		case 1:
			report_as_json();
			break;
		case '?':
			report_hint("Try \"pg_ptrack verify --help\" for more information.");
			exit(1);
	}
}

static void
check_options(VerifyOptions *options, int nnames, char **names)
{
	if (nnames == 0)
		usage_error("no backup specified");
	if (nnames > 1)
		usage_error("too many command-line arguments");
	if (strlen(names[0]) >= MAXPGPATH)
		usage_error("name of the backup is too long");
	if (options->progress && (options->quiet || options->skip_checksums))
		usage_error("option -P/--progress can be used neither with -q/--quiet nor with "
					"-s/--skip-checksums");
	canonicalize_path(names[0]);
	options->backup = names[0];
}

static void
parse_options(VerifyOptions *options, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"exit-on-error", no_argument, NULL, 'e'},
		{"format", required_argument, NULL, 'F'},
		{"ignore", required_argument, NULL, 'i'},
		{"jobs", required_argument, NULL, 'j'},
		{"manifest-path", required_argument, NULL, 'm'},
		{"no-parse-wal", no_argument, NULL, 'n'},
		{"progress", no_argument, NULL, 'P'},
		{"quiet", no_argument, NULL, 'q'},
		{"skip-checksums", no_argument, NULL, 's'},
		{"wal-directory", required_argument, NULL, 'w'},
		{"log-json", no_argument, NULL, 1},
		{NULL, 0, NULL, 0}
	};
	int			letter;

	*options = (VerifyOptions)
	{
		.jobs = 1
	};
	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-?") == 0)
		{
			usage();
			exit(0);
		}
	}
	while ((letter = getopt_long(argc, argv, "eF:i:j:m:nPqsw:", long_options, NULL)) != -1)
		set_option(options, letter, optarg);
	check_options(options, argc - optind, argv + optind);
}

/*
 * The backup's form
 */

static bool
has_file(const char *directory, const char *name)
{
	char	   *path = psprintf("%s/%s", directory, name);
	struct stat st;
	bool		has = stat(path, &st) == 0;

	pfree(path);
	return has;
}

static void
find_format(VerifyOptions *options)
{
	struct stat st;

	if (strcmp(options->backup, "-") == 0)
	{
		options->format = 'a';
		return;
	}
	if (stat(options->backup, &st) != 0)
		fatal("could not open backup \"%s\": %m", options->backup);
	if (!S_ISDIR(st.st_mode))
		options->format = 'a';
	else if (options->format == '\0')
		options->format = has_file(options->backup, "PG_VERSION") ? 'p' : 't';
}

/* In a directory of archives, there should not be much else. */
static void
find_strangers(Verify *verify)
{
	DIR		   *dir = opendir(verify->options.backup);
	struct dirent *entry;
	TarArchive	archive;

	if (dir == NULL)
		fatal("could not open directory \"%s\": %m", verify->options.backup);
	while (errno = 0, (entry = readdir(dir)) != NULL)
	{
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			!verify_ignores(verify, entry->d_name) &&
			!tar_archive_recognize(entry->d_name, &archive))
			verify_problem(verify, "\"%s/%s\" is not an archive of a backup",
						   verify->options.backup, entry->d_name);
	}
	if (errno != 0)
		fatal("could not read directory \"%s\": %m", verify->options.backup);
	closedir(dir);
}

static void
find_archives(Verify *verify)
{
	TarArchive *found;
	char	   *problem = tar_archives_list(verify->options.backup, &found, &verify->narchives);

	if (problem)
		fatal("%s", problem);
	if (verify->narchives == 0 || found[0].prefix[0] != '\0')
		fatal("directory \"%s\" has no archive \"base.tar\", nor a file \"PG_VERSION\"",
			  verify->options.backup);
	verify->archives = pg_malloc0(verify->narchives * sizeof(VerifyArchive));
	for (int i = 0; i < verify->narchives; i++)
	{
		verify->archives[i].path = psprintf("%s/%s", verify->options.backup, found[i].name);
		verify->archives[i].prefix = found[i].prefix;
	}
	find_strangers(verify);
}

static void
find_archive(Verify *verify)
{
	verify->narchives = 1;
	verify->archives = pg_malloc0(sizeof(VerifyArchive));
	verify->archives[0] = (VerifyArchive)
	{
		pg_strdup(verify->options.backup), ""
	};
}

/*
 * The manifest
 */

static void
take_file(void *arg, const ManifestFile *file)
{
	Verify	   *verify = arg;

	if (!verify_files_add(&verify->files, file))
		fatal("file \"%s\" is in the manifest twice", file->path);
	if (verify_ignores(verify, file->path))
		return;
	verify->nfiles++;
	verify->nbytes += file->size;
}

static void
take_range(void *arg, const WalRange *range)
{
	Verify	   *verify = arg;

	verify->ranges = pg_realloc(verify->ranges, (verify->nranges + 1) * sizeof(WalRange));
	verify->ranges[verify->nranges++] = *range;
}

/* Reads the manifest that the archive has just come by. */
static void
parse_member(Verify *verify, TarInput *input, const ManifestHandler *handler)
{
	ManifestParser *parser = manifest_parser_create(handler);
	char	   *data = pg_malloc(VERIFY_READ_SIZE);
	bool		good = true;
	ssize_t		got = 0;

	while (good && (got = tar_input_read(input, data, VERIFY_READ_SIZE)) > 0)
		good = manifest_parser_feed(parser, data, got);
	if (got < 0)
		fatal("%s", tar_input_problem(input));
	if (!good || !manifest_parser_end(parser, &verify->info))
		fatal("could not parse backup manifest in archive \"%s\": %s", verify->options.backup,
			  manifest_parser_problem(parser));
	manifest_parser_free(parser);
	pg_free(data);
}

/* The manifest in the archive that has everything. */
static void
read_archived_manifest(Verify *verify, const ManifestHandler *handler)
{
	TarInput   *input;
	TarMember	member;
	TarResult	result;

	if (strcmp(verify->options.backup, "-") == 0)
		fatal_hint("The manifest comes last in it, and it can be read only once: use "
				   "-m/--manifest-path.", "no manifest specified for standard input");
	input = tar_input_open(verify->options.backup, "");
	while ((result = tar_input_next(input, &member)) == TAR_MEMBER)
	{
		if (member.type == TAR_FILE && strcmp(member.path, MANIFEST_NAME) == 0)
			break;
	}
	if (result == TAR_BAD)
		fatal("%s", tar_input_problem(input));
	if (result == TAR_END)
		fatal("archive \"%s\" has no file \"%s\"", verify->options.backup, MANIFEST_NAME);
	parse_member(verify, input, handler);
	tar_input_close(input);
}

static void
read_manifest(Verify *verify)
{
	ManifestHandler handler = {verify, take_file, take_range};

	verify_files_create(&verify->files);
	if (verify->options.manifest)
		manifest_read(verify->options.manifest, &handler, &verify->info);
	else if (verify->options.format == 'a')
		read_archived_manifest(verify, &handler);
	else
	{
		char	   *path = psprintf("%s/%s", verify->options.backup, MANIFEST_NAME);

		manifest_read(path, &handler, &verify->info);
		pfree(path);
	}
}

/*
 * All of it
 */

/* If WAL is in no archive, looks for it. */
static void
find_wal(Verify *verify)
{
	const char *directory = verify->options.wal_directory;
	struct stat st;

	if (directory == NULL && verify->options.format == 'p')
		directory = psprintf("%s/pg_wal", verify->options.backup);
	if (directory == NULL || verify->options.skip_wal)
		return;
	if (verify->options.wal_directory == NULL && lstat(directory, &st) == 0 && S_ISLNK(st.st_mode))
	{
		report_error("\"%s\" is a symbolic link", directory);
		report_hint("Use -w/--wal-directory to name the directory that has the WAL.");
		verify->options.skip_wal = true;
		verify_failed(verify);
		return;
	}
	verify_list_wal(verify, directory);
}

static void
verify_backup(Verify *verify)
{
	verify_wal_begin(verify);
	find_wal(verify);
	if (verify->options.progress)
		progress_begin("verified", verify->nbytes, verify->nfiles);
	if (verify->options.format == 'p')
		verify_list_plain(verify);
	else
		verify_list_archives(verify);
	verify_list_missing(verify);
	verify_read_all(verify);
	progress_end();
	verify_found(verify);
	if (!verify->options.skip_wal)
		verify_wal_end(verify);
}

int
verify_main(int argc, char **argv)
{
	Verify		verify = {.lock = PTHREAD_MUTEX_INITIALIZER};

	parse_options(&verify.options, argc, argv);
	find_format(&verify.options);
	read_manifest(&verify);
	if (verify.options.format == 't')
		find_archives(&verify);
	else if (verify.options.format == 'a')
		find_archive(&verify);
	verify_backup(&verify);
	if (atomic_load(&verify.failed))
		return 1;
	if (!verify.options.quiet)
		printf("backup successfully verified\n");
	return 0;
}
