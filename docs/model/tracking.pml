/*
 * tracking.pml
 *		A model of how ptrack follows changes on a primary, for spin.
 *
 * It covers the way of a change from the insertion of its WAL record to the
 * answer of a query, through crashes, failures and sessions without the
 * library.  README.md in this directory says what is left out; dev/model checks
 * it, and checks that it fails when one of the rules in docs/architecture.md is broken.
 *
 * Each statement, atomic block and d_step is one indivisible step, and anything
 * else may happen between two of them.  A comment at each says what makes it
 * indivisible in the server, or why dividing it would show nothing more.
 *
 * LSNs are counted in records: wal[] says what the record at an LSN changed.
 * A redo point takes no LSN of its own, as in all checkpoints of PostgreSQL 15
 * and in those at shutdown; so two may coincide, if the first one's checkpoint
 * failed.  With a record of its own, as in 17, there are only fewer cases.
 */

/* How often things may happen, overall. */
#ifndef RECORDS
#define RECORDS			4		/* that change a block, by either backend */
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS		3		/* besides those at the end of recovery */
#endif
#ifndef TRUNCATIONS
#define TRUNCATIONS		0		/* of the records, those that change the length */
#endif
#ifndef CRASHES
#define CRASHES			1
#endif
#ifndef IO_ERRORS
#define IO_ERRORS		1		/* that fail a checkpoint after its redo point */
#endif
#ifndef DISK_FULL
#define DISK_FULL		1		/* publications that fail */
#endif
#ifndef BARE
#define BARE			0		/* sessions without the library */
#endif
#ifndef MERGES
#define MERGES			0
#endif
#ifndef QUERIES
#define QUERIES			1
#endif

#define LSNS			(RECORDS + CHECKPOINTS + CRASHES + 1)
#define SUMMARIES		8
#define NONE			255

/*
 * What a record may change: blocks 1 and 2, and the length of the relation, which
 * leaves no page in shared buffers behind.  Or nothing.
 */
#define LENGTH			3
#define CHECKPOINT		4

#define BIT(n)			(1 << (n))
#define IN_FLIGHT(lsn)	(inserting[0] == (lsn) || inserting[1] == (lsn))
#define LOCKED(block)	(changing[0] == (block) || changing[1] == (block))

/*
 * On disk: survives a crash.
 */
byte wal[LSNS];					/* from durable_wal on, only in memory */
byte durable_wal;				/* WAL before that is durable */
byte disk[3];					/* page LSN: end of the record changed by; 0: none */
byte control_redo;				/* redo point of the checkpoint in pg_control */

/* The store.  A slot is a file name, and taken once only. */
byte nsummaries;
byte from[SUMMARIES];
byte to[SUMMARIES];
byte changes[SUMMARIES];		/* set of blocks, as bits */
short inner[SUMMARIES];			/* redo points inside, as bits */
byte present;					/* set of slots whose file exists */

/*
 * In memory: lost in a crash.
 */
byte end_of_wal;
byte inserting[2] = NONE;		/* LSN of the record whose insertion lock a backend holds */
byte changing[2];				/* block whose buffer a backend has locked; 0: none */
bool all_locked;				/* the checkpointer holds all WAL insertion locks */
byte page[4];					/* page LSN in shared buffers, like disk[]; of LENGTH, too */
bool accepting;					/* recovery is over */
bool loaded;					/* the library is */

/* The map. */
mtype = { FREE, RUNNING, FROZEN };
mtype state[2];
byte start[2];
byte end[2];
byte marks[2];					/* set of blocks, as bits */
bit running;					/* the cycle number's lowest bit */
bool gate;						/* the checkpointer waits for the map's lock */
bool reading;					/* a query holds it */

/*
 * Not in the server: for the assertions only.
 */
byte known_from;				/* nothing excuses not knowing changes from here on */
byte durable_known_from;		/* likewise, if the server crashed now */
byte exact;						/* set of slots that must hold nothing else either */
bool half_exact[2];
bool used_block_1;
bool used_backend_0;

