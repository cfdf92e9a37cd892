# Random load for dev/torture: psql scripts of statements of every kind that
# changes files.  Many of them fail, since others dropped or locked what they
# need; that is part of it.  Randomness comes from rand, and so from the seed.
#
# Databases one and two have the tables, also in other tablespaces than their
# own.  The others come and go, or move, and have all they have in one place.
package PtrackLoad;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw($ROLLBACK_PREPARED pick setup_script load_script flood_script
  drop_script trim_script);

my @tables = map { "t$_" } 0 .. 5;

# Not bloom: PostgreSQL does not log the page that the index of an unlogged table
# begins with, so that its own standbys lack it.
my @methods = ('btree (id)', 'btree (v)', 'hash (k)', 'gin (w)', 'gist (p)', 'spgist (p)', 'brin (id)');
my $columns = q{i, i % 100, md5(i::text) || repeat('x', i % 50), ARRAY[i % 13, i % 7], point(i % 97, i)};

# What a crash left of prepared transactions holds locks.
our $ROLLBACK_PREPARED = "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts "
  . "WHERE database = current_database() \\gexec\n";

sub pick
{
	return $_[ rand @_ ];
}

sub table { return pick(@tables); }
sub extra { return 'x' . int rand 12; }
sub name { return pick(table(), table(), extra()); }
sub tablespace { return pick('pg_default', map { "s$_" } 0 .. 3); }
sub rows { return 1 + int 10**(rand 3.3); }
sub id { return int rand 20000; }

sub series
{
	my $from = id();

	return "generate_series($from, " . ($from + rows()) . ') i';
}

sub range
{
	my $from = id();

	return "id BETWEEN $from AND " . ($from + rows());
}

sub filled { return "SELECT $columns FROM " . series(); }

sub copied
{
	my ($table, $options) = @_;
	my $from = id();

	return "COPY $table (id, k) FROM PROGRAM 'seq -f \"%.0f,7\" $from " . ($from + rows()) . "' (FORMAT csv$options);";
}

