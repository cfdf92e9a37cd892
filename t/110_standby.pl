# A streaming standby tracks what it replays: through restarts, crashes and
# promotion, and again on the next timeline.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $primary = new_node('primary', conf => 'wal_keep_size = 1GB');
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i');
my $init = $primary->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
my $start = checkpoint($primary);

# Everything that the primary knows to have changed, the standby knows.
sub knows_all
{
	my ($standby, $of, $since, $name) = @_;
	my $known = changed_blocks($of, $since);
	my %here;

	catch_up($standby, $of);
	%here = map { $_ => 1 } split /\n/, changed_blocks($standby, $since);
	is(join(' ', grep { !$here{$_} } split /\n/, $known), '', "$name: nothing is missing");
	is($standby->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, "$name: coverage begins where it did");
	return;
}

# On a second timeline, everything happens once more.
for my $timeline (1, 2)
{
	my $standby = new_standby("standby$timeline", $primary);
	my $change = 'UPDATE t SET i = i + 1 WHERE i % 100 = 0; CREATE TABLE IF NOT EXISTS u AS SELECT * FROM t; VACUUM t';

	$primary->safe_psql('postgres', $change);
	knows_all($standby, $primary, $start, "timeline $timeline, streaming");
	is($standby->safe_psql('postgres', 'SELECT engine FROM pg_stat_ptrack'),
		replays_redo_points() ? 'redo' : 'wal', 'the engine is that of a standby');
	restartpoint($standby, $primary);
	$primary->safe_psql('postgres', $change);
	knows_all($standby, $primary, $start, "timeline $timeline, after a restartpoint");
	$standby->restart;
	knows_all($standby, $primary, $start, "timeline $timeline, after a restart");
	restartpoint($standby, $primary);
	$primary->safe_psql('postgres', $change);
	catch_up($standby, $primary);
	$standby->stop('immediate');
	$standby->start;
	knows_all($standby, $primary, $start, "timeline $timeline, after a crash");

	my $known = changed_blocks($primary, $start);
	catch_up($standby, $primary);
	$primary->stop;
	$standby->promote;
	my %here = map { $_ => 1 } split /\n/, changed_blocks($standby, $start);
	is(join(' ', grep { !$here{$_} } split /\n/, $known), '', "timeline $timeline, promoted: nothing is missing");
	checkpoint($standby);
	$standby->stop('immediate');
	$standby->start;
	%here = map { $_ => 1 } split /\n/, changed_blocks($standby, $start);
	is(join(' ', grep { !$here{$_} } split /\n/, $known), '', 'nor after a crash of the new primary');
	is($standby->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, 'coverage begins where it did');
	is($standby->safe_psql('postgres', 'SELECT flush_failures FROM pg_stat_ptrack'), 0, 'all was written');
	$primary = $standby;
}
$primary->stop;

done_testing();
