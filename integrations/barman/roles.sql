-- Barman's roles, as its manual has them.  The second one makes backups with
-- pg_ptrack: it needs ../grants.sql, too.

CREATE ROLE barman LOGIN;
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean),
	pg_switch_wal(), pg_create_restore_point(text) TO barman;
GRANT pg_read_all_settings, pg_read_all_stats, pg_checkpoint TO barman;
CREATE ROLE streaming_barman LOGIN REPLICATION;
