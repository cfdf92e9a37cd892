/*
 * pg_ptrack.c
 *		Parallel full and incremental backups of a server with ptrack.
 */
#include "postgres_fe.h"

#include "commands.h"
#include "report.h"

typedef struct Command
{
	const char *name;
	int			(*main) (int argc, char **argv);
	const char *does;
} Command;

static const Command commands[] = {
	{"backup", backup_main, "make a base backup"},
	{"verify", verify_main, "check backups against their manifests"},
	{"combine", combine_main, "make one backup of a chain of them"},
	{"summary", summary_main, "print change summaries"},
	{"report", report_main, "show what changed on a server"},
};

static void
usage(const char *progname)
{
	printf("%s makes parallel full and incremental backups of a PostgreSQL server.\n\n", progname);
	printf("Usage:\n  %s COMMAND [OPTION]...\n\nCommands:\n", progname);
	for (size_t i = 0; i < lengthof(commands); i++)
		printf("  %-10s %s\n", commands[i].name, commands[i].does);
	printf("\nOptions:\n"
		   "  -V, --version  output version information, then exit\n"
		   "  -?, --help     show this help, then exit; after COMMAND, its options\n");
}

int
main(int argc, char **argv)
{
	const char *progname = get_progname(argv[0]);

	report_init(argv[0]);
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
	{
		usage(progname);
		return 0;
	}
	if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
	{
		printf("%s (ptrack) %s\n", progname, PTRACK_VERSION);
		return 0;
	}
	for (size_t i = 0; argc > 1 && i < lengthof(commands); i++)
	{
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].main(argc - 1, argv + 1);
	}
	if (argc > 1)
		report_error("unrecognized command \"%s\"", argv[1]);
	else
		report_error("no command specified");
	report_hint("Try \"%s --help\" for more information.", progname);
	return 1;
}
