-- What the functions answer.
CREATE EXTENSION ptrack;
SELECT extversion FROM pg_extension WHERE extname = 'ptrack';
SELECT ptrack_version();
SHOW ptrack.map_size;
SHOW ptrack.keep_time;

CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'one' FROM generate_series(1, 10000) i;
VACUUM t;
CHECKPOINT;
SELECT redo_lsn AS start FROM pg_control_checkpoint() \gset

-- Coverage begins before that, and nothing has changed since.
SELECT ptrack_init_lsn() < :'start'::pg_lsn AS covered;
SELECT count(*) FROM ptrack_get_pagemapset(:'start') WHERE path = pg_relation_filepath('t');

-- The same for a backup that recorded which history it is of.
SELECT ptrack_lineage(:'start') AS lineage \gset
SELECT count(*) FROM ptrack_get_pagemapset(:'start', :'lineage') WHERE path = pg_relation_filepath('t');
SELECT ptrack_lineage(:'start') = :'lineage' AS stays;

-- One row on the first page changes it, its page of the visibility map, and
-- no index.
UPDATE t SET v = 'two' WHERE id = 1;
SELECT m.path = pg_relation_filepath('t') AS heap,
	m.path = pg_relation_filepath('t') || '_vm' AS vm, pagecount, pagemap
FROM ptrack_get_pagemapset(:'start') m
WHERE path LIKE pg_relation_filepath('t') || '%' ORDER BY path;

-- The same as numbers.
SELECT files = count(*) AS files, pages = sum(pagecount) AS pages,
	"size, MB" = trunc(sum(pagecount) / 128, 2) AS size
FROM ptrack_get_change_stat(:'start'), ptrack_get_pagemapset(:'start')
GROUP BY files, pages, "size, MB";

-- The same as blocks, a limit block being none.
SELECT relforknumber, relblocknumber, is_limit_block
FROM ptrack_changed_blocks(:'start') WHERE relfilenode = pg_relation_filenode('t')
	AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1, 2;

-- The same by relation.
SELECT datname = current_database() AS here, reltablespace, relation, fork, changed_blocks, increment_blocks, blocks, limit_block
FROM ptrack_report(:'start') WHERE relation IN ('t'::regclass, 't_pkey'::regclass) ORDER BY relation, fork;
SELECT count(*) FROM ptrack_report(:'start', :'lineage') WHERE relation = 't'::regclass;

-- In the range that ended before, the table was made.
SELECT relforknumber, relblocknumber, is_limit_block
FROM ptrack_changed_blocks(ptrack_init_lsn(), :'start')
WHERE relfilenode = pg_relation_filenode('t') AND is_limit_block
ORDER BY 1, 2;
SELECT count(*) FROM ptrack_changed_blocks(:'start', :'start');
SELECT relforknumber, changed_blocks, blocks, limit_block, region_blocks, region_changed
FROM ptrack_changed_forks(ptrack_init_lsn(), :'start', 16) WHERE relfilenode = pg_relation_filenode('t') ORDER BY 1;
SELECT count(*) FROM ptrack_changed_forks(:'start', :'start');

-- Everything since coverage began, the database among it: each fork has as many blocks as there are
-- rows for it, and the sum of its regions; increments are what the page map holds.
SELECT count(*) > 10 AS some, count(*) FILTER (WHERE relfilenode = 0) > 0 AS databases,
	count(*) FILTER (WHERE relforknumber IS NULL OR changed_blocks IS NULL OR region_blocks IS NULL) =
		count(*) FILTER (WHERE relfilenode = 0) AS uncounted,
	count(*) FILTER (WHERE relfilenode <> 0 AND (changed_blocks, limit_block) IS DISTINCT FROM (marked, least)) AS different_blocks,
	count(*) FILTER (WHERE changed_blocks <> coalesce((SELECT sum(n) FROM unnest(region_changed) n), 0)) AS different_regions
FROM ptrack_changed_forks(ptrack_init_lsn(), NULL, 7) f FULL JOIN
	(SELECT relfilenode, reltablespace, reldatabase, relforknumber, count(*) FILTER (WHERE NOT is_limit_block) AS marked,
		min(relblocknumber) FILTER (WHERE is_limit_block) AS least
	FROM ptrack_changed_blocks(ptrack_init_lsn()) WHERE relfilenode <> 0 GROUP BY 1, 2, 3, 4) b
	USING (relfilenode, reltablespace, reldatabase, relforknumber);
SELECT sum(increment_blocks) = pages AS increment FROM ptrack_changed_forks(ptrack_init_lsn()), ptrack_get_change_stat(ptrack_init_lsn()) GROUP BY pages;
SELECT min(lsn) = ptrack_init_lsn() AS first, bool_or(reached <= now()) AS reached FROM ptrack_redo_points();

-- Truncation: only the blocks below the new end existed before.
TRUNCATE t;
INSERT INTO t SELECT i, 'three' FROM generate_series(1, 1000) i;
SELECT pagecount = pg_relation_size('t') / 8192 AS all_blocks
FROM ptrack_get_pagemapset(:'start') WHERE path = pg_relation_filepath('t');

-- Contents: what a checkpoint has written.
CHECKPOINT;
SELECT count(*) > 0 AS some, bool_and(length(page) = 8192) AS pages,
	bool_and(page = ptrack_get_block(path, blkno)) AS same
