/*
 * chain.h
 *		Which summaries make up what is known of this server's past.
 */
#ifndef PTRACK_CHAIN_H
#define PTRACK_CHAIN_H

#include "lib/binaryheap.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"
#include "summary_store.h"

/* A summary of the store, as far as it was looked at. */
typedef struct ChainFile
{
	StoredSummary summary;
	bool		read;			/* verdict and info are set */
	StoreVerdict verdict;
	SummaryInfo info;
	XLogRecPtr	attached;		/* it is known to tell of this history from
								 * its start up to here; invalid: not at all */
	int			above;			/* the point that it was attached at */
	int			nleft;			/* so many of its redo points the search has
								 * not passed; 0 if it is no good */
	slist_node	waiting;
} ChainFile;

/* A redo point from which on everything is known. */
typedef struct ChainPoint
{
	XLogRecPtr	lsn;
	Lineage		lineage;
	bool		any_lineage;	/* lineage is not set: nothing to compare with */
	bool		done;			/* summaries that lead on from it were looked
								 * for */
	int			file;			/* the summary that starts here; -1: none does */
	int			above;			/* the point that it was attached at */
} ChainPoint;

typedef struct Chain
{
	List	   *history;		/* timelines; NIL: lineage is enough */
	bool		finest;			/* go by many short summaries, not by few long
								 * ones */
	ChainFile  *files;			/* ascending by end, then by start */
	int			nfiles;
	int			nbefore;		/* so many end before the lowest point */
	slist_head	waiting;		/* those of the others that may still fit, in
								 * the same order */
	binaryheap *frontier;		/* those attached, where the search goes on */
	ChainPoint *points;			/* descending; only the last may not be done */
	int			npoints;
	XLogRecPtr	rejected;		/* where a summary ends that was not taken;
								 * the lowest such */
	bool		vanished;		/* a summary that was listed is gone */
} Chain;

extern void chain_begin(Chain *chain, const StoreList *list, List *history,
						XLogRecPtr live, const Lineage *lineage, bool finest);
extern int	chain_reach(Chain *chain, XLogRecPtr start);
extern int	chain_lowest(const Chain *chain);
extern bool chain_over_gap(Chain *chain);
extern bool chain_find_lineage(const Chain *chain, XLogRecPtr lsn, Lineage *lineage);

#endif							/* PTRACK_CHAIN_H */
