# A map that is too small: answers get coarser, in steps, and never shorter.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $node = new_node('primary', for_core => 1, conf => <<'EOF');
ptrack.map_size = 1
allow_in_place_tablespaces = on
EOF
# Otherwise ptrack holds it back.
if (!follows_wal())
{
	$node->append_conf('postgresql.conf', 'wal_keep_size = 4GB');
	$node->reload;
}

# What really changed is known from core, which has no such limit.  What is said
# of a relation, a database, or everything, includes what is in it.
sub missing_here
{
	my ($start, $end) = @_;
	my (%block, %limit);
	my $missing = 0;

	/^(.*):L(\d+)$/ ? $limit{$1} = $2 : $block{$_}++ for split /\n/, changed_blocks($node, $start, $end);
	for my $line (split /\n/, core_blocks($node, $start, $end))
	{
		my ($database, $relation, $number) = $line =~ m{^(\d+/\d+)/(.*):L?(\d+)$} or die;
		my $limit = $limit{"$database/$relation"};

		$missing++
		  unless $block{$line} || defined $limit && $limit <= $number
		  || defined $limit{"$database/0/0"} || defined $limit{'0/0/0/0'};
	}
	return $missing;
}

sub stat_of { return $node->safe_psql('postgres', "SELECT $_[0] FROM pg_stat_ptrack"); }
sub limits
{
	my ($start, $end, $where) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM ptrack_changed_blocks('$start', '$end') WHERE is_limit_block AND $where");
}

# What is counted for relations, databases or everything is what the page map has.
sub is_counted
{
	my ($start, $where, $name) = @_;

	is($node->safe_psql('postgres', <<"EOF"), 't|t', "$name: counts agree");
SELECT sum(increment_blocks) = pages, bool_or($where) FROM ptrack_changed_forks('$start'), ptrack_get_change_stat('$start') GROUP BY pages
EOF
	return;
}

# In the running cycle, answers are as coarse as the map.  Where WAL is followed, a
# query reads by itself what is not in the map yet, and has room for all of it.
sub now
{
	poll_until(sub { return stat_of('scan_lag') == 0 }) if follows_wal();
	return $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
}

# Once it has ended, they are made exact, since WAL of it is there.
sub await_exact
{
	my ($start, $where, $name) = @_;
	my $end = checkpoint($node);

	is(missing_here($start, $end), 0, "$name: no change is missing");
	ok(poll_until(sub { return limits($start, $end, $where) == 0 }), "$name: what changed is exact again");
	is(missing_here($start, $end), 0, "$name: no change is missing then");
	return;
}

# Pieces: more tables, with an index and a visibility map each, are changed than
# there is room for.
my $tables = 1200;
sub for_each_table
{
	my ($sql) = @_;
	$node->safe_psql('postgres', join '', map { $sql =~ s/%/$_/gr . ";\n" } 1 .. $tables);
	return;
}
for_each_table('CREATE TABLE t% (a int PRIMARY KEY); INSERT INTO t% VALUES (1)');
my $start = checkpoint($node);
my $coarse = stat_of('overflows');
for_each_table('VACUUM t%');
for_each_table('UPDATE t% SET a = 2');
cmp_ok(limits($start, now(), 'relfilenode <> 0'), '>', 0, 'some relations are noted as a whole');
is_counted($start, 'changed_blocks = 0 AND increment_blocks = blocks AND blocks > 0 AND limit_block = 0', 'relations');
cmp_ok(stat_of('overflows'), '>', $coarse, 'the overflow is counted');
await_exact($start, 'true', 'relations');

# Relations, too: then a database is noted as a whole.
$start = checkpoint($node);
for_each_table('TRUNCATE t%; INSERT INTO t% VALUES (3)');
cmp_ok(limits($start, now(), 'relfilenode = 0 AND reldatabase <> 0'), '>', 0, 'a database is noted as a whole');
is_counted($start, 'relfilenode = 0 AND reldatabase <> 0 AND changed_blocks IS NULL AND increment_blocks = blocks', 'databases');
my %map = pagemap($node, $start);
my $path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('pg_operator')");
is(scalar @{ $map{$path} }, $node->safe_psql('postgres', "SELECT pg_relation_size('pg_operator') / 8192"),
	'all blocks of all its relations are reported');
await_exact($start, 'relfilenode = 0', 'databases');

# And databases, of which a tablespace makes one more: then everything counts as
# changed.
$start = checkpoint($node);
for_each_table('TRUNCATE t%; INSERT INTO t% VALUES (4)');
$node->safe_psql('postgres', join '', map { "CREATE TABLESPACE s$_ LOCATION '';\n" } 1 .. 70);
$node->safe_psql('postgres', join '', map { "CREATE TABLE in_s$_ (a int) TABLESPACE s$_;\n" } 1 .. 70);
is(limits($start, now(), 'reltablespace = 0 AND reldatabase = 0 AND relfilenode = 0'), 1,
	'everything is noted as changed');
is_counted($start, 'reltablespace = 0 AND reldatabase = 0 AND relforknumber IS NULL AND increment_blocks = blocks', 'everything');
%map = pagemap($node, $start);
my $files = $node->safe_psql('postgres', <<'EOF');
SELECT count(*) FROM (SELECT 'base/' || d AS dir FROM pg_ls_dir('base') d WHERE d ~ '^[0-9]+$'
	UNION ALL SELECT 'global') s, pg_ls_dir(dir) f
WHERE f ~ '^[0-9]+(_vm|_init)?$' AND (pg_stat_file(dir || '/' || f)).size > 0
EOF
is(scalar(keys %map), $files, 'all files are in the page map');
await_exact($start, 'relfilenode = 0', 'everything');

# The next cycle is exact again.
checkpoint($node);
$start = checkpoint($node);
$node->safe_psql('postgres', 'UPDATE t7 SET a = 9');
my $end = checkpoint($node);
is(limits($start, $end, 'true'), 0, 'after that, changes are exact again');
is(missing_here($start, $end), 0, 'and complete');
is(stat_of('flush_failures'), 0, 'checkpoints were not disturbed');

$node->stop;
done_testing();
