# Every page that differs on disk was reported, after every kind of statement, on
# a primary and on a standby that replays it: judged by the files alone.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use PtrackImage;
use PtrackOracle;
use PtrackTest;
use Test::More;

my $conf = <<'EOF';
shared_buffers = 32MB
wal_keep_size = 4GB
max_prepared_transactions = 5
allow_in_place_tablespaces = on
EOF

# Statements that go on over several cases have sessions of their own.
my %sessions;
sub in_session
{
	my ($node, $name, $sql) = @_;

	$sessions{$name} //= $node->background_psql('postgres');
	$sessions{$name}->query_safe($sql);
	return;
}

sub end_session
{
	my ($name) = @_;

	$sessions{$name}->quit;
	delete $sessions{$name};
	return;
}

# VACUUM FULL that has rewritten the table and waits, inside an index's function,
# for a lock that another session holds.
sub begin_rewrite
{
	my ($node) = @_;

	in_session($node, 'holder', 'SELECT pg_advisory_lock(7)');
	$sessions{rewrite} = $node->background_psql('postgres');
	$sessions{rewrite}->query_until(qr/begun/, "\\echo begun\nVACUUM FULL rewritten;\n");
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
	  or die 'VACUUM FULL does not wait';
	return;
}

my $tables = <<'EOF';
CREATE EXTENSION bloom;
CREATE TABLESPACE place LOCATION '';
CREATE TABLE plain (id int PRIMARY KEY, v text, n int);
INSERT INTO plain SELECT i, md5(i::text), i % 10 FROM generate_series(1, 20000) i;
CREATE TABLE filled (i int, v text);
INSERT INTO filled SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i;
CREATE TABLE frozen AS SELECT * FROM plain;
CREATE TABLE points (p point, v text);
INSERT INTO points SELECT point(i % 100, i / 100), md5(i::text) FROM generate_series(1, 10000) i;
CREATE INDEX points_gist ON points USING gist (p);
CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY, v text);
INSERT INTO fleeting SELECT i, md5(i::text) FROM generate_series(1, 3000) i;
CREATE SEQUENCE numbers CACHE 1;
CREATE FUNCTION wait_here(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7); RETURN $1; END $$;
CREATE TABLE rewritten TABLESPACE place AS SELECT i, md5(i::text) AS v FROM generate_series(1, 5000) i;
CREATE INDEX ON rewritten (wait_here(i)) TABLESPACE place;
VACUUM;
EOF

my @methods = (
	[ btree => 'a' ], [ hash => 'a' ], [ gin => 'w' ], [ gist => 'p' ],
	[ spgist => 'p' ], [ brin => 'a' ], [ bloom => 'a' ]);

