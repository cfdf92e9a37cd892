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
#include "engine.h"

int			engine_setting = ENGINE_AUTO;

static bool has_hooks;
static bool follows_recovery;

/*
 * Insertion is hooked.  Said while the library loads, or never.
 */
void
engine_use_hooks(void)
{
	has_hooks = true;
}

/*
 * WAL is followed in archive recovery, too: where redo points are not in it, redo
 * comes to know of them too late.  Said while the library loads, or never.
 */
void
engine_follow_recovery(void)
{
	follows_recovery = true;
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
	return !has_hooks && (follows_recovery || !RecoveryInProgress());
}

/*
 * Would they have to be, while WAL does not tell all of them?
 */
bool
engine_lacks_wal(void)
{
	return engine_follows() && !XLogIsNeeded();
}

/*
 * Does redo mark what it replays?
 */
bool
engine_marks_redo(void)
{
	return !follows_recovery;
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
