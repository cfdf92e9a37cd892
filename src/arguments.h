/*
 * arguments.h
 *		Arguments of the SQL functions.
 */
#ifndef PTRACK_ARGUMENTS_H
#define PTRACK_ARGUMENTS_H

#include "access/xlogdefs.h"
#include "common/summary_format.h"
#include "fmgr.h"

/*
 * ERROR if the argument of that number, which has that name, is null.
 */
static inline void
require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

extern XLogRecPtr lsn_argument(FunctionCallInfo fcinfo, int n, const char *name);
extern XLogRecPtr end_argument(FunctionCallInfo fcinfo, int n, XLogRecPtr start);
extern const Lineage *lineage_argument(FunctionCallInfo fcinfo, int n);

#endif							/* PTRACK_ARGUMENTS_H */
