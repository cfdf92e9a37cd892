/*
 * tar_input.h
 *		Reading backups that are tar archives.
 *
 * Such a backup is a directory of archives as pg_basebackup -Ft writes them:
 * base.tar, OID.tar of each tablespace, and pg_wal.tar; or one archive that has
 * everything, with the tablespaces' files in pg_tblspc/OID/.  Archives may be
 * compressed.
 *
 * Nothing here reports anything, or gives up for what an archive has in it: the
 * caller is told what is wrong.
 */
#ifndef PTRACK_TAR_INPUT_H
#define PTRACK_TAR_INPUT_H

#include <sys/stat.h>

/* An archive in a directory. */
typedef struct TarArchive
{
	char		name[64];		/* in the directory */
	char		stem[16];		/* the name up to ".tar" */
	char		prefix[32];		/* to its members' names; ends with '/' or is
								 * "" */
} TarArchive;

extern bool tar_archive_recognize(const char *name, TarArchive *archive);
extern char *tar_archives_list(const char *directory, TarArchive **archives, int *count);

typedef enum TarMemberType
{
	TAR_FILE,
	TAR_DIRECTORY,
	TAR_LINK,					/* symbolic, of a tablespace */
} TarMemberType;

typedef struct TarMember
{
	char		path[MAXPGPATH];	/* in the backup; safe, without '/' at its
									 * end */
	TarMemberType type;
	uint64		size;			/* bytes; of a file */
	mode_t		mode;			/* permissions */
	int64		modified;		/* seconds since 1970 */
	int64		data_offset;	/* of a file, where in the archive its data
								 * begin; -1: they are not there as they are */
	char		target[MAXPGPATH];	/* of a link */
} TarMember;

typedef enum TarResult
{
	TAR_BAD = -1,				/* tar_input_problem says what is wrong */
	TAR_END = 0,
	TAR_MEMBER = 1,
} TarResult;

typedef struct TarInput TarInput;

extern TarInput *tar_input_open(const char *path, const char *prefix);
extern TarInput *tar_input_open_memory(const void *data, size_t len, const char *prefix);
extern TarResult tar_input_next(TarInput *input, TarMember *member);
extern ssize_t tar_input_read(TarInput *input, void *data, size_t len);
extern const char *tar_input_problem(const TarInput *input);
extern void tar_input_close(TarInput *input);

#endif							/* PTRACK_TAR_INPUT_H */