/* How often things may still happen. */
byte records_left = RECORDS;
byte truncations_left = TRUNCATIONS;
byte checkpoints_left = CHECKPOINTS;
byte crashes_left = CRASHES;
byte io_errors_left = IO_ERRORS;
byte disk_full_left = DISK_FULL;
byte bare_left = BARE;
byte merges_left = MERGES;
byte queries_left = QUERIES;

/*
 * Spin tells which statements it never came to, but not within a d_step.  So
 * what is not to be missed has a name, and claiming that it does not happen is
 * an error.
 */
#define HAPPENS(event)	assert(CLAIM != event)
#ifndef CLAIM
#define CLAIM			0
#endif
#define NOT_CUT			1		/* the other half is still frozen at a redo point */
#define REPLACED		2		/* a summary is published under the same name again */
#define COVERED			3		/* one that another one covers is removed */
#define REMARKED		4		/* recovery marks a block whose page was written */
#define WAL_LOST		5		/* in a crash */
#define UNFINISHED		6		/* a start finds a summary from beyond its redo point */
#define BOTH_HALVES		7		/* a query copies a frozen half, too */
#define GAP				8		/* a query finds that not all is known */
#define MEETS_INSIDE	9		/* a query goes on inside a merged summary */
#define GONE			10		/* a query finds a summary gone that it listed */

/*
 * What is durable besides the store matters only if a crash is to come.  And a
 * query changes nothing: it is enough to look at those after the last crash,
 * and to check the model with fewer crashes, too.
 */
#define LAST_RUN		(crashes_left == 0)
#define DURABLE(lsn)	(LAST_RUN -> inserting[0] >= (lsn) && inserting[1] >= (lsn) : \
						 durable_wal >= (lsn))
#define WRITTEN(block)	(LAST_RUN || disk[block] >= needed[block])

bool clean;						/* it was no crash, but a clean shutdown */

/*
 * After a crash the processes are reset, one after the other: the number of the
 * one whose turn it is.  The last one is the checkpointer.  0: the server is up.
 */
byte down;

/* Scratch, of no meaning between two steps: not part of the state. */
hidden byte i;
hidden byte slot;
hidden byte walked;
hidden byte found;
hidden byte expected;

/*
 * The store
 */

/*
 * The summary of that list that extends what is known from an LSN on; NONE if
 * there is none.  A merged one meets what begins at a redo point inside, too.
 */
#ifdef BREAK_RULE7
#define EXTENDS(n, lsn)		(to[n] <= lsn && from[n] < lsn)
#else
#ifdef BREAK_INNER
#define EXTENDS(n, lsn)		(to[n] == lsn)
#else
#define EXTENDS(n, lsn)		(to[n] == lsn || (inner[n] & BIT(lsn)))
#endif
#endif

/* Of two that do, the longer one: the other may be about to be removed. */
#ifdef BREAK_SHORTEST
#define BETTER(n, than)		(from[n] > from[than])
#else
#ifdef BREAK_RULE7
#define BETTER(n, than)		(to[n] > to[than])
#else
#define BETTER(n, than)		(from[n] < from[than])
#endif
#endif

inline find_summary(list, lsn)
{
	found = NONE;
	i = 0;
	do
	:: i < nsummaries ->
		if
		:: (list & BIT(i)) && EXTENDS(i, lsn) && (found == NONE || BETTER(i, found)) ->
			found = i
		:: else
		fi;
		i++
	:: else -> break
	od
}

/* The blocks that the WAL of [first, last) changes. */
inline expect_changes(first, last)
{
	expected = 0;
	i = first;
	do
	:: i < last ->
		if
		:: wal[i] != 0 && wal[i] != CHECKPOINT -> expected = expected | BIT(wal[i])
		:: else
		fi;
		i++
	:: else -> break
	od
}

