/*
 * summary.c
 *		"pg_ptrack summary": prints change summaries.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "commands.h"
#include "getopt_long.h"
#include "paths.h"
#include "report.h"
#include "summary_print.h"

/* Of a summary's name: timeline, start and end, in hexadecimal. */
#define NAME_DIGITS		40
#define NAME_ENDING		".summary"

static void
usage(void)
{
	printf("pg_ptrack summary prints change summaries, the files of a data directory's ptrack/.\n\n"
		   "Usage:\n  pg_ptrack summary [OPTION]... FILE...\n\n"
		   "A FILE of - is standard input.\n\nOptions:\n"
		   "      --format=text|json|core  for people (default); an object a line; as\n"
		   "                               pg_walsummary\n"
		   "  -i, --individual             with core's format: each block by itself\n"
		   "  -q, --quiet                  check all, but do not print what changed\n"
		   "  -?, --help                   show this help, then exit\n");
}

static void
usage_error(const char *what)
{
	report_error("%s", what);
	report_hint("Try \"pg_ptrack summary --help\" for more information.");
	exit(1);
}

/* Returns the number of arguments that were options. */
static int
parse_options(SummaryPrinter *printer, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"format", required_argument, NULL, 'f'},
		{"individual", no_argument, NULL, 'i'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	int			letter;

	if (argc > 1 && strcmp(argv[1], "-?") == 0)
	{
		usage();
		exit(0);
	}
	printer->form = summary_form("text");
	while ((letter = getopt_long(argc, argv, "iq", long_options, NULL)) != -1)
	{
		switch (letter)
		{
			case 'f':
				printer->form = summary_form(optarg);
				if (printer->form == NULL)
					usage_error("invalid format, must be \"text\", \"json\" or \"core\"");
				break;
			case 'i':
				printer->individual = true;
				break;
			case 'q':
				printer->quiet = true;
				break;
			case 'h':
				usage();
				exit(0);
			default:
				report_hint("Try \"pg_ptrack summary --help\" for more information.");
				exit(1);
		}
	}
	if (printer->individual && printer->form != summary_form("core"))
		usage_error("option -i/--individual can be used only with --format=core");
	if (optind >= argc)
		usage_error("no change summary specified");
	return optind;
}

static ssize_t
read_fd(void *arg, void *data, size_t len)
{
	return read(*(int *) arg, data, len);
}

/* What is wrong with the header, or NULL. */
static const char *
header_problem(const char *file, const SummaryHeader *header)
{
	const char *name = path_file_name(file);
	char		expected[NAME_DIGITS + 1];

	if (header->start >= header->end.lsn)
		return "has an end that is not past its start";
	if (strspn(name, "0123456789ABCDEF") != NAME_DIGITS ||
		strcmp(name + NAME_DIGITS, NAME_ENDING) != 0)
		return NULL;
	snprintf(expected, sizeof(expected), "%08X%08X%08X%08X%08X", header->end.tli,
			 LSN_FORMAT_ARGS(header->start), LSN_FORMAT_ARGS(header->end.lsn));
	if (strncmp(name, expected, NAME_DIGITS) != 0)
		return "has another range than its name says";
	return NULL;
}

/* Prints a summary.  Returns NULL, or what is wrong with it. */
static const char *
print_summary(SummaryPrinter *printer, const char *name, int fd)
{
	SummaryReader reader;
	SummaryHeader header;
	SummaryResult result;
	ChangeItem	item;
	const char *problem;

	if (!summary_read_begin(&reader, read_fd, &fd, &header))
		return reader.problem;
	summary_print_begin(printer, name, &header);
	problem = header_problem(name, &header);
	while ((result = summary_read_item(&reader, &item)) > SUMMARY_END)
	{
		if (result == SUMMARY_POINT)
			summary_print_point(printer, &reader.point);
		else
			summary_print_item(printer, &item);
	}
	if (result == SUMMARY_BAD)
		problem = reader.problem;
	summary_print_end(printer, problem);
	return problem;
}

/* False: something is wrong with the file, and was reported. */
static bool
print_file(SummaryPrinter *printer, const char *file)
{
	bool		standard = strcmp(file, "-") == 0;
	int			fd = standard ? STDIN_FILENO : open(file, O_RDONLY | PG_BINARY, 0);
	const char *problem;

	if (fd < 0)
	{
		report_error("could not open file \"%s\": %m", file);
		return false;
	}
	problem = print_summary(printer, standard ? "standard input" : file, fd);
	fflush(stdout);
	if (problem)
		report_error("file \"%s\" %s", file, problem);
	if (!standard)
		close(fd);
	return problem == NULL;
}

int
summary_main(int argc, char **argv)
{
	SummaryPrinter printer = {0};
	bool		good = true;

	for (int i = parse_options(&printer, argc, argv); i < argc; i++)
		good &= print_file(&printer, argv[i]);
	if (ferror(stdout) || fclose(stdout) != 0)
		fatal("could not write to standard output: %m");
	return good ? 0 : 1;
}
