# What pg_probackup, unmodified, expects of ptrack: every statement that it makes,
# and incremental backups by its own procedure (PtrackProbackup.pm), of a primary
# and of a standby, restored and compared with the server page by page.
#
# Of the situations that its tests are about, these are here: no change; a change
# between the start of the backup and the query for the map; open transactions;
# relations and databases that vanish while files are copied; VACUUM FULL in
# mid-rewrite in a tablespace; databases and tables that move, away and back;
# CLUSTER, truncation and empty indexes, in short; a dropped tablespace; tables of
# more than a segment without full pages, and a crash then; a session without the
# library; in-place tablespaces; restores, with prior backups from the timeline
# that was left; ten backups in a row under load.
#
# And these elsewhere:
#   each kind of statement by itself, on primary and standby: 120; again and again
#     on one copy, without and with checksums: 100
#   backups of a standby while its primary works: 147
#   restarts, crashes, full_page_writes off: 050; timelines: 140, 142, 145
#   pg_resetwal, a session without the library, disabling: 080, 130
#   pages of the visibility map after VACUUM truncates: 040
#   a query that is cancelled: 090, 170; a full disk: 060, 130

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use PtrackProbackup;
use PtrackTest;
use Test::More;

# Hint bits stay out of WAL.
my $primary = new_node('primary', initdb => ['--wal-segsize=1'], conf => <<'EOS');
wal_keep_size = 4GB
allow_in_place_tablespaces = on
EOS
my $place = PostgreSQL::Test::Utils::tempdir;
sub sql { return $primary->safe_psql('postgres', $_[0]); }
sub init_lsn { return $_[0]->safe_psql('postgres', 'SELECT ptrack_init_lsn()'); }

prepare_probackup($primary);
my $init = init_lsn($primary);

#
# The statements
#

# A session as pg_probackup has one.
my $session = open_session('psql', '-d', $primary->connstr('backup') . ' user=backup');
sub ask
{
	my $answer = $session->($_[0]);

	chomp $answer;
	return $answer;
}

ask("SELECT pg_catalog.set_config('search_path', '', false);");
my ($schema, $version) = split /\|/, ask(<<'EOS');
SELECT extnamespace::regnamespace, extversion FROM pg_catalog.pg_extension WHERE extname = 'ptrack'::name;
EOS
is($schema, '"Block tracking"', 'the schema of the extension');
like($version, qr/^\d+\.\d\d?$/, 'a version of the form that is understood');
my ($major, $minor) = split /\./, $version;
cmp_ok($major * 100 + $minor, '>=', 201, "version $version is new enough");
unlike(ask('SHOW ptrack.map_size;'), qr/^(?:0|-1|)$/, 'the size of the map says that ptrack is enabled');

is(ask(<<'EOS'), 'ptrack_get_pagemapset|pg_lsn|c', 'one function takes an LSN alone, so that a parameter needs no type');
SELECT p.proname, pg_catalog.oidvectortypes(p.proargtypes), l.lanname
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.proname = 'ptrack_get_pagemapset' AND p.pronargs OPERATOR(pg_catalog.=) 1
	OR p.pronargdefaults OPERATOR(pg_catalog.>) 0 AND p.proname = 'ptrack_get_pagemapset';
EOS
is(ask(<<'EOS'), 'ptrack_init_lsn|c', 'and one takes nothing');
SELECT p.proname, l.lanname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.proname = 'ptrack_init_lsn';
EOS

ask('PREPARE map_since AS SELECT path, pagemap '
	  . "FROM $schema.ptrack_get_pagemapset(\$1) ORDER BY 1;");
is(ask("SELECT parameter_types FROM pg_catalog.pg_prepared_statements WHERE name = 'map_since';"),
	'{pg_lsn}', 'the parameter is an LSN');
is(ask(<<'EOS'), '{text,bytea}', 'and the result, a path and a map') if $primary->pg_version >= 16;
SELECT result_types FROM pg_catalog.pg_prepared_statements WHERE name = 'map_since';
EOS

