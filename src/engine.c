/*
 * engine.c
 *		How changes come to be known on this server.
 *
 *		hooks	WAL records are marked as they are inserted
 *		redo	they are marked as they are replayed
 *		wal		ptrack's worker follows WAL, and marks what it has read; queries
 *				read the rest of it themselves
 *
 * All of them mark the same map, which is cut at the same redo points.  Which it
 * is may change once in the life of a server process, at the end of recovery.
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "engine.h"

int			engine_setting = ENGINE_AUTO;

static bool has_hooks;

/*
 * Insertion is hooked.  Said while the library loads, or never.
 */
void
engine_use_hooks(void)
{
	has_hooks = true;
}

bool
engine_has_hooks(void)
{
	return has_hooks;
}

/*
 * Are changes known by following WAL at the moment?
 */
bool
engine_follows(void)
{
	return !has_hooks && (!REDO_POINTS_IN_WAL || !RecoveryInProgress());
}

/*
 * Does redo mark what it replays?  For the startup process.  Whoever follows WAL
 * reads what crash recovery replays, too.
 */
bool
engine_marks_redo(void)
{
	return has_hooks || (REDO_POINTS_IN_WAL && ArchiveRecoveryRequested);
}

/*
 * What pg_stat_ptrack calls it.
 */
const char *
engine_name(void)
{
	if (engine_follows())
		return "wal";
	return RecoveryInProgress() ? "redo" : "hooks";
}
