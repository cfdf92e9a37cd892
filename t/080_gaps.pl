# What happens without the library is read from WAL, if that is still there.  If
# not, it leaves a gap, which is noticed by comparing LSNs: nothing has to be told
# when it happens.

use strict;
use warnings FATAL => 'all';

use File::Basename;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');
sub init_lsn { return $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'); }
sub later { return $node->safe_psql('postgres', "SELECT '$_[0]'::pg_lsn > '$_[1]'::pg_lsn") eq 't'; }

$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i');
my $init = init_lsn();
my $start = checkpoint($node);

# Restarts of every kind leave none.
$node->restart;
is(init_lsn(), $init, 'clean restart: no gap');
$node->stop('immediate');
$node->start;
is(init_lsn(), $init, 'crash: no gap');
$node->stop('fast');
$node->start;
$node->stop('immediate');
$node->start;
is(init_lsn(), $init, 'crash right after the start: no gap');

sub expect_gap
{
	my ($name, $since) = @_;
	my $from = init_lsn();

	ok(later($from, $since), "$name: coverage begins later");
	fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$since')", '55000',
		"Changes are known from $from", $name);
	return $from;
}

# Removes the WAL from before the checkpoint that the server was stopped at.
sub lose_wal
{
	my ($control) = run_command([ 'pg_controldata', $node->data_dir ]);
	my ($needed) = $control =~ /REDO WAL file:\s+(\S+)/;
	my @lost = grep { basename($_) =~ /^[0-9A-F]{24}$/ && basename($_) lt $needed } glob $node->data_dir . '/pg_wal/*';

	cmp_ok(unlink(@lost), '>', 0, 'WAL is lost');
	return;
}

# One session without the library.
sub without_library
{
	my ($sql) = @_;

	$node->stop;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->start;
	$node->safe_psql('postgres', $_) for split /;/, $sql;
	$node->stop;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
	return;
}

# Are all pages reported that have rows, of which all are new?
sub all_of_t
{
	my ($since, $name) = @_;

	is($node->safe_psql('postgres', <<"EOF"), 't', $name);
SELECT pagecount >= (SELECT count(DISTINCT (ctid::text::point)[0]) FROM t)
FROM ptrack_get_pagemapset('$since') WHERE path = pg_relation_filepath('t')
EOF
	return;
}

without_library('UPDATE t SET i = -i; CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT');
$node->start;
await_answers($node);
is(init_lsn(), $init, 'session without the library: WAL tells');
all_of_t($start, 'all of it');
$start = checkpoint($node);
is(init_lsn(), $init, 'and then it stays');

# The same, and WAL is gone.
without_library('UPDATE t SET i = -i WHERE i % 2 = 0; SELECT pg_switch_wal()');
lose_wal();
$node->start;
await_answers($node);
$init = expect_gap('session without the library and its WAL', $start);
$start = checkpoint($node);
is(init_lsn(), $init, 'and then it stays');

# The same, ended by a crash.
$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$node->safe_psql('postgres', 'UPDATE t SET i = -i');
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
$node->start;
await_answers($node);
# Recovery marks what that session did: its WAL begins where coverage ended.
is(init_lsn(), $init, 'session without the library that crashed at once: recovery fills in');
all_of_t($start, 'all of it');

# pg_resetwal.
$start = checkpoint($node);
$node->stop;
run_log([ 'pg_resetwal', '-f', '-D', $node->data_dir ]);
$node->start;
await_answers($node);
$init = expect_gap('pg_resetwal', $start);

# The data directory is rolled back to an older copy, with its store: what is
# known then is what was known at the time of the copy.
$start = checkpoint($node);
$node->stop;
my $saved = $node->basedir . '/saved';
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $saved);
$node->start;
checkpoint($node);
$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
my $later = checkpoint($node);
$node->stop;

# Only the store is newer than the data: its newest summaries do not count.
my $newer = $node->basedir . '/newer';
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir . '/ptrack', $newer);
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath($saved, $node->data_dir);
chmod 0700, $node->data_dir;
$node->start;
is(init_lsn(), $init, 'rolled back with its store: what was known then is known');
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$later')", '22023',
	"in the future of this server.*DETAIL:  Changes are known from $init.*HINT:", 'an LSN of the abandoned history');
$node->stop('immediate');
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir . '/ptrack');
PostgreSQL::Test::RecursiveCopy::copypath($newer, $node->data_dir . '/ptrack');
$node->start;
is(init_lsn(), $init, 'rolled back with a store that is newer: same');
is($node->safe_psql('postgres', "SELECT count(*) FROM ptrack_changed_blocks('$start') WHERE relfilenode = pg_relation_filenode('t') AND relforknumber = 0"),
	0, 'changes of the abandoned history are not reported');

# The same, and then a session without the library comes to a checkpoint at the
# very LSN that a summary of the abandoned history ends at: switching WAL puts
# redo points at the start of a segment.  What that session did is not known.
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath($saved, $node->data_dir);
chmod 0700, $node->data_dir;
$node->start;
$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
my $coincidence = checkpoint($node);
$node->stop('immediate');
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $newer);
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir . '/ptrack', $newer);
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath($saved, $node->data_dir);
chmod 0700, $node->data_dir;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir . '/ptrack');
PostgreSQL::Test::RecursiveCopy::copypath($newer, $node->data_dir . '/ptrack');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
# That checkpoint's time is another one, by more than the bounds in the summary, which
# are in seconds.
sleep 3;
$node->start;
$node->safe_psql('postgres', 'CREATE TABLE u AS SELECT i FROM generate_series(1, 100) i');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->safe_psql('postgres', 'CHECKPOINT');
is($node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()'), $coincidence,
	'two histories have a redo point in common');
