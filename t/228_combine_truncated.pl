# A table is truncated by VACUUM; later it is extended by more pages than COPY needs,
# which are all zeros and not in WAL.  What the full backup has at their places was
# deleted, and must not come back: an increment between the two says how long the
# file was then.
#
# PostgreSQL's pg_combinebackup only looks at the newest increment's length, and has
# deleted rows in its result (17.11, 18.6).  Increments that were merged before have
# the zeros, so that it cannot do that.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCombine;
use Test::More;

need_core_increments();

my $node = chain_node('node');

# With few buffers, it would not be extended by many pages at once.
$node->append_conf('postgresql.conf', 'shared_buffers = 64MB');
$node->restart;
my $file = PostgreSQL::Test::Utils::tempdir() . '/rows';

$node->safe_psql('postgres', <<"EOS");
COPY (SELECT 100000 + i, repeat('y', 400) FROM generate_series(1, 3000) i) TO '$file';
CREATE TABLE t AS SELECT i, repeat('x', 400) AS filler FROM generate_series(1, 20000) i;
VACUUM FREEZE t;
EOS
my @chain = make_chain($node, [ 'DELETE FROM t WHERE i > 2000', 'VACUUM t' ], "COPY t FROM '$file'");
my $blocks = $node->safe_psql('postgres', q{SELECT pg_relation_size('t') / 8192});
my $zeros = grep { !/[^\0]/ } unpack '(a8192)*',
  slurp_file(combine_ok('all at once', [], @chain) . '/' . $node->safe_psql('postgres', q{SELECT pg_relation_filepath('t')}));
cmp_ok($zeros, '>', 0, "of $blocks blocks, $zeros are zeros");
$node->stop;

# How many rows that were deleted has the table, and how many in all?  The server
# starts without its tablespaces, in which nothing is.
sub rows
{
	my ($name, $backup) = @_;
	my $restored = PostgreSQL::Test::Cluster->new($name);

	PostgreSQL::Test::RecursiveCopy::copypath($backup, $restored->data_dir,
		filterfn => sub { $_[0] !~ m{^pg_tblspc/.} });
	chmod 0700, $restored->data_dir;
	$restored->append_conf('postgresql.conf', 'port = ' . $restored->port);
	$restored->start;
	my $rows = $restored->safe_psql('postgres', 'SELECT count(*) FILTER (WHERE i BETWEEN 2001 AND 20000), count(*) FROM t');
	$restored->stop;
	return $rows;
}

is(rows('ours', combine_ok('again', [], @chain)), '0|5000', 'no row comes back');
my $merged = combine_ok('increments alone', [], @chain[ 1, 2 ]);
is(rows('merged', combine_ok('merged', [], $chain[0], $merged)), '0|5000', 'nor by way of merged increments');
is(rows('core_merged', core_combine($chain[0], $merged)), '0|5000', 'nor if pg_combinebackup has them');
command_ok([ 'pg_ptrack', 'combine', '--in-place', '-N', @chain ], 'in place');
is(rows('place', $chain[0]), '0|5000', 'nor in place');

done_testing();
