# Going on with backups that were interrupted: at any call, with tablespaces that come
# and go, and with directories that are not such a backup.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $killer = call_breaker();

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');
my $places = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS v FROM generate_series(1, 20000) i');

sub add_tablespace
{
	my ($name) = @_;

	mkdir "$places/$name" or die;
	$node->safe_psql('postgres', "CREATE TABLESPACE $name LOCATION '$places/$name'");
	$node->safe_psql('postgres', "CREATE TABLE in_$name TABLESPACE $name AS SELECT * FROM t");
	return;
}
add_tablespace($_) for 'stays', 'goes';
my $full = client_backup($node, 'full');

# Runs a backup that is to be killed at that call.  Returns whether it was.
sub killed_at
{
	my ($dir, $at, %options) = @_;
	local %ENV = (%ENV, LD_PRELOAD => $killer, KILL_AT => $at);

	IPC::Run::run([ backup_command($node, $dir, %options) ], '>', '/dev/null', '2>', '/dev/null');
	return ($? & 127) == 9;
}

sub count_calls
{
	my ($dir, %options) = @_;
	my $count = PostgreSQL::Test::Utils::tempdir() . '/count';
	local %ENV = (%ENV, LD_PRELOAD => $killer, KILL_COUNT => $count);

	system_or_bail(backup_command($node, $dir, %options));
	return (slurp_file($count) =~ /(\d+)/)[0];
}

# The files that were kept, those of the same inode.
sub inodes
{
	my ($dir) = @_;

	return map { $_ => (stat $_)[1] } glob "$dir/base/*/* $dir/pg_tblspc/*/*/*/*";
}

# At each of the first and last calls, where the directory is made and completed
for my $prior (undef, $full)
{
	my $kind = $prior ? 'incremental' : 'full';
	my $calls = count_calls($node->backup_dir . "/counted_$kind", prior => $prior);
	my ($killed, @not_resumed) = (0);

	for my $at (1 .. 8, $calls - 9 .. $calls)
	{
		my $dir = $node->backup_dir . "/${kind}_$at";

		# There may be fewer calls, if the server has fewer files of its own.
		next if !killed_at($dir, $at, prior => $prior);
		$killed++;
		push @not_resumed, $at
		  if !IPC::Run::run([ backup_command($node, $dir, prior => $prior, args => ['--resume']) ], '>', '/dev/null', '2>', \my $stderr)
		  || -e "$dir/pg_ptrack.journal"
		  || !IPC::Run::run([ 'pg_ptrack', 'verify', $dir ], '>', '/dev/null');
	}
	cmp_ok($killed, '>', 12, "$kind: killed at $killed of the first and last of $calls calls");
	is("@not_resumed", '', "$kind: gone on with, and verified");
}

# A tablespace goes, and another comes, while it is interrupted
my $dir = $node->backup_dir . '/spaces';
my $calls = count_calls($node->backup_dir . '/counted_spaces');
ok(killed_at($dir, int($calls * 0.9)), 'killed when files are there');
my %before = inodes($dir);
$node->safe_psql('postgres', $_) for 'DROP TABLE in_goes', 'DROP TABLESPACE goes';
add_tablespace('comes');
$node->safe_psql('postgres', 'UPDATE in_stays SET i = i + 1 WHERE i % 100 = 0');
system_or_bail(backup_command($node, $dir, args => ['--resume']));
my %after = inodes($dir);
my @kept = grep { ($before{$_} // 0) == $after{$_} } keys %after;
cmp_ok(scalar @kept, '>', 300, @kept . ' of ' . keys(%after) . ' files were kept');
verify_backup($dir, 'with other tablespaces');
check_chain($node, 'with other tablespaces', $dir);

# A tablespace that comes where it is in use is not ours to empty.
$dir = $node->backup_dir . '/in_use';
ok(killed_at($dir, int($calls * 0.9)), 'killed once more');
add_tablespace('late');
my @command = grep { $_ ne '-T' && !m{^\Q$places\E/late=} } backup_command($node, $dir, args => ['--resume']);
@command = map { m{^\Q$places\E/} ? ('-T', $_) : $_ } @command;
command_fails_like(\@command, qr{directory "\Q$places\E/late" exists but is not empty}, 'a directory in use is refused');
is($node->safe_psql('postgres', 'SELECT count(*) FROM in_late'), '20000', 'and is not touched');
system_or_bail(backup_command($node, $dir, args => ['--resume']));
verify_backup($dir, 'elsewhere');

# What is no such backup
sub not_resumed
{
	my ($name, $pattern, %options) = @_;

	command_fails_like([ backup_command($node, $dir, args => ['--resume'], %options) ], $pattern, $name);
	return;
}
not_resumed('a complete backup', qr/exists but is not empty/);
append_to_file("$dir/pg_ptrack.journal", "something else\n");
not_resumed('a journal of something else', qr/is not a journal of this program/);
ok(-e "$dir/backup_manifest", 'what is there stays');
$dir = $node->backup_dir . '/other';
ok(killed_at($dir, int($calls * 0.9)), 'killed for the last time');
not_resumed('relative to another backup', qr/is of another server, relative to another backup/, prior => $full);

$node->stop;
done_testing();
