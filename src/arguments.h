/*
 * arguments.h
 *		Arguments of the SQL functions.
 */
#ifndef PTRACK_ARGUMENTS_H
#define PTRACK_ARGUMENTS_H

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

#endif							/* PTRACK_ARGUMENTS_H */