/* A summary holds what it must, and nothing else if it is to be exact. */
inline check_summary(which)
{
	expect_changes(from[which], to[which]);
	assert((expected & ~changes[which]) == 0)
#ifndef BREAK_RULE2
	/* Without that rule this goes wrong, too: here it would hide what is lost. */
	; assert(!(exact & BIT(which)) || (changes[which] & ~expected) == 0)
#endif
}

/* All those that coverage would accept, if the server started now. */
inline check_store()
{
	walked = control_redo;
	do
	:: find_summary(present, walked);
		if
		:: found == NONE -> break
		:: else -> slot = found; check_summary(slot); walked = from[slot]
		fi
	od
}

/*
 * store_publish, at the moment of the rename: before it there is a temporary
 * file only, which nobody looks at, and which the next start removes.
 */
inline add_summary(first, last, blocks, redo_points, is_exact)
{
	assert(first < last);
	slot = nsummaries;
	i = 0;
	do
	:: i < nsummaries ->
		if
		:: (present & BIT(i)) && from[i] == first && to[i] == last -> slot = i
		:: else
		fi;
		i++
	:: else -> break
	od;
	if
	:: slot == nsummaries -> nsummaries++
	:: else -> HAPPENS(REPLACED)
	fi;
	from[slot] = first;
	to[slot] = last;
	changes[slot] = blocks;
	inner[slot] = redo_points;
	present = present | BIT(slot);
	exact = (exact & ~BIT(slot)) | (is_exact -> BIT(slot) : 0);
	check_summary(slot)
}

/* The first summary that lies within another one. */
inline find_covered(by)
{
	found = NONE;
	i = 0;
	do
	:: i < nsummaries ->
		if
		:: i != by && (present & BIT(i)) && from[i] >= from[by] && to[i] <= to[by] ->
			found = i;
			break
		:: else
		fi;
		i++
	:: else -> break
	od
}

inline remove_summary(which)
{
	present = present & ~BIT(which)
}

/*
 * Backends
 */

/*
 * One atomic operation on a word.  The number of the running half, which is read
 * before it, cannot change while an insertion lock is held.
 */
inline mark()
{
	if
	:: loaded ->
		d_step {
			marks[running] = marks[running] | BIT(block);
			printf("backend %d: marks block %d in half %d\n", me, block, running)
		}
	:: !loaded
	fi
}

proctype Backend(byte me) provided (down == 0 || down == _pid)
{
	byte block;

end_idle:
	{
		/*
		* The buffer is locked, so nobody else changes this page.  Waits
		* for the checkpointer's insertion locks; with an insertion lock
		* taken, ReserveXLogInsertLocation is a spinlock.  Between locking
		* the buffer and reserving nothing happens that others could see.
		* Blocks are interchangeable, and backends are: the first record
		* is backend 0's and of block 1.
		*/
		atomic {
			accepting && records_left > 0 && !all_locked && (me == 0 || used_backend_0) ->
			if
			:: !LOCKED(1) -> block = 1
			:: !LOCKED(2) && used_block_1 -> block = 2
			:: truncations_left > 0 -> block = LENGTH; truncations_left--
			fi;
			used_backend_0 = true;
			used_block_1 = used_block_1 || block == 1;
			records_left--;
			changing[me] = block;
			inserting[me] = end_of_wal;
			wal[end_of_wal] = block;
			end_of_wal++;
			printf("backend %d: reserves LSN %d for a change of block %d\n",
				   me, inserting[me], block)
		}
#ifndef BREAK_RULE1
		mark();
#endif
		/*
		 * Releases the insertion lock, then sets the page's LSN and unlocks
		 * the buffer.  In between the page can only be waited for.
		 */
		d_step {
			/* Lengths may be changed by both at a time. */
			if
			:: page[changing[me]] <= inserting[me] -> page[changing[me]] = inserting[me] + 1
			:: else
			fi;
			inserting[me] = NONE;
			changing[me] = 0;
#ifndef BREAK_RULE1
			block = 0;
#endif
			printf("backend %d: releases its insertion lock\n", me)
		}
#ifdef BREAK_RULE1
		;
		mark();
		block = 0
#endif
	} unless {
		d_step { down == _pid -> block = 0; down++ }
	};
	goto end_idle
}

