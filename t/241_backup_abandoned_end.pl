# Backups that start in the history of a server, and end on a timeline that it left
# before, or where it has not come yet: their files hold what did not happen there.
# Neither may an increment be relative to such a backup, nor may one that was
# interrupted be gone on with.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use File::Compare;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $primary = new_node('primary', conf => "wal_keep_size = 1GB\ncheckpoint_completion_target = 0.9");
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i; CREATE TABLE filler AS SELECT * FROM t');
checkpoint($primary);
$primary->backup('early');

# Makes a backup during which something changes, before its files are copied.  Its
# checkpoint takes long, and the client is halted meanwhile.  Returns the place before the
# change, and after where the backup starts.
sub backup_with_change
{
	my ($dir, $change, $before_change) = @_;
	my $offset = -s $primary->logfile;

	$primary->safe_psql('postgres', 'UPDATE filler SET i = i + 1');
	my $run = IPC::Run::start([ backup_command($primary, $dir, args => [ '-c', 'spread' ]) ], '>', '/dev/null', '2>', '/dev/null');
	$primary->wait_for_log(qr/checkpoint starting/, $offset);
	$run->signal('STOP');
	$primary->wait_for_log(qr/checkpoint complete/, $offset);
	$before_change->() if $before_change;
	my $before = $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	$primary->safe_psql('postgres', $_) for $change, 'CHECKPOINT';
	$run->signal('CONT');
	$run->finish;
	return $before;
}

# Another server, whose timeline begins at that place.
sub left_at
{
	my ($name, $lsn) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'early', has_streaming => 1);
	$node->append_conf('postgresql.conf', <<"EOF" . wal_from($primary));
recovery_target_lsn = '$lsn'
recovery_target_inclusive = off
recovery_target_action = promote
EOF
	$node->start;
	$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	await_answers($node);
	$node->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'ptrack', ''); SELECT pg_switch_wal()") for 1 .. 4;
	return $node;
}

# A prior backup
my $full = $primary->backup_dir . '/full';
my $before = backup_with_change($full, 'UPDATE t SET i = 0 WHERE i = 1000');
my ($start) = slurp_file("$full/backup_label") =~ /^START WAL LOCATION: (\S+)/m;
is($primary->safe_psql('postgres', "SELECT '$start'::pg_lsn < '$before'"), 't', 'a backup starts before a change');
my $other = left_at('other', $before);
is($other->safe_psql('postgres', 'SELECT count(*) FROM t WHERE i = 0'), 0, 'which another server does not have');
backup_fails($other, 'an increment relative to it', qr{the prior backup ends at \S+ on timeline 1, which did not lead to \S+ on timeline 2\n.*Take a full backup},
	prior => $full);
$other->stop('immediate');

# A backup that was interrupted after the file that changed was there.  Returns its
# directory, and the place before the change.
my $count = PostgreSQL::Test::Utils::tempdir() . '/count';
my $file = $primary->safe_psql('postgres', "SELECT pg_relation_filepath('t')");

sub interrupted
{
	my ($name, @change) = @_;
	my $dir = $primary->backup_dir . "/$name";
	my $killer = call_breaker();

	{
		local %ENV = (%ENV, LD_PRELOAD => $killer, KILL_COUNT => $count);
		client_backup($primary, "counted_$name");
	}
	local %ENV = (%ENV, LD_PRELOAD => $killer, KILL_AT => int(0.97 * slurp_file($count)));
	my $before = backup_with_change($dir, @change);
	like(slurp_file("$dir/pg_ptrack.journal"), qr{ \Q$file\E$}m, 'a backup is interrupted when the file that changed is there');
	return ($dir, $before);
}

sub resumed
{
	my ($node, $dir, $name) = @_;
	my ($stdout, $stderr);

	ok(IPC::Run::run([ backup_command($node, $dir, args => ['--resume']) ], '>', \$stdout, '2>', \$stderr), $name) or diag($stderr);
	return $stderr;
}

(my $dir, $before) = interrupted('interrupted', 'UPDATE t SET i = 0 WHERE i = 2000');
$other = left_at('next', $before);
like(resumed($other, $dir, 'another server goes on with it'),
	qr/warning: nothing is kept of the backup in "\Q$dir\E", which was begun on timeline 1: the server is on timeline 2/, 'keeps nothing of it');
check_chain($other, 'resumed', $dir);
$other->stop('immediate');

# Likewise, if a standby goes on with it that has not come as far.
my $standby = new_standby('standby', $primary);
($dir) = interrupted('ahead', 'UPDATE t SET i = 0 WHERE i = 3000', sub {
	catch_up($standby, $primary);
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
});
resumed($standby, $dir, 'a standby that is behind goes on with a backup of its primary');
is(compare("$dir/$file", $standby->data_dir . "/$file"), 0, 'what the standby does not have is not in it');

$standby->stop('immediate');
$primary->stop('immediate');
done_testing();
