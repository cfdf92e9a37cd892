/*
 * backup_progress.c
 *		How far running backups have come, in shared memory.
 *
 * For pg_stat_progress_ptrack_backup.  A backup's slot is taken by the session that
 * holds it, and other sessions join, to count there what they send.  A session
 * takes part in one backup at most, and leaves it when it ends, however it does.
 *
 * One word says whose a slot is, and how many have joined.  It is free again when
 * the last of these has left, and not when its owner has; until then it is only not
 * shown.  So nobody has to look whose slot it is that he adds to, and nothing is
 * ever added to another backup.  A backup that finds no free slot is not shown.
 */
#include "postgres.h"

#include "compat.h"

#include "backup_progress.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#define SLOTS	16

/* In the word of a slot: its owner's process identifier, and one that has joined. */
#define OWNER(pid)		((uint64) (pid) << 32)
#define OWNER_OF(word)	((int) ((word) >> 32))
#define MEMBER			UINT64CONST(1)

/* The word is atomic; so is what changes while the slot has an owner. */
typedef struct BackupSlot
{
	pg_atomic_uint64 word;		/* 0: free */
	Oid			database;
	Oid			role;
	TimestampTz started;
	pg_atomic_uint32 phase;
	pg_atomic_uint32 incremental;
	pg_atomic_uint64 bytes_total;	/* as an int64, -1: not known */
	pg_atomic_uint64 files_total;
	pg_atomic_uint64 bytes;
	pg_atomic_uint64 files;
} BackupSlot;

static BackupSlot *slots;

/* What this session takes part in, and its share of that slot's word. */
static BackupSlot *my_slot = NULL;
static uint64 my_share;

Size
backup_progress_shmem_size(void)
{
	return SLOTS * sizeof(BackupSlot);
}

void
backup_progress_shmem_init(void)
{
	bool		found;

	slots = ShmemInitStruct("ptrack backups", backup_progress_shmem_size(), &found);
	if (found)
		return;
	for (int i = 0; i < SLOTS; i++)
	{
		BackupSlot *slot = &slots[i];

		pg_atomic_init_u64(&slot->word, 0);
		pg_atomic_init_u32(&slot->phase, 0);
		pg_atomic_init_u32(&slot->incremental, 0);
		pg_atomic_init_u64(&slot->bytes_total, 0);
		pg_atomic_init_u64(&slot->files_total, 0);
		pg_atomic_init_u64(&slot->bytes, 0);
		pg_atomic_init_u64(&slot->files, 0);
	}
}

/*
 * Taking part
 */

/*
 * Leaves the backup that this session takes part in, if there is one.  If it is the
 * one that shows it, it is not shown any more.
 */
void
backup_progress_leave(void)
{
	if (my_slot)
		pg_atomic_fetch_sub_u64(&my_slot->word, (int64) my_share);
	my_slot = NULL;
}

static void
leave_at_exit(int code, Datum arg)
{
	backup_progress_leave();
}

/* Before anything is taken, so that it is given back in any case. */
static void
prepare_to_leave(void)
{
	static bool prepared = false;

	if (!prepared)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	prepared = true;
}

/* Fills a slot that nobody else looks at yet, and then shows it. */
static void
begin_slot(BackupSlot *slot, BackupPhase phase)
{
	slot->database = MyDatabaseId;
	slot->role = GetAuthenticatedUserId();
	slot->started = GetCurrentTimestamp();
	pg_atomic_write_u32(&slot->phase, phase);
	pg_atomic_write_u32(&slot->incremental, false);
	pg_atomic_write_u64(&slot->bytes_total, (uint64) -1);
	pg_atomic_write_u64(&slot->files_total, (uint64) -1);
	pg_atomic_write_u64(&slot->bytes, 0);
	pg_atomic_write_u64(&slot->files, 0);

	/* A full barrier: whoever sees the owner sees all of that. */
	pg_atomic_fetch_add_u64(&slot->word, (int64) (OWNER(MyProcPid) - MEMBER));
	my_slot = slot;
	my_share = OWNER(MyProcPid);
}

/*
 * Shows that this session's backup is in that phase; from the first call on until
 * the session leaves it, or joins another.  False if there is no room for it.
 */