# Each change from before a backup starts is in its map at once, though nobody
# waited for it to be written.  Each is on a page of its own.
sql(<<'EOS');
CREATE TABLE rows_of_pages (i int PRIMARY KEY, n int, v text) WITH (fillfactor = 60);
ALTER TABLE rows_of_pages ALTER v SET STORAGE plain;
INSERT INTO rows_of_pages SELECT i, 0, repeat('x', 4000) FROM generate_series(0, 99) i;
EOS
my $path = sql("SELECT pg_relation_filepath('rows_of_pages')");
sub map_since
{
	my ($since) = @_;

	return map { /^(.*)\|\\x(.*)$/ ? ($1 => pack 'H*', $2) : die "what is \"$_\"?" }
	  split /\n/, ask("EXECUTE map_since('$since');");
}
my (@unseen, @unchanged, @init);
for my $turn (1 .. 15)
{
	my $since = ask("SELECT pg_catalog.pg_backup_start('one', true);");

	ask('SELECT lsn FROM pg_catalog.pg_backup_stop(false);');
	sql("SET synchronous_commit = off; UPDATE rows_of_pages SET n = $turn WHERE i = $turn * 5");
	my $start = ask("SELECT pg_catalog.pg_backup_start('two', true);");
	push @init, ask("SELECT $schema.ptrack_init_lsn();");
	my %map = map_since($since);
	my $bits = unpack 'b*', $map{$path} // '';
	ask('SELECT lsn FROM pg_catalog.pg_backup_stop(false);');
	push @unseen, "turn $turn, from $since to $start: $bits" if substr("$bits 0", $turn * 5, 1) ne '1';
	push @unchanged, "turn $turn: $bits" if $bits =~ tr/1// > 1;
	my @strange = grep { !-f $primary->data_dir . "/$_" } keys %map;
	push @unseen, "no files: @strange" if @strange;
}
is("@unseen", '', 'changes from before the start of a backup are in the map, under names that files have');
is("@unchanged", '', 'and other pages of that table are not');
is_deeply([ grep { $_ ne $init } @init ], [], 'coverage begins where it did');
$session->(undef);

is(sql('SELECT has_function_privilege(\'backup\', \'ptrack_get_pagemapset(pg_lsn)\', \'execute\')'), 'f',
	'the role may do nothing but by the GRANTs');

#
# Backups of a primary and of a standby
#

sql("CREATE TABLESPACE place LOCATION '$place'");
sql(<<'EOS');
CREATE EXTENSION bloom;
CREATE TABLESPACE inner_place LOCATION '';
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, md5(i::text) FROM generate_series(1, 20000) i;
CREATE TABLE points AS SELECT point(i % 100, i / 100) AS p, md5(i::text) AS v FROM generate_series(1, 5000) i;
CREATE INDEX points_gist ON points USING gist (p);
CREATE TABLE moving AS SELECT * FROM t WHERE id <= 5000;
CREATE TABLE shrinking AS SELECT i, repeat('x', 200) AS v FROM generate_series(1, 10000) i;
CREATE TABLE lost_early AS SELECT * FROM t WHERE id <= 3000;
CREATE TABLE lost_late AS SELECT * FROM t WHERE id <= 3000;
CREATE TABLE cut_late AS SELECT * FROM t WHERE id <= 3000;
CREATE TABLE quiet AS SELECT * FROM t;
CREATE FUNCTION wait_here(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7); RETURN $1; END $$;
CREATE TABLE rewritten TABLESPACE place AS SELECT i, md5(i::text) AS v FROM generate_series(1, 5000) i;
CREATE INDEX ON rewritten (wait_here(i)) TABLESPACE place;
CREATE DATABASE moved;
CREATE DATABASE dropped TABLESPACE place;
VACUUM;
EOS
$primary->safe_psql($_, "CREATE TABLE t AS SELECT i, '$_' AS v FROM generate_series(1, 5000) i") for 'moved', 'dropped';

my $full = probackup($primary, 'full');

# The standby is that backup restored, so that its tablespace is at another place.
my $standby = restored_node('standby', $full);
$standby->enable_streaming($primary);
$standby->set_standby_mode;
$standby->start;

# Of each: its last backup, and how often one was made.
my %last = (primary => $full, standby => $full);
my %turn = (primary => 0, standby => 0);
sub backup_of
{
	my ($node, %options) = @_;
	my $name = $node->name;

	restartpoint($standby, $primary) if $node == $standby;
	$last{$name} = probackup($node, $name . ++$turn{$name}, prior => $last{$name}, %options);
	return $last{$name};
}

