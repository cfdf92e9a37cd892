# Two servers that change roles: by switch-over and back, and by fail-over, after
# which pg_rewind makes the old primary follow the new one.  Neither ever has a
# gap, and a backup made anywhere can be brought up to date from either.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# pg_rewind needs checksums, or wal_log_hints, and the WAL since the fork.
my $one = new_node('one', initdb => ['--data-checksums'], conf => <<'EOS');
wal_keep_size = 1GB
EOS
my $init = $one->safe_psql('postgres', 'SELECT ptrack_init_lsn()');

$one->safe_psql('postgres', <<'EOS');
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 30000) i;
EOS
my $start = checkpoint($one);
my ($copy, $full) = base_copy('copy', $one);
my $two = new_standby('two', $one);

my $turn = 10;
sub change
{
	my ($node) = @_;

	$turn++;
	$node->safe_psql('postgres', <<"EOS");
UPDATE t SET n = $turn WHERE id % 1000 = $turn;
CREATE TABLE u$turn AS SELECT * FROM t WHERE id < 1000;
DROP TABLE IF EXISTS u@{[ $turn - 3 ]};
VACUUM t;
EOS
	return;
}

sub coverage_holds
{
	my ($node, $name) = @_;

	is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init,
		"$name, " . $node->name . ': coverage begins where it did');
	return;
}

# The standby knows what the primary knows, and coverage is unbroken on both.
sub both_know
{
	my ($primary, $standby, $name) = @_;
	my $known = changed_blocks($primary, $start);

	catch_up($standby, $primary);
	is(lines_missing($known, changed_blocks($standby, $start)), '',
		"$name: none of " . (split /\n/, $known) . ' changes is missing');
	coverage_holds($_, $name) for $primary, $standby;
	return;
}

# Changes with checkpoints and restartpoints in between.
sub work
{
	my ($primary, $standby, $name) = @_;

	change($primary);
	both_know($primary, $standby, $name);
	restartpoint($standby, $primary);
	change($primary);
	both_know($primary, $standby, "$name, after a restartpoint");
	return;
}

sub follow
{
	my ($node, $primary) = @_;

	$node->enable_streaming($primary);
	$node->start;
	return;
}

# The primary stops, when its standby has received all that it wrote.
sub switch_over
{
	my ($primary, $standby, $name) = @_;
	my $known = changed_blocks($primary, $start);

	$primary->stop;
	$standby->promote;
	is(lines_missing($known, changed_blocks($standby, $start)), '', "$name: promoted, it knows all that was known");
	follow($primary, $standby);
	work($standby, $primary, $name);
	return;
}

work($one, $two, 'at first');
switch_over($one, $two, 'switched over');
switch_over($two, $one, 'switched back');
switch_over($one, $two, 'and over');

# With a crash of either on the way.
$_->stop('immediate') for $one, $two;
$_->start for $two, $one;
both_know($two, $one, 'after both crashed');
# The end of recovery looks like a shutdown.  If the next one came before a summary, it
# would not be known whether there were checksums in between, and all would be coarse.
restartpoint($one, $two);
switch_over($two, $one, 'and back again');
is($one->safe_psql('postgres', 'SELECT timeline_id FROM pg_control_checkpoint()'), 5, 'on the fifth timeline');
refresh_node($one, $copy, $full);
compare_copy($one, $copy, 'a copy of the first timeline, refreshed on the fifth');

# Fail-over: the old primary goes on alone for a while, with redo points
# of its own, and its history is abandoned.
catch_up($two, $one);
$two->promote;
change($two);
# Its redo point is not in a segment that the timeline before has.
$two->safe_psql('postgres', 'SELECT pg_switch_wal()');
checkpoint($two);
change($two);
my $known = changed_blocks($two, $start);
$one->safe_psql('postgres', "UPDATE t SET n = -1 WHERE id % 500 = $_; CREATE TABLE alone$_ AS SELECT * FROM t")
  for 1 .. 2;
my $stray_lsn = checkpoint($one);
my $stray_lineage = $one->safe_psql('postgres', "SELECT ptrack_lineage('$stray_lsn')");
$one->safe_psql('postgres', 'DROP TABLE alone1; VACUUM FULL t');
checkpoint($one);
$one->stop;
my $settings = slurp_file($one->data_dir . '/postgresql.conf');
command_ok([ 'pg_rewind', '--target-pgdata', $one->data_dir, '--source-server', $two->connstr('postgres'), '--no-sync' ],
	'pg_rewind');

# It takes the settings over, too.
unlink $one->data_dir . '/postgresql.conf';
append_to_file($one->data_dir . '/postgresql.conf', $settings);
follow($one, $two);
catch_up($one, $two);
is(lines_missing($known, changed_blocks($one, $start)), '', 'rewound: it knows all that the new primary knew');
coverage_holds($one, 'rewound');
work($two, $one, 'rewound');

# An LSN of the abandoned history is in the past, sooner or later.
while ($two->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() < '$stray_lsn'") eq 't')
{
	$two->safe_psql('postgres', 'UPDATE t SET n = -2 WHERE id = 1; SELECT pg_switch_wal()');
	restartpoint($one, $two);
}
fails_like($_, "SELECT * FROM ptrack_get_pagemapset('$stray_lsn', '$stray_lineage')", '55000',
	'is not in the history of this server', $_->name . ', a backup of the history that was abandoned')
  for $one, $two;
$one->stop('immediate');
$one->start;
both_know($two, $one, 'rewound, and crashed');
switch_over($two, $one, 'rewound, and primary again');
refresh_node($one, $copy, $full);
compare_copy($one, $copy, 'a copy of the first timeline, refreshed on the rewound server');

$_->stop for $two, $one;
done_testing();
