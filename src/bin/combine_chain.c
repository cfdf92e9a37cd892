/*
 * combine_chain.c
 *		Backups, each made relative to the one before: do they fit together?
 */
#include "postgres_fe.h"

#include <unistd.h>

#include "catalog/pg_control.h"
#include "combine_chain.h"
#include "paths.h"
#include "port/pg_crc32c.h"
#include "pqexpbuffer.h"
#include "report.h"

#define START_LSN	"START WAL LOCATION: "
#define START_TLI	"START TIMELINE: "
#define FROM_LSN	"INCREMENTAL FROM LSN: "
#define FROM_TLI	"INCREMENTAL FROM TLI: "

/* What was found in a label. */
typedef struct LabelLines
{
	bool		start_lsn;
	bool		start_tli;
	bool		from_lsn;
	bool		from_tli;
} LabelLines;

const Backup *
chain_last(const Chain *chain)
{
	return &chain->backups[chain->count - 1];
}

/*
 * A chain of backups, oldest first, in which nothing has been looked at but what
 * they consist of.
 */
Chain *
chain_create(int count, char *const *dirs)
{
	Chain	   *chain = pg_malloc0(sizeof(Chain));

	chain->count = count;
	chain->backups = pg_malloc0(count * sizeof(Backup));
	for (int i = 0; i < count; i++)
	{
		Backup	   *backup = &chain->backups[i];
		char	   *dir = pg_strdup(dirs[i]);

		canonicalize_path(dir);
		backup->dir = dir;
		backup->input.dir = dir;
		input_find(&backup->input);
		backup->label_name = LABEL_NAME;
		backup->control_name = CONTROL_NAME;
		backup->manifest_name = MANIFEST_NAME;
	}
	return chain;
}

/*
 * Labels
 */

/* The rest of a line that begins with that, or NULL. */
static const char *
after(const char *line, const char *beginning)
{
	size_t		len = strlen(beginning);

	return strncmp(line, beginning, len) == 0 ? line + len : NULL;
}

/* Takes an LSN off a line that begins so, and notes that it was there. */
static bool
take_lsn(const char *line, const char *beginning, XLogRecPtr *lsn, bool *seen, bool *bad)
{
	const char *value = after(line, beginning);
	uint32		high;
	uint32		low;

	if (value == NULL)
		return false;
	if (*seen || sscanf(value, "%8X/%8X", &high, &low) != 2)
		*bad = true;
	else
		*lsn = (uint64) high << 32 | low;
	*seen = true;
	return true;
}

static bool
take_tli(const char *line, const char *beginning, TimeLineID *tli, bool *seen, bool *bad)
{
	const char *value = after(line, beginning);
	char	   *end;
	unsigned long number;

	if (value == NULL)
		return false;
	number = strtoul(value, &end, 10);
	if (*seen || *value < '0' || *value > '9' || *end != '\n' ||
		number == 0 || number > PG_UINT32_MAX)
		*bad = true;
	*tli = (TimeLineID) number;
	*seen = true;
	return true;
}

/* Where the next line begins, or NULL. */
static const char *
next_line(const char *line)
{
	const char *newline = strchr(line, '\n');

	return newline == NULL || newline[1] == '\0' ? NULL : newline + 1;
}

/*
 * Reads a backup's label.
 */
void
label_read(BackupLabel *label, const Backup *backup)
{
	LabelLines	seen = {0};
	bool		bad = false;
	size_t		len;

	memset(label, 0, sizeof(*label));
	label->text = input_read(&backup->input, backup->label_name, &len);
	for (const char *line = label->text; line != NULL; line = next_line(line))
	{
		if (!take_lsn(line, START_LSN, &label->start, &seen.start_lsn, &bad) &&
			!take_tli(line, START_TLI, &label->start_tli, &seen.start_tli, &bad) &&
			!take_lsn(line, FROM_LSN, &label->from, &seen.from_lsn, &bad))
			take_tli(line, FROM_TLI, &label->from_tli, &seen.from_tli, &bad);
	}
	if (bad || strlen(label->text) != len || !seen.start_lsn || !seen.start_tli ||
		seen.from_lsn != seen.from_tli)
		fatal("invalid data in file \"%s/%s\"", backup->dir, backup->label_name);
	label->incremental = seen.from_lsn;
}

/*
 * Compares a small file that was read with what its manifest says of it.  The result's
 * is made of it, and has a new checksum.
 */
static void
check_text(const Backup *backup, const char *name, const char *text, size_t len,
		   const ManifestFile *file)
{
	pg_checksum_context sum;
	uint8		computed[PG_CHECKSUM_MAX_LENGTH];

	if (file->checksum_len == 0)
		return;
	if (pg_checksum_init(&sum, file->checksum_type) < 0 ||
		pg_checksum_update(&sum, (const uint8 *) text, len) < 0 ||
		pg_checksum_final(&sum, computed) != file->checksum_len)
		fatal("could not compute checksum of file \"%s/%s\"", backup->dir, name);
	if (memcmp(computed, file->checksum, file->checksum_len) != 0)
		fatal("checksum of file \"%s/%s\" is not that of its manifest", backup->dir, name);
}

