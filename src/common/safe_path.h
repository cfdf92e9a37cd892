/*
 * safe_path.h
 *		Which names of files, from elsewhere, may be used.
 */
#ifndef PTRACK_SAFE_PATH_H
#define PTRACK_SAFE_PATH_H

/*
 * Can a file of that name be nowhere else than in the directory that the name is
 * relative to?  Symbolic links are another matter.
 */
static inline bool
path_is_safe(const char *path)
{
	size_t		len = 0;

	if (path[0] == '\0' || strlen(path) >= MAXPGPATH)
		return false;
	for (const char *c = path;; c++)
	{
		if (*c != '/' && *c != '\0')
		{
			len++;
			continue;
		}
		if (len == 0 || (len == 1 && c[-1] == '.') || (len == 2 && c[-1] == '.' && c[-2] == '.'))
			return false;
		len = 0;
		if (*c == '\0')
			return true;
	}
}

#endif							/* PTRACK_SAFE_PATH_H */
