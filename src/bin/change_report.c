/*
 * change_report.c
 *		pg_ptrack report: what changed on a server.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "change_report.h"
#include "commands.h"
#include "fe_utils/option_utils.h"
#include "getopt_long.h"
#include "report.h"

static void
help(void)
{
	printf("pg_ptrack report shows which relations changed on a PostgreSQL server, and how much.\n\n"
		   "Usage:\n  pg_ptrack report [OPTION]...\n\n"
		   "Options:\n"
		   "      --html=FILE         write a page with heat maps of the relations; - to\n"
		   "                          standard output\n"
		   "      --log-json          write messages as JSON, a line each\n"
		   "  -n, --top=NUM           show so many relation forks, those with most changes\n"
		   "                          (default: 50)\n"
		   "  -s, --since=LSN         show what changed since then (default: all that is known),\n"
		   "                          and how large an increment would be; may be repeated\n"
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

enum
{
	OPT_HTML = 1000,
	OPT_LOG_JSON,
};

static const struct option long_options[] = {
	{"dbname", required_argument, NULL, 'd'},
	{"help", no_argument, NULL, '?'},
	{"host", required_argument, NULL, 'h'},
	{"html", required_argument, NULL, OPT_HTML},
	{"log-json", no_argument, NULL, OPT_LOG_JSON},
	{"no-password", no_argument, NULL, 'w'},
	{"password", no_argument, NULL, 'W'},
	{"port", required_argument, NULL, 'p'},
	{"since", required_argument, NULL, 's'},
	{"top", required_argument, NULL, 'n'},
	{"username", required_argument, NULL, 'U'},
	{NULL, 0, NULL, 0}
};

static void
try_help(void)
{
	report_hint("Try \"pg_ptrack report --help\" for more information.");
	give_up();
}

/* Adds an LSN to those asked for, in ascending order. */
static void
add_since(ReportOptions *options, const char *text)
{
	XLogRecPtr	since;
	int			at;

	if (!lsn_from_text(text, &since))
	{
		report_error("invalid LSN: \"%s\"", text);
		report_hint("An LSN is two hexadecimal numbers, as in \"0/3000028\".");
		give_up();
	}
	options->since = pg_realloc(options->since, sizeof(XLogRecPtr) * (options->nsince + 1));
	for (at = options->nsince++; at > 0 && options->since[at - 1] > since; at--)
		options->since[at] = options->since[at - 1];
	options->since[at] = since;
}

static void
report_option(ReportOptions *options, int c)
{
	switch (c)
	{
		case 'n':
			if (!option_parse_int(optarg, "-n/--top", 1, 1000, &options->top))
				give_up();
			break;
		case 's':
			add_since(options, optarg);
			break;
		case OPT_HTML:
			options->html = optarg;
			break;
		case OPT_LOG_JSON:
			report_as_json();
			break;
		default:
			try_help();
	}
}

static void
parse_options(ReportOptions *options, int argc, char **argv)
{
	int			c;

	while ((c = getopt_long(argc, argv, "d:h:n:p:s:U:wW", long_options, NULL)) != -1)
	{
		if (!connection_option(&options->connection, c))
			report_option(options, c);
	}
	if (optind < argc)
	{
		report_error("too many command-line arguments (first is \"%s\")", argv[optind]);
		try_help();
	}
}

static void
check_output(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		fatal("could not write to standard output: %m");
}

static bool
write_all(int fd, const char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t		written = write(fd, data, len);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		data += written;
		len -= written;
	}
	return true;
}

/* The file is there when all of it is, and else is what it was. */
static void
write_file(const char *path, const PQExpBufferData *page)
{
	char	   *temporary = psprintf("%s.tmp", path);
	int			fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (fd < 0)
		fatal("could not create file \"%s\": %m", temporary);
	if (!write_all(fd, page->data, page->len) || close(fd) != 0 || rename(temporary, path) != 0)
	{
		int			saved_errno = errno;

		unlink(temporary);
		errno = saved_errno;
		fatal("could not write file \"%s\": %m", path);
	}
	pg_free(temporary);
}

static void
write_page(const char *path, const ChangeReport *changes)
{
	PQExpBufferData page;

	initPQExpBuffer(&page);
	change_report_page(&page, changes);
	if (PQExpBufferDataBroken(page))
		fatal("out of memory");
	if (strcmp(path, "-") != 0)
		write_file(path, &page);
	else
		fwrite(page.data, 1, page.len, stdout);
	termPQExpBuffer(&page);
}

/*
 * The command.
 */
int
report_main(int argc, char **argv)
{
	ReportOptions options = {.top = 50};
	ChangeReport changes;

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
	{
		help();
		return 0;
	}
	parse_options(&options, argc, argv);
	change_report_ask(&changes, &options);
	if (options.html)
		write_page(options.html, &changes);
	else
		change_report_print(&changes);
	check_output();
	return 0;
}
