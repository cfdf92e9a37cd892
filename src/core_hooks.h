/*
 * core_hooks.h
 *		The hooks that the core patch adds to the server.
 *
 * They are looked up by name when the library loads, so that one library file
 * serves patched and stock servers; hence these declarations, which repeat
 * those of the patch, and no #include of its header.  patches/README.md says
 * what each hook is for and what is held when it is called.
 */
#ifndef PTRACK_CORE_HOOKS_H
#define PTRACK_CORE_HOOKS_H

#include "access/xlog_internal.h"

/* The version of the hooks that this library was written for. */
#define CORE_HOOKS_VERSION 1

typedef void (*xlog_insert_hook_type) (const XLogRecData *rdata,
									   XLogRecPtr start, XLogRecPtr end);
typedef void (*redo_point_hook_type) (XLogRecPtr old_redo, XLogRecPtr new_redo);
typedef void (*checkpoint_hook_type) (XLogRecPtr redo, int flags);

#endif							/* PTRACK_CORE_HOOKS_H */
