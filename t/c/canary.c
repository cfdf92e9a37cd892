/*
 * canary.c
 *		Functions with errors, by which dev/sanitize sees that errors are seen.
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(read_beyond);
PG_FUNCTION_INFO_V1(shift_too_far);

/* Reads a byte beyond an allocation, and decides by it. */
Datum
read_beyond(PG_FUNCTION_ARGS)
{
	volatile int size = 10;
	volatile char *bytes = malloc(size);
	bool		answer = bytes[size] == 'x';

	free(unvolatize(char *, bytes));
	PG_RETURN_BOOL(answer);
}

/* Shifts a number of 32 bits by 40. */
Datum
shift_too_far(PG_FUNCTION_ARGS)
{
	volatile int bits = 40;

	PG_RETURN_BOOL(1 << bits == 0);
}
