/*
 * crc32c_combine.c
 *		The CRC-32C of two pieces of data, from that of each.
 *
 * Appending a zero bit to the data multiplies its CRC, as a polynomial over
 * GF(2), by x modulo the CRC's polynomial.  So the CRC of the first piece followed
 * by as many zeros as the second is long is a product, and the CRC of both is its
 * sum with that of the second.  That holds for final values, too, since what the
 * initial and final inversions add cancels out.
 */
#include "postgres_fe.h"

#include "crc32c_combine.h"

/* x^32 modulo the polynomial; bits are reflected, so that x^0 is the highest. */
#define POLYNOMIAL	0x82F63B78

#define X_TO_0		0x80000000
#define X_TO_8		0x00800000

static uint32
multiply(uint32 a, uint32 b)
{
	uint32		product = 0;

	for (uint32 bit = X_TO_0; bit != 0; bit >>= 1)
	{
		if (a & bit)
			product ^= b;
		b = (b >> 1) ^ ((b & 1) ? POLYNOMIAL : 0);
	}
	return product;
}

/*
 * The CRC of data with the first CRC, followed by so many bytes with the second.
 */
pg_crc32c
crc32c_combine(pg_crc32c first, pg_crc32c second, uint64 second_len)
{
	uint32		shift = X_TO_0;
	uint32		power = X_TO_8;

	for (; second_len != 0; second_len >>= 1)
	{
		if (second_len & 1)
			shift = multiply(shift, power);
		power = multiply(power, power);
	}
	return multiply(first, shift) ^ second;
}
