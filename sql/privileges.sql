-- Who may call what.
-- All functions that PUBLIC may:
SELECT p.oid::regprocedure FROM pg_proc p
JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'ptrack'
WHERE has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1::text;
-- and those that pg_monitor may, too:
SELECT p.oid::regprocedure FROM pg_proc p
JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'ptrack'
WHERE NOT has_function_privilege('public', p.oid, 'EXECUTE')
	AND has_function_privilege('pg_monitor', p.oid, 'EXECUTE') ORDER BY 1::text;
-- and those that nobody may:
SELECT p.oid::regprocedure FROM pg_proc p
JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'ptrack'
WHERE NOT has_function_privilege('pg_monitor', p.oid, 'EXECUTE') ORDER BY 1::text;

CREATE ROLE regress_ptrack_nobody;
CREATE ROLE regress_ptrack_backup;
GRANT EXECUTE ON FUNCTION ptrack_get_pagemapset(pg_lsn), ptrack_get_blocks(pg_lsn),
	ptrack_get_block(text, bigint) TO regress_ptrack_backup;
SELECT ptrack_init_lsn() AS start \gset
SET ROLE regress_ptrack_nobody;
SELECT ptrack_version();
SELECT ptrack_init_lsn() IS NOT NULL AS known;
SELECT engine IN ('hooks', 'wal') AS engine FROM pg_stat_ptrack;
SELECT * FROM ptrack_get_pagemapset(:'start');
SELECT * FROM ptrack_get_change_stat(:'start');
SELECT * FROM ptrack_changed_blocks(:'start');
SELECT * FROM ptrack_report(:'start');
SELECT * FROM ptrack_changed_forks(:'start');
SELECT * FROM ptrack_redo_points();
SELECT * FROM ptrack_get_blocks(:'start');
SELECT ptrack_get_block('global/1262', 0);
SELECT * FROM ptrack_backup_files();
SELECT ptrack_backup_read(ARRAY['PG_VERSION'], 0, 10, NULL);
SELECT ptrack_backup_read_blocks(ARRAY['global/1262'], ARRAY['\x01'::bytea], ARRAY[1], NULL);
SELECT ptrack_backup_join(1);
SELECT ptrack_backup_progress('listing files');
SELECT ptrack_stat_reset();
RESET ROLE;
-- Of a backup, everybody sees that it is there.
SELECT ptrack_backup_progress('streaming database files', 1, 1) AS shown;
SET ROLE regress_ptrack_nobody;
SELECT pid = pg_backend_pid() AS pid, datid IS NOT NULL AS datid, datname = current_database() AS datname,
	num_nulls(phase, backup_total, backup_streamed, files_total, files_streamed, workers, incremental, started_at) AS hidden
FROM pg_stat_progress_ptrack_backup;
RESET ROLE;
GRANT pg_read_all_stats TO regress_ptrack_nobody;
SET ROLE regress_ptrack_nobody;
SELECT phase, backup_total, backup_streamed, files_total, files_streamed, workers, incremental FROM pg_stat_progress_ptrack_backup;
RESET ROLE;
SELECT ptrack_backup_progress(NULL) AS shown;
SET ROLE regress_ptrack_backup;
SELECT count(*) > 0 AS some FROM ptrack_get_pagemapset(:'start');
SELECT count(*) > 0 AS some FROM ptrack_get_blocks(:'start');
SELECT length(ptrack_get_block('global/1262', 0));
RESET ROLE;
DROP OWNED BY regress_ptrack_backup;
DROP ROLE regress_ptrack_nobody, regress_ptrack_backup;

-- The extension comes and goes.
DROP EXTENSION ptrack;
CREATE SCHEMA elsewhere;
CREATE EXTENSION ptrack SCHEMA elsewhere;
SET search_path = '';
SELECT elsewhere.ptrack_init_lsn() = :'start' AS known;
SELECT count(*) > 0 AS some FROM elsewhere.ptrack_report(:'start') WHERE relation = 'pg_class'::regclass;
SELECT engine IN ('hooks', 'wal') AS engine FROM elsewhere.pg_stat_ptrack;
DROP SCHEMA elsewhere CASCADE;
