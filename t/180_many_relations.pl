# A database of 100,000 tables: what is changed in a tenth of them is noted
# exactly by a map of the default size, summaries are as small as the change,
# and a copy of such a cluster is refreshed by what changed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $tables = 100_000;
my $node = new_node('primary', conf => <<'EOS');
max_locks_per_transaction = 1000
shared_buffers = 256MB
wal_level = replica
full_page_writes = off
EOS
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[0] FROM pg_stat_ptrack"); }
sub size_of_newest { return -s (summary_files($node))[-1]; }

my $init = sql('SELECT ptrack_init_lsn()');
my $batch = 10_000;
my $start = checkpoint($node);
for my $first (map { $_ * $batch } 0 .. $tables / $batch - 1)
{
	sql(<<"EOS");
DO \$\$ BEGIN
	FOR i IN $first .. $first + $batch - 1 LOOP
		EXECUTE format('CREATE TABLE t%s ()', i);
	END LOOP;
END \$\$
EOS
}
my $made = checkpoint($node);
is(stat_of('overflows'), 0, "$tables new tables fit into a map of the default size");
diag(sprintf 'a checkpoint with %d new tables: %d bytes in %s ms', $tables, size_of_newest(), stat_of('last_flush_ms'));
is(sql(<<"EOS"), $tables, 'each of them is known to be new');
SET enable_nestloop = off;
SELECT count(*) FROM ptrack_changed_blocks('$start', '$made') c JOIN pg_class r USING (relfilenode)
WHERE relname ~ '^t[0-9]+\$' AND relforknumber = 0 AND is_limit_block AND relblocknumber = 0
EOS

# Which of the tables are in the page map, or in the answer to another question.
sub tables_in
{
	my ($numbers) = @_;

	return sql(<<"EOS");
SET enable_nestloop = off;
SELECT count(*), count(DISTINCT number), min(number % 10), max(number % 10) FROM (
	SELECT substr(relname, 2)::int AS number FROM ($numbers) s JOIN pg_class USING (relfilenode)
	WHERE relname ~ '^t[0-9]+\$') s
EOS
}
my $mapped = "SELECT substring(path FROM '[0-9]+\$')::oid AS relfilenode, pagecount, pagemap
	FROM ptrack_get_pagemapset('%s') WHERE path ~ '/[0-9]+\$'";

# Each table whose number ends in that digit gets its first row.
sub fill
{
	my ($digit) = @_;

	sql(<<"EOS");
DO \$\$ BEGIN
	FOR i IN $digit .. $tables - 1 BY 10 LOOP
		EXECUTE format('INSERT INTO t%s DEFAULT VALUES', i);
	END LOOP;
END \$\$
EOS
	return;
}
my $tenth = $tables / 10;
fill(3);
is(tables_in(sprintf $mapped, $made), "$tenth|$tenth|3|3", 'a tenth is changed, and is in the page map');
is(sql(sprintf "SELECT count(*) FROM ($mapped) s WHERE relfilenode = pg_relation_filenode('t777') AND pagecount = 1 AND pagemap = '\\x01'", $made),
	0, 'an empty table is not');
is(sql(sprintf "SELECT pagecount, pagemap FROM ($mapped) s WHERE relfilenode = pg_relation_filenode('t773')", $made),
	'1|\x01', 'of each, its first block');
my $changed = checkpoint($node);
my $bytes = size_of_newest();
diag(sprintf 'a checkpoint with %d changed tables: %d bytes in %s ms', $tenth, $bytes, stat_of('last_flush_ms'));
cmp_ok($bytes, '<', 30 * $tenth, "a summary of $bytes bytes for $tenth changed tables");

# One more tenth is changed, and then the server crashes.
fill(5);
my $blocks = "SELECT relfilenode FROM ptrack_changed_blocks('%s') WHERE relforknumber = 0 AND NOT is_limit_block";
is(tables_in(sprintf $blocks, $changed), "$tenth|$tenth|5|5", 'another tenth');
$node->stop('immediate');
$node->start;
is(tables_in(sprintf $blocks, $changed), "$tenth|$tenth|5|5", 'the same after a crash');
is(tables_in(sprintf $blocks, $made), 2 * $tenth . '|' . 2 * $tenth . '|3|5', 'both tenths');
checkpoint($node);
is(tables_in(sprintf $mapped, $made), 2 * $tenth . '|' . 2 * $tenth . '|3|5', 'both in the page map, after another checkpoint');
is(stat_of('overflows'), 0, 'the map did not overflow');
is(stat_of('flush_failures'), 0, 'all was written');
is(sql('SELECT ptrack_init_lsn()'), $init, 'coverage begins where it did');

$node->stop;
done_testing();