/*
 * Whoever else writes: WAL writer and backends write WAL, background writer and
 * backends write pages, at any time.  The checkpointer, when it has to write
 * either, waits until this was done: what is on disk at each moment is the same.
 */

proctype Writers() provided (down == 0)
{
end_idle:
	do
	:: /* WAL gets durable in order, up to the first record being inserted. */
		d_step {
			!LAST_RUN && durable_wal < end_of_wal && !IN_FLIGHT(durable_wal) ->
			durable_wal++;
			printf("WAL is durable up to %d\n", durable_wal)
		}
	:: /* A page is written with its buffer locked, and after its WAL. */
		d_step {
			!LAST_RUN && disk[1] < page[1] && durable_wal >= page[1] && !LOCKED(1) ->
			disk[1] = page[1];
			printf("block 1 is on disk as of LSN %d\n", disk[1])
		}
	:: d_step {
			!LAST_RUN && disk[2] < page[2] && durable_wal >= page[2] && !LOCKED(2) ->
			disk[2] = page[2];
			printf("block 2 is on disk as of LSN %d\n", disk[2])
		}
	:: /* The power goes, at any moment. */
		d_step {
			crashes_left > 0 ->
			crashes_left--;
			down = 1;
			if
			:: durable_wal < end_of_wal -> HAPPENS(WAL_LOST)
			:: else
			fi;
			clean = durable_wal == end_of_wal && end_of_wal == control_redo + 1 &&
				wal[control_redo] == CHECKPOINT;
			i = durable_wal;
			do
			:: i < end_of_wal -> wal[i] = 0; i++
			:: else -> break
			od;
			end_of_wal = durable_wal;
			inserting[0] = NONE;
			inserting[1] = NONE;
			changing[0] = 0;
			changing[1] = 0;
			all_locked = false;
			page[1] = 0;
			page[2] = 0;
			page[LENGTH] = 0;
			accepting = false;
			loaded = false;
			state[0] = FREE;
			state[1] = FREE;
			start[0] = 0;
			start[1] = 0;
			end[0] = 0;
			end[1] = 0;
			marks[0] = 0;
			marks[1] = 0;
			half_exact[0] = false;
			half_exact[1] = false;
			running = 0;
			gate = false;
			reading = false;
			known_from = 0;
			printf("crash; WAL ends at %d, and pg_control has redo point %d\n",
				   end_of_wal, control_redo)
		}
	od
}

/*
 * Startup and checkpointer
 */

/*
 * Replays all WAL from the redo point on.  Nobody looks at the map meanwhile,
 * and a crash in between loses what was done: so this is one step.  Pages that
 * replay changed may be written out later, which comes to the same.
 */
inline recover()
{
	i = 0;
	do
	:: i < end_of_wal ->
		if
		:: wal[i] != 0 && wal[i] != CHECKPOINT ->
			/* What the checkpoint promises: it is on disk. */
			assert(i >= control_redo || wal[i] == LENGTH || disk[wal[i]] > i);
			page[wal[i]] = i + 1;
			if
#ifdef BREAK_RULE6
			:: loaded && i >= control_redo && (wal[i] == LENGTH || disk[wal[i]] <= i) ->
#else
			:: loaded && i >= control_redo ->
#endif
				marks[0] = marks[0] | BIT(wal[i]);
				if
				:: wal[i] != LENGTH && disk[wal[i]] > i -> HAPPENS(REMARKED)
				:: else
				fi
			:: else
			fi
		:: else
		fi;
		i++
	:: else -> break
	od;
	if
	:: loaded ->
		if
		:: nsummaries > 0 && (present & BIT(nsummaries - 1)) && to[nsummaries - 1] > control_redo ->
			HAPPENS(UNFINISHED)
		:: else
		fi;
		state[0] = RUNNING;
		start[0] = control_redo;
		half_exact[0] = true;
		known_from = durable_known_from
	:: else
	fi
}

