/*
 * commands.h
 *		The commands of pg_ptrack.
 *
 * Each takes its arguments as main() does, its name being the first, and returns
 * the program's exit status.
 */
#ifndef PTRACK_COMMANDS_H
#define PTRACK_COMMANDS_H

extern int	backup_main(int argc, char **argv);
extern int	verify_main(int argc, char **argv);
extern int	combine_main(int argc, char **argv);
extern int	summary_main(int argc, char **argv);
extern int	report_main(int argc, char **argv);

#endif							/* PTRACK_COMMANDS_H */