/*
 * Compares a label that was read with its manifest.
 */
void
label_check(const Backup *backup, const ManifestFile *file)
{
	const char *text = backup->label.text;

	check_text(backup, backup->label_name, text, strlen(text), file);
}

/*
 * The same for what says where the tablespaces of archives are.
 */
void
tablespace_map_check(const Backup *backup, const ManifestFile *file)
{
	size_t		len;
	char	   *text = input_read(&backup->input, TABLESPACE_MAP_NAME, &len);

	check_text(backup, TABLESPACE_MAP_NAME, text, len, file);
	pg_free(text);
}

/*
 * The label of the result, in malloc'd memory: it is the last backup, relative to
 * what the first one is relative to, if that is an incremental one.
 */
char *
label_of_result(const Chain *chain)
{
	const BackupLabel *first = &chain->backups[0].label;
	PQExpBufferData text;

	initPQExpBuffer(&text);
	for (const char *line = chain_last(chain)->label.text; line != NULL; line = next_line(line))
	{
		bool		from_lsn = after(line, FROM_LSN) != NULL;
		bool		from_tli = after(line, FROM_TLI) != NULL;

		if (!from_lsn && !from_tli)
			appendPQExpBuffer(&text, "%.*s\n", (int) strcspn(line, "\n"), line);
		else if (from_lsn && first->incremental)
			appendPQExpBuffer(&text, FROM_LSN "%X/%X\n", LSN_FORMAT_ARGS(first->from));
		else if (from_tli && first->incremental)
			appendPQExpBuffer(&text, FROM_TLI "%u\n", first->from_tli);
	}
	if (PQExpBufferDataBroken(text))
		fatal("out of memory");
	return text.data;
}

/*
 * Control files
 */

static void
check_control(const Backup *backup, const ControlFileData *control)
{
	const char *dir = backup->dir;
	const char *name = backup->control_name;
	pg_crc32c	crc;

	/* Where the CRC is depends on the version. */
	if (control->pg_control_version != PG_CONTROL_VERSION)
		fatal("file \"%s/%s\" has version %u, but this program is built for version %u",
			  dir, name, control->pg_control_version, PG_CONTROL_VERSION);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, control, offsetof(ControlFileData, crc));
	FIN_CRC32C(crc);
	if (!EQ_CRC32C(crc, control->crc))
		fatal("CRC of file \"%s/%s\" is incorrect", dir, name);
	if (control->blcksz != BLCKSZ || control->relseg_size != RELSEG_SIZE)
		fatal("backup \"%s\" has blocks of %u bytes and segments of %u blocks, but this program is built for %u and %u",
			  dir, control->blcksz, control->relseg_size, BLCKSZ, RELSEG_SIZE);
}

/*
 * Reads a control file.
 */
void
control_read(Backup *backup)
{
	ControlFileData control;
	size_t		len;
	char	   *bytes = input_read(&backup->input, backup->control_name, &len);

	if (len != PG_CONTROL_FILE_SIZE)
		fatal("file \"%s/%s\" has %zu bytes, and not %d", backup->dir, backup->control_name,
			  len, PG_CONTROL_FILE_SIZE);
	memcpy(&control, bytes, sizeof(control));
	check_control(backup, &control);
	backup->system_identifier = control.system_identifier;
	backup->checksums = control.data_checksum_version != 0;
	pg_free(bytes);
}

/*
 * The chain
 */

/* Is this backup relative to that one? */
static void
check_link(const Backup *prior, const Backup *backup)
{
	const BackupLabel *label = &backup->label;

	if (backup->system_identifier != prior->system_identifier)
		fatal("backup \"%s\" has system identifier " UINT64_FORMAT ", but backup \"%s\" has " UINT64_FORMAT,
			  backup->dir, backup->system_identifier, prior->dir, prior->system_identifier);
	if (!label->incremental)
		fatal("backup \"%s\" is a full backup, but only the first one can be", backup->dir);
	if (label->from != prior->label.start || label->from_tli != prior->label.start_tli)
	{
		report_error("backup \"%s\" is not relative to backup \"%s\"", backup->dir, prior->dir);
		report_detail("The one is relative to a backup that starts at %X/%X on timeline %u, the other starts at %X/%X on timeline %u.",
					  LSN_FORMAT_ARGS(label->from), label->from_tli,
					  LSN_FORMAT_ARGS(prior->label.start), prior->label.start_tli);
		give_up();
	}
	if (label->start <= label->from)
		fatal("backup \"%s\" does not start after the backup that it is relative to", backup->dir);
}

/*
 * Reads labels and control files, and checks that they fit together.
 */
void
chain_read(Chain *chain)
{
	for (int i = 0; i < chain->count; i++)
	{
		Backup	   *backup = &chain->backups[i];

		label_read(&backup->label, backup);
		control_read(backup);
		if (i > 0)
			check_link(backup - 1, backup);
	}
	chain->full = !chain->backups[0].label.incremental;
}
