# Combining in place, killed anywhere: the directory is no backup until the same
# command has completed, and then it is the right one.  How it is killed:
# c/break_call.c.

use strict;
use warnings FATAL => 'all';

use Fcntl qw(LOCK_EX);
use File::Path qw(remove_tree);
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCombine;
use PtrackTest qw(call_breaker);
use Test::More;

need_core_increments();

my $killer = call_breaker();

my $node = chain_node('node');

$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t AS SELECT i, repeat('x', 400) AS filler FROM generate_series(1, 9000) i;
CREATE TABLE shrinks AS SELECT * FROM t;
CREATE TABLE dropped TABLESPACE elsewhere AS SELECT * FROM t;
CREATE TABLE grows TABLESPACE inside AS SELECT * FROM t WHERE i < 300;
CREATE DATABASE gone;
EOS
my $new_place = new_dir();
mkdir $new_place or die "could not create $new_place: $!";
my @chain = make_chain($node,
	[ 'UPDATE t SET i = i WHERE i % 1000 = 0', 'DELETE FROM shrinks WHERE i > 2000', 'VACUUM shrinks',
		'INSERT INTO grows SELECT * FROM t', 'DROP DATABASE gone' ],
	[ 'DROP TABLE dropped', 'INSERT INTO shrinks SELECT * FROM t WHERE i < 500',
		"CREATE TABLESPACE late LOCATION '$new_place'", 'CREATE TABLE late TABLESPACE late AS SELECT * FROM t',
		'CREATE DATABASE came', 'UPDATE t SET i = i WHERE i % 1500 = 0' ]);
$node->stop;
my ($full, @increments) = @chain;
my $expected = core_combine(@chain);
my ($late) = grep { !-e "$full/$_" } map { s{^\Q$expected\E/}{}r } glob "$expected/pg_tblspc/*";
my $late_place = readlink "$increments[-1]/$late";

# Runs it on a directory; at: the call to be killed at.
sub in_place
{
	my ($dir, $late_dir, %at) = @_;
	my @command = ('pg_ptrack', 'combine', '--in-place', '-j', 2, '-T', "$late_place=$late_dir", $dir, @increments);

	local %ENV = (%ENV, LD_PRELOAD => $killer, %at);
	return run_log(\@command);
}

# A directory is taken for a backup only if it is the one, and complete.
sub is_no_backup
{
	my ($dir) = @_;

	return !run_log([ 'pg_verifybackup', '-q', $dir ]);
}

sub differs
{
	my ($dir) = @_;
	my ($tree, $right) = (list_tree($dir), list_tree($expected));

	delete $_->{'/backup_manifest'} for $tree, $right;
	return join ' ', grep {
		!exists $tree->{$_} || !exists $right->{$_} || ($tree->{$_} // 'dir') ne ($right->{$_} // 'dir')
	} sort keys %{ { %$tree, %$right } };
}

# How many calls are there?
my $count = PostgreSQL::Test::Utils::tempdir() . '/count';
my $dir = copy_dir($full);
my $late_dir = new_dir();
ok(in_place($dir, $late_dir, KILL_COUNT => $count), 'not killed');
my ($calls) = slurp_file($count) =~ /(\d+)/;
cmp_ok($calls, '>', 200, "there are $calls calls");
is(differs($dir), '', 'the result is what pg_combinebackup makes');
verifies($dir, 'not killed');
remove_tree($dir, $late_dir);

# The first and last ones, where each has a step of its own, and some in between; at
# every one of them, if asked for by PTRACK_KILLS, which is how many in between.
my $each = $ENV{PTRACK_KILLS} ? 1 : 3;
my @early = grep { $_ % $each == 0 } 1 .. 12;
my @late = grep { $_ % $each == 0 } $calls - 30 .. $calls;
my @between = map { 13 + int rand($calls - 44) } 1 .. $ENV{PTRACK_KILLS} // 8;
my (%wrong, $resumed);
for my $at (@early, @between, @late)
{
	my $dir = copy_dir($full);
	my $late_dir = new_dir();

	next if in_place($dir, $late_dir, KILL_AT => $at);
	my $untouched = !-e "$dir/ptrack_combine.journal" && !-e "$dir/ptrack_combine.new_journal";
	push @{ $wrong{'taken for a backup'} }, $at if !is_no_backup($dir) && !$untouched && differs($dir) ne '';
	# Another time, elsewhere; then to its end.
	in_place($dir, $late_dir, KILL_AT => 1 + int rand($calls));
	push @{ $wrong{'not completed'} }, $at if !in_place($dir, $late_dir);
	my $different = differs($dir);
	push @{ $wrong{"wrong: $different"} }, $at if $different ne '';
	push @{ $wrong{'does not verify'} }, $at if is_no_backup($dir);
	$resumed++;
	remove_tree($dir, $late_dir);
}
is_deeply(\%wrong, {}, 'each was completed, and not taken for a backup before');
cmp_ok($resumed, '>', 15, "$resumed runs were killed and completed");

# A journal of something else
$dir = copy_dir($full);
$late_dir = new_dir();
ok(!in_place($dir, $late_dir, KILL_AT => int($calls / 2)), 'killed half-way');
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', $dir, $increments[0] ],
	qr/other backups are being combined in place/, 'other increments are refused');