my @cases = (
	nothing => '',
	'insert, update, delete' => <<'EOF',
INSERT INTO plain SELECT i, 'new', 0 FROM generate_series(20001, 21000) i;
UPDATE plain SET v = 'updated' WHERE id % 50 = 0;
UPDATE plain SET id = -id WHERE id % 99 = 0;
DELETE FROM plain WHERE id % 77 = 0;
EOF
	vacuum => 'VACUUM plain',
	'changes of all-visible pages' => <<'EOF',
UPDATE plain SET n = 7 WHERE id = 1000;
DELETE FROM plain WHERE id = 5000;
BEGIN; DELETE FROM plain WHERE id BETWEEN 9000 AND 9100; ROLLBACK;
COPY plain FROM PROGRAM 'seq -f "%.0f,copied,1" 30000 31000' (FORMAT csv);
EOF
	freeze => 'VACUUM (FREEZE) frozen',
	'locked rows of frozen pages' => <<'EOF',
SELECT count(*) FROM (SELECT id FROM frozen WHERE id % 1000 = 0 FOR UPDATE) s;
SELECT count(*) FROM (SELECT id FROM frozen WHERE id % 1500 = 0 FOR KEY SHARE) s;
EOF
	'a lock followed through an update chain' => sub {
		my ($node) = @_;

		$node->safe_psql('postgres', 'UPDATE frozen SET n = -1 WHERE id = 19000; VACUUM (FREEZE) frozen');
		in_session($node, 'reader', 'BEGIN; SELECT id FROM frozen WHERE id = 19000 FOR KEY SHARE');
		in_session($node, 'writer', "BEGIN; UPDATE frozen SET v = repeat('w', 2000) WHERE id = 19000");
		in_session($node, 'locker', 'BEGIN; SELECT id FROM frozen WHERE id = 19000 FOR KEY SHARE');
		in_session($node, $_, 'COMMIT'), end_session($_) for 'reader', 'writer', 'locker';
	},
	'an open transaction begins' => sub {
		in_session($_[0], 'open', q{BEGIN; INSERT INTO plain SELECT i, 'open', 0 FROM generate_series(40000, 41000) i;
			CREATE TABLE inside AS SELECT * FROM plain WHERE id < 3000});
	},
	'it goes on' => sub {
		in_session($_[0], 'open', q{UPDATE inside SET v = 'more'; DELETE FROM plain WHERE id = 40500});
	},
	'it commits' => sub { in_session($_[0], 'open', 'COMMIT'); end_session('open'); },
	'VACUUM FULL in mid-rewrite' => \&begin_rewrite,
	'VACUUM FULL done' => sub {
		in_session($_[0], 'holder', 'SELECT pg_advisory_unlock(7)');
		end_session($_) for 'holder', 'rewrite';
	},
	truncate => <<'EOF',
TRUNCATE rewritten; BEGIN; TRUNCATE plain; INSERT INTO plain VALUES (1, 'gone', 1); ROLLBACK;
BEGIN; TRUNCATE rewritten; INSERT INTO rewritten SELECT i, 'again' FROM generate_series(1, 100) i; COMMIT;
EOF
	'vacuum truncates' => 'DELETE FROM filled WHERE i > 10000; VACUUM filled;',
	'vacuum truncates twice' => <<'EOF',
DELETE FROM filled WHERE i > 5000; VACUUM (FREEZE) filled;
INSERT INTO filled SELECT i, 'refilled' FROM generate_series(5001, 9000) i;
DELETE FROM filled WHERE i > 3000; VACUUM filled;
EOF
	'the tail becomes all-visible' => 'DELETE FROM filled WHERE i > 1500; VACUUM (TRUNCATE FALSE) filled;',
	'and is truncated' => 'VACUUM filled',
	'cluster' => 'CLUSTER plain USING plain_pkey; CLUSTER points USING points_gist;',
	'indexes of empty tables' => join('', map { <<"EOF" } @methods),
CREATE TABLE on_$_->[0] (a int, w int[], p point);
CREATE INDEX index_$_->[0] ON on_$_->[0] USING $_->[0] ($_->[1]);
EOF
	'which are filled' => join('', map { <<"EOF" } @methods),
INSERT INTO on_$_->[0] SELECT i, ARRAY[i % 17, i % 31], point(i % 97, i) FROM generate_series(1, 6000) i;
EOF
	'changed' => join('', map { <<"EOF" } @methods),
UPDATE on_$_->[0] SET a = -a, w = w || 5, p = point(a, a) WHERE a % 20 = 0;
DELETE FROM on_$_->[0] WHERE a % 3 = 0;
EOF
	'and vacuumed' => join('', map { "VACUUM on_$_->[0];\n" } @methods)
	  . "SELECT gin_clean_pending_list('index_gin'); SELECT brin_summarize_new_values('index_brin');\n"
	  . "SELECT brin_desummarize_range('index_brin', 0);\n",
	'reindex' => <<'EOF',
REINDEX TABLE plain; REINDEX INDEX CONCURRENTLY plain_pkey; REINDEX SYSTEM postgres;
CREATE INDEX CONCURRENTLY ON plain (n); DROP INDEX CONCURRENTLY plain_n_idx;
EOF
	'copy freeze' => <<'EOF',
BEGIN; CREATE TABLE loaded (i int, v text);
COPY loaded FROM PROGRAM 'seq -f "%.0f,frozen" 1 20000' (FORMAT csv, FREEZE); COMMIT;
EOF
	'full_page_writes off' => <<'EOF',
ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf(); CHECKPOINT;
UPDATE plain SET n = n + 1 WHERE id % 13 = 0; VACUUM plain; DELETE FROM loaded WHERE i % 999 = 0;
EOF
	'full_page_writes on again' => <<'EOF',
UPDATE plain SET n = n + 1 WHERE id % 17 = 0;
ALTER SYSTEM RESET full_page_writes; SELECT pg_reload_conf(); UPDATE plain SET n = n + 1 WHERE id % 19 = 0;
EOF
	sequences => <<'EOF',
SELECT count(nextval('numbers')) FROM generate_series(1, 100); SELECT setval('numbers', 5);
ALTER SEQUENCE numbers RESTART 900;
CREATE TABLE numbered (i serial, v text); INSERT INTO numbered (v) VALUES ('x');
EOF
	'large objects' => <<'EOF',
SELECT lo_from_bytea(4711, convert_to(repeat('large', 40000), 'UTF8'));
SELECT lo_put(4711, 5000, 'changed'); SELECT lo_unlink(lo_from_bytea(4712, 'gone')); VACUUM pg_largeobject;
EOF
	'a transaction is prepared' => <<'EOF',
BEGIN; CREATE TABLE prepared AS SELECT * FROM plain WHERE id < 500; DROP TABLE numbered;
UPDATE plain SET v = 'prepared' WHERE id < 100; PREPARE TRANSACTION 'one';
BEGIN; CREATE TABLE dropped AS SELECT * FROM plain WHERE id < 500; DELETE FROM plain WHERE id = 8000;
PREPARE TRANSACTION 'two';
EOF
	'and ends' => q{COMMIT PREPARED 'one'; ROLLBACK PREPARED 'two';},
	subtransactions => <<'EOF',
BEGIN; SAVEPOINT a; CREATE TABLE undone AS SELECT * FROM plain WHERE id < 900;
SAVEPOINT b; DELETE FROM plain WHERE id % 500 = 3; ROLLBACK TO a; CREATE TABLE done (i int);
SAVEPOINT c; INSERT INTO done SELECT generate_series(1, 3000); RELEASE c; COMMIT;
EOF
	'unlogged to logged' => 'ALTER TABLE fleeting SET LOGGED; UPDATE fleeting SET v = 1 WHERE id < 50;',
	'logged to unlogged' => <<'EOF',
ALTER TABLE fleeting SET UNLOGGED; UPDATE fleeting SET v = 2; CREATE UNLOGGED TABLE another (i serial);
EOF
	'temporary tables' => 'CREATE TEMP TABLE t AS SELECT * FROM plain; UPDATE t SET n = 0; VACUUM t; DROP TABLE t;',
	'catalogs rewritten' => <<'EOF',
VACUUM FULL pg_class; VACUUM FULL pg_database;
CLUSTER pg_attribute USING pg_attribute_relid_attnum_index;
EOF
	'tables rewritten' => <<'EOF',
ALTER TABLE plain ALTER n TYPE bigint; CREATE MATERIALIZED VIEW seen AS SELECT n, count(*) FROM plain GROUP BY n;
REFRESH MATERIALIZED VIEW seen; ALTER TABLE loaded ADD w text DEFAULT clock_timestamp()::text;
EOF
	'table to another tablespace' => <<'EOF',
ALTER TABLE plain SET TABLESPACE place; ALTER INDEX plain_pkey SET TABLESPACE place;
EOF
	'changed there' => 'UPDATE plain SET n = n + 1 WHERE id % 40 = 0; VACUUM plain;',
	'and back' => <<'EOF',
ALTER TABLE plain SET TABLESPACE pg_default; ALTER INDEX plain_pkey SET TABLESPACE pg_default;
UPDATE plain SET n = n + 1 WHERE id % 43 = 0;
EOF
	'databases created' => <<'EOF',
CREATE DATABASE copied STRATEGY file_copy; CREATE DATABASE walled STRATEGY wal_log TABLESPACE place;
EOF
	'databases dropped' => <<'EOF',
DROP DATABASE copied; DROP DATABASE walled; CREATE DATABASE copied TEMPLATE template0;
EOF
	'tablespace dropped' => <<'EOF',
CREATE TABLESPACE brief LOCATION ''; CREATE TABLE there TABLESPACE brief AS SELECT * FROM loaded;
DROP TABLE there; DROP TABLESPACE brief;
ALTER TABLE rewritten SET TABLESPACE pg_default;
ALTER INDEX rewritten_wait_here_idx SET TABLESPACE pg_default;
DROP TABLESPACE place;
EOF
	'everything dropped' => 'DROP TABLE plain, filled, points, loaded, inside CASCADE; DROP DATABASE copied;',
	'vacuumed' => 'VACUUM (FREEZE)',
);