/*
 * map_cut: all but the last store.  If the other half is frozen, nothing; and
 * no cycle ends where it began.
 */
#ifdef BREAK_RULE12
#define CAN_CUT			true
#else
#define CAN_CUT			(state[1 - running] == FREE)
#endif
#ifdef BREAK_EMPTY
#define CYCLE_ENDS		true
#else
#define CYCLE_ENDS		(start[running] < redo)
#endif

inline begin_cut()
{
	if
	:: loaded && CAN_CUT && CYCLE_ENDS ->
		start[1 - running] = redo;
		half_exact[1 - running] = true;
		state[1 - running] = RUNNING;
		end[running] = redo;
		state[running] = FROZEN;
		cutting = true
	:: loaded && !CAN_CUT -> HAPPENS(NOT_CUT)
	:: else
	fi
}

inline end_cut()
{
	if
	:: cutting -> running = 1 - running; cutting = false
	:: else
	fi
}

/*
 * The redo point is fixed with all insertion locks held.  Taking them one by
 * one could only make some backends wait earlier.  Queries do look at the map
 * during the cut.
 */
inline fix_redo_point()
{
	d_step {
		inserting[0] == NONE && inserting[1] == NONE ->
		redo = end_of_wal;
		needed[1] = (LAST_RUN -> 0 : page[1]);
		needed[2] = (LAST_RUN -> 0 : page[2]);
#ifndef BREAK_RULE2
		all_locked = true;
#ifndef BREAK_RULE12_BY_WAITING
		begin_cut();
#endif
#endif
		printf("checkpointer: redo point %d\n", redo)
	};
#ifdef BREAK_RULE2
	/* Cuts soon after, without the locks. */
	d_step { begin_cut() };
#endif
#ifdef BREAK_RULE12_BY_WAITING
	d_step { !loaded || state[1 - running] == FREE -> begin_cut() };
#endif
	d_step {
		if
		:: cutting -> printf("checkpointer: half %d takes over from %d on\n", 1 - running, redo)
		:: loaded && !cutting -> printf("checkpointer: half %d goes on\n", running)
		:: else
		fi;
		end_cut();
		all_locked = false
	}
}

/* A summary of a half appears, or the disk is full. */
inline publish(first, last, blocks, is_exact)
{
	if
	:: d_step {
			add_summary(first, last, blocks, 0, is_exact);
			mine = slot;
			printf("checkpointer: publishes [%d,%d) with blocks %d\n", from[mine], to[mine], blocks)
		}
	:: d_step {
			disk_full_left > 0 ->
			disk_full_left--;
			published = false;
			printf("checkpointer: cannot publish [%d,%d)\n", first, last)
		}
	fi
}

/*
 * The map's lock, exclusively: the gate keeps new queries away until those
 * that hold it are done.  What is then done under it is one step to others,
 * since marks go to the other half, or to another field.
 */
inline lock_map()
{
	gate = true;
	!reading
}

/* store_remove_covered: one file after another. */
inline remove_covered()
{
	do
	:: d_step {
			removing ->
			find_covered(mine);
			if
			:: found != NONE ->
				HAPPENS(COVERED);
				present = present & ~BIT(found);
				printf("checkpointer: removes [%d,%d)\n", from[found], to[found])
			:: else ->
				removing = false;
				mine = 0
			fi
		}
	:: !removing -> break
	od
}

