/*
 * backup_output.c
 *		Writing files of a backup that do not come through backup_fetch.c.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <time.h>

#include "backup_archives.h"
#include "backup_output.h"

/*
 * Writes a file that does not exist, to the directory or an archive.  Any worker may.
 */
void
output_bytes(const BackupOptions *options, const char *path, const void *bytes, size_t len)
{
	if (options->as_archives)
	{
		ArchiveFile *file = archives_begin(path, len, (int64) time(NULL));

		archives_write(file, bytes, len);
		archives_end(file);
	}
	else
	{
		int			fd = target_open(path, O_WRONLY | O_CREAT | O_EXCL);

		target_write(fd, path, bytes, len, 0);
		target_close(fd, path);
	}
}
