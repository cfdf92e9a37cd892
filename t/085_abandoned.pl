# A data directory is rolled back, but its store is not.  A redo point of the
# abandoned history, which only recovery has ever come by, lies inside a merged
# summary; and the new history has one at the same LSN.  The one must not be
# taken for the other.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

need_replayed_redo_points();
my $node = new_node('primary', conf => "checkpoint_completion_target = 0.9\nbgwriter_delay = 10s\nwal_keep_size = 1GB");
my $data = $node->data_dir;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE a AS SELECT i FROM generate_series(1, 100000) i;
CREATE TABLE b AS SELECT i FROM generate_series(1, 100000) i;
SQL
$node->restart;
$node->stop;
system_or_bail('cp', '-a', $data, "$data.old");
system_or_bail('rm', '-rf', "$data.old/ptrack");

# The abandoned history changes a.  It crashes inside a checkpoint, so that no
# server started from the redo point, and recovery comes by it.
$node->start;
my $start = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
$node->safe_psql('postgres', 'UPDATE a SET i = i + 1');
my $offset = -s $node->logfile;
my $backup = $node->background_psql('postgres');
# That switches to a new segment, at whose beginning the redo point is.
$backup->query_until(qr/begins/, "\\echo begins\nSELECT pg_backup_start('ptrack', false);\n");
$node->wait_for_log(qr/checkpoint starting/, $offset);
$node->safe_psql('postgres', 'UPDATE a SET i = i + 1');
$node->stop('immediate');
$backup->{run}->kill_kill;
$node->start;
for (1 .. 3)
{
	$node->safe_psql('postgres', 'UPDATE a SET i = i + 1');
	checkpoint($node);
}
$node->stop;

# Its summaries are merged, but for those of before.
my @files = summary_files($node);
my $first = sprintf '%08X%08X', map { hex } split m{/}, $start;
stretch_summaries(60, @files);
change_summary_times(map { $_ => sub { (0, 0) } } grep { /(.{16})\.summary$/ && $1 le $first } @files);
$offset = -s $node->logfile;
$node->append_conf('postgresql.conf', 'log_min_messages = debug1');
$node->start;
$node->wait_for_log(qr/merged \d+ change summaries/, $offset);
$node->stop;
utime time - 2 * 86400, time - 2 * 86400, summary_files($node);
my @before = summary_files($node);
$node->start;
ok(poll_until(sub { my @now = summary_files($node); @now < @before }), 'what was merged is gone');
$node->stop;
my @inside = map { summary_points($_) } summary_files($node);

# Rolled back, but not the store; the new history changes b.
system_or_bail('mv', "$data/ptrack", "$data.ptrack");
system_or_bail('rm', '-rf', $data);
system_or_bail('mv', "$data.old", $data);
system_or_bail('mv', "$data.ptrack", "$data/ptrack");
$node->start;
$node->safe_psql('postgres', 'UPDATE b SET i = i + 1');
my $redo = $node->safe_psql('postgres', "SELECT pg_backup_start('ptrack', true)");
checkpoint($node);
ok((grep { $_ eq $redo } @inside), "both histories have a redo point at $redo");
my %paths = map { $_ => $node->safe_psql('postgres', "SELECT pg_relation_filepath('$_')") } 'a', 'b';
my %map = pagemap($node, $start);
cmp_ok(scalar @{ $map{ $paths{b} } }, '>', 400, 'b has changed');
ok(!$map{ $paths{a} }, 'a has not');
$node->stop('immediate');
$node->start;
my %after = pagemap($node, $start);
is_deeply($after{ $paths{b} }, $map{ $paths{b} }, 'that is known after a crash');
ok(!$after{ $paths{a} }, 'and what was abandoned is not taken for it');
$node->stop;

done_testing();