/* publish_frozen; nobody else writes to a frozen half. */
inline publish_frozen()
{
	if
	:: state[1 - running] == FROZEN ->
		publish(start[1 - running], end[1 - running], marks[1 - running],
				half_exact[1 - running]);
		if
		:: published ->
			lock_map();
			d_step {
				marks[1 - running] = 0;
				start[1 - running] = 0;
				end[1 - running] = 0;
				half_exact[1 - running] = false;
				state[1 - running] = FREE;
				gate = false;
				removing = true;
				printf("checkpointer: half %d is free\n", 1 - running)
			};
			remove_covered()
		:: else
		fi
	:: else
	fi
}

/* publish_running: copies the half, while it goes on, and publishes that. */
inline publish_running()
{
	if
	:: published && start[running] < redo ->
		copy = marks[running];
		publish(start[running], redo, copy, false);
		copy = 0;
		if
		:: published ->
			lock_map();
			d_step {
				start[running] = redo;
				half_exact[running] = false;
				gate = false;
				removing = true;
				printf("checkpointer: half %d starts at %d now\n", running, redo)
			};
			remove_covered()
		:: else
		fi
	:: else
	fi
}

/* publish_cycles: what the checkpoint hook does. */
inline publish_cycles()
{
	if
	:: loaded ->
#ifndef BREAK_RULE3
		DURABLE(redo);
#endif
		publish_frozen();
		publish_running()
	:: else
	fi
}

/*
 * The checkpoint record, which waits for earlier ones to be inserted as soon
 * as it is to be durable; then pg_control.
 */
inline complete_checkpoint()
{
	d_step {
		wal[end_of_wal] = CHECKPOINT;
		end_of_wal++;
		record_end = end_of_wal;
		printf("checkpointer: checkpoint record at %d\n", record_end - 1)
	};
	DURABLE(record_end);
	d_step {
		record_end = 0;
		control_redo = redo;
		durable_known_from = (loaded && published -> known_from : redo);
		accepting = true;
		printf("checkpointer: pg_control has redo point %d\n", redo)
	}
}

/*
 * A checkpoint.  One at the end of recovery that fails ends the server, which
 * is a crash.
 */
inline checkpoint()
{
	fix_redo_point();
	if
	:: WRITTEN(1) && WRITTEN(2)
	:: atomic {
			accepting && io_errors_left > 0 ->
			io_errors_left--;
			io_error = true;
			printf("checkpointer: cannot write a page\n");
			goto done
		}
	fi;
#ifndef BREAK_RULE4
	publish_cycles();
#ifdef BREAK_RULE5
	if
	:: !published -> goto done
	:: else
	fi;
#endif
	if
	:: true
	:: atomic {
			accepting && io_errors_left > 0 ->
			io_errors_left--;
			io_error = true;
			printf("checkpointer: cannot write two-phase state\n");
			goto done
		}
	fi;
#endif
	complete_checkpoint();
#ifdef BREAK_RULE4
	publish_cycles();
#endif
done:
	atomic {
		/* Only an error of its own keeps a checkpoint from its end. */
		assert(io_error || control_redo == redo);
		redo = 0;
		needed[1] = 0;
		needed[2] = 0;
		published = true;
		io_error = false
	}
}

/* After a crash, with or without the library; or after a clean shutdown. */
inline start_up()
{
	if
	:: loaded = true
	:: bare_left > 0 -> bare_left--; loaded = false
	fi;
	d_step {
		recover();
		check_store();
		if
		:: LAST_RUN -> durable_wal = 0; disk[1] = 0; disk[2] = 0
		:: else
		fi;
		printf("start from redo point %d, library loaded: %d\n", control_redo, loaded)
	};
	if
	:: true
	:: clean ->
		/* What a checkpoint at shutdown leaves behind: no recovery. */
		accepting = true;
		printf("no recovery\n")
	fi;
	clean = false
}

