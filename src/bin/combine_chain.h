/*
 * combine_chain.h
 *		Backups, each made relative to the one before.
 */
#ifndef PTRACK_COMBINE_CHAIN_H
#define PTRACK_COMBINE_CHAIN_H

#include "access/xlogdefs.h"
#include "combine_input.h"
#include "manifest.h"

/* What backup_label says. */
typedef struct BackupLabel
{
	char	   *text;			/* malloc'd */
	XLogRecPtr	start;
	TimeLineID	start_tli;
	bool		incremental;
	XLogRecPtr	from;			/* start of the prior backup, if incremental */
	TimeLineID	from_tli;
} BackupLabel;

typedef struct Backup
{
	const char *dir;
	Input		input;
	const char *label_name;
	const char *control_name;
	const char *manifest_name;
	BackupLabel label;
	uint64		system_identifier;
	bool		checksums;		/* of pages */
} Backup;

typedef struct Chain
{
	int			count;
	Backup	   *backups;		/* oldest first */
	bool		full;			/* that one is a full backup */
	bool		resumed;		/* and was already changed, in place */
} Chain;

extern Chain *chain_create(int count, char *const *dirs);
extern void chain_read(Chain *chain);
extern const Backup *chain_last(const Chain *chain);
extern void label_read(BackupLabel *label, const Backup *backup);
extern void label_check(const Backup *backup, const ManifestFile *file);
extern void tablespace_map_check(const Backup *backup, const ManifestFile *file);
extern void control_read(Backup *backup);
extern char *label_of_result(const Chain *chain);

#endif							/* PTRACK_COMBINE_CHAIN_H */
