/* ptrack 3.0 */

\echo Use "CREATE EXTENSION ptrack" to load this file. \quit

CREATE FUNCTION ptrack_version()
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION ptrack_version() IS
'version of the ptrack library';

CREATE FUNCTION ptrack_init_lsn()
RETURNS pg_lsn
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_init_lsn() IS
'earliest LSN that changes are known from';

CREATE FUNCTION ptrack_lineage(lsn pg_lsn)
RETURNS uuid
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_lineage(pg_lsn) IS
'identifier of the history of this server at a redo point';

CREATE FUNCTION ptrack_get_pagemapset(
	start_lsn pg_lsn,
	OUT path text,
	OUT pagecount bigint,
	OUT pagemap bytea)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000;

COMMENT ON FUNCTION ptrack_get_pagemapset(pg_lsn) IS
'relation files with blocks changed since an LSN, and bitmaps of these blocks';

CREATE FUNCTION ptrack_get_change_stat(
	start_lsn pg_lsn,
	OUT files bigint,
	OUT pages numeric,
	OUT "size, MB" numeric)
RETURNS record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_get_change_stat(pg_lsn) IS
'number and size of blocks changed since an LSN';

CREATE FUNCTION ptrack_changed_blocks(
	start_lsn pg_lsn,
	end_lsn pg_lsn DEFAULT NULL,
	OUT relfilenode oid,
	OUT reltablespace oid,
	OUT reldatabase oid,
	OUT relforknumber int2,
	OUT relblocknumber int8,
	OUT is_limit_block bool)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10000;

COMMENT ON FUNCTION ptrack_changed_blocks(pg_lsn, pg_lsn) IS
'blocks changed by WAL of a range of LSNs';

CREATE FUNCTION ptrack_get_block(path text, blkno bigint)
RETURNS bytea
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_get_block(text, bigint) IS
'a block of a relation file, as a base backup reads it';

CREATE FUNCTION ptrack_get_blocks(
	start_lsn pg_lsn,
	OUT path text,
	OUT blkno bigint,
	OUT page bytea)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10000;

COMMENT ON FUNCTION ptrack_get_blocks(pg_lsn) IS
'contents of all blocks changed since an LSN';

/*
 * The same, for a prior backup that recorded the lineage at its start LSN: an
 * error if that is not the lineage of this server there.
 */
CREATE FUNCTION ptrack_get_pagemapset(
	start_lsn pg_lsn,
	lineage uuid,
	OUT path text,
	OUT pagecount bigint,
	OUT pagemap bytea)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000;

COMMENT ON FUNCTION ptrack_get_pagemapset(pg_lsn, uuid) IS
'relation files with blocks changed since an LSN of that lineage, and bitmaps of these blocks';

CREATE FUNCTION ptrack_get_change_stat(
	start_lsn pg_lsn,
	lineage uuid,
	OUT files bigint,
	OUT pages numeric,
	OUT "size, MB" numeric)
RETURNS record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_get_change_stat(pg_lsn, uuid) IS
'number and size of blocks changed since an LSN of that lineage';

CREATE FUNCTION ptrack_changed_blocks(
	start_lsn pg_lsn,
	end_lsn pg_lsn,
	lineage uuid,
	OUT relfilenode oid,
	OUT reltablespace oid,
	OUT reldatabase oid,
	OUT relforknumber int2,
	OUT relblocknumber int8,
	OUT is_limit_block bool)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10000;

COMMENT ON FUNCTION ptrack_changed_blocks(pg_lsn, pg_lsn, uuid) IS
'blocks changed by WAL of a range that starts at an LSN of that lineage';

CREATE FUNCTION ptrack_get_blocks(
	start_lsn pg_lsn,
	lineage uuid,
	OUT path text,
	OUT blkno bigint,
	OUT page bytea)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10000;

COMMENT ON FUNCTION ptrack_get_blocks(pg_lsn, uuid) IS
'contents of all blocks changed since an LSN of that lineage';

/*
 * How much changed, where and when: rows for forks, not for blocks.
 */
CREATE FUNCTION ptrack_changed_forks(
	start_lsn pg_lsn,
	end_lsn pg_lsn DEFAULT NULL,
	regions integer DEFAULT NULL,
	OUT relfilenode oid,
	OUT reltablespace oid,
	OUT reldatabase oid,
	OUT relforknumber int2,
	OUT changed_blocks int8,
	OUT increment_blocks int8,
	OUT blocks int8,
	OUT limit_block int8,
	OUT region_blocks int8,
	OUT region_changed int8[])
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000;

COMMENT ON FUNCTION ptrack_changed_forks(pg_lsn, pg_lsn, integer) IS
'relation forks changed by WAL of a range of LSNs, and how much of each';