# Nothing has changed: neither of the two takes much.
backup_of($primary);
my $nothing = backup_of($primary);
cmp_ok($nothing->{pages}, '<', 10, "when nothing changes, $nothing->{pages} pages come by the map");
is($nothing->{whole}, 0, 'and no file is taken whole');

# Statements whose pages might not come, or be filtered out for their LSNs; a
# transaction and a rewrite that go on; and changes while the backup is made.
my %going;
sub begin_all
{
	$going{$_} = $primary->background_psql('postgres') for qw(open holder rewrite);
	$going{open}->query_safe(q{BEGIN; INSERT INTO t SELECT i, 0, 'open' FROM generate_series(30001, 31000) i;
		UPDATE t SET n = -1 WHERE id % 100 = 1; CREATE TABLE inside AS SELECT * FROM t WHERE id <= 3000});
	$going{holder}->query_safe('SELECT pg_advisory_lock(7)');
	$going{rewrite}->query_until(qr/begun/, "\\echo begun\nVACUUM FULL rewritten;\n");
	$primary->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
	  or die 'VACUUM FULL does not wait';
	return;
}
sub end_all
{
	$going{holder}->query_safe('SELECT pg_advisory_unlock(7)');
	$going{open}->query_safe('UPDATE inside SET n = 5 WHERE id < 50; COMMIT');
	$_->quit for values %going;
	return;
}

sql(join '', <<'EOS', map { "CREATE TABLE on_$_->[0] (a int, w int[], p point); CREATE INDEX ON on_$_->[0] USING $_->[0] ($_->[1]);\n" }
UPDATE t SET n = 1 WHERE id % 200 = 0;
CLUSTER points USING points_gist;
DELETE FROM shrinking WHERE i > 6000; VACUUM shrinking;
DELETE FROM shrinking WHERE i > 3000; VACUUM shrinking;
VACUUM (FREEZE) quiet;
ALTER TABLE moving SET TABLESPACE place; UPDATE moving SET n = 1 WHERE id < 30;
EOS
	[ btree => 'a' ], [ hash => 'a' ], [ gin => 'w' ], [ gist => 'p' ], [ spgist => 'p' ], [ brin => 'a' ], [ bloom => 'a' ]);
begin_all();
my $second = backup_of($primary,
	started => sub {
		sql(q{UPDATE t SET n = 2 WHERE id % 300 = 0; INSERT INTO shrinking SELECT i, 'started' FROM generate_series(3001, 4000) i;
			CREATE TABLE made_early AS SELECT * FROM t WHERE id <= 1000; DROP TABLE lost_early});
	},
	listed => sub {
		sql('DELETE FROM quiet WHERE id % 500 = 0; TRUNCATE shrinking; CREATE TABLE made_late AS SELECT * FROM points');
	});
# They end, and so it does in recovery.
end_all();
check_backup($primary, $second, 'amid a transaction and a rewrite');

