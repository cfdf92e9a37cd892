# A server restored from a file-level backup and the archive, to a point in
# time: it knows all that the backup knew and all that was replayed, and takes
# a prior backup from before that point, from the timeline that it left, too.
# What the old history did after that point is not its own.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use PtrackTest;
use Test::More;

my $archive = PostgreSQL::Test::Utils::tempdir;
my $node = new_node('primary', conf => <<"EOS");
wal_keep_size = 1GB
archive_mode = on
archive_command = 'cp "%p" "$archive/%f"'
EOS
my $init = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');

# A server made of that backup of that node that ends at a restore point.
sub restored
{
	my ($name, $of, $backup, $target, $action, @conf) = @_;
	my $restored = PostgreSQL::Test::Cluster->new($name);

	$restored->init_from_backup($of, $backup);
	$restored->append_conf('postgresql.conf', <<"EOS");
restore_command = 'cp "$archive/%f" "%p"'
recovery_target_name = '$target'
recovery_target_action = $action
@conf
EOS
	$restored->set_recovery_mode;
	$restored->start;
	return $restored;
}

sub wait_until
{
	my ($server, $condition) = @_;

	$server->poll_query_until('postgres', "SELECT $condition") or die "not true: $condition";
	return;
}

sub wait_for_promotion
{
	wait_until($_[0], 'NOT pg_is_in_recovery()');
	return;
}

sub coverage_holds
{
	my ($server, $name) = @_;

	is($server->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, "$name: coverage begins where it did");
	is($server->safe_psql('postgres', 'SELECT gaps FROM pg_stat_ptrack'), 0, "$name: no gaps");
	return;
}

sub knows
{
	my ($server, $since, $known, $name) = @_;

	coverage_holds($server, $name);
	is(lines_missing($known, changed_blocks($server, $since)), '',
		"$name: none of " . (split /\n/, $known) . ' changes is missing');
	return;
}

sub lineage
{
	my ($server, $lsn) = @_;

	return $server->safe_psql('postgres', "SELECT ptrack_lineage('$lsn')");
}

sub archived
{
	my ($server) = @_;
	my $segment = $server->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');

	$server->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'ptrack', ''); SELECT pg_switch_wal()");
	wait_until($server, "last_archived_wal >= '$segment' FROM pg_stat_archiver");
	return;
}

$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 30000) i;
CREATE TABLE before_backup (a int);
EOS
my $start = checkpoint($node);
my ($oldest, $oldest_lsn) = base_copy('oldest', $node);
$node->safe_psql('postgres', 'UPDATE t SET n = 1 WHERE id % 1000 = 0; CREATE INDEX ON t (n)');

# The base of all that is restored here.
$node->backup('base');
$node->safe_psql('postgres', 'UPDATE t SET n = 2 WHERE id % 700 = 0; TRUNCATE before_backup; VACUUM t');
checkpoint($node);

# A prior backup from between that one and the point in time.
my ($prior, $prior_lsn) = base_copy('prior', $node);
$node->safe_psql('postgres', 'UPDATE t SET n = 3 WHERE id % 500 = 0; CREATE TABLE made AS SELECT * FROM t WHERE id < 5000');
checkpoint($node);
$node->safe_psql('postgres', 'DELETE FROM t WHERE id BETWEEN 1000 AND 1500; VACUUM t');
my $known = changed_blocks($node, $start);
my $known_since_prior = changed_blocks($node, $prior_lsn);
$node->safe_psql('postgres', "SELECT pg_create_restore_point('here')");

# What is abandoned later: with a checkpoint and a backup of its own.
$node->safe_psql('postgres', 'UPDATE t SET n = 4; CREATE TABLE abandoned AS SELECT * FROM t');
my $abandoned_lsn = checkpoint($node);
my $abandoned_lineage = lineage($node, $abandoned_lsn);
$node->safe_psql('postgres', 'INSERT INTO abandoned SELECT * FROM t');
archived($node);

# First to the point and no further: the server waits there, in recovery.  It
# goes down in the middle, and begins again from a restartpoint.
my $second = restored('second', $node, 'base', 'here', 'pause');
wait_until($second, "pg_get_wal_replay_pause_state() = 'paused'");
knows($second, $start, $known, 'in archive recovery');
knows($second, $prior_lsn, $known_since_prior, 'in archive recovery, since the prior backup');
checkpoint($second);
knows($second, $start, $known, 'after a restartpoint');
$second->stop('immediate');
$second->start;
wait_until($second, "pg_get_wal_replay_pause_state() = 'paused'");
knows($second, $start, $known, 'after a crash in archive recovery');
$second->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
wait_for_promotion($second);
is($second->safe_psql('postgres', 'SELECT count(*) FROM pg_class WHERE relname = $$abandoned$$'), 0,
	'this is before what was abandoned');
knows($second, $start, $known, 'restored');
knows($second, $prior_lsn, $known_since_prior, 'restored, since the prior backup');
fails_like($second, "SELECT * FROM ptrack_get_pagemapset('$abandoned_lsn')", '22023',
	"in the future of this server.*DETAIL:  Changes are known from $init", 'an LSN past that point');