# An index of the table, named after its method so that others find it.
sub index_of
{
	my ($table, $how) = @_;
	my $method = pick(@methods);
	my ($name) = $method =~ /(\w+) \((\w+)/;

	return ("${table}_$name",
		"$how IF NOT EXISTS ${table}_$name ON $table USING $method TABLESPACE " . tablespace() . ';');
}

sub create_table
{
	my $table = extra();
	my $kind = pick('', '', '', 'UNLOGGED');

	return "CREATE $kind TABLE $table TABLESPACE " . tablespace()
	  . ' AS SELECT i AS id, i % 9 AS k, md5(i::text) AS v, '
	  . "ARRAY[i] AS w, point(i, 1) AS p, '' AS n FROM " . series() . ';';
}

# In a transaction that fails, what follows has to give the table's indexes new
# files, or PostgreSQL corrupts them: the table gets its old file back, without the
# rows that came after the move, and the indexes keep the entries of these.  Others
# then take the places that these name.
sub moved
{
	my ($table) = @_;

	return "ALTER TABLE $table SET TABLESPACE " . tablespace() . ';';
}

# Statements that a transaction may have.
my @in_transaction = (
	[ 20, sub { 'INSERT INTO ' . name() . ' ' . filled() . ';' } ],
	[ 12, sub { 'UPDATE ' . name() . " SET k = k + 1 WHERE " . range() . ';' } ],
	[ 8, sub { 'UPDATE ' . name() . " SET id = -id, v = repeat(md5(v), " . int(rand 6) . ') WHERE ' . range() . ';' } ],
	[ 2, sub { 'UPDATE ' . name() . " SET v = repeat(md5(random()::text), 300) WHERE id = " . id() . ';' } ],
	[ 10, sub { 'DELETE FROM ' . name() . ' WHERE ' . range() . ';' } ],
	[ 4, sub { 'SELECT count(*) FROM (SELECT FROM ' . table() . ' WHERE ' . range() . ' FOR '
		  . pick('UPDATE', 'KEY SHARE') . ') s;' } ],
	[ 3, sub { copied(table(), '') } ],
	[ 3, sub { 'TRUNCATE ' . name() . ';' } ],
	[ 6, sub { create_table() } ],
	[ 5, sub { 'DROP TABLE IF EXISTS ' . extra() . ' CASCADE;' } ],
	[ 4, sub { (index_of(name(), 'CREATE INDEX'))[1] } ],
	[ 3, sub { 'DROP INDEX IF EXISTS ' . (index_of(name(), ''))[0] . ';' } ],
	[ 2, sub { 'REINDEX TABLE ' . name() . ';' } ],
	[ 3, sub { my $t = name(); "CLUSTER $t USING ${t}_" . pick('btree', 'gist') . ';' } ],
	[ 3, sub { my $t = name(); moved($t) . " REINDEX TABLE $t;" } ],
	[ 2, sub { 'ALTER TABLE ' . name() . ' SET ' . pick('LOGGED', 'UNLOGGED') . ';' } ],
	[ 2, sub { 'ALTER TABLE ' . name() . ' ALTER k TYPE ' . pick('int', 'bigint') . ';' } ],
	[ 2, sub { 'DROP MATERIALIZED VIEW IF EXISTS seen; CREATE MATERIALIZED VIEW seen AS SELECT * FROM '
		  . table() . ' LIMIT 500;' } ],
	# What it was set to is logged, but not how many of the numbers were taken that
	# were logged ahead: replay takes all of them.
	[ 2, sub { q{SELECT setval('numbers', n + } . id()
		  . q{) FROM (SELECT count(nextval('numbers')) AS n FROM generate_series(1, 50)) s;} } ],
	[ 2, sub { "SELECT lo_from_bytea(0, convert_to(repeat('l', " . rows() * 20 . "), 'UTF8'));" } ],
	[ 1, sub { 'SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT 5) s;' } ],
	[ 1, sub { 'CREATE TEMP TABLE t AS SELECT i FROM ' . series() . '; DROP TABLE t;' } ],
	[ 2, sub { 'ANALYZE ' . table() . ';' } ],
	[ 1, sub { "SELECT pg_logical_emit_message(true, 'torture', repeat('m', " . rows() . '));' } ],
);

sub transaction
{
	my $sql = 'BEGIN; ';

	for (1 .. 1 + rand 5)
	{
		$sql .= 'SAVEPOINT a; ' if rand() < 0.2;
		$sql .= choose(\@in_transaction) . ' ';
		$sql .= pick('ROLLBACK TO a; ', 'RELEASE a; ') if rand() < 0.2;
	}
	return $sql . pick('COMMIT;', 'COMMIT;', 'ROLLBACK;', prepare());
}

sub prepare
{
	my $name = 'p' . int rand 3;

	return "PREPARE TRANSACTION '$name'; " . pick('', 'CHECKPOINT; ')
	  . pick('COMMIT', 'ROLLBACK') . " PREPARED '$name';";
}

# What is loaded in the transaction that made or emptied its table.
sub loaded
{
	my $table = extra();

	return "BEGIN; DROP TABLE IF EXISTS $table CASCADE; "
	  . "CREATE TABLE $table (id int, k int, v text, w int[], p point); " . pick('', 'CHECKPOINT; ') . copied($table, ', FREEZE')
	  . pick('', " TRUNCATE $table; " . copied($table, '')) . ' COMMIT;';
}

sub made_database
{
	my $name = 'd' . int rand 2;

	return pick("DROP DATABASE IF EXISTS $name;",
		"CREATE DATABASE $name STRATEGY " . pick('file_copy', 'wal_log') . ' TABLESPACE ' . tablespace() . ';');
}

# The session leaves its database for the one that moves, and comes back.
sub changed_elsewhere
{
	my ($home) = @_;

	return "\\connect moving\nINSERT INTO huge SELECT i, 'x' FROM " . series()
	  . "; UPDATE huge SET v = 'u' WHERE i < " . rows() . "; CREATE TABLE IF NOT EXISTS other AS SELECT * FROM huge LIMIT 100; DROP TABLE IF EXISTS "
	  . pick('other', 'none') . ";\n\\connect $home";
}

sub asked
{
	my $since = pick('(SELECT redo_lsn FROM pg_control_checkpoint())', '(SELECT ptrack_init_lsn())');

	return pick("SELECT count(*) FROM ptrack_changed_blocks($since);",
		"SELECT count(*) FROM ptrack_get_pagemapset($since);",
		"SELECT count((b).page) FROM (SELECT ptrack_get_blocks($since) AS b OFFSET 0) s;",
		"SELECT * FROM ptrack_get_change_stat($since); SELECT * FROM pg_stat_ptrack;",
		q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%ptrack%' }
		  . 'AND datname = current_database() AND pid <> pg_backend_pid();');
}

# Statements that have to be alone.  Their subs get the session's database, and
# a directory in which there is room for tablespaces.
my @alone = (
	[ 30, sub { transaction() } ],
	[ 8, sub { 'VACUUM ' . name() . ';' } ],
	[ 4, sub { 'VACUUM (FREEZE) ' . name() . ';' } ],
	[ 4, sub { my $t = name(); "DELETE FROM $t WHERE id > " . id() . "; VACUUM $t;" } ],
	[ 3, sub { my $t = name();
		"DELETE FROM $t WHERE id > " . id() . "; VACUUM (TRUNCATE FALSE) $t; CHECKPOINT; VACUUM $t;" } ],
	[ 3, sub { 'VACUUM FULL ' . pick(name(), name(), 'pg_class', 'pg_attribute') . ';' } ],
	[ 1, sub { 'VACUUM;' } ],
	[ 3, sub { (index_of(name(), 'CREATE INDEX CONCURRENTLY'))[1] } ],
	[ 2, sub { 'REINDEX TABLE CONCURRENTLY ' . name() . ';' } ],
	[ 4, sub { loaded() } ],
	[ 2, sub { moved(name()) } ],
	[ 5, sub { 'CHECKPOINT;' } ],
	[ 2, sub { 'SELECT pg_switch_wal();' } ],
	[ 2, sub { changed_elsewhere($_[0]) } ],
	[ 4, sub { asked() } ],
);

# What PostgreSQL's own base backups cannot have happen while they are made: they
# may miss files of a database, and then replay copies what is missing.
my @unsafe_in_backup = (
	[ 2, sub { made_database() } ],
	[ 1, sub { my $s = 's' . int rand 4; pick("DROP TABLESPACE $s;", "CREATE TABLESPACE $s LOCATION '';") } ],
);

sub real_tablespace
{
	my ($home, $place) = @_;
	my $s = 's' . int rand 4;
	my $location = "$place/" . int rand 1e9;

	return "\\! mkdir $location\nDROP TABLESPACE IF EXISTS $s;\nCREATE TABLESPACE $s LOCATION '$location';";
}

# What is only done while there is one server: another one on this machine would
# share the place of a tablespace, and without full pages, hint bits are logged in
# a way that gives its pages other LSNs.  Nor does a database move: a standby that
# crashes before its next restartpoint replays that again, copying from where
# nothing is any more, and PostgreSQL loses the database.
my @when_alone = (
	[ 1, sub { 'ALTER DATABASE moving SET TABLESPACE ' . tablespace() . ';' } ],
	[ 1, \&real_tablespace ],
	[ 1, sub { 'ALTER SYSTEM SET full_page_writes = ' . pick('on', 'off') . '; SELECT pg_reload_conf();' } ],
);

sub choose
{
	my ($kinds, @args) = @_;
	my $total = 0;

	$total += $_->[0] for @$kinds;
	my $at = rand $total;
	for my $kind (@$kinds)
	{
		return $kind->[1](@args) if ($at -= $kind->[0]) < 0;
	}
	die "no kind was chosen\n";
}

# What the tables are to begin with, in database one or two.
sub setup_script
{
	return "CREATE SEQUENCE numbers;\n" . join '', map { <<"SQL" } @tables;
CREATE TABLE $_ (id int, k int, v text, w int[], p point, n text);
INSERT INTO $_ SELECT $columns, '' FROM generate_series(1, 8000) i;
CREATE INDEX ${_}_btree ON $_ (id);
SQL
}

# A script of that many statements for a session in database one or two.  place:
# a directory for tablespaces, or undef if there is a standby; backup: whether one
# is being made.
sub load_script
{
	my (%args) = @_;
	my $script = "SET lock_timeout = 200; SET deadlock_timeout = 50; SET statement_timeout = 4000;\n";
	my @kinds = (@alone, $args{backup} ? () : @unsafe_in_backup, defined $args{place} ? @when_alone : ());

	$script .= $ROLLBACK_PREPARED if rand() < 0.7;
	$script .= choose(\@kinds, $args{database}, $args{place}) . "\n" for 1 .. $args{statements};
	return $script;
}

# Changes of more relations than half of a small map has room for, in one database,
# and then of the tables that stay.
sub flood_script
{
	my $each = 'DO $$ BEGIN FOR i IN 1 .. 700 LOOP EXECUTE format(%s, i); END LOOP; END $$;' . "\n";

	return $ROLLBACK_PREPARED . sprintf($each,
		"'CREATE TABLE IF NOT EXISTS flood_%1\$s (a int PRIMARY KEY); INSERT INTO flood_%1\$s VALUES (1)'")
	  . "SELECT format('VACUUM %I', relname) FROM pg_class WHERE relname ~ '^flood_[0-9]+\$' \\gexec\n"
	  . join('', map { "UPDATE $_ SET k = k + 1 WHERE id % 20 = 0;\n" } @tables)
	  . sprintf($each, "'DROP TABLE IF EXISTS flood_%s'");
}

# Drops what REINDEX CONCURRENTLY leaves when it is killed, and the like.
sub drop_script
{
	return $ROLLBACK_PREPARED
	  . "SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index "
	  . "WHERE NOT indisvalid OR indexrelid::regclass::text ~ '_cc(new|old)[0-9]*\$' \\gexec\n";
}

# Makes a database small again.
sub trim_script
{
	return drop_script()
	  . "SELECT format('TRUNCATE %s', oid::regclass) FROM pg_class "
	  . "WHERE relkind = 'r' AND relname ~ '^t[0-9]' AND pg_relation_size(oid) > 1000000 \\gexec\n"
	  . "SELECT format('DROP TABLE %s CASCADE', oid::regclass) FROM pg_class "
	  . "WHERE relkind = 'r' AND relname ~ '^(x|flood_)[0-9]' \\gexec\n"
	  . "SELECT lo_unlink(oid) FROM pg_largeobject_metadata; VACUUM FULL pg_largeobject;\n"
	  . join '', map { "INSERT INTO $_ SELECT $columns FROM generate_series(1, 500) i;\n" } @tables;
}

1;