proctype Checkpointer() provided (down == 0 || down == _pid)
{
	byte redo;
	byte needed[3];				/* what has to be on disk of each page */
	byte copy;
	byte record_end;
	byte mine;
	bool cutting;
	bool removing;
	bool published = true;
	bool io_error;

end_idle:
	{
		/* None is made when nothing happened since the last one. */
		d_step {
			!accepting || (checkpoints_left > 0 && wal[end_of_wal - 1] != CHECKPOINT) ->
			if
			:: accepting -> checkpoints_left--
			:: else
			fi
		};
		checkpoint()
	} unless {
		atomic {
			down == _pid ->
			d_step {
				redo = 0;
				needed[1] = 0;
				needed[2] = 0;
				copy = 0;
				record_end = 0;
				mine = 0;
				cutting = false;
				removing = false;
				published = true;
				io_error = false
			};
			start_up();
			down = 0
		}
	};
	goto end_idle
}

/*
 * Queries
 */

/*
 * What was collected so far is the answer for each LSN in the range that was
 * just added, which begins at since.  It must have every block that was changed
 * from such an LSN on before the query began.  The latest change of a block is
 * the one to look at: the answer for an earlier LSN only has more.
 */
inline check_answer()
{
	assert(changed[1] <= since || (blocks & BIT(1)));
	assert(changed[2] <= since || (blocks & BIT(2)));
	assert(changed[LENGTH] <= since || (blocks & BIT(LENGTH)))
}

#define LATEST_RESERVED(block) \
	(changing[0] == (block) -> inserting[0] + 1 : \
	 (changing[1] == (block) -> inserting[1] + 1 : page[block]))

/*
 * A query without an end promises to know the records whose insertion was
 * complete when it began.  One with an end, which may be the end of WAL, cannot
 * leave out those that are being inserted before that.
 */
inline begin_query()
{
	queries_left--;
#ifdef RANGE
	until = end_of_wal;
	changed[1] = LATEST_RESERVED(1);
	changed[2] = LATEST_RESERVED(2);
#else
	changed[1] = page[1];
	changed[2] = page[2];
	changed[LENGTH] = page[LENGTH];
#endif
	printf("query: begins\n")
}

#define CAN_QUERY		(LAST_RUN && accepting && loaded && queries_left > 0)

