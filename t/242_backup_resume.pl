# Going on with backups that were interrupted: at any call, with tablespaces that come
# and go, with a table that is truncated meanwhile, with directories that are not such a
# backup, and with damaged pages.

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

my $node = new_node('primary', conf => 'wal_keep_size = 1GB', initdb => ['--data-checksums']);
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

# Leaves a table 100 blocks.  The sessions of a backup that was killed may still have
# snapshots, with which nothing is truncated.
sub truncate_table
{
	my ($table) = @_;

	$node->safe_psql('postgres', "DELETE FROM $table WHERE ctid >= '(100,0)'");
	ok(poll_until(sub {
		$node->safe_psql('postgres', "VACUUM $table");
		return $node->safe_psql('postgres', "SELECT pg_relation_size('$table') / 8192") == 100;
	}), "$table: the table is truncated");
	return;
}

# A table is truncated while it is interrupted, and nothing else of it changes
$node->safe_psql('postgres', $_) for
  'CREATE TABLE shrinks AS SELECT * FROM t', 'VACUUM (FREEZE) shrinks';
my $prior = client_backup($node, 'before_truncation');
$node->safe_psql('postgres', $_) for 'DELETE FROM shrinks WHERE i = 1', 'VACUUM shrinks';
my $shrinks = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('shrinks')}) =~ s{([^/]+)$}{INCREMENTAL.$1}r;
$dir = $node->backup_dir . '/truncated';
$calls = count_calls($node->backup_dir . '/counted_truncated', prior => $prior);
ok(killed_at($dir, $calls - 9, prior => $prior), 'killed after a table was fetched');
like(slurp_file("$dir/pg_ptrack.journal"), qr/ \Q@{[ $shrinks =~ s{INCREMENTAL\.}{}r ]}\E$/m, 'which the journal says');
truncate_table('shrinks');
system_or_bail(backup_command($node, $dir, prior => $prior, args => ['--resume']));
verify_backup($dir, 'with a truncated table');
check_chain($node, 'with a truncated table', $prior, $dir);

# A table is truncated while it is interrupted, and gets longer while it is gone on with,
# as by a server that adds many pages at once, of which no WAL tells.
$node->safe_psql('postgres', $_) for 'CREATE TABLE grows AS SELECT * FROM t', 'VACUUM (FREEZE) grows';
my $grows = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('grows')});
$dir = $node->backup_dir . '/grows';
$calls = count_calls($node->backup_dir . '/counted_grows');
ok(killed_at($dir, $calls - 9), 'killed after a table was fetched that grows later');
like(slurp_file("$dir/pg_ptrack.journal"), qr/ \Q$grows\E$/m, 'which the journal says');
truncate_table('grows');
$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
my $going = IPC::Run::start([ backup_command($node, $dir, args => [ '--resume', '-r', '8M' ]) ], '>', '/dev/null', '2>', '/dev/null');
ok(poll_until(sub {
	return $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_progress_ptrack_backup WHERE phase = 'streaming database files'});
}), 'files are listed');
truncate $node->data_dir . "/$grows", 200 * 8192 or die;
ok($going->finish, 'gone on with');
verify_backup($dir, 'with a table that grows');
check_chain($node, 'with a table that grows', $dir);

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

# While a backup is being made, nobody else goes on with it.
$dir = $node->backup_dir . '/busy';
my $first = IPC::Run::start([ backup_command($node, $dir, args => [ '--resume', '-r', '12M' ]) ], '>', '/dev/null', '2>', '/dev/null');
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if -e "$dir/pg_ptrack.journal" && slurp_file("$dir/pg_ptrack.journal") =~ /base/;
	select undef, undef, undef, 0.1;
}
not_resumed('one that is being made', qr/another program is writing a backup to directory "\Q$dir\E"/);
ok($first->finish, 'which is completed');
verify_backup($dir, 'that was being made');

# Damaged pages are told by the backup that is completed, too.
my $path = damage_page($node, 't');
for my $attempt ([], ['--no-verify-checksums'])
{
	my $name = "damaged@$attempt";

	$dir = $node->backup_dir . "/$name";
	ok(killed_at($dir, $calls - 9, args => $attempt), "$name: killed after a file with a damaged page was fetched");
	ok(-s "$dir/$path", "$name: which is there");
	IPC::Run::run([ backup_command($node, $dir, args => ['--resume']) ], '>', '/dev/null', '2>', \my $stderr);
	is($? >> 8, 1, "$name: gone on with: exit status");
	like($stderr, qr/checksum verification failed in file "\Q$path\E", block 3\n/, "$name: the block is named");
	verify_backup($dir, $name);
}

$node->stop;
done_testing();