# A table of more than one segment moves with its database.
my @large_cases = (
	'large database to another tablespace' => 'ALTER DATABASE large SET TABLESPACE place',
	'changed there' => [ large => <<'EOF' ],
INSERT INTO huge SELECT i, 'there' FROM generate_series(1, 20000) i;
UPDATE huge SET v = 'there' WHERE i < 10;
EOF
	'and back' => 'ALTER DATABASE large SET TABLESPACE pg_default',
	'changed here' => [ large => q{UPDATE huge SET v = 'here' WHERE i % 100 = 0; DELETE FROM huge WHERE i = 5;} ],
	'away, changed, and back at once' => sub {
		my ($node) = @_;

		$node->safe_psql('postgres', 'ALTER DATABASE large SET TABLESPACE place');
		$node->safe_psql('large', q{UPDATE huge SET v = 'away' WHERE i % 50 = 0});
		$node->safe_psql('postgres', 'ALTER DATABASE large SET TABLESPACE pg_default');
	},
	'segments truncated' => [ large => 'TRUNCATE huge; INSERT INTO huge VALUES (1)' ],
);

# wal_level = minimal, on a server of its own: relations that skip WAL.
my @minimal_cases = (
	'made in the same transaction' => <<'EOF',
CREATE TABLE small AS SELECT i FROM generate_series(1, 100) i;
CREATE TABLE big TABLESPACE place AS SELECT i, repeat('x', 300) AS v FROM generate_series(1, 20000) i;
BEGIN; CREATE TABLE copied (i int PRIMARY KEY, v text);
COPY copied FROM PROGRAM 'seq -f "%.0f,x" 1 20000' (FORMAT csv); COMMIT;
BEGIN; CREATE TABLE frozen (i int, v text);
COPY frozen FROM PROGRAM 'seq -f "%.0f,x" 1 20000' (FORMAT csv, FREEZE); COMMIT;
EOF
	'with a checkpoint within' => sub {
		in_session($_[0], 'long', 'BEGIN; CREATE TABLE long (i int PRIMARY KEY)');
		in_session($_[0], 'long', 'INSERT INTO long SELECT generate_series(1, 10)');
		checkpoint($_[0]);
	},
	'and another one' => sub {
		in_session($_[0], 'long', 'INSERT INTO long SELECT generate_series(11, 50000)');
		in_session($_[0], 'long', 'SAVEPOINT a; TRUNCATE long');
	},
	'committed' => sub {
		in_session($_[0], 'long', 'INSERT INTO long SELECT generate_series(1, 30000); COMMIT');
		end_session('long');
	},
	'rewritten' => <<'EOF',
BEGIN; TRUNCATE copied; COPY copied FROM PROGRAM 'seq -f "%.0f,y" 1 30000' (FORMAT csv); COMMIT;
ALTER TABLE frozen ALTER i TYPE bigint; CLUSTER long USING long_pkey; VACUUM FULL big; REINDEX TABLE copied;
CREATE INDEX ON big (i); CREATE MATERIALIZED VIEW seen AS SELECT * FROM big; VACUUM (FREEZE) copied;
EOF
	'changed' => <<'EOF',
UPDATE copied SET v = 'z' WHERE i % 100 = 0; DELETE FROM long WHERE i > 100; VACUUM long; TRUNCATE small;
ALTER TABLE big SET TABLESPACE pg_default; CREATE UNLOGGED TABLE u AS SELECT * FROM big; ALTER TABLE u SET LOGGED;
EOF
	'a database in a tablespace' => <<'EOF',
CREATE DATABASE there TABLESPACE place; ALTER DATABASE there SET TABLESPACE pg_default;
EOF
	'dropped' => 'DROP DATABASE there; DROP TABLE big CASCADE; DROP TABLESPACE place;',
);