/* map_snapshot_both, and then the walk in chain.c. */
proctype Query() provided (down == 0 || down == _pid)
{
	byte changed[4];			/* latest change of each block, as in page[] */
#ifdef RANGE
	byte until;					/* changes from there on were not asked for */
#endif
	byte blocks;				/* the answer */
	byte since;					/* from here on */
	byte listed;				/* names of the summaries */
	bit half;
	bool done;

end_idle:
	{
		/*
		 * In the server, a query begins a little before it copies the map;
		 * that would ask less of it.
		 */
#ifdef RANGE
		d_step { CAN_QUERY -> begin_query() };
#ifndef BREAK_RANGE
		/* XLogFlush, which waits for insertions. */
		DURABLE(until);
#endif
		d_step {
			!gate ->
#else
#ifdef BREAK_LIST_FIRST
		d_step { CAN_QUERY -> listed = present; queries_left-- };
		d_step {
			!gate ->
			queries_left++;
#else
		d_step {
			CAN_QUERY && !gate ->
#endif
			begin_query();
#endif
			reading = true;
			half = running;
			printf("query: copies the map, half %d is running\n", half)
		};
		/* Not at one moment; but marks that come later are only more. */
		d_step {
			since = start[half];
			blocks = marks[half];
			printf("query: since %d blocks %d\n", since, blocks);
			check_answer()
		};
		d_step {
			if
			:: state[1 - half] == FROZEN ->
				since = start[1 - half];
				blocks = blocks | marks[1 - half];
				HAPPENS(BOTH_HALVES);
				printf("query: since %d blocks %d\n", since, blocks);
				check_answer()
			:: else
			fi;
			reading = false
		};
#ifndef BREAK_LIST_FIRST
		d_step { listed = present; printf("query: lists the store\n") };
#endif
		/*
		 * Checks and reads a summary in one step: no file is ever changed, and
		 * one that is gone when it is opened again makes the query fail.
		 */
		do
		:: d_step {
				!done ->
				find_summary(listed, since);
				if
				:: found == NONE ->
					done = true;
					if
					:: since > 0 -> HAPPENS(GAP)
					:: else
					fi
				:: found != NONE && !(present & BIT(found)) ->
					/* It was removed since: lists the store again. */
					HAPPENS(GONE);
#ifdef BREAK_LIST_ONCE
					listed = listed & ~BIT(found)
#else
					listed = present
#endif
				:: found != NONE && (present & BIT(found)) ->
					if
					:: to[found] != since -> HAPPENS(MEETS_INSIDE)
					:: else
					fi;
					since = from[found];
					blocks = blocks | changes[found];
					printf("query: since %d blocks %d\n", since, blocks);
					check_answer()
				fi
			}
		:: done -> break
		od;
		atomic {
			/* Nothing is known of before; that must have a cause. */
			assert(since <= known_from);
			changed[1] = 0;
			changed[2] = 0;
			changed[LENGTH] = 0;
			blocks = 0;
			since = 0;
			listed = 0;
			half = 0;
			done = false;
#ifdef RANGE
			until = 0;
#endif
			printf("query: ends\n")
		}
	} unless {
		d_step {
			down == _pid ->
			changed[1] = 0;
			changed[2] = 0;
			changed[LENGTH] = 0;
			blocks = 0;
			since = 0;
			listed = 0;
			half = 0;
			done = false;
#ifdef RANGE
			until = 0;
#endif
			down++
		}
	};
	goto end_idle
}

/*
 * Merging two summaries that meet, in the background.  Which ones there are is
 * found out as in a query.  The new one is published, as by the checkpointer;
 * then the others are removed, one after the other.
 */
proctype Merger() provided (down == 0 || down == _pid)
{
	byte older;
	byte newer = NONE;

end_idle:
	{
		atomic {
			accepting && loaded && merges_left > 0 && (present & (present - 1)) != 0 ->
			merges_left--;
			d_step {
				walked = (state[1 - running] == FROZEN -> start[1 - running] : start[running]);
				find_summary(present, walked);
				newer = found
			};
			do
			:: newer != NONE ->
				d_step { find_summary(present, from[newer]); older = found };
				if
				:: older == NONE || to[older] != from[newer] -> newer = NONE
				:: older != NONE && to[older] == from[newer] -> break
				:: older != NONE && to[older] == from[newer] -> newer = older
				fi
			:: else -> older = 0; break
			od;
			if
			:: newer != NONE ->
				d_step {
					add_summary(from[older], to[newer], changes[older] | changes[newer],
								inner[older] | inner[newer] | BIT(from[newer]),
								(exact & BIT(older)) && (exact & BIT(newer)));
					printf("merger: publishes [%d,%d)\n", from[slot], to[slot])
				}
			:: else
			fi
		};
		if
		:: newer != NONE ->
			d_step {
				present = present & ~BIT(older);
				printf("merger: removes [%d,%d)\n", from[older], to[older]);
				older = 0
			};
			d_step {
				present = present & ~BIT(newer);
				printf("merger: removes [%d,%d)\n", from[newer], to[newer]);
				newer = NONE
			}
		:: else
		fi
	} unless {
		d_step { down == _pid -> older = 0; newer = NONE; down++ }
	};
	goto end_idle
}

init
{
	atomic {
		/* The server was shut down, without summaries, and starts. */
		wal[0] = CHECKPOINT;
		end_of_wal = 1;
		durable_wal = 1;
		loaded = true;
		accepting = true;
		state[0] = RUNNING;
		state[1] = FREE;
		half_exact[0] = true;
		run Backend(0);
		run Backend(1);
		run Query();
		run Merger();
		run Checkpointer();
		run Writers()
	}
}