command_fails_like([ 'pg_ptrack', 'combine', '-o', "$dir.out", $dir, @increments ],
	qr/being combined in place in directory/, 'so is using it as a backup');
ok(!-e "$dir.out", 'which makes nothing');
ok(in_place($dir, $late_dir), 'the same ones are not');
is(differs($dir), '', 'which gives the right result');
ok(in_place($dir, $late_dir), 'it can be said again');
is(differs($dir), '', 'which does nothing');
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', $dir, $increments[0] ],
	qr/is not relative to/, 'one of them cannot be applied again');

# Interrupted
$dir = copy_dir($full);
$late_dir = new_dir();
ok(!in_place($dir, $late_dir, INTERRUPT_AT => int($calls / 2)), 'interrupted');
ok(is_no_backup($dir), 'it is no backup then');
ok(in_place($dir, $late_dir), 'and completed');
is(differs($dir), '', 'to the right result');
for my $at (10, 300, 900)
{
	my $out = new_dir();
	my @mapped = mapped($increments[-1]);

	local %ENV = (%ENV, LD_PRELOAD => $killer, INTERRUPT_AT => $at);
	ok(!run_log([ 'pg_ptrack', 'combine', '-j', 2, '-o', $out, @mapped, @chain ]), "interrupted at call $at");
	ok(!-e $out && !(grep { /=(.*)/ && -e $1 } @mapped), 'nothing is left');
}

# Refused before anything is changed
$dir = copy_dir($full);
my $before = list_tree($dir);
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', $dir, @increments ],
	qr/tablespace at ".*" has no tablespace mapping/, 'a new tablespace must be put somewhere');
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', $dir, reverse @increments ],
	qr/is not relative to/, 'increments in the wrong order');
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', @increments ], qr/is not a full backup/,
	'increments alone');
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', '-o', "$dir.out", @chain ],
	qr/cannot be used together/, 'an output directory');
ok(run_log([ 'pg_ptrack', 'combine', '--in-place', '-n', '-T', "$late_place=" . new_dir(), $dir, @increments ]),
	'a dry run');
my @possible = ('pg_ptrack', 'combine', '--in-place', '-T', "$late_place=" . new_dir(), $dir, @increments);
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', '-T', "$late_place=$full", $dir, @increments ],
	qr/directory "\Q$full\E" exists but is not empty/, 'a new tablespace must not be put where something is');
my $twice = new_dir();
my @twice = map { s/=.*/=$twice/r } mapped($increments[-1]);
my $without = copy_dir($full);
unlink grep { -l } glob "$without/pg_tblspc/*";
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', @twice, $without, @increments ],
	qr/directory "\Q$twice\E" cannot be used twice/, 'nor two in one directory');
my $out = new_dir();
command_fails_like([ 'pg_ptrack', 'combine', '-o', $out, @twice, @chain ],
	qr/directory "\Q$twice\E" cannot be used twice/, 'not elsewhere, either');
ok(!-e $out && !-e $twice, 'nothing is left');
my $outer = copy_dir($full);
my $inner = "$outer/increment";
rename copy_dir($increments[0]), $inner or die $!;
for my $link (grep { -l } glob "$inner/pg_tblspc/*")
{
	my $place = readlink $link;

	unlink $link or die $!;
	rename $place, $link or die $!;
}
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', $outer, $inner ],
	qr/backup "\Q$inner\E" is in directory "\Q$outer\E"/, 'an increment in the directory');
verifies($inner, 'it is still there');
append_to_file("$dir/postmaster.pid", "1\n");
command_fails_like(\@possible, qr/has a server's lock file "postmaster.pid"/, 'a directory that may have a server');
unlink "$dir/postmaster.pid" or die $!;
open my $locked, '<', $dir or die "could not open $dir: $!";
flock $locked, LOCK_EX or die "could not lock $dir: $!";
command_fails_like(\@possible, qr/are being combined in place in directory ".*" by another program/, 'two at a time');
close $locked;
is_deeply(list_tree($dir), $before, 'all of that changes nothing');
ok(run_log(\@possible), 'and it is possible');

done_testing();