# Prior backups of the old timeline are accepted, one from before the backup
# that was restored, and one from after it.
$second->safe_psql('postgres', 'UPDATE t SET n = 5 WHERE id % 300 = 0; DROP TABLE made; CREATE TABLE other AS SELECT * FROM t');
for my $backup ([ $prior, $prior_lsn, 'newer' ], [ $oldest, $oldest_lsn, 'older' ])
{
	my ($copy, $lsn, $age) = @$backup;

	refresh_node($second, $copy, $lsn);
	compare_copy($second, $copy, "a copy from the old timeline, $age than the base of this one");
	coverage_holds($second, "after a backup with a prior one that is $age");
	is(lineage($second, $lsn), lineage($node, $lsn), "the lineage at the start of a prior one that is $age is the same");
}

# Its timeline begins in the middle of a segment.  If that is gone, the archive's of
# the old timeline does not stand in for it: that goes on with what was abandoned.
sub follow_alone
{
	my $alone = restored('alone', $node, 'base', 'here', 'promote', 'archive_mode = off');

	wait_for_promotion($alone);
	$alone->append_conf('postgresql.conf', <<"EOS");
ptrack.engine = wal
ptrack.restore_command = 'cp "$archive/%f" "%p"'
max_worker_processes = 0
EOS
	$alone->restart;
	$alone->safe_psql('postgres', 'CREATE TABLE kept AS SELECT * FROM t LIMIT 5000');
	my $end = $alone->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	my $changes = "SELECT count(*) FROM ptrack_changed_blocks('$start', '$end') WHERE relfilenode = pg_relation_filenode('kept')";
	cmp_ok($alone->safe_psql('postgres', $changes), '>', 0, 'what WAL of the new timeline tells');
	my $segment = $alone->safe_psql('postgres', "SELECT pg_walfile_name('$end'::pg_lsn)");
	$alone->safe_psql('postgres', $_) for 'SELECT pg_switch_wal()', 'CHECKPOINT';
	rename $alone->data_dir . "/pg_wal/$segment", $alone->basedir . "/$segment" or die "could not move $segment: $!";
	ok(-e "$archive/" . $segment =~ s/^0000000./00000001/r, 'the archive has that segment of the old timeline');
	fails_like($alone, $changes, '58P01', "WAL segment \"$segment\" is needed and is not there any more", 'not without it');
	$alone->stop('immediate');
	return;
}
follow_alone();

# An LSN of the abandoned history is in the past, sooner or later.
while ($second->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() < '$abandoned_lsn'") eq 't')
{
	$second->safe_psql('postgres', 'UPDATE t SET n = 5 WHERE id = 5; SELECT pg_switch_wal(); CHECKPOINT');
}
fails_like($second, "SELECT * FROM ptrack_get_pagemapset('$abandoned_lsn', '$abandoned_lineage')", '55000',
	'is not in the history of this server', 'a backup of the abandoned history');

# A third history, from a backup of the second.
$second->backup('base');
checkpoint($second);
$second->safe_psql('postgres', 'UPDATE t SET n = 6 WHERE id % 900 = 0');
$known = changed_blocks($second, $start);
$second->safe_psql('postgres', "SELECT pg_create_restore_point('there')");
archived($second);
$second->stop;
my $third = restored('third', $second, 'base', 'there', 'promote');
wait_for_promotion($third);
$third->stop('immediate');
$third->start;
knows($third, $start, $known, 'restored again, and crashed');
is($third->safe_psql('postgres', 'SELECT timeline_id FROM pg_control_checkpoint()'), 3, 'on the third timeline');
refresh_node($third, $prior, $prior_lsn);
compare_copy($third, $prior, 'a copy from the first timeline, on the third');

# While the files of a backup are copied, the server goes on to other redo
# points, and its store with it: the copy begins where the backup's label says.
my $session = $third->background_psql('postgres');
$session->query_safe("SELECT pg_backup_start('slow', true)");
my $lsn = $third->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
for my $turn (1 .. 3)
{
	$third->safe_psql('postgres', "UPDATE t SET n = 10 + $turn WHERE id % 800 = $turn");
	checkpoint($third);
}
my $slow = PostgreSQL::Test::Cluster->new('slow');
PostgreSQL::Test::RecursiveCopy::copypath($third->data_dir, $slow->data_dir,
	filterfn => sub { $_[0] !~ m{^postmaster\.|^pg_wal/.|^pg_internal\.init} });
chmod 0700, $slow->data_dir;
$known = changed_blocks($third, $start);
append_to_file($slow->data_dir . '/backup_label',
	$session->query_safe('SELECT labelfile FROM pg_backup_stop(false)') . "\n");
$session->quit;
$third->stop;
copy_wal($third->data_dir, $slow->data_dir);
$slow->append_conf('postgresql.conf', 'port = ' . $slow->port);
$slow->start;
knows($slow, $start, $known, 'restored from a backup that was copied late');
is($slow->safe_psql('postgres', "SELECT count(*) > 0 FROM ptrack_changed_blocks('$lsn')"), 't',
	'it can tell what changed since it was made');

$_->stop for $node, $slow;
done_testing();
