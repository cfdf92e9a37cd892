-- A role for pgBackRest (pg1-user), which then needs no superuser.  ptrack has
-- nothing to grant to it.

CREATE ROLE pgbackrest LOGIN;
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean),
	pg_create_restore_point(text), pg_switch_wal() TO pgbackrest;
GRANT pg_read_all_settings TO pgbackrest;