# Where a server is: idle, all on disk, with an image of its files.
sub observe
{
	my ($server) = @_;
	my $node = $server->{node};

	$node->safe_psql('postgres', 'CHECKPOINT');
	return {
		lsn => $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()'),
		image => take_image($node->data_dir, $server->{last} && $server->{last}{image}),
	};
}

# What differs from that earlier point was reported.
sub nothing_lost
{
	my ($server, $prior, $now, $name) = @_;
	my $reported = reported_changes(sub { $server->{node}->safe_psql('postgres', $_[0]) }, $prior->{lsn});
	my $result = lost_changes($prior->{image}, $now->{image}, $reported);

	is(join("\n", map { "page $_->{page} of $_->{path} $_->{why}" } @{ $result->{lost} }), '',
		"$server->{name}: $name: $result->{differing} pages differ, $reported->{marks} marks");
	$server->{differing} += $result->{differing};
	return;
}

sub check_server
{
	my ($server, $name) = @_;
	my $now = observe($server);

	nothing_lost($server, $server->{last}, $now, $name);
	nothing_lost($server, $server->{first}, $now, "all until $name") if ++$server->{checks} % 8 == 0;
	$server->{last} = $now;
	return;
}

# Makes the standby replay everything, that checkpoint included.
sub replay_all
{
	my ($primary, $standby) = @_;

	$primary->safe_psql('postgres', 'CHECKPOINT');
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('flush'));
	return;
}

