/*
 * summary_print.h
 *		Ways to print a change summary.
 */
#ifndef PTRACK_SUMMARY_PRINT_H
#define PTRACK_SUMMARY_PRINT_H

#include "common/summary_format.h"

typedef struct SummaryPrinter SummaryPrinter;

/* Called in this order for each summary; any may be NULL. */
typedef struct SummaryForm
{
	const char *name;
	void		(*begin) (SummaryPrinter *printer, const SummaryHeader *header);
	void		(*point) (SummaryPrinter *printer, const RedoPoint *point);
	void		(*entry) (SummaryPrinter *printer, const ChangeItem *entry);
	void		(*run) (SummaryPrinter *printer, BlockNumber first, BlockNumber last);
	void		(*end_entry) (SummaryPrinter *printer);
	void		(*end) (SummaryPrinter *printer, const char *problem);
} SummaryForm;

struct SummaryPrinter
{
	const SummaryForm *form;
	bool		individual;		/* a run is one block */
	bool		quiet;			/* no entries */
	const char *file;			/* its name */
	bool		begun;
	uint64		points;
	uint64		entries;
	uint64		blocks;
	ChangeItem	entry;			/* the latest, */
	uint64		runs;			/* and how many of its runs were printed */
	bool		any_run;		/* one is not printed yet: */
	BlockNumber first;
	BlockNumber last;
};

extern const SummaryForm *summary_form(const char *name);
extern void summary_print_begin(SummaryPrinter *printer, const char *file,
								const SummaryHeader *header);
extern void summary_print_point(SummaryPrinter *printer, const RedoPoint *point);
extern void summary_print_item(SummaryPrinter *printer, const ChangeItem *item);
extern void summary_print_end(SummaryPrinter *printer, const char *problem);

#endif							/* PTRACK_SUMMARY_PRINT_H */
