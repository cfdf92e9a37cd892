/*
 * compat.h
 *		What differs between the major versions of PostgreSQL.
 *
 * All version tests live here.  The rest of the code is written against the
 * newest interface and includes this file.
 */
#ifndef PTRACK_COMPAT_H
#define PTRACK_COMPAT_H

#if PG_VERSION_NUM < 170000 || PG_VERSION_NUM >= 180000
#error "ptrack supports PostgreSQL 17"
#endif

#ifdef PG_HAVE_ATOMIC_U64_SIMULATION
#error "ptrack needs native 64-bit atomic operations: simulated ones take locks"
#endif

#endif							/* PTRACK_COMPAT_H */
