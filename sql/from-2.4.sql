/*
 * The beginning of the update from the older extension of this name, which is at
 * 2.4: all of its functions go.  The Makefile has all that makes up this version
 * follow, so that an update ends with what CREATE EXTENSION makes.
 *
 * What is of the extension is asked for, since not every edition of 2.4 has the
 * same functions.  If a view uses one of them, dropping that is an error which
 * names the view.
 */

\echo Use "ALTER EXTENSION ptrack UPDATE" to load this file. \quit

DO $$
DECLARE
	old pg_catalog.regprocedure;
BEGIN
	FOR old IN
		SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e
			ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
		WHERE e.extname = 'ptrack' AND d.deptype = 'e'
			AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
	LOOP
		EXECUTE pg_catalog.format('DROP FUNCTION %s', old);
	END LOOP;
END $$;

