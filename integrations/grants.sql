-- What a role needs to make backups with pg_ptrack, besides the attribute
-- REPLICATION.  In the database that has the extension, with its schema in the
-- search path:
--
--     psql -d postgres -v role=backup -f grants.sql

GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO :"role";
GRANT EXECUTE ON FUNCTION ptrack_get_pagemapset(pg_lsn), ptrack_get_pagemapset(pg_lsn, uuid) TO :"role";
GRANT EXECUTE ON FUNCTION ptrack_await_summary, ptrack_backup_files, ptrack_backup_read,
	ptrack_backup_read_blocks TO :"role";
GRANT EXECUTE ON FUNCTION ptrack_backup_progress, ptrack_backup_join TO :"role";