CREATE FUNCTION ptrack_changed_forks(
	start_lsn pg_lsn,
	end_lsn pg_lsn,
	regions integer,
	lineage uuid,
	OUT relfilenode oid,
	OUT reltablespace oid,
	OUT reldatabase oid,
	OUT relforknumber int2,
	OUT changed_blocks int8,
	OUT increment_blocks int8,
	OUT blocks int8,
	OUT limit_block int8,
	OUT region_blocks int8,
	OUT region_changed int8[])
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000;

COMMENT ON FUNCTION ptrack_changed_forks(pg_lsn, pg_lsn, integer, uuid) IS
'relation forks changed by WAL of a range that starts at an LSN of that lineage, and how much of each';

CREATE FUNCTION ptrack_redo_points(
	OUT lsn pg_lsn,
	OUT reached timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 100;

COMMENT ON FUNCTION ptrack_redo_points() IS
'redo points up to which changes are told apart from those after it';

/* What relation a file is of: known of this database, and of what all share. */
CREATE FUNCTION ptrack_relation(database oid, tablespace oid, relfilenode oid)
RETURNS regclass
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
	WHEN database OPERATOR(pg_catalog.=) 0 OR database OPERATOR(pg_catalog.=)
		(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
	THEN pg_catalog.pg_filenode_relation(tablespace, relfilenode)
END;

COMMENT ON FUNCTION ptrack_relation(oid, oid, oid) IS
'relation whose file that is, if it is of this database or shared';

CREATE FUNCTION ptrack_fork_name(fork int2)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('{main,fsm,vm,init}'::text[])[fork OPERATOR(pg_catalog.+) 1];

COMMENT ON FUNCTION ptrack_fork_name(int2) IS
'name of a fork';

CREATE FUNCTION ptrack_report(
	start_lsn pg_lsn,
	OUT reldatabase oid,
	OUT datname name,
	OUT reltablespace oid,
	OUT relfilenode oid,
	OUT relation regclass,
	OUT fork text,
	OUT changed_blocks int8,
	OUT increment_blocks int8,
	OUT blocks int8,
	OUT limit_block int8)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 1000
BEGIN ATOMIC
	SELECT f.reldatabase, d.datname, f.reltablespace, f.relfilenode,
		ptrack_relation(f.reldatabase, f.reltablespace, f.relfilenode),
		ptrack_fork_name(f.relforknumber),
		f.changed_blocks, f.increment_blocks, f.blocks, f.limit_block
	FROM ptrack_changed_forks(start_lsn) f
		LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) f.reldatabase;
END;

COMMENT ON FUNCTION ptrack_report(pg_lsn) IS
'relation forks changed since an LSN, by name, and how much of each';

CREATE FUNCTION ptrack_report(
	start_lsn pg_lsn,
	lineage uuid,
	OUT reldatabase oid,
	OUT datname name,
	OUT reltablespace oid,
	OUT relfilenode oid,
	OUT relation regclass,
	OUT fork text,
	OUT changed_blocks int8,
	OUT increment_blocks int8,
	OUT blocks int8,
	OUT limit_block int8)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 1000
BEGIN ATOMIC
	SELECT f.reldatabase, d.datname, f.reltablespace, f.relfilenode,
		ptrack_relation(f.reldatabase, f.reltablespace, f.relfilenode),
		ptrack_fork_name(f.relforknumber),
		f.changed_blocks, f.increment_blocks, f.blocks, f.limit_block
	FROM ptrack_changed_forks(start_lsn, NULL, NULL, lineage) f
		LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) f.reldatabase;
END;

COMMENT ON FUNCTION ptrack_report(pg_lsn, uuid) IS
'relation forks changed since an LSN of that lineage, by name, and how much of each';

CREATE FUNCTION ptrack_stat(
	OUT engine text,
	OUT coverage_start pg_lsn,
	OUT coverage_end pg_lsn,
	OUT flushed_lsn pg_lsn,
	OUT map_size bigint,
	OUT map_used bigint,
	OUT summaries bigint,
	OUT summary_bytes bigint,
	OUT gaps bigint,
	OUT flushes bigint,
	OUT flush_failures bigint,
	OUT overflows bigint,
	OUT last_flush timestamptz,
	OUT last_flush_ms double precision,
	OUT scan_lag bigint,
	OUT worker_pid integer,
	OUT worker_wait text,
	OUT stats_reset timestamptz)
RETURNS record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_stat() IS
'statistics of change tracking';

CREATE VIEW pg_stat_ptrack AS
	SELECT * FROM ptrack_stat();

GRANT SELECT ON pg_stat_ptrack TO PUBLIC;

CREATE FUNCTION ptrack_stat_reset()
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_stat_reset() IS
'sets what pg_stat_ptrack counts to zero';

