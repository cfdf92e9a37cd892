/*
 * crc32c_combine.h
 *		The CRC-32C of two pieces of data, from that of each.
 */
#ifndef PTRACK_CRC32C_COMBINE_H
#define PTRACK_CRC32C_COMBINE_H

#include "port/pg_crc32c.h"

extern pg_crc32c crc32c_combine(pg_crc32c first, pg_crc32c second, uint64 second_len);

#endif							/* PTRACK_CRC32C_COMBINE_H */
