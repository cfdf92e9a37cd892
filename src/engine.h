/*
 * engine.h
 *		How changes come to be known on this server.
 */
#ifndef PTRACK_ENGINE_H
#define PTRACK_ENGINE_H

/* Values of ptrack.engine */
typedef enum EngineSetting
{
	ENGINE_AUTO,
	ENGINE_HOOKS,
	ENGINE_WAL,
} EngineSetting;

extern int	engine_setting;

extern void engine_use_hooks(void);
extern void engine_follow_recovery(void);
extern bool engine_has_hooks(void);
extern bool engine_follows(void);
extern bool engine_lacks_wal(void);
extern bool engine_marks_redo(void);
extern const char *engine_name(void);

#endif							/* PTRACK_ENGINE_H */
