/*
 * change_report.h
 *		What changed on a server, for people: asked for, and shown.
 */
#ifndef PTRACK_CHANGE_REPORT_H
#define PTRACK_CHANGE_REPORT_H

#include "access/xlogdefs.h"
#include "connection.h"

/* Numbers that the server does not have are -1. */
#define NOT_KNOWN	(-1)

typedef struct ReportOptions
{
	ConnectionOptions connection;
	const char *html;			/* file to write a page to, - is standard
								 * output; NULL: print text */
	int			top;			/* forks to show */
	XLogRecPtr *since;			/* ascending */
	int			nsince;
} ReportOptions;

/*
 * A relation fork that changed; or, without a fork, all relations of a database in a
 * tablespace, or of the cluster; or the sum of a database's.
 *
 * Names are UTF-8 without control characters, but otherwise whatever their owners
 * made them.
 */
typedef struct ReportFork
{
	Oid			database;
	Oid			tablespace;
	Oid			relfilenode;
	char	   *database_name;	/* NULL: shared, or not known */
	char	   *relation;		/* NULL: not known */
	char	   *fork;			/* NULL: all of them */
	int64		forks;			/* how many this is the sum of */
	int64		unknown;		/* of them, those whose changed is not known */
	int64		changed;		/* blocks that WAL changed */
	int64		increment;		/* blocks that an increment takes */
	int64		blocks;			/* its length */
	int64		limit;
} ReportFork;

/* What changed of a fork within a step. */
typedef struct ReportCell
{
	int64		changed;		/* NOT_KNOWN: all may have; 0 also if nothing
								 * is known of it */
	int64		limit;
	int64		region_blocks;	/* a power of two */
	char	   *regions;		/* JSON: array of numbers of changed blocks;
								 * NULL: none */
} ReportCell;

/* A range between redo points. */
typedef struct ReportStep
{
	XLogRecPtr	start;
	XLogRecPtr	end;			/* invalid: now */
	int64		start_time;		/* seconds since 1970; 0: not known */
	int64		end_time;
	int64		changed;		/* blocks, of all forks */
	bool		coarse;			/* more may have */
	ReportCell *cells;			/* of the forks that are shown */
} ReportStep;

/* An increment relative to a backup that starts there. */
typedef struct ReportIncrement
{
	XLogRecPtr	since;
	int64		time;			/* seconds since 1970; 0: not known */
	int64		files;
	int64		blocks;
} ReportIncrement;

typedef struct ChangeReport
{
	char	   *server;			/* which one, and its version */
	int64		block_size;
	XLogRecPtr	start;
	XLogRecPtr	end;
	int64		start_time;
	int64		end_time;
	ReportFork	total;
	ReportFork *databases;		/* most changes first */
	int			ndatabases;
	ReportFork *forks;			/* most changes first */
	int			nforks;
	ReportStep *steps;			/* oldest first */
	int			nsteps;
	ReportIncrement *increments;	/* oldest first */
	int			nincrements;
} ChangeReport;

/* change_report_query.c */
extern void change_report_ask(ChangeReport *changes, ReportOptions *options);

/* change_report_text.c */
extern void change_report_print(const ChangeReport *changes);

/* change_report_html.c */
extern void change_report_page(PQExpBuffer page, const ChangeReport *changes);

/* change_report_names.c */
extern bool lsn_from_text(const char *text, XLogRecPtr *lsn);
extern char *clean_text(const char *text);
extern char *size_text(int64 bytes);
extern char *time_text(int64 seconds);
extern char *relation_text(const ReportFork *fork);
extern char *database_text(const ReportFork *fork);

#endif							/* PTRACK_CHANGE_REPORT_H */
