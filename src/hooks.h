/*
 * hooks.h
 *		How ptrack is attached to the server, and what follows for callers.
 */
#ifndef PTRACK_HOOKS_H
#define PTRACK_HOOKS_H

extern bool tracking_disabled(void);
extern void tracking_require(void);

#endif							/* PTRACK_HOOKS_H */
