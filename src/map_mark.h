/*
 * map_mark.h
 *		Marks in the live map, inline: what is executed for each block that a WAL
 *		record names.
 */
#ifndef PTRACK_MAP_MARK_H
#define PTRACK_MAP_MARK_H

#include "port/atomics.h"
#include "compat.h"
#include "ptrack_map.h"
#include "storage/proc.h"

/* The bits of so many blocks. */
typedef struct MapPiece
{
	pg_atomic_uint32 words[PIECE_WORDS];
} MapPiece;

/*
 * The pieces that this process marked lately, so that the next mark of the
 * same piece needs no probing.  A cut makes all of them stale at once.
 */
typedef struct CachedPiece
{
	uint64		space;			/* tablespace and database, as they stand in a
								 * RelFileLocator */
	RelFileNumber relation;
	uint32		part;			/* the fork and the number of the piece, as in
								 * the low half of a key; 0: no piece */
	MapPiece   *piece;
	uint64		unused;			/* so that its place is a shift away */
} CachedPiece;

#define CACHED_PIECES_BITS	6

/* The sums of fingerprints of a process, for each half. */
typedef union RecordSums
{
	pg_atomic_uint64 half[2];
	char		pad[PG_CACHE_LINE_SIZE];
} RecordSums;

/* In shared memory: the running cycle, and the sums of each process. */
extern LIBRARY_ONLY pg_atomic_uint64 *map_cycle;
extern LIBRARY_ONLY RecordSums *map_sums;

/* The cycle that the following are of. */
extern LIBRARY_ONLY uint64 map_cached_cycle;
extern LIBRARY_ONLY pg_atomic_uint64 *map_cached_sum;
extern LIBRARY_ONLY CachedPiece map_cached_pieces[1 << CACHED_PIECES_BITS];

extern void map_begin_cycle(uint64 cycle);

/*
 * What this process has of the running cycle.  The cycle may not end until its use of
 * that does: a WAL insertion lock is held, or this is the process that cuts.
 */
static inline void
map_follow_cycle(void)
{
	uint64		cycle = pg_atomic_read_u64(map_cycle);

	if (unlikely(map_cached_cycle != cycle))
		map_begin_cycle(cycle);
}

/*
 * A record was inserted, is about to be replayed, or was read: adds its
 * fingerprint.  The order of records does not matter.
 */
static inline void
map_note_sum(uint64 fingerprint)
{
	map_follow_cycle();
	pg_atomic_write_u64(map_cached_sum, pg_atomic_read_u64(map_cached_sum) + fingerprint);
}

/* The only one that may hold that piece. */
static pg_attribute_always_inline CachedPiece *
map_cached_piece(RelFileNumber relation, uint32 part)
{
	return &map_cached_pieces[(relation + part) * 0x9e3779b1 >> (32 - CACHED_PIECES_BITS)];
}

/*
 * Is that block marked, as far as this process knows?  After map_follow_cycle().
 */
static pg_attribute_always_inline bool
map_is_marked(const char *rlocator, uint32 fork, BlockNumber block)
{
	uint32		part = change_part(fork, block / PIECE_BLOCKS);
	const CachedPiece *cached;
	RelFileNumber relation;
	uint64		space;

	memcpy(&relation, rlocator + offsetof(RelFileLocator, relNumber), sizeof(relation));
	cached = map_cached_piece(relation, part);
	memcpy(&space, rlocator, sizeof(space));
	return cached->part == part && cached->relation == relation && cached->space == space &&
		(pg_atomic_read_u32(&cached->piece->words[block / 32 % PIECE_WORDS]) &
		 (uint32) 1 << (block % 32)) != 0;
}

#endif							/* PTRACK_MAP_MARK_H */