CREATE FUNCTION ptrack_scans(
	OUT pid integer,
	OUT datid oid,
	OUT purpose text,
	OUT start_lsn pg_lsn,
	OUT end_lsn pg_lsn,
	OUT bytes_total bigint,
	OUT bytes_read bigint,
	OUT processes integer)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;

COMMENT ON FUNCTION ptrack_scans() IS
'scans of WAL that are going on';

CREATE VIEW pg_stat_progress_ptrack AS
	SELECT s.pid, s.datid, d.datname, s.purpose, s.start_lsn, s.end_lsn,
		s.bytes_total, s.bytes_read, s.processes
	FROM ptrack_scans() s LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.datid;

GRANT SELECT ON pg_stat_progress_ptrack TO PUBLIC;

/*
 * For pg_ptrack, and other clients that make base backups.
 */
CREATE FUNCTION ptrack_await_summary(lsn pg_lsn, seconds integer DEFAULT 60)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_await_summary(pg_lsn, integer) IS
'waits until what changed before a redo point is durable';

CREATE FUNCTION ptrack_backup_files(
	OUT path text,
	OUT kind "char",
	OUT size bigint,
	OUT modified bigint,
	OUT target text)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10000;

COMMENT ON FUNCTION ptrack_backup_files() IS
'directories, files and links of tablespaces that a base backup consists of';

CREATE FUNCTION ptrack_backup_read(paths text[], start bigint, length bigint, check_before pg_lsn)
RETURNS SETOF bytea
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000;

COMMENT ON FUNCTION ptrack_backup_read(text[], bigint, bigint, pg_lsn) IS
'contents of files, for a base backup';

CREATE FUNCTION ptrack_backup_read_blocks(paths text[], maps bytea[], blocks bigint[], check_before pg_lsn)
RETURNS SETOF bytea
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000;

COMMENT ON FUNCTION ptrack_backup_read_blocks(text[], bytea[], bigint[], pg_lsn) IS
'contents of some blocks of files, for an incremental backup';

CREATE FUNCTION ptrack_backup_progress(
	phase text,
	total bigint DEFAULT NULL,
	files bigint DEFAULT NULL,
	incremental boolean DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_backup_progress(text, bigint, bigint, boolean) IS
'shows how far the backup that this session makes has come';

CREATE FUNCTION ptrack_backup_join(pid integer)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION ptrack_backup_join(integer) IS
'counts what this session sends for the backup that another one makes';

CREATE FUNCTION ptrack_backups(
	OUT pid integer,
	OUT datid oid,
	OUT phase text,
	OUT backup_total bigint,
	OUT backup_streamed bigint,
	OUT files_total bigint,
	OUT files_streamed bigint,
	OUT workers integer,
	OUT incremental boolean,
	OUT started_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;

COMMENT ON FUNCTION ptrack_backups() IS
'backups that are going on';

CREATE VIEW pg_stat_progress_ptrack_backup AS
	SELECT b.pid, b.datid, d.datname, b.phase, b.backup_total, b.backup_streamed,
		b.files_total, b.files_streamed, b.workers, b.incremental, b.started_at
	FROM ptrack_backups() b LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) b.datid;

GRANT SELECT ON pg_stat_progress_ptrack_backup TO PUBLIC;

/*
 * What shows paths or activity is for those who monitor the server, and what
 * shows contents is for whom it is granted to.
 */
REVOKE ALL ON FUNCTION ptrack_get_pagemapset(pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_get_change_stat(pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_changed_blocks(pg_lsn, pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_get_pagemapset(pg_lsn, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_get_change_stat(pg_lsn, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_changed_blocks(pg_lsn, pg_lsn, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_changed_forks(pg_lsn, pg_lsn, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_changed_forks(pg_lsn, pg_lsn, integer, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_redo_points() FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_report(pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_report(pg_lsn, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_get_block(text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_get_blocks(pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_get_blocks(pg_lsn, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_stat_reset() FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_await_summary(pg_lsn, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_backup_files() FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_backup_read(text[], bigint, bigint, pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_backup_read_blocks(text[], bytea[], bigint[], pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_backup_progress(text, bigint, bigint, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION ptrack_backup_join(integer) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION ptrack_get_pagemapset(pg_lsn) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_get_change_stat(pg_lsn) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_changed_blocks(pg_lsn, pg_lsn) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_get_pagemapset(pg_lsn, uuid) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_get_change_stat(pg_lsn, uuid) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_changed_blocks(pg_lsn, pg_lsn, uuid) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_changed_forks(pg_lsn, pg_lsn, integer) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_changed_forks(pg_lsn, pg_lsn, integer, uuid) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_redo_points() TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_report(pg_lsn) TO pg_monitor;
GRANT EXECUTE ON FUNCTION ptrack_report(pg_lsn, uuid) TO pg_monitor;
