# What is known survives every way in which a history is followed or left:
# standbys that stream, cascade or only read the archive, their restartpoints
# and crashes, and promotion; and a backup of the old timeline is brought up to
# date from the new one.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $archive = PostgreSQL::Test::Utils::tempdir;
my $primary = new_node('primary', conf => <<"EOS");
wal_keep_size = 1GB
shared_buffers = 32MB
archive_mode = on
archive_command = 'cp "%p" "$archive/%f"'
EOS
my $init = $primary->safe_psql('postgres', 'SELECT ptrack_init_lsn()');

$primary->safe_psql('postgres', <<'EOS');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, md5(i::text) FROM generate_series(1, 20000) i;
VACUUM t;
EOS
my $start = checkpoint($primary);

# Some of everything, in some other blocks each time.
my $turn = 0;
sub change
{
	my ($node) = @_;

	$turn++;
	$node->safe_psql('postgres', <<"EOS");
UPDATE t SET n = n + 1 WHERE id % 1000 = $turn;
DELETE FROM t WHERE id BETWEEN $turn * 100 AND $turn * 100 + 20;
VACUUM t;
CREATE TABLE u$turn AS SELECT * FROM t WHERE id < 500;
BEGIN; CREATE TABLE gone AS SELECT * FROM u$turn; ROLLBACK;
EOS
	return;
}

# A node knows from where on it can answer, and all of what is known elsewhere.
sub knows
{
	my ($node, $known, $name) = @_;

	is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, "$name: coverage begins where it did");
	is(lines_missing($known, changed_blocks($node, $start)), '',
		"$name: none of " . (split /\n/, $known) . ' changes is missing');
	return;
}

sub follows
{
	my ($standby, $of, $name) = @_;
	my $known = changed_blocks($of, $start);

	catch_up($standby, $of);
	knows($standby, $known, $standby->name . ", $name");
	return;
}

# Without the startup process, the postmaster ends the server.
sub kill_startup_process
{
	my ($node) = @_;
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
	my $offset = -s $node->logfile;

	kill 9, $pid;
	$node->wait_for_log(qr/database system is shut down/, $offset);
	$node->stop('immediate', fail_ok => 1);
	return;
}

my ($copy, $full) = base_copy('copy', $primary);
my $near = new_standby('near', $primary);
my $far = new_standby('far', $near);

# A backup that has nothing but the archive.
$primary->backup('remote');
my $remote = PostgreSQL::Test::Cluster->new('remote');
$remote->init_from_backup($primary, 'remote');
$remote->append_conf('postgresql.conf', qq(restore_command = 'cp "$archive/%f" "%p"'\nwal_retrieve_retry_interval = 100ms));
$remote->set_standby_mode;
$remote->start;

for my $standby ($near, $far)
{
	change($primary);
	follows($standby, $primary, 'streaming');
	restartpoint($standby, $primary);
	change($primary);
	follows($standby, $primary, 'after a restartpoint');
	$standby->restart;
	follows($standby, $primary, 'after a restart');
	change($primary);
	catch_up($standby, $primary);
	$standby->stop('immediate');
	$standby->start;
	follows($standby, $primary, 'after a crash');
	change($primary);
	restartpoint($standby, $primary);
	change($primary);
	catch_up($standby, $primary);
	kill_startup_process($standby);
	$standby->start;
	follows($standby, $primary, 'after the startup process was killed');
	checkpoint($standby);
	$standby->stop('immediate');
	$standby->start;
	follows($standby, $primary, 'after another crash');
}

# Has the standby that reads the archive replay everything up to now.
sub remote_follows
{
	my ($of, $name) = @_;
	my $known = changed_blocks($of, $start);

	my $end = $of->safe_psql('postgres',
		"SELECT pg_logical_emit_message(true, 'ptrack', ''); SELECT pg_current_wal_lsn(); SELECT pg_switch_wal()");
	$end = (split /\n/, $end)[1];
	$remote->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$end'")
	  or die "remote does not get to $end";
	knows($remote, $known, "remote, $name");
	return;
}
remote_follows($primary, 'from the archive');
checkpoint($remote);
change($primary);
remote_follows($primary, 'after a restartpoint');
$remote->stop('immediate');
$remote->start;
remote_follows($primary, 'after a crash');

# The history forks.  The checkpoint that follows a promotion takes its time
# when there is a lot to write: so what comes now comes before it.
checkpoint($primary);
change($primary);
$primary->safe_psql('postgres', 'UPDATE t SET n = n + 1');
my $known = changed_blocks($primary, $start);
catch_up($_, $primary) for $near, $far;
$primary->stop('immediate');
is($near->safe_psql('postgres', 'SELECT pg_promote()'), 't', 'promoted');
knows($near, $known, 'promoted');
change($near);
follows($far, $near, 'on the second timeline');
checkpoint($far);
is($far->safe_psql('postgres', 'SELECT timeline_id FROM pg_control_checkpoint()'), 1,
	'a restartpoint on the first timeline, made on the second');
$far->stop('immediate');
$far->start;
follows($far, $near, 'after a crash on the second timeline');

# Likewise the new primary: it crashes before it has made a checkpoint.
$known = changed_blocks($near, $start);
crash($near);
$near->start;
knows($near, $known, 'promoted and crashed');
follows($far, $near, 'after a crash of the new primary');
restartpoint($far, $near);
$far->stop('immediate');
$far->start;
follows($far, $near, 'after a restartpoint on the second timeline and a crash');

# A backup of the first timeline is the prior one of one on the second.
refresh_node($near, $copy, $full);
compare_copy($near, $copy, 'a copy from the first timeline, refreshed on the second');

# One that follows through the archive, and is promoted with a checkpoint.
change($near);
remote_follows($near, 'on the second timeline');
$known = changed_blocks($near, $start);
catch_up($far, $near);
$near->safe_psql('postgres', 'SELECT pg_switch_wal()');
$near->stop;
$remote->promote;
checkpoint($remote);
knows($remote, $known, 'promoted from the archive');
change($remote);
$remote->stop('immediate');
$remote->start;
knows($remote, $known, 'promoted from the archive, and crashed');
refresh_node($remote, $copy, $full);
compare_copy($remote, $copy, 'a copy from the first timeline, refreshed on the third');
is($remote->safe_psql('postgres', 'SELECT timeline_id FROM pg_control_checkpoint()'), 3, 'it is the third');

$_->stop for $far, $remote;
done_testing();
