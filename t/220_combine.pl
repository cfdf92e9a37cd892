# "pg_ptrack combine" makes of a chain what pg_combinebackup makes of it, byte for
# byte; also in steps, and in place.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCombine;
use PtrackCopy;
use Test::More;

need_core_increments();

# Files may be read by the group.
my $node = chain_node('node', '-g');

$node->safe_psql('postgres', <<'EOS');
CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE TABLE t (id int PRIMARY KEY, n int, filler text);
INSERT INTO t SELECT i, 0, repeat('x', 100) FROM generate_series(1, 60000) i;
CREATE TABLE shrinks AS SELECT i, repeat('y', 500) AS filler FROM generate_series(1, 8000) i;
CREATE TABLE emptied AS SELECT * FROM shrinks;
CREATE TABLE dropped AS SELECT * FROM shrinks;
CREATE TABLE e (id int, filler text) TABLESPACE elsewhere;
CREATE TABLE i (id int, filler text) TABLESPACE inside;
INSERT INTO e SELECT n, repeat('e', 200) FROM generate_series(1, 9000) n;
INSERT INTO i SELECT n, repeat('i', 200) FROM generate_series(1, 9000) n;
CREATE UNLOGGED TABLE u (id int PRIMARY KEY);
CREATE DATABASE gone;
VACUUM FREEZE;
EOS

my @chain = make_chain($node,
	[ 'UPDATE t SET n = 1 WHERE id % 3000 = 0',
		'DELETE FROM shrinks WHERE i > 3000', 'VACUUM shrinks',
		'TRUNCATE emptied', 'UPDATE e SET id = id WHERE id % 500 = 0' ],
	[ 'UPDATE t SET n = 2 WHERE id % 2500 = 0', 'DROP TABLE dropped',
		q{INSERT INTO shrinks SELECT i, repeat('z', 500) FROM generate_series(1, 300) i},
		'CREATE TABLE new AS SELECT * FROM t WHERE id < 5000',
		'DROP DATABASE gone', 'CREATE DATABASE came' ],
	[ 'DELETE FROM new WHERE id > 100', 'VACUUM new', 'UPDATE i SET id = id WHERE id % 700 = 0',
		q{INSERT INTO emptied SELECT i, 'e' FROM generate_series(1, 20000) i} ],
	[ 'UPDATE t SET n = 4 WHERE id % 4000 = 0', 'UPDATE new SET n = 4',
		q{INSERT INTO e SELECT n, 'E' FROM generate_series(1, 9000) n} ]);
