-- What the functions refuse.  LSNs differ from run to run: only codes are shown.
\set VERBOSITY sqlstate
SELECT * FROM ptrack_get_pagemapset(NULL);
SELECT * FROM ptrack_get_blocks(NULL);
SELECT * FROM ptrack_get_change_stat(NULL);
SELECT * FROM ptrack_changed_blocks(NULL);
SELECT * FROM ptrack_report(NULL);
SELECT * FROM ptrack_changed_forks(NULL);
SELECT ptrack_get_block(NULL, 0);
SELECT ptrack_get_block('base/1/1259', NULL);
-- before coverage
SELECT * FROM ptrack_get_pagemapset('0/0');
SELECT * FROM ptrack_get_blocks('0/1');
SELECT * FROM ptrack_get_change_stat('0/28');
SELECT * FROM ptrack_changed_blocks('0/28');
SELECT * FROM ptrack_report('0/28');
-- in the future
SELECT * FROM ptrack_get_pagemapset('FFFFFFFF/0');
SELECT * FROM ptrack_changed_blocks(ptrack_init_lsn(), 'FFFFFFFF/0');
SELECT * FROM ptrack_report('FFFFFFFF/0');
SELECT * FROM ptrack_changed_forks(ptrack_init_lsn(), 'FFFFFFFF/0');
-- no redo point, before coverage, in the future
SELECT ptrack_lineage(pg_current_wal_insert_lsn());
SELECT ptrack_lineage('0/28');
SELECT ptrack_lineage('FFFFFFFF/0');
SELECT ptrack_lineage(NULL);
-- another history
CHECKPOINT;
SELECT redo_lsn AS redo FROM pg_control_checkpoint() \gset
SELECT * FROM ptrack_get_pagemapset(:'redo', '00000000-0000-0000-0000-000000000000');
SELECT * FROM ptrack_get_blocks(:'redo', '00000000-0000-0000-0000-000000000000');
SELECT * FROM ptrack_get_change_stat(:'redo', '00000000-0000-0000-0000-000000000000');
SELECT * FROM ptrack_changed_blocks(:'redo', NULL, '00000000-0000-0000-0000-000000000000');
SELECT * FROM ptrack_report(:'redo', '00000000-0000-0000-0000-000000000000');
SELECT * FROM ptrack_changed_forks(:'redo', NULL, NULL, '00000000-0000-0000-0000-000000000000');
SELECT * FROM ptrack_get_pagemapset(:'redo', NULL);
SELECT * FROM ptrack_report(:'redo', NULL);
SELECT * FROM ptrack_changed_blocks(:'redo', NULL, NULL);
-- the wrong way round
SELECT * FROM ptrack_changed_blocks(pg_current_wal_lsn(), ptrack_init_lsn());
SELECT * FROM ptrack_changed_forks(pg_current_wal_lsn(), ptrack_init_lsn());

\set VERBOSITY default
\set SHOW_CONTEXT never
-- regions
SELECT * FROM ptrack_changed_forks(ptrack_init_lsn(), NULL, 0);
SELECT * FROM ptrack_changed_forks(ptrack_init_lsn(), NULL, 1025);
-- paths
SELECT ptrack_get_block('../postgresql.conf', 0);
SELECT ptrack_get_block('base/../base/1/1259', 0);
SELECT ptrack_get_block('base/1/../1/1259', 0);
SELECT ptrack_get_block('/etc/passwd', 0);
SELECT ptrack_get_block('', 0);
SELECT ptrack_get_block('base', 0);
SELECT ptrack_get_block('base/1', 0);
SELECT ptrack_get_block('base/1/', 0);
SELECT ptrack_get_block('base//1259', 0);
SELECT ptrack_get_block('base/01/1259', 0);
SELECT ptrack_get_block('base/1/1259/', 0);
SELECT ptrack_get_block('base/1/1259.0', 0);
SELECT ptrack_get_block('base/1/1259_', 0);
SELECT ptrack_get_block('base/1/1259_xx', 0);
SELECT ptrack_get_block('base/1/99999999999', 0);
SELECT ptrack_get_block('base/1/t3_1259', 0);
SELECT ptrack_get_block('global', 0);
SELECT ptrack_get_block('global/pg_control', 0);
SELECT ptrack_get_block('global/pg_filenode.map', 0);
SELECT ptrack_get_block('pg_tblspc/1/1259', 0);
SELECT ptrack_get_block('pg_tblspc/1/PG_9.0_1/1/1259', 0);
SELECT ptrack_get_block('PG_VERSION', 0);
SELECT ptrack_get_block('pg_wal/000000010000000000000001', 0);
SELECT ptrack_get_block('base/1/1259', -1);
SELECT ptrack_get_block('base/1/1259', 9223372036854775807) IS NULL AS past_end;
-- contents of files
SELECT ptrack_backup_read(NULL, 0, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['PG_VERSION', NULL], 0, 8192, NULL);
SELECT ptrack_backup_read(ARRAY[['PG_VERSION'], ['PG_VERSION']], 0, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['PG_VERSION'], NULL, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['PG_VERSION'], 0, NULL, NULL);
SELECT ptrack_backup_read(ARRAY['PG_VERSION'], -8192, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['PG_VERSION'], 1, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['PG_VERSION'], 0, -1, NULL);
SELECT ptrack_backup_read(ARRAY['/etc/passwd'], 0, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['../outside'], 0, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['base/../../outside'], 0, 8192, NULL);
SELECT ptrack_backup_read(ARRAY[''], 0, 8192, NULL);
SELECT ptrack_backup_read(ARRAY['base'], 0, 8192, NULL);
SELECT ptrack_backup_read_blocks(ARRAY['PG_VERSION'], NULL, '{0}', NULL);
SELECT ptrack_backup_read_blocks(ARRAY['PG_VERSION'], '{}', '{0}', NULL);
SELECT ptrack_backup_read_blocks(ARRAY['PG_VERSION'], ARRAY[''::bytea], '{0, 0}', NULL);
SELECT ptrack_backup_read_blocks(ARRAY['../outside'], ARRAY[''::bytea], '{0}', NULL);
SELECT count(*) FROM ptrack_backup_read('{}', 0, 8192, NULL);
-- progress of backups
SELECT ptrack_backup_progress('sleeping');
SELECT ptrack_backup_progress('listing files', -1);
SELECT ptrack_backup_progress('listing files', 0, -1);
SELECT count(*) FROM pg_stat_progress_ptrack_backup;
SELECT ptrack_backup_join(NULL);
SELECT ptrack_backup_join(0);
SELECT ptrack_backup_join(pg_backend_pid()) AS joined;
-- settings
SET ptrack.map_size = 1;
-- in words that differ between majors
\set VERBOSITY sqlstate
ALTER SYSTEM SET ptrack.map_size = -1;
ALTER SYSTEM SET ptrack.keep_time = -1;
\set VERBOSITY default
SET ptrack.no_such_setting = 1;
