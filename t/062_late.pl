# Cycles that could not be published at their checkpoint are published later, by
# the worker, and nobody has to do anything; more redo points pass than the map
# can remember; a summary that cannot be read for a moment when the server starts.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

need_hooks('checkpoints do not write summaries');

my $node = new_node('primary', conf => '');
sub init_lsn { return $_[0]->safe_psql('postgres', 'SELECT ptrack_init_lsn()'); }

$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i');
my $start = checkpoint($node);
my $init = init_lsn($node);

# Two checkpoints find the store read-only; nothing of them is left in memory
# when the server crashes a while later.
my $store = $node->data_dir . '/ptrack';
chmod 0500, $store;
my @redo;
for (1 .. 2)
{
	$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
	push @redo, checkpoint($node);
}
is($node->safe_psql('postgres', 'SELECT flush_failures FROM pg_stat_ptrack'), 2, 'two checkpoints could not publish');
chmod 0700, $store;
my ($last) = map { sprintf '%08X%08X.summary', map { hex } split m{/} } $redo[1];
ok(poll_until(sub { grep { /$last$/ } summary_files($node) }), 'the worker publishes what they left');
my $before = changed_blocks($node, $start);
crash($node);
$node->start;
is(init_lsn($node), $init, 'so a crash leaves no gap');
is(lines_missing($before, changed_blocks($node, $start)), '', 'and loses nothing');

# The newest summary cannot be opened when the server starts.
checkpoint($node);
$node->stop;
my $newest = (summary_files($node))[-1];
my $offset = -s $node->logfile;
chmod 0000, $newest;
$node->start;
$node->wait_for_log(qr/ignoring change summary .*cannot be opened/, $offset);
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$start')", '55000', 'not known yet', 'while a summary cannot be opened');
$offset = -s $node->logfile;
checkpoint($node);
like(log_since($node, $offset), qr/WARNING:  changed blocks up to .* are not durable/, 'nor is one published');
chmod 0600, $newest;
is(init_lsn($node), $init, 'once it can, all is known');
checkpoint($node);
$node->restart;
is(init_lsn($node), $init, 'and stays so');
$node->stop;

# Without a worker, a standby publishes at restartpoints only, and passes more
# redo points than it can remember.  The one that the restartpoint is at is the
# last but one: another checkpoint has begun.  It waits a tenth of a second after
# each page, so that it goes on for as long as there are pages to write in memory.
need_replayed_redo_points();
my $primary = new_node('busy', conf => <<'EOF');
wal_keep_size = 1GB
max_worker_processes = 0
checkpoint_completion_target = 0.9
shared_buffers = 32MB
EOF
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 100000) i');
$start = checkpoint($primary);
my $standby = new_standby('standby', $primary);
$init = init_lsn($standby);
my $finished;
for (1 .. 40)
{
	$primary->safe_psql('postgres', 'UPDATE t SET i = i + 1 WHERE i % 1000 = 0');
	$finished = checkpoint($primary);
}
my $redo = $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
$primary->safe_psql('postgres', 'UPDATE t SET i = i + 1');
my $backup = $primary->background_psql('postgres');
$backup->query_until(qr/begins/, "\\echo begins\nSELECT pg_backup_start('ptrack', false);\n");
$primary->wait_for_log(qr/checkpoint starting: force wait/);
my $known = changed_blocks($primary, $start);
catch_up($standby, $primary);
is(checkpoint($standby), $finished, 'a restartpoint while the next checkpoint is under way');
is(init_lsn($standby), $init, 'coverage begins where it did');
$standby->stop('immediate');
$standby->start;
is(init_lsn($standby), $init, 'and after a crash');
catch_up($standby, $primary);
is(lines_missing($known, changed_blocks($standby, $start)), '', 'nothing is missing');
$standby->stop;
$backup->{run}->kill_kill;
$primary->stop('immediate');

done_testing();