my $table = $node->safe_psql('postgres', "SELECT pg_relation_filepath('u')");
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $saved);
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $saved);
lose_wal();
$node->start;
await_answers($node);
expect_gap('a summary of another history that ends where recovery begins', $start);
checkpoint($node);
expect_gap('the same, one checkpoint later', $start);

# Once more with WAL: it tells what that session did, and nothing of the other history.
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath($saved, $node->data_dir);
chmod 0700, $node->data_dir;
$node->start;
await_answers($node);
is(init_lsn(), $init, 'with WAL there is no gap');
my %changed = pagemap($node, $start);
ok($changed{$table}, 'the session without the library is known');
ok(!$changed{ $node->safe_psql('postgres', "SELECT pg_relation_filepath('t')") }, 'what the other history changed is not');

# pg_checksums rewrites every page, and no WAL tells.
sub beyond_wal { return scalar grep { unpack('V', substr(slurp_file($_), 44, 4)) & 8 } summary_files($node); }
$start = checkpoint($node);
my $from = init_lsn();
my $beyond = beyond_wal();
$node->stop;
run_log([ 'pg_checksums', '--enable', '-D', $node->data_dir ]);
$node->start;
my $sum = "SELECT sum(pagecount) FROM ptrack_get_pagemapset('$start') WHERE path = pg_relation_filepath('pg_proc')";
my $all = $node->safe_psql('postgres', "SELECT pg_relation_size('pg_proc') / 8192");
is($node->safe_psql('postgres', $sum), $all, 'checksums enabled: all blocks count as changed');
is(init_lsn(), $from, 'and that is no gap');
checkpoint($node);
$node->restart;
is($node->safe_psql('postgres', $sum), $all, 'nor is it forgotten');
# A flag of its summary keeps it from being made exact by WAL.
cmp_ok(beyond_wal(), '>', $beyond, 'a summary tells of more than WAL does');

# The same, when the first thing to happen is a checkpoint, and then a crash.
$node->stop;
run_log([ 'pg_checksums', '--disable', '-D', $node->data_dir ]);
$node->start;
$start = checkpoint($node);
$node->stop;
run_log([ 'pg_checksums', '--enable', '-D', $node->data_dir ]);
$node->start;
checkpoint($node);
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', $sum =~ s/pagemapset\('[^']*'/pagemapset('$start'/r), $all,
	'nor after a checkpoint and a crash');
$start = checkpoint($node);
$node->stop;
run_log([ 'pg_checksums', '--disable', '-D', $node->data_dir ]);
$node->start;
cmp_ok($node->safe_psql('postgres', "SELECT coalesce(sum(pagecount), 0) FROM ptrack_get_pagemapset('$start')"), '<', 50,
	'checksums disabled: no page is written, none is reported');

# A session without the library may have been one without checksums, too.  WAL does
# not tell that, nor of hint bits; and a backup that was taken in between has pages
# with wrong ones.
$node->stop;
run_log([ 'pg_checksums', '--enable', '-D', $node->data_dir ]);
$node->start;
$node->safe_psql('postgres', 'CREATE TABLE hinted AS SELECT i FROM generate_series(1, 10000) i');
checkpoint($node);
$node->stop;
run_log([ 'pg_checksums', '--disable', '-D', $node->data_dir ]);
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$node->safe_psql('postgres', 'SELECT count(*) FROM hinted');
$node->safe_psql('postgres', 'CHECKPOINT');
$start = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
$node->stop;
run_log([ 'pg_checksums', '--enable', '-D', $node->data_dir ]);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
$node->start;
await_answers($node);
is(init_lsn(), $from, 'checksums disabled and enabled around a session without the library: no gap');
sub all_hinted
{
	return $node->safe_psql('postgres', <<"EOF");
SELECT pagecount = pg_relation_size('hinted') / 8192
FROM ptrack_get_pagemapset('$start') WHERE path = pg_relation_filepath('hinted')
EOF
}
is(all_hinted(), 't', 'all blocks count as changed');
checkpoint($node);
$node->restart;
is(all_hinted(), 't', 'nor is that forgotten');
# A crash alone is no time for pg_checksums.
checkpoint($node);
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$node->safe_psql('postgres', 'CHECKPOINT');
$start = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
$node->start;
await_answers($node);
cmp_ok($node->safe_psql('postgres', "SELECT coalesce(sum(pagecount), 0) FROM ptrack_get_pagemapset('$start')"), '<', 50,
	'crashes are no time for pg_checksums');

# The store is deleted while the server is down.  WAL still tells what changed,
# but not which history this was.
$start = checkpoint($node);
my $lineage = $node->safe_psql('postgres', "SELECT ptrack_lineage('$start')");
$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir . '/ptrack');
$node->start;
await_answers($node);
ok(!later(init_lsn(), $start), 'store deleted: WAL tells');
all_of_t($start, 'store deleted: all of it');
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$start', '$lineage')", '55000',
	'is not in the history of this server', 'store deleted: but it is another history');

# The same, and WAL is gone.
$start = checkpoint($node);
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir . '/ptrack');
lose_wal();
$node->start;
await_answers($node);
expect_gap('store deleted', $start);

# ... and while it runs: the next summary still comes.
$start = checkpoint($node);
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir . '/ptrack');
$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
$later = checkpoint($node);
is(init_lsn(), $start, 'store deleted while running: coverage begins at the cycle that was running');
my @files = summary_files($node);
is(scalar(@files), 1, 'the store is made again');

$node->stop;
done_testing();
