/*
 * map_bench.c
 *		The live map and the summary format outside of a server.
 *
 * Includes the map's sources and stands in for the little that it needs of the
 * server, so that cycles of a size that no test machine could change for real
 * can be measured.  Marks go the way that they go in a server.
 *
 * usage: map_bench MAP_MEGABYTES RELATIONS BLOCKS_PER_RELATION EVERY [ROUNDS]
 *
 * marks every EVERYth block of that many relations, ROUNDS times (1), then
 * prints one line: blocks marked, ns per mark, bytes of map in use, overflows,
 * ms for a snapshot, ms to write the summary, its bytes.
 */
#include "../src/ptrack_map.c"
#include "../src/map_mark.c"
#include "../src/map_cycles.c"
#include "../src/map_snapshot.c"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/summary_format.h"

/*
 * The server's side.
 */

MemoryContext CurrentMemoryContext;
int			MaxBackends = 100;
ProcNumber	MyProcNumber = 0;

void *
ShmemInitStruct(const char *name, Size size, bool *found)
{
	*found = false;
	return calloc(1, size);
}

bool
LWLockAcquire(LWLock *lock, LWLockMode mode)
{
	return true;
}

void
LWLockRelease(LWLock *lock)
{
}

Size
add_size(Size a, Size b)
{
	return a + b;
}

Size
mul_size(Size a, Size b)
{
	return a * b;
}

void *
MemoryContextAllocExtended(MemoryContext context, Size size, int flags)
{
	return malloc(size);
}

void
pfree(void *pointer)
{
	free(pointer);
}

#undef qsort

void
pg_qsort(void *base, size_t n, size_t size, int (*cmp) (const void *, const void *))
{
	qsort(base, n, size, cmp);
}

bool
errstart(int elevel, const char *domain)
{
	abort();
}

bool
errstart_cold(int elevel, const char *domain)
{
	abort();
}

void
errfinish(const char *file, int line, const char *function)
{
	abort();
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *fmt,...)
{
	return 0;
}

int
errdetail(const char *fmt,...)
{
	return 0;
}

/*
 * The measurement.
 */

static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static bool
count_bytes(void *arg, const void *data, size_t len)
{
	*(uint64 *) arg += len;
	return true;
}

/* As the insert hook does: what is known to be marked needs no call.  Returns the number of marks. */
static uint64
mark_blocks(Oid relations, uint64 blocks, uint64 every)
{
	uint64		marks = 0;

	for (Oid rel = 0; rel < relations; rel++)
	{
		RelFileLocator rlocator = {1663, 5, 16384 + rel};

		map_follow_cycle();
		for (uint64 block = 0; block < blocks; block += every, marks++)
			if (!map_is_marked((const char *) &rlocator, MAIN_FORKNUM, (BlockNumber) block))
				map_effects.mark(map_effects.arg, &rlocator, MAIN_FORKNUM, (BlockNumber) block);
	}
	return marks;
}

int
main(int argc, char **argv)
{
	static SummaryWriter writer;
	MapCut		cut = {.redo = 2};
	MapSnapshot snapshot;
	MapStats	stats;
	SummaryHeader header = {0};
	ChangeItem	item;
	uint64		bytes = 0;
	uint64		marks = 0;
	Oid			relations;
	uint64		blocks,
				every;
	int			rounds;
	double		t0,
				t1,
				t2,
				t3;

	if (argc != 5 && argc != 6)
	{
		fprintf(stderr, "usage: map_bench MAP_MEGABYTES RELATIONS BLOCKS_PER_RELATION EVERY [ROUNDS]\n");
		return 1;
	}
	relations = (Oid) atoi(argv[2]);
	blocks = strtoull(argv[3], NULL, 10);
	every = strtoull(argv[4], NULL, 10);
	rounds = argc == 6 ? atoi(argv[5]) : 1;
	map_shmem_init(atoi(argv[1]), NULL, NULL);
	map_note_start(1);

	t0 = now_ms();
	for (int round = 0; round < rounds; round++)
		marks += mark_blocks(relations, blocks, every);
	t1 = now_ms();
	map_get_stats(&stats);
	map_cut(1, &cut, true);
	if (!map_snapshot_frozen(&snapshot))
		abort();
	t2 = now_ms();
	summary_write_begin(&writer, count_bytes, &bytes, &header);
	while (map_snapshot_next(&snapshot, &item))
		summary_write_item(&writer, &item);
	if (!summary_write_end(&writer))
		abort();
	t3 = now_ms();
	printf("%llu %.1f %llu %llu %.1f %.1f %llu\n", (unsigned long long) marks,
		   (t1 - t0) * 1e6 / marks, (unsigned long long) stats.used,
		   (unsigned long long) stats.overflows, t2 - t1, t3 - t2,
		   (unsigned long long) bytes);
	return 0;
}
