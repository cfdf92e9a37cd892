/*
 * verify_progress.c
 *		How far "pg_ptrack verify" has come.
 */
#include "postgres_fe.h"

#include <unistd.h>

#include "portability/instr_time.h"
#include "verify.h"

static struct
{
	bool		on;
	uint64		total;			/* bytes */
	atomic_uint_fast64_t done;
	atomic_uint_fast64_t shown; /* seconds since the beginning, when it was last */
	instr_time	begun;
}			progress;

static double
seconds_passed(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, progress.begun);
	return INSTR_TIME_GET_DOUBLE(now);
}

static void
show(double seconds, bool last)
{
	uint64		done = atomic_load(&progress.done);
	double		rate = seconds > 0 ? done / seconds : 0;
	int			percent = progress.total ? (int) Min(100, done * 100.0 / progress.total) : 100;
	double		left = rate > 0 && progress.total > done ? (progress.total - done) / rate : 0;

	if (report_is_json())
	{
		char	   *line = psprintf("{\"type\": \"progress\", \"bytes_done\": " UINT64_FORMAT
									", \"bytes_total\": " UINT64_FORMAT ", \"percent\": %d, "
									"\"bytes_per_second\": %.0f, \"seconds_left\": %.0f}",
									done, progress.total, percent, rate, left);

		report_json_line(line);
		pfree(line);
		return;
	}
	fprintf(stderr, UINT64_FORMAT "/" UINT64_FORMAT " kB (%d%%), %.0f kB/s, %.0f s left%s",
			done / 1024, progress.total / 1024, percent, rate / 1024, left,
			last || !isatty(fileno(stderr)) ? "\n" : "\r");
}

/*
 * From now on, it is shown once a second.
 */
void
verify_progress_begin(uint64 total)
{
	progress.on = true;
	progress.total = total;
	INSTR_TIME_SET_CURRENT(progress.begun);
}

/*
 * So many more bytes were read, by any thread.
 */
void
verify_progress_add(uint64 bytes)
{
	double		seconds;
	uint_fast64_t shown;

	if (!progress.on)
		return;
	atomic_fetch_add(&progress.done, bytes);
	seconds = seconds_passed();
	shown = atomic_load(&progress.shown);
	if ((uint64) seconds > shown &&
		atomic_compare_exchange_strong(&progress.shown, &shown, (uint64) seconds))
		show(seconds, false);
}

void
verify_progress_end(void)
{
	if (progress.on)
		show(seconds_passed(), true);
	progress.on = false;
}