my @increments = @chain[ 1 .. $#chain ];

# All at once
my $core = core_combine(@chain);
my $ours = combine_ok('all at once', [], @chain);
same_trees($ours, $core, 'all at once');
is_deeply(modes($ours), modes($core), 'modes are the same');
unlike(slurp_file("$ours/backup_label"), qr/INCREMENTAL/, 'the result is a full backup');
same_trees(combine_ok('in threads', [ '-j', 4, '-P' ], @chain), $core, 'in threads');
for my $method ('--link', '--copy-file-range')
{
	my $result = combine_ok($method, [$method, '-j', 2], @chain);
	same_trees($result, $core, $method);
}
same_trees(combine_ok('other checksums', ['--manifest-checksums=SHA256'], @chain), $core,
	'other checksums');
same_trees(combine_ok('no checksums', ['--manifest-checksums=NONE'], @chain), $core, 'no checksums');
same_trees(combine_ok('a full backup alone', [], $chain[0]), $chain[0], 'a full backup alone');
same_trees(combine_ok('our own and one more', [], combine_ok('the first ones', [], @chain[ 0 .. 3 ]),
		$chain[4]), $core, 'our own and one more');

my $dry = PostgreSQL::Test::Utils::tempdir() . '/dry';
command_ok([ 'pg_ptrack', 'combine', '--dry-run', '-o', $dry, mapped($chain[-1]), @chain ], 'dry run');
ok(!-e $dry, 'a dry run makes nothing');

command_like([ 'pg_ptrack', 'combine', '--help' ], qr/^Usage:/m, 'help');
command_fails_like([ 'pg_ptrack', 'combine', '--nonsense' ], qr/Try "pg_ptrack combine --help"/, 'no such option');
command_checks_all([ 'pg_ptrack', 'combine', '-NP', '--log-json', '-o', new_dir(), mapped($chain[-1]), @chain ], 0, [],
	[qr/\A(?:\{"type": "progress".*\}\n)+\z/], 'progress as JSON');

my $synced = PostgreSQL::Test::Utils::tempdir() . '/synced';
command_ok([ 'pg_ptrack', 'combine', '-j', 2, '-o', $synced, mapped($chain[-1]), @chain ], 'with fsync');
same_trees($synced, $core, 'with fsync');
my $none = PostgreSQL::Test::Utils::tempdir() . '/none';
command_ok([ 'pg_ptrack', 'combine', '--sync-method=syncfs', '--no-manifest', '-o', $none,
		mapped($chain[-1]), @chain ], 'without a manifest');
ok(!-e "$none/backup_manifest", 'there is none');

# Increments
my $merged = combine_ok('increments alone', [ '-j', 2 ], @increments);
verifies($merged, 'increments alone');
my ($from) = slurp_file("$increments[0]/backup_label") =~ /^(INCREMENTAL FROM LSN.*)/m;
like(slurp_file("$merged/backup_label"), qr/^\Q$from\E$/m, 'they are relative to what the first is');
same_trees(core_combine($chain[0], $merged), $core, 'pg_combinebackup of merged increments');
same_trees(combine_ok('merged', [], $chain[0], $merged), $core, 'combining merged increments');
my @pairs = map { combine_ok('a pair', [], @chain[ $_, $_ + 1 ]) } 1, 3;
same_trees(core_combine($chain[0], @pairs), $core, 'pg_combinebackup of pairs');
same_trees(combine_ok('a pair of pairs', [], @pairs), $merged, 'merging in steps');
same_trees(combine_ok('one increment', [], $chain[2]), $chain[2], 'one increment alone');

# In place
my $place = copy_dir($chain[0]);
command_ok([ 'pg_ptrack', 'combine', '--in-place', '-j', 2, mapped($chain[-1]), $place, @increments ],
	'in place');
same_trees($place, $core, 'in place');

my $linked = combine_ok('a linked one', ['--link'], $chain[0]);
my $before = list_tree($chain[0]);
command_ok([ 'pg_ptrack', 'combine', '--in-place', '-N', $linked, @increments ], 'in place, linked');
same_trees($linked, $core, 'in place, linked');
is_deeply(list_tree($chain[0]), $before, 'in place, linked: the other backup is as it was');

my $stepwise = copy_dir($chain[0]);
for my $increment (@increments)
{
	command_ok([ 'pg_ptrack', 'combine', '--in-place', '-N', '--manifest-checksums=SHA224', $stepwise,
			$increment ], 'in place, one by one');
}
same_trees($stepwise, $core, 'in place, one by one');

# It is a server
sub start_and_compare
{
	my ($backup, $name) = @_;
	my $restored = PostgreSQL::Test::Cluster->new($name);

	PostgreSQL::Test::RecursiveCopy::copypath($backup, $restored->data_dir,
		filterfn => sub { $_[0] !~ m{^pg_tblspc/.} });
	for my $tablespace (glob "$backup/pg_tblspc/*")
	{
		(my $path = $tablespace) =~ s/^\Q$backup\E/$restored->data_dir/e;
		my $to = -l $tablespace ? new_dir() : $path;

		PostgreSQL::Test::RecursiveCopy::copypath(-l $tablespace ? readlink $tablespace : $tablespace, $to);
		symlink $to, $path if -l $tablespace;
	}
	chmod 0700, $restored->data_dir;
	$restored->append_conf('postgresql.conf', 'port = ' . $restored->port);
	copy_wal($node->data_dir, $restored->data_dir);
	$restored->start;
	$restored->stop;
	my ($compared, $hints, @different) = compare_clusters($node->data_dir, $restored->data_dir);
	is("@different", '', "$name: $compared pages are the source's, $hints but for hint bits");
	return;
}
$node->stop;
start_and_compare($ours, 'restored');
start_and_compare($place, 'restored_place');

done_testing();
