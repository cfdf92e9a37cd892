/*
 * change_item.h
 *		What a set of changes is made of, wherever it is kept.
 *
 * A set of changes is a sequence of items in ascending order of their keys.
 * A relation fork is one entry item, which carries its limit block, followed
 * by one piece item for each run of PIECE_BLOCKS blocks that holds a changed
 * one.  Two sets are united by merging their sequences, so that no union ever
 * needs more memory than one item for each input.
 *
 * Two entries stand for more than a relation fork:
 *
 * - relation number 0: every relation of that database in that tablespace is
 *   new ("reset"); the limit block is 0.
 * - tablespace, database and relation number 0: nothing is known but that
 *   something changed, so that everything counts as changed.
 *
 * This file and its neighbours are compiled for the server and for clients.
 */
#ifndef PTRACK_CHANGE_ITEM_H
#define PTRACK_CHANGE_ITEM_H

#include "compat.h"
#include "storage/block.h"

#define PIECE_BLOCKS	1024
#define PIECE_WORDS		(PIECE_BLOCKS / 32)

/* The highest piece number, of a fork of the greatest length possible. */
#define MAX_PIECE		(MaxBlockNumber / PIECE_BLOCKS)

/*
 * The key, in two words whose numerical order is the order of items.
 *
 * where: tablespace OID << 32 | database OID
 * what:  relation number << 32 | fork << 24 | (0: entry, else 1 + piece)
 */
typedef struct ChangeKey
{
	uint64		where;
	uint64		what;
} ChangeKey;

typedef struct ChangeItem
{
	ChangeKey	key;
	BlockNumber limit;			/* of an entry; InvalidBlockNumber: none */
	uint32		bits[PIECE_WORDS];	/* of a piece: bit b of word w is its
									 * block 32 * w + b */
} ChangeItem;

#define CHANGE_EVERYTHING_WHERE		UINT64CONST(0)
#define CHANGE_RESET_WHAT			UINT64CONST(0)

static inline uint64
change_where(Oid tablespace, Oid database)
{
	return (uint64) tablespace << 32 | database;
}

static inline uint64
change_entry(RelFileNumber relation, ForkNumber fork)
{
	return (uint64) relation << 32 | (uint64) fork << 24;
}

/* The low half of change_piece(): not 0. */
static inline uint32
change_part(uint32 fork, uint32 piece)
{
	return fork << 24 | (piece + 1);
}

static inline uint64
change_piece(RelFileNumber relation, ForkNumber fork, uint32 piece)
{
	return (uint64) relation << 32 | change_part(fork, piece);
}

static inline Oid
change_tablespace(const ChangeKey *key)
{
	return (Oid) (key->where >> 32);
}

static inline Oid
change_database(const ChangeKey *key)
{
	return (Oid) key->where;
}

static inline RelFileNumber
change_relation(const ChangeKey *key)
{
	return (RelFileNumber) (key->what >> 32);
}

static inline ForkNumber
change_fork(const ChangeKey *key)
{
	return (ForkNumber) (key->what >> 24 & 0xff);
}

static inline bool
change_is_entry(const ChangeKey *key)
{
	return (key->what & 0xffffff) == 0;
}

/* Only for a piece: the first block that it covers. */
static inline BlockNumber
change_first_block(const ChangeKey *key)
{
	return ((uint32) (key->what & 0xffffff) - 1) * PIECE_BLOCKS;
}

/* The key of the entry that an item belongs to; an entry's is its own. */
static inline ChangeKey
change_entry_key(const ChangeKey *key)
{
	ChangeKey	entry = {key->where, key->what & ~UINT64CONST(0xffffff)};

	return entry;
}

static inline int
change_key_cmp(const ChangeKey *a, const ChangeKey *b)
{
	if (a->where != b->where)
		return a->where < b->where ? -1 : 1;
	if (a->what != b->what)
		return a->what < b->what ? -1 : 1;
	return 0;
}

#endif							/* PTRACK_CHANGE_ITEM_H */
