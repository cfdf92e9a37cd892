/*
 * progress.c
 *		How far a command has come, for the user to see.
 *
 * Workers count; a thread of its own prints what they have counted, once a
 * second.  On a terminal it is one line that changes.
 */
#include "postgres_fe.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "portability/instr_time.h"
#include "progress.h"
#include "report.h"

static const char *what;
static uint64 total_bytes;
static uint64 total_files;
static atomic_uint_fast64_t done_bytes;
static atomic_uint_fast64_t done_files;
static instr_time began;

static pthread_t printer;
static bool printing = false;
static bool ending;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static void
print_text(uint64 bytes, uint64 files, int percent, double rate, double left)
{
	char		line[256];
	int			len;

	len = snprintf(line, sizeof(line), UINT64_FORMAT "/" UINT64_FORMAT " kB (%d%%), "
				   UINT64_FORMAT "/" UINT64_FORMAT " files, %.1f MB/s",
				   bytes / 1024, total_bytes / 1024, percent, files, total_files,
				   rate / (1024 * 1024));
	if (left >= 0)
		snprintf(line + len, sizeof(line) - len, ", %d:%02d:%02d left", (int) (left / 3600),
				 (int) (left / 60) % 60, (int) left % 60);
	fprintf(stderr, "%s: %-70s%c", what, line, isatty(fileno(stderr)) && !ending ? '\r' : '\n');
}

static void
print_json(uint64 bytes, uint64 files, double seconds, double left)
{
	char		line[512];

	snprintf(line, sizeof(line), "{\"type\": \"progress\", \"what\": \"%s\", "
			 "\"bytes\": " UINT64_FORMAT ", \"bytes_total\": " UINT64_FORMAT ", "
			 "\"files\": " UINT64_FORMAT ", \"files_total\": " UINT64_FORMAT ", "
			 "\"seconds\": %.1f, \"seconds_left\": %.0f}",
			 what, bytes, total_bytes, files, total_files, seconds, left);
	report_json_line(line);
}

static void
print(void)
{
	uint64		bytes = atomic_load(&done_bytes);
	uint64		files = atomic_load(&done_files);
	instr_time	now;
	double		seconds;
	double		rate;
	double		left;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, began);
	seconds = INSTR_TIME_GET_DOUBLE(now);
	rate = seconds > 0 ? bytes / seconds : 0;

	/* Files may have grown, or shrunk, since they were listed. */
	left = bytes >= total_bytes ? 0 : rate > 0 ? (total_bytes - bytes) / rate : -1;
	if (report_is_json())
		print_json(bytes, files, seconds, left);
	else
		print_text(bytes, files,
				   total_bytes == 0 ? 100 : (int) Min(bytes * 100 / total_bytes, 100), rate, left);
}

static void *
printer_main(void *arg)
{
	pthread_mutex_lock(&lock);
	while (!ending)
	{
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
		if (pthread_cond_timedwait(&wake, &lock, &until) != 0)
			print();
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

/*
 * Begins to show progress of that, which is so many bytes of so many files.
 */
void
progress_begin(const char *of_what, uint64 bytes, uint64 files)
{
	what = of_what;
	total_bytes = bytes;
	total_files = files;
	atomic_store(&done_bytes, 0);
	atomic_store(&done_files, 0);
	ending = false;
	INSTR_TIME_SET_CURRENT(began);
	if (pthread_create(&printer, NULL, printer_main, NULL) != 0)
		fatal("could not create a thread: %m");
	printing = true;
}

/*
 * So many bytes more are done.  Any thread may say so, and whether or not progress
 * is shown.
 */
void
progress_add_bytes(uint64 bytes)
{
	atomic_fetch_add(&done_bytes, bytes);
}

void
progress_add_file(void)
{
	atomic_fetch_add(&done_files, 1);
}

/*
 * Shows it a last time.
 */
void
progress_end(void)
{
	if (!printing)
		return;
	pthread_mutex_lock(&lock);
	ending = true;
	pthread_cond_signal(&wake);
	pthread_mutex_unlock(&lock);
	pthread_join(printer, NULL);
	printing = false;
	print();
}
