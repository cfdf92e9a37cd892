/*
 * arguments.c
 *		Arguments of the SQL functions.
 */
#include "postgres.h"

#include "compat.h"

#include "arguments.h"
#include "utils/pg_lsn.h"
#include "utils/uuid.h"

/*
 * The LSN that is the argument of that number, which has that name.
 */
XLogRecPtr
lsn_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	require_argument(fcinfo, n, name);
	return PG_GETARG_LSN(n);
}

/*
 * The end of a range that starts there: the argument of that number.  Invalid
 * if it is null: there is no end.
 */
XLogRecPtr
end_argument(FunctionCallInfo fcinfo, int n, XLogRecPtr start)
{
	XLogRecPtr	end;

	if (PG_ARGISNULL(n))
		return InvalidXLogRecPtr;
	end = PG_GETARG_LSN(n);
	if (end < start)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("end LSN %X/%X is before start LSN %X/%X",
						LSN_FORMAT_ARGS(end), LSN_FORMAT_ARGS(start))));
	return end;
}

/*
 * The lineage that is the argument of that number, in the forms of functions
 * that have it; else NULL.
 */
const Lineage *
lineage_argument(FunctionCallInfo fcinfo, int n)
{
	StaticAssertDecl(sizeof(Lineage) == sizeof(pg_uuid_t), "a lineage is a UUID");

	if (PG_NARGS() <= n)
		return NULL;
	require_argument(fcinfo, n, "lineage");
	return (const Lineage *) PG_GETARG_UUID_P(n);
}