bool
backup_progress_show(BackupPhase phase)
{
	if (my_slot && my_share != MEMBER)
	{
		pg_atomic_write_u32(&my_slot->phase, phase);
		return true;
	}
	prepare_to_leave();
	backup_progress_leave();
	for (int i = 0; i < SLOTS; i++)
	{
		uint64		nobody = 0;

		/* With a member and no owner, it is neither free nor shown. */
		if (pg_atomic_compare_exchange_u64(&slots[i].word, &nobody, MEMBER))
		{
			begin_slot(&slots[i], phase);
			return true;
		}
	}
	return false;
}

/*
 * Of the backup that this session shows, if it does: so many bytes and files are
 * going to be sent.  Negative: no news.
 */
void
backup_progress_expect(int64 bytes, int64 files)
{
	if (my_slot == NULL || my_share == MEMBER)
		return;
	if (bytes >= 0)
		pg_atomic_write_u64(&my_slot->bytes_total, (uint64) bytes);
	if (files >= 0)
		pg_atomic_write_u64(&my_slot->files_total, (uint64) files);
}

void
backup_progress_incremental(bool incremental)
{
	if (my_slot && my_share != MEMBER)
		pg_atomic_write_u32(&my_slot->incremental, incremental);
}

/* The numbers of a backup are the business of those who may act for its role. */
static void
check_role(void)
{
	if (has_privs_of_role(GetAuthenticatedUserId(), my_slot->role))
		return;
	backup_progress_leave();
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to join a backup of another role"),
			 errhint("Connect as the role that makes the backup, or as a member of it.")));
}

/*
 * Takes part in the backup that the session of that process shows, until this
 * session ends, or takes part in another one.  False if none is shown.  ERROR if it
 * is of a role that this one has not the privileges of.
 */
bool
backup_progress_join(int pid)
{
	prepare_to_leave();
	backup_progress_leave();
	for (int i = 0; i < SLOTS; i++)
	{
		uint64		word = pg_atomic_read_u64(&slots[i].word);

		while (word != 0 && OWNER_OF(word) == pid)
		{
			if (!pg_atomic_compare_exchange_u64(&slots[i].word, &word, word + MEMBER))
				continue;
			my_slot = &slots[i];
			my_share = MEMBER;
			check_role();
			return true;
		}
	}
	return false;
}

/*
 * Counting
 */

/* What is sent before, as histories of timelines, and after, as WAL, is no part. */
static bool
is_counted(void)
{
	return my_slot && pg_atomic_read_u32(&my_slot->phase) == BACKUP_STREAMS_FILES;
}

/*
 * So many bytes of files are sent, for the backup that this session takes part in,
 * if there is one.
 */
void
backup_progress_add_bytes(uint64 bytes)
{
	if (is_counted())
		pg_atomic_fetch_add_u64(&my_slot->bytes, (int64) bytes);
}

/*
 * The same of a file.
 */
void
backup_progress_add_file(void)
{
	if (is_counted())
		pg_atomic_fetch_add_u64(&my_slot->files, 1);
}

/*
 * Looking
 */

int
backup_progress_slots(void)
{
	return SLOTS;
}

/* A file may have grown since it was listed. */
static int64
total_of(pg_atomic_uint64 *total, int64 done)
{
	int64		expected = (int64) pg_atomic_read_u64(total);

	return expected < 0 ? expected : Max(expected, done);
}

/*
 * What there is to see in the slot of that number; false if nothing is.
 */
bool
backup_progress_get(int number, BackupProgress *progress)
{
	BackupSlot *slot = &slots[number];
	uint64		word = pg_atomic_read_u64(&slot->word);

	if (OWNER_OF(word) == 0)
		return false;
	pg_read_barrier();
	progress->pid = OWNER_OF(word);
	progress->workers = (int) (word - OWNER(progress->pid));
	progress->database = slot->database;
	progress->role = slot->role;
	progress->started = slot->started;
	progress->phase = (BackupPhase) pg_atomic_read_u32(&slot->phase);
	progress->incremental = pg_atomic_read_u32(&slot->incremental) != 0;
	progress->bytes = (int64) pg_atomic_read_u64(&slot->bytes);
	progress->bytes_total = total_of(&slot->bytes_total, progress->bytes);
	progress->files = (int64) pg_atomic_read_u64(&slot->files);
	progress->files_total = total_of(&slot->files_total, progress->files);

	/* Otherwise it has ended, and may be another one's by now. */
	pg_read_barrier();
	return OWNER_OF(pg_atomic_read_u64(&slot->word)) == progress->pid;
}