sub run_case
{
	my ($node, $case) = @_;

	return $case->($node) if ref $case eq 'CODE';
	return $node->safe_psql(@$case) if ref $case;
	return $node->safe_psql('postgres', $case);
}

sub standby_of
{
	my ($primary, $name) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	# Copied, since the large file's hole must stay one; in-place tablespaces are
	# directories like others.
	PostgreSQL::Test::Utils::system_or_bail('cp', '-a', '--sparse=always', $primary->data_dir, $standby->data_dir);
	$standby->append_conf('postgresql.conf', 'port = ' . $standby->port);
	$standby->enable_streaming($primary);
	$standby->set_standby_mode;
	return $standby;
}

for my $checksums ([], ['--data-checksums'])
{
	my $kind = @$checksums ? 'checksums' : 'plain';
	my $primary = new_node("primary_$kind", conf => $conf, initdb => $checksums);

	$primary->safe_psql('postgres', $tables);
	make_huge_table($primary, 'large') if !@$checksums;
	$primary->stop;
	my $standby = standby_of($primary, "standby_$kind");
	$primary->start;
	$standby->start;
	my @servers = map { { node => $_, name => $_->name, differing => 0 } } $primary, $standby;
	replay_all($primary, $standby);
	$_->{first} = $_->{last} = observe($_) for @servers;

	my @left = (@$checksums ? () : @large_cases, @cases);
	while (my ($name, $case) = splice @left, 0, 2)
	{
		run_case($primary, $case);
		check_server($servers[0], $name);
		replay_all($primary, $standby);
		check_server($servers[1], $name);
	}

	# The same, of servers that are stopped.
	$standby->stop;
	$primary->stop;
	$_->{now} = { image => take_image($_->{node}->data_dir, $_->{last}{image}) } for @servers;
	$primary->start;
	$standby->start;
	for my $server (@servers)
	{
		nothing_lost($server, $server->{first}, $server->{now}, 'all, when stopped');
	}
	cmp_ok($_->{differing}, '>', 10000, "$_->{name}: there was something to lose") for @servers;
	$standby->stop;
	$primary->stop;
}

# Some of these statements again, at either level, with the tablespace at a place
# of its own.
{
	my $node = new_node('levels', conf => "max_wal_senders = 0\nwal_skip_threshold = 100kB\n");
	my $server = { node => $node, name => $node->name, differing => 0 };
	my $place = PostgreSQL::Test::Utils::tempdir;
	my $restart = sub {
		my ($level, $way) = @_;

		$node->append_conf('postgresql.conf', "wal_level = $level");
		$node->stop($way);
		$node->start;
		check_server($server, "then $level, after $way");
	};

	$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place'");
	$server->{first} = $server->{last} = observe($server);
	# Where WAL is followed, ptrack does not work with that.
	$restart->(follows_wal() ? 'replica' : 'minimal', 'fast');
	my @left = follows_wal() ? () : @minimal_cases;
	while (my ($name, $case) = splice @left, 0, 2)
	{
		run_case($node, $case);
		$restart->('minimal', 'immediate') if $name eq 'rewritten';
		check_server($server, "minimal, $name");
	}
	$restart->('replica', 'fast');
	nothing_lost($server, $server->{first}, $server->{last}, 'since before');

	# Checksums change every page, and are not logged.
	for my $way ('enable', 'disable')
	{
		$node->stop;
		PostgreSQL::Test::Utils::system_or_bail('pg_checksums', "--$way", '-D', $node->data_dir);
		$node->start;
		check_server($server, "checksums ${way}d");
	}
	cmp_ok($server->{differing}, '>', follows_wal() ? 100 : 3000, 'levels: there was something to lose');
	$node->stop;
}

done_testing();
