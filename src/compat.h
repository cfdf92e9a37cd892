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

/*
 * Is there a WAL record at the redo point of every checkpoint?
 */
#define REDO_POINTS_IN_WAL	(PG_VERSION_NUM >= 170000)

/*
 * Replication slots: 17 added failover and synchronization to what is to be said
 * of a new one, 18 whether an invalidated one may be acquired.
 */
#if PG_VERSION_NUM >= 170000
#define replication_slot_create(name) \
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false, false, false)
#else
#define replication_slot_create(name) \
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false)
#endif
#if PG_VERSION_NUM >= 180000
#define replication_slot_acquire(name)	ReplicationSlotAcquire(name, true, true)
#else
#define replication_slot_acquire(name)	ReplicationSlotAcquire(name, true)
#endif

#endif							/* PTRACK_COMPAT_H */
