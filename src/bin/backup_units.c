/*
 * backup_units.c
 *		What the connections of a backup take from the server at a time, the largest
 *		first, so that none is idle in the end.
 */
#include "postgres_fe.h"

#include <pthread.h>

#include "backup_units.h"
#include "paths.h"

/* Files of more than two of these are taken in ranges of that size. */
#define RANGE_BYTES		(128 * 1024 * 1024)

/* How much goes into a unit of several files, at most. */
#define UNIT_BYTES		(4 * 1024 * 1024)
#define UNIT_FILES		256
#define UNIT_MAP_BYTES	(256 * 1024)

struct LargeFile
{
	BackupFile *file;
	int			next;			/* of its parts */
};

struct Units
{
	Unit	   *units;			/* by falling cost */
	int			nunits;
	int			room;
	LargeFile  *large;			/* by falling size */
	int			nlarge;
	BackupFile **order;			/* files of units */

	pthread_mutex_t lock;		/* for what follows, and for parts of large
								 * files */
	int			next;			/* unit */
	int			next_large;		/* file that no connection has taken */
};

/*
 * What there is
 */

static void
add_unit(Units *units, BackupFile **files, int nfiles, TakeMethod method, uint64 cost)
{
	if (units->nunits == units->room)
	{
		units->room = Max(256, units->room * 2);
		units->units = pg_realloc(units->units, units->room * sizeof(Unit));
	}
	units->units[units->nunits++] = (Unit)
	{
		.files = files,.nfiles = nfiles,.part = -1,.method = method,.cost = cost
	};
}

/* Cuts a large file into ranges. */
static void
add_ranges(Units *units, BackupFile *file)
{
	uint64		size = (uint64) file->size;

	file->nparts = (int) ((size + RANGE_BYTES - 1) / RANGE_BYTES);
	file->parts = pg_malloc0(file->nparts * sizeof(FilePart));
	atomic_init(&file->parts_left, file->nparts);
	for (int i = 0; i < file->nparts; i++)
	{
		FilePart   *part = &file->parts[i];

		part->start = (uint64) i * RANGE_BYTES;
		part->length = Min(size - part->start, RANGE_BYTES);
	}
	units->large[units->nlarge++] = (LargeFile)
	{
		.file = file
	};
}

static uint64
cost_of(const BackupFile *file)
{
	switch (file->method)
	{
		case TAKE_WHOLE:
			return file->size;
		case TAKE_BLOCKS:
			return (uint64) file->changed * BLCKSZ;
		case TAKE_NOTHING:
			break;
	}
	return 0;
}

/* Puts files of one method together, as many as go into a unit each. */
static void
add_batches(Units *units, BackupFile **files, int count)
{
	int			first = 0;
	uint64		cost = 0;
	uint64		maps = 0;

	for (int i = 0; i < count; i++)
	{
		cost += cost_of(files[i]);
		maps += files[i]->map_len;
		if (i + 1 < count && cost + cost_of(files[i + 1]) <= UNIT_BYTES &&
			maps + files[i + 1]->map_len <= UNIT_MAP_BYTES && i + 1 - first < UNIT_FILES)
			continue;
		add_unit(units, files + first, i + 1 - first, files[first]->method, cost);
		first = i + 1;
		cost = maps = 0;
	}
}

/* SHA checksums are of a file from its beginning to its end, and so are archives. */
static bool
can_be_split(const BackupFile *file, const BackupOptions *options)
{
	return file->size > 2 * (int64) RANGE_BYTES && !options->as_archives &&
		(options->checksum == CHECKSUM_TYPE_CRC32C || options->checksum == CHECKSUM_TYPE_NONE);
}

static int
unit_cmp(const void *a, const void *b)
{
	uint64		x = ((const Unit *) a)->cost;
	uint64		y = ((const Unit *) b)->cost;

	return x > y ? -1 : x < y;
}

static int
large_cmp(const void *a, const void *b)
{
	int64		x = ((const LargeFile *) a)->file->size;
	int64		y = ((const LargeFile *) b)->file->size;

	return x > y ? -1 : x < y;
}

/* A file that is there, or was, from a backup that was interrupted. */
static void
add_resumed(Units *units, BackupFile *file)
{
	/* It stands where nothing else is put. */
	BackupFile **own = pg_malloc(sizeof(BackupFile *));

	*own = file;
	add_unit(units, own, 1, file->method, (uint64) file->changed_since * BLCKSZ + file->size / 4);
}

/*
 * All units of a plan's files but pg_control, which is the last of all.
 */
Units *
units_make(BackupPlan *plan, const BackupOptions *options)
{
	Units	   *units = pg_malloc0(sizeof(Units));
	BackupFile **next = units->order = pg_malloc(Max(plan->nfiles, 1) * sizeof(BackupFile *));

	pthread_mutex_init(&units->lock, NULL);
	units->large = pg_malloc(Max(plan->nfiles, 1) * sizeof(LargeFile));
	for (TakeMethod method = TAKE_WHOLE; method <= TAKE_NOTHING; method++)
	{
		BackupFile **first = next;

		for (int i = 0; i < plan->nfiles; i++)
		{
			BackupFile *file = &plan->files[i];

			if (file->method != method || strcmp(file->path, CONTROL_NAME) == 0)
				continue;
			if (file->resume)
				add_resumed(units, file);
			else if (method == TAKE_WHOLE && can_be_split(file, options))
				add_ranges(units, file);
			else
				*next++ = file;
		}
		add_batches(units, first, (int) (next - first));
	}
	if (units->nunits > 0)
		qsort(units->units, units->nunits, sizeof(Unit), unit_cmp);
	if (units->nlarge > 0)
		qsort(units->large, units->nlarge, sizeof(LargeFile), large_cmp);
	return units;
}

/*
 * What is next
 */

static int
parts_left(const LargeFile *large)
{
	return large->file->nparts - large->next;
}

/* The largest file that no connection has taken, unless something else costs more. */
static LargeFile *
take_large(Units *units)
{
	uint64		other = units->next < units->nunits ? units->units[units->next].cost : 0;

	if (units->next_large == units->nlarge ||
		(uint64) units->large[units->next_large].file->size < other)
		return NULL;
	return &units->large[units->next_large++];
}

/* The file with most ranges left; NULL: none has any. */
static LargeFile *
help_large(const Units *units)
{
	LargeFile  *most = NULL;

	for (int i = 0; i < units->nlarge; i++)
	{
		if (parts_left(&units->large[i]) > (most ? parts_left(most) : 0))
			most = &units->large[i];
	}
	return most;
}

/*
 * The next unit for a connection; false if nothing is left.  own: the large file
 * that it takes ranges of, NULL at first.  Others take some only if nothing else is
 * left, for those that write one file wait for each other.
 */
bool
units_next(Units *units, LargeFile **own, Unit *unit)
{
	bool		found = true;

	pthread_mutex_lock(&units->lock);
	if (*own == NULL || parts_left(*own) == 0)
		*own = take_large(units);
	if (*own == NULL && units->next < units->nunits)
		*unit = units->units[units->next++];
	else
	{
		LargeFile  *large = *own ? *own : help_large(units);

		found = large != NULL;
		if (found)
			*unit = (Unit)
			{
				.files = &large->file,.nfiles = 1,.part = large->next++,.method = TAKE_WHOLE
			};
	}
	pthread_mutex_unlock(&units->lock);
	return found;
}

void
units_free(Units *units)
{
	pthread_mutex_destroy(&units->lock);
	pg_free(units->units);
	pg_free(units->large);
	pg_free(units->order);
	pg_free(units);
}