# Databases come, move and go; relations vanish while files are copied.  Replay of a
# database that was created by logged blocks loses its visibility maps, since
# PostgreSQL takes these for pages that are empty: a database that is to be compared
# after that is copied.
sql(<<'EOS');
CREATE DATABASE copied STRATEGY file_copy TEMPLATE moved;
CREATE DATABASE walled STRATEGY wal_log TABLESPACE inner_place;
ALTER DATABASE moved SET TABLESPACE inner_place;
UPDATE lost_late SET n = 1 WHERE id % 20 = 0;
UPDATE cut_late SET n = 1 WHERE id % 20 = 0;
CLUSTER t USING t_pkey;
EOS
$primary->safe_psql('moved', q{UPDATE t SET v = 'away' WHERE i % 40 = 0});
sql(<<'EOS');
ALTER DATABASE moved SET TABLESPACE pg_default;
ALTER TABLE moving SET TABLESPACE pg_default;
UPDATE moving SET n = 2 WHERE id % 50 = 0;
EOS
sub lose
{
	sql('DROP TABLE lost_late; TRUNCATE cut_late;
		DROP DATABASE walled;
		CREATE DATABASE late STRATEGY file_copy TABLESPACE inner_place');
	return;
}
check_backup($primary, backup_of($primary, listed => \&lose), 'while relations and databases vanish');

# PostgreSQL 15 builds GiST indexes and writes their pages with another LSN
# than the standby does that replays it.
sql('DROP INDEX points_gist, on_gist_p_idx') if $primary->pg_version < 16;

# The standby has replayed all that by now; then it loses more in mid-copy.
check_backup($primary, backup_of($standby, listed => sub {
		sql(q{DROP DATABASE late; CREATE DATABASE later STRATEGY file_copy; DROP TABLE on_hash;
			 UPDATE t SET n = 3 WHERE id % 70 = 0});
		catch_up($standby, $primary);
	}),
	'of a standby, while it replays that a database is dropped');

# Empty indexes are filled; a tablespace is dropped, with what is in it.
sql(join '', (map { "INSERT INTO on_$_ SELECT i, ARRAY[i % 17], point(i % 97, i) FROM generate_series(1, 2000) i;\n" }
	  qw(btree gin gist spgist brin bloom)), <<'EOS');
DROP DATABASE dropped; DROP TABLE rewritten; DROP TABLESPACE place; DROP DATABASE copied; DROP TABLESPACE inner_place;
DELETE FROM t WHERE id > 10000; VACUUM; INSERT INTO t SELECT i, 4, 'back' FROM generate_series(10001, 10500) i;
EOS
check_backup($primary, backup_of($standby), 'of a standby, after a tablespace was dropped');
$standby->stop;

#
# The helper itself notices what is lost: one page, missing in the map
#
sql("UPDATE quiet SET v = 'lost?' WHERE id = 9999");
my ($quiet, $block) = split /\|/, sql(
	"SELECT pg_relation_filepath('quiet'), (ctid::text::point)[0]::int FROM quiet WHERE id = 9999");
my $prior = $last{primary};
my $broken = compare_backup($primary,
	probackup($primary, 'broken', prior => $prior, map => sub { vec($_[0]{$quiet}, $block, 1) = 0; }));
is("@{ $broken->{different} }", "$quiet:$block", 'a page that is not in the map is missing in the backup');
isnt($broken->{rows}, $broken->{expected}, 'and so is the row on it');

#
# Several segments, no full pages, a crash
#
make_huge_table($primary, 'large');
$primary->append_conf('postgresql.conf', 'full_page_writes = off');
$primary->reload;
my $whole = backup_of($primary);
$primary->safe_psql('large', q{INSERT INTO huge SELECT i, 'more' FROM generate_series(101, 60000) i;
	UPDATE huge SET v = 'changed' WHERE i % 1000 = 0});
sql('CHECKPOINT; UPDATE t SET n = n + 1 WHERE id % 90 = 0; DELETE FROM quiet WHERE id % 900 = 1');
$primary->safe_psql('large', 'UPDATE huge SET i = -i WHERE i % 700 = 5');
$primary->stop('immediate');
$primary->start;
is(init_lsn($primary), $init, 'crashed, without full pages: coverage begins where it did');
$primary->safe_psql('large', q{UPDATE huge SET v = 'after' WHERE i % 900 = 7});
my $crashed = backup_of($primary);
ok(scalar(grep { m{\.1$} } keys %{ $crashed->{map} }), 'the second segment is in the map');
check_backup($primary, $crashed, 'several segments, no full pages, a crash');
sql('DROP DATABASE large');
$primary->append_conf('postgresql.conf', 'full_page_writes = on');
$primary->reload;

#
# Ten backups in a row under load
#
$primary->run_log([ 'pgbench', '-i', '-q', '-s', '1', '-h', $primary->host, '-p', $primary->port, 'postgres' ])
  or die 'pgbench does not initialize';
my @row = (backup_of($primary));
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '3600', '-h', $primary->host, '-p', $primary->port, 'postgres' ],
	'<', \undef, '>', \my $out, '2>', \my $err);