FROM ptrack_get_blocks(:'start');
SELECT (SELECT count(*) FROM ptrack_get_blocks(:'start')) =
	(SELECT sum(pagecount) FROM ptrack_get_pagemapset(:'start')) AS as_many;

-- In the select list rows are streamed: the first comes without the rest.
SELECT length((b).page) FROM (SELECT ptrack_get_blocks(:'start') AS b OFFSET 0) AS s LIMIT 1;
BEGIN;
DECLARE c CURSOR FOR SELECT (ptrack_get_blocks(:'start')).blkno >= 0 AS got;
FETCH 2 FROM c;
CLOSE c;
COMMIT;

SELECT length(ptrack_get_block(pg_relation_filepath('t'), 0));
SELECT ptrack_get_block(pg_relation_filepath('t'), 100000) IS NULL AS past_end;
SELECT ptrack_get_block('base/1/4294967295', 0) IS NULL AS no_such_file;

-- Dropped relations are in no page map, but the drop is known.
SELECT pg_relation_filepath('t') AS path, pg_relation_filenode('t') AS node \gset
DROP TABLE t;
SELECT count(*) FROM ptrack_get_pagemapset(:'start') WHERE path = :'path';
SELECT relforknumber, relblocknumber FROM ptrack_changed_blocks(:'start')
WHERE relfilenode = :node AND is_limit_block ORDER BY 1;
SELECT relation, fork, increment_blocks, coalesce(blocks, 0) AS blocks, limit_block FROM ptrack_report(:'start')
WHERE relfilenode = :node AND datname = current_database() ORDER BY fork;

-- Unlogged relations: their init forks only.
CREATE UNLOGGED TABLE u (id int PRIMARY KEY);
INSERT INTO u SELECT generate_series(1, 1000);
SELECT replace(path, pg_relation_filepath('u_pkey'), 'u_pkey') FROM ptrack_get_pagemapset(:'start')
WHERE path LIKE pg_relation_filepath('u_pkey') || '%' OR path LIKE pg_relation_filepath('u') || '%';
SELECT relation, fork, increment_blocks FROM ptrack_report(:'start') WHERE relation IN ('u'::regclass, 'u_pkey'::regclass)
	AND fork <> 'vm' ORDER BY relation, fork;
DROP TABLE u;

-- What follows WAL publishes a little later than the checkpoint.
DO $$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		EXIT WHEN (SELECT summaries > 1 AND flushed_lsn = redo_lsn FROM pg_stat_ptrack, pg_control_checkpoint());
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;

SELECT engine IN ('hooks', 'wal') AS engine, coverage_start = ptrack_init_lsn() AS start, coverage_end > :'start' AS "end",
	flushed_lsn BETWEEN :'start' AND coverage_end AS flushed,
	map_size > 64 * 1024 * 1024 AS size, map_used > 0 AS used, summaries > 1 AS summaries,
	summary_bytes > 200 AS bytes, gaps, flushes > 0 AS flushes, flush_failures, overflows,
	last_flush BETWEEN pg_postmaster_start_time() AND clock_timestamp() AS last, last_flush_ms > 0 AS time,
	scan_lag >= 0 AS scan_lag, worker_pid > 0 AS worker, stats_reset < last_flush AS since
FROM pg_stat_ptrack;

-- What is counted begins anew; what is so stays.
SELECT ptrack_stat_reset();
SELECT flushes, flush_failures, overflows, stats_reset > last_flush AS since, summaries > 1 AS summaries, last_flush_ms > 0 AS time
FROM pg_stat_ptrack;

-- Progress of a backup: what is read counts while files are streamed, a file once.
SELECT ptrack_backup_progress('listing files', incremental => true) AS shown;
SELECT length(ptrack_backup_read(ARRAY['PG_VERSION'], 0, 100, NULL)) > 32 AS read;
SELECT pid = pg_backend_pid() AS pid, datname = current_database() AS datname, phase, backup_total, backup_streamed,
	files_total, files_streamed, workers, incremental, started_at <= clock_timestamp() AS started
FROM pg_stat_progress_ptrack_backup;
SELECT ptrack_backup_progress('streaming database files', 30000, 2) AS shown;
SELECT count(*) FROM ptrack_backup_read(ARRAY['global/1262', 'no_such_file'], 0, 8192, NULL);
SELECT count(*) FROM ptrack_backup_read_blocks(ARRAY['global/1262'], ARRAY['\x01'::bytea], ARRAY[100], NULL);
SELECT phase, backup_total, backup_streamed, files_total, files_streamed FROM pg_stat_progress_ptrack_backup;
-- the rest of a file that was begun, so that there is more than was expected
SELECT count(*) > 0 AS some FROM ptrack_backup_read(ARRAY[pg_relation_filepath('pg_proc')], 8192, 80000, NULL);
SELECT backup_total, backup_streamed, files_total, files_streamed FROM pg_stat_progress_ptrack_backup;
SELECT ptrack_backup_progress('transferring wal files') AS shown;
SELECT count(*) FROM ptrack_backup_read(ARRAY['global/1262'], 0, 8192, NULL);
SELECT phase, backup_streamed, incremental FROM pg_stat_progress_ptrack_backup;
SELECT ptrack_backup_progress(NULL) AS shown;
SELECT count(*) FROM pg_stat_progress_ptrack_backup;
