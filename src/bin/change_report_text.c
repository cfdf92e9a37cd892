/*
 * change_report_text.c
 *		A report as text.
 */
#include "postgres_fe.h"

#include "change_report.h"
#include "fe_utils/mbprint.h"
#include "mb/pg_wchar.h"

#define MAX_COLUMNS		8

/* A table; its first columns are words, the others numbers. */
typedef struct TextTable
{
	int			columns;
	int			words;
	int			rows;			/* the heading is one */
	char	  **cells;
	int			widths[MAX_COLUMNS];
} TextTable;

static void
table_begin(TextTable *table, int words, int columns, int rows, const char *const *heading)
{
	memset(table, 0, sizeof(*table));
	table->words = words;
	table->columns = columns;
	table->cells = pg_malloc0(sizeof(char *) * columns * (rows + 1));
	for (int i = 0; i < columns; i++)
		table->cells[i] = pg_strdup(heading[i]);
	table->rows = 1;
}

/* The cells of the next row, which are the table's from now on. */
static char **
table_row(TextTable *table)
{
	return &table->cells[table->columns * table->rows++];
}

static int
text_width(const char *text)
{
	return Max(pg_wcswidth(text, strlen(text), PG_UTF8), 0);
}

static void
print_cell(const TextTable *table, int column, const char *text)
{
	int			padding = table->widths[column] - text_width(text);

	if (column >= table->words)
		printf("%*s%s", padding, "", text);
	else if (column + 1 < table->columns)
		printf("%s%*s", text, padding, "");
	else
		printf("%s", text);
	printf("%s", column + 1 < table->columns ? "  " : "\n");
}

static void
table_end(TextTable *table)
{
	int			cells = table->columns * table->rows;

	for (int i = 0; i < cells; i++)
		table->widths[i % table->columns] =
			Max(table->widths[i % table->columns], text_width(table->cells[i]));
	for (int i = 0; i < cells; i++)
	{
		print_cell(table, i % table->columns, table->cells[i]);
		pg_free(table->cells[i]);
	}
	pg_free(table->cells);
}

static char *
number(int64 value)
{
	return value == NOT_KNOWN ? pg_strdup("-") : psprintf(INT64_FORMAT, value);
}

static char *
share(const ChangeReport *changes, int64 changed)
{
	if (changed == NOT_KNOWN || changes->total.changed == 0)
		return pg_strdup("-");
	return psprintf("%.1f %%", 100.0 * changed / changes->total.changed);
}

static void
print_databases(const ChangeReport *changes)
{
	static const char *const heading[] = {"Database", "Forks", "Changed", "Share", "Increment"};
	TextTable	table;

	table_begin(&table, 1, lengthof(heading), changes->ndatabases, heading);
	for (int i = 0; i < changes->ndatabases; i++)
	{
		const ReportFork *database = &changes->databases[i];
		char	  **cells = table_row(&table);

		cells[0] = database_text(database);
		cells[1] = number(database->forks);
		cells[2] = number(database->changed);
		cells[3] = share(changes, database->changed);
		cells[4] = number(database->increment);
	}
	table_end(&table);
}

static void
print_forks(const ChangeReport *changes)
{
	static const char *const heading[] = {
		"Database", "Relation", "Fork", "Changed", "Share", "Increment", "Blocks", "Limit"
	};
	TextTable	table;

	table_begin(&table, 3, lengthof(heading), changes->nforks, heading);
	for (int i = 0; i < changes->nforks; i++)
	{
		const ReportFork *fork = &changes->forks[i];
		char	  **cells = table_row(&table);

		cells[0] = database_text(fork);
		cells[1] = relation_text(fork);
		cells[2] = pg_strdup(fork->fork ? fork->fork : "-");
		cells[3] = number(fork->changed);
		cells[4] = share(changes, fork->changed);
		cells[5] = number(fork->increment);
		cells[6] = number(fork->blocks);
		cells[7] = number(fork->limit);
	}
	table_end(&table);
	if (changes->total.forks > changes->nforks)
		printf("and " INT64_FORMAT " more\n", changes->total.forks - changes->nforks);
}

static void
print_increments(const ChangeReport *changes)
{
	static const char *const heading[] = {"Increment since", "Reached", "Files", "Blocks", "Size"};
	TextTable	table;

	table_begin(&table, 2, lengthof(heading), changes->nincrements, heading);
	for (int i = 0; i < changes->nincrements; i++)
	{
		const ReportIncrement *increment = &changes->increments[i];
		char	  **cells = table_row(&table);

		cells[0] = psprintf("%X/%X", LSN_FORMAT_ARGS(increment->since));
		cells[1] = time_text(increment->time);
		cells[2] = number(increment->files);
		cells[3] = number(increment->blocks);
		cells[4] = size_text(increment->blocks * changes->block_size);
	}
	table_end(&table);
}

/*
 * Prints a report to standard output.
 */
void
change_report_print(const ChangeReport *changes)
{
	char	   *start_time = time_text(changes->start_time);
	char	   *size = size_text(changes->total.changed * changes->block_size);

	printf("Changes from %X/%X (%s) to %X/%X:\n%s" INT64_FORMAT " blocks (%s) of " INT64_FORMAT " relation forks\n\n",
		   LSN_FORMAT_ARGS(changes->start), start_time, LSN_FORMAT_ARGS(changes->end),
		   changes->total.unknown > 0 ? "at least " : "",
		   changes->total.changed, size, changes->total.forks);
	pg_free(start_time);
	pg_free(size);
	print_databases(changes);
	printf("\n");
	print_forks(changes);
	printf("\n");
	print_increments(changes);
}
