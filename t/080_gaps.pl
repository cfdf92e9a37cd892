# What happens without the library leaves a gap, which is noticed by comparing
# LSNs: nothing has to be told when it happens.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => '');
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

# One session without the library, in which half of the table is rewritten.
$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$node->safe_psql('postgres', 'UPDATE t SET i = -i WHERE i % 2 = 0');
$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
$node->start;
$init = expect_gap('session without the library', $start);
$start = checkpoint($node);
is(init_lsn(), $init, 'and then it stays');

# The same, ended by a crash.
$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$node->safe_psql('postgres', 'UPDATE t SET i = -i WHERE i % 2 = 0');
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
$node->start;
# Recovery marks what that session did: its WAL begins where coverage ended.
is(init_lsn(), $init, 'session without the library that crashed at once: recovery fills in');
is($node->safe_psql('postgres', <<"EOF"), 't', 'all of it');
SELECT pagecount = pg_relation_size('t') / 8192 FROM ptrack_get_pagemapset('$start')
WHERE path = pg_relation_filepath('t')
EOF

# pg_resetwal.
$start = checkpoint($node);
$node->stop;
run_log([ 'pg_resetwal', '-f', '-D', $node->data_dir ]);
$node->start;
$init = expect_gap('pg_resetwal', $start);

# The data directory is rolled back to an older copy, with its store: what is
# known then is what was known at the time of the copy.
$start = checkpoint($node);
$node->stop;
my $saved = $node->basedir . '/saved';
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $saved);
$node->start;
my $since_copy = checkpoint($node);
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
sleep 3;
$node->start;
$node->safe_psql('postgres', 'CREATE TABLE u AS SELECT i FROM generate_series(1, 100) i');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
is(checkpoint($node), $coincidence, 'two histories have a redo point in common');
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
$node->start;
expect_gap('a summary of another history that ends where recovery begins', $start);
checkpoint($node);
expect_gap('the same, one checkpoint later', $start);

# pg_checksums rewrites every page, and no WAL tells.
$start = checkpoint($node);
my $from = init_lsn();
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

# The store is deleted while the server is down.
$start = checkpoint($node);
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir . '/ptrack');
$node->start;
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
