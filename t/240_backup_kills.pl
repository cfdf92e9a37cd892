# Backups whose client, connections or server are killed, anywhere: what is there
# then is no backup; and when it was gone on with, it is the right one.
#
# PTRACK_KILLS says how many times.

use strict;
use warnings FATAL => 'all';

use File::Path qw(remove_tree);
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;
use Time::HiRes qw(usleep);

my $killer = call_breaker();

my $node = new_node('primary', conf => "wal_keep_size = 4GB\nrestart_after_crash = on");
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, repeat(md5(i::text), 10) FROM generate_series(1, 40000) i;
CREATE TABLE same AS SELECT * FROM t;
VACUUM;
EOS
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '" . PostgreSQL::Test::Utils::tempdir() . "'");
$node->safe_psql('postgres', 'CREATE TABLE there TABLESPACE place AS SELECT * FROM t WHERE id < 5000');
my $full = client_backup($node, 'full');
my $turn = 0;

# Changes some blocks of some files.
sub change
{
	$turn++;
	$node->safe_psql('postgres', <<"EOS");
UPDATE t SET n = $turn WHERE id % 3000 = $turn;
CREATE TABLE made_$turn AS SELECT * FROM t WHERE id < 3000;
DROP TABLE IF EXISTS "made_@{[ abs $turn - 3 ]}";
EOS
	return;
}

# Runs a backup, not too fast; at: where its client is to be killed; while: what is
# done meanwhile.  Returns whether it was completed.
sub run_backup
{
	my ($dir, $prior, %options) = @_;
	my @command = backup_command($node, $dir, prior => $prior,
		args => [ '-j', 2, '--resume', $options{while} ? ('-r', '30M') : () ]);
	local %ENV = (%ENV, PGAPPNAME => 'pg_ptrack', $options{at} ? (LD_PRELOAD => $killer, KILL_AT => $options{at}) : (),
		$options{count} ? (LD_PRELOAD => $killer, KILL_COUNT => $options{count}) : ());
	my $run = IPC::Run::start(\@command, '>', '/dev/null', '2>', \my $stderr);

	$options{while}->() if $options{while};
	$run->finish;
	diag($stderr) if $run->full_result != 0 && !$options{at} && !$options{while};
	return $run->full_result == 0;
}

# Ways to end one that is going on
my @ways = (
	sub { # any connection, the one that holds the backup too
		$node->safe_psql('postgres', <<'EOS');
SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity
	WHERE application_name = 'pg_ptrack' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) p
EOS
	},
	sub { # the server
		$node->stop('immediate');
		$node->start;
	},
	sub { # one of its processes, so that it restarts all of them
		my $pid = $node->safe_psql('postgres', <<'EOS');
SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_ptrack' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1
EOS
		return if !$pid || !kill 'KILL', $pid;
		# When the server has noticed, it takes no connection until it has restarted.
		poll_until(sub { return !kill 0, $pid });
		poll_until(sub { return IPC::Run::run([ 'psql', '-X', '-c', 'SELECT 1', $node->connstr('postgres') ], '>&', '/dev/null') });
	});

# How many calls there are to be killed at
my $count = PostgreSQL::Test::Utils::tempdir() . '/count';
ok(run_backup($node->backup_dir . '/counted', undef, count => $count), 'not killed');
my ($calls) = slurp_file($count) =~ /(\d+)/;
cmp_ok($calls, '>', 200, "there are $calls calls");

# A call to be killed at: any one, but often one of the first or last.
sub any_call
{
	my $n = int rand(rand() < 0.6 ? $calls : 40);

	return 1 + (rand() < 0.5 ? $n : $calls - 1 - $n);
}

# What is there after a kill must not be taken for a backup, unless it is one, and
# only the journal was not yet removed.
sub is_wrong
{
	my ($dir) = @_;

	return 0 if !-e "$dir/backup_manifest";
	rename "$dir/pg_ptrack.journal", "$dir.journal";
	my $right = IPC::Run::run([ 'pg_ptrack', 'verify', $dir ], '>', '/dev/null', '2>', '/dev/null');
	rename "$dir.journal", "$dir/pg_ptrack.journal";
	return !$right;
}

my $kills = $ENV{PTRACK_KILLS} // 6;
my (%wrong, $killed);
for my $number (1 .. $kills)
{
	my $dir = $node->backup_dir . "/killed_$number";
	my $prior = $number % 2 ? undef : $full;
	my $attempts = 0;

	change();
	until (run_backup($dir, $prior,
			$attempts++ >= 3 ? ()
			: rand() < 0.5 ? (at => any_call())
			: (while => sub { usleep(rand 600_000); $ways[ rand @ways ]->() })))
	{
		$killed++;
		push @{ $wrong{'taken for a backup'} }, $number if is_wrong($dir);
		change();
		last if $attempts > 5;
	}
	my ($stdout, $stderr);
	IPC::Run::run([ 'pg_ptrack', 'verify', $dir ], '>', \$stdout, '2>', \$stderr);
	push @{ $wrong{'does not verify'} }, "$number: $stderr" if $?;
	check_chain($node, "number $number, $attempts attempts", $prior // (), $dir);
	remove_tree($dir);
}
is_deeply(\%wrong, {}, 'none was taken for a backup before it was completed, and all were');
cmp_ok($killed, '>', $kills / 2, "$killed attempts were killed");

$node->stop;
done_testing();
