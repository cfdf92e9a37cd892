# What the SQL functions answer and refuse: pg_regress on a server of its own.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# Nobody writes pages between two looks at them.
my $node = new_node('primary', conf => 'bgwriter_lru_maxpages = 0', initdb => ['--no-locale']);
my $output = PostgreSQL::Test::Utils::tempdir;

$node->safe_psql('postgres', 'DROP EXTENSION ptrack');
my $passed = run_regress($node, $output, qw(functions errors privileges));
ok($passed, 'pg_regress passes');
if (!$passed)
{
	diag(slurp_file("$output/regression.diffs")) if -e "$output/regression.diffs";
}
$node->stop;
done_testing();