for my $turn (1 .. 10)
{
	my $done = sql('SELECT count(*) FROM pgbench_history');

	poll_until(sub { sql('SELECT count(*) FROM pgbench_history') > $done + 20 }) or die 'there is no load';
	push @row, backup_of($primary, started => sub {
			sql("UPDATE t SET n = 10 + $turn WHERE id % 400 = $turn");
			# This one is restored below, and is to know of what was before it.
			await_summary($primary, sql('SELECT redo_lsn FROM pg_control_checkpoint()')) if $turn == 9 && follows_wal();
		});
	$row[-1]{done} = $done;
}
$load->signal('TERM');
IPC::Run::finish($load);
$primary->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'")
  or die 'the load does not end';
cmp_ok($_->{pages} + 0, '>', 0, "$_->{name}: $_->{pages} pages by map, $_->{filtered} filtered out") for @row[ 1 .. 10 ];

# With the WAL that each has itself, up to its own end.
for my $backup (@row[ 1, 6, 10 ])
{
	my $restored = restored_node("$backup->{name}_restored", $backup);

	$restored->start;
	is($restored->safe_psql('postgres', <<"EOS"), 't|t|t|t', "$backup->{name}: the balances agree");
SELECT a = t, a = b, a = h, done > $backup->{done}
FROM (SELECT sum(abalance) FROM pgbench_accounts) a (a), (SELECT sum(tbalance) FROM pgbench_tellers) t (t),
	(SELECT sum(bbalance) FROM pgbench_branches) b (b), (SELECT sum(delta), count(*) FROM pgbench_history) h (h, done)
EOS
	$restored->command_ok([ 'pg_amcheck', '-d', 'postgres', '-s', 'public', '--heapallindexed', '--install-missing' ],
		"$backup->{name}: tables and indexes are sound");
	$restored->stop('immediate');
	$restored->clean_node;
}
check_backup($primary, backup_of($primary), 'after eleven in a row');

#
# A restore, and backups on the timeline that begins there
#
my $older = $row[7];
my $base = $row[9];
my $next = restored_node('next', $base);
$next->append_conf('postgresql.conf', "restore_command = 'false'\nrecovery_target = immediate\nrecovery_target_action = promote");
$next->set_recovery_mode;
$next->start;
$next->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'the restored server does not come up';
is(init_lsn($next), $init, 'restored: coverage begins where it did');
$next->safe_psql('postgres', <<'EOS');
UPDATE t SET n = 100 WHERE id % 110 = 0; DROP TABLE moving; CREATE TABLE moving AS SELECT * FROM quiet;
UPDATE pgbench_accounts SET abalance = 7 WHERE aid % 1000 = 0; VACUUM pgbench_accounts;
EOS
my $on_next = probackup($next, 'next1', prior => $base);
check_backup($next, $on_next, 'on the next timeline, after the backup that was restored');
like($on_next->{segment}, qr/^00000002/, 'it is another timeline');
$next->safe_psql('postgres', 'UPDATE t SET n = 101 WHERE id % 130 = 0; TRUNCATE moving');
check_backup($next, probackup($next, 'next2', prior => $older),
	'on the next timeline, after an older one, the newest being deleted');
check_backup($next, probackup($next, 'next3', prior => $on_next), 'on the next timeline, after one of its own');
$next->stop;

#
# A session without the library
#
sql('CREATE TABLE unknown AS SELECT * FROM quiet');
$primary->stop;
$primary->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$primary->start;
sql('UPDATE quiet SET n = 1 WHERE id % 3 = 0; CHECKPOINT');
$primary->stop;
$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
$primary->start;

# WAL is still there, and tells what that session did.
await_answers($primary);
check_backup($primary, backup_of($primary), 'across a session without the library');
$last{primary} = probackup($primary, 'again');
sql('UPDATE quiet SET n = 2 WHERE id % 700 = 0');
my $again = backup_of($primary);
cmp_ok($again->{pages}, '<', 200, 'after a full backup, one is made that is small');
check_backup($primary, $again, 'after a session without the library');

# Disabled, which pg_probackup is told by SHOW.
$primary->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$primary->restart;
ok(!eval { probackup($primary, 'disabled', prior => $again) }, 'when disabled, no increment is made');
like($@, qr/^ptrack is disabled/, 'since the size of the map says so');

$primary->stop;
done_testing();
