# The changes that ptrack notes as WAL is inserted are those that core's WAL
# summarizer reads back from WAL, for each range between two redo points.  Before
# 17 there is no summarizer, and the output of pg_waldump takes its place.
#
# Blocks that only one of them names are accounted for one by one, and counted.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $node = new_node('primary', for_core => 1, conf => <<'EOF');
max_prepared_transactions = 10
allow_in_place_tablespaces = on
track_commit_timestamp = on
shared_buffers = 16MB
EOF

sub run_sql
{
	my ($sql, $database) = @_;
	$node->safe_psql($database // 'postgres', $sql);
	return;
}

run_sql(<<'EOF');
CREATE EXTENSION bloom;
CREATE EXTENSION btree_gist;
CREATE EXTENSION pg_walinspect;
CREATE TABLESPACE place LOCATION '';
CREATE TABLE docs (id int PRIMARY KEY, n int, t text, a int[], p point, r int4range);
CREATE INDEX ON docs USING hash (n);
CREATE INDEX ON docs USING gin (a);
CREATE INDEX ON docs USING gist (p);
CREATE INDEX ON docs USING gist (r);
CREATE INDEX ON docs USING spgist (p);
CREATE INDEX ON docs USING spgist (t);
CREATE INDEX ON docs USING brin (n);
CREATE INDEX ON docs USING bloom (id, n);
CREATE TABLE plain (id int, filler text);
CREATE TABLE shrunk AS SELECT i AS id FROM generate_series(1, 50000) i;
CREATE TABLE parts (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (5000);
CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (5000) TO (100000);
CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY);
CREATE SEQUENCE seq;
CREATE FUNCTION fill_docs(lo int, hi int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO docs SELECT i, i % 97, md5(i::text), ARRAY[i % 13, i % 7],
		point(i % 100, i / 100), int4range(i, i + 10)
	FROM generate_series(lo, hi) i
	ON CONFLICT (id) DO UPDATE SET n = excluded.n + 1 $$;
EOF

# The redo points, and what changed between each and the next one: asked for at
# once, since a range that ends inside of merged summaries is widened.
my @redo = (checkpoint($node));
my @ours;

# Each entry is what happens in one cycle.
my @cycles = (
	'SELECT fill_docs(1, 3000)',
	"INSERT INTO plain SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i",
	'VACUUM plain; VACUUM (FREEZE) docs',
	'UPDATE plain SET id = -id WHERE id % 100 = 0; DELETE FROM docs WHERE id % 10 = 3',
	'SELECT id FROM plain WHERE id < 50 FOR UPDATE; SELECT id FROM docs WHERE id < 9 FOR SHARE',
	'SELECT fill_docs(2000, 5000)',
	'VACUUM docs',
	'CLUSTER docs USING docs_pkey',
	'DELETE FROM plain WHERE abs(id) > 3000; VACUUM (TRUNCATE) plain',
	'DELETE FROM shrunk WHERE id > 3000; VACUUM (TRUNCATE off) shrunk',
	'VACUUM (TRUNCATE) shrunk',
	'REINDEX TABLE docs',
	"COPY plain FROM PROGRAM 'seq 30000 | sed \"s/\$/\\tcopied/\"'",
	<<'EOF',
BEGIN; CREATE TABLE made (a int); INSERT INTO made SELECT generate_series(1, 5000); SAVEPOINT s;
CREATE TABLE unmade (a int); INSERT INTO unmade SELECT generate_series(1, 5000); ROLLBACK TO s;
TRUNCATE plain; COPY plain FROM PROGRAM 'seq 100 | sed "s/$/\tfrozen/"' (FREEZE); COMMIT
EOF
	<<'EOF',
BEGIN; DROP TABLE made; CREATE TABLE prep (a int); INSERT INTO prep SELECT generate_series(1, 2000);
PREPARE TRANSACTION 'one';
BEGIN; CREATE TABLE gone (a int); INSERT INTO gone SELECT generate_series(1, 2000);
PREPARE TRANSACTION 'two'
EOF
	"COMMIT PREPARED 'one'; ROLLBACK PREPARED 'two'",
	'CREATE DATABASE walled STRATEGY wal_log',
	'CREATE DATABASE copied STRATEGY file_copy',
	'ALTER TABLE docs SET TABLESPACE place; ALTER TABLE prep SET UNLOGGED',
	'ALTER DATABASE copied SET TABLESPACE place',
	'DROP DATABASE copied; DROP DATABASE walled',
	"INSERT INTO parts SELECT i, md5(i::text) FROM generate_series(1, 9999) i; SELECT nextval('seq') FROM generate_series(1, 100)",
	'VACUUM FULL docs; ALTER TABLE prep SET LOGGED; ALTER TABLE parts1 SET TABLESPACE place',
	'INSERT INTO volatile SELECT generate_series(1, 1000); TRUNCATE parts1; DROP TABLE parts2',
	'CREATE MATERIALIZED VIEW mv AS SELECT * FROM docs; REFRESH MATERIALIZED VIEW mv; ANALYZE',
	"UPDATE docs SET t = repeat(t, 400) WHERE id % 50 = 0; SELECT lo_from_bytea(0, decode(repeat('ab', 90000), 'hex'))",
	'VACUUM (FREEZE, PROCESS_TOAST) docs; DELETE FROM docs WHERE id > 100; VACUUM docs',
	'ALTER TABLE docs SET TABLESPACE pg_default; DROP TABLE parts1; DROP MATERIALIZED VIEW mv',
);

for my $cycle (@cycles)
{
	# Databases cannot be created among other statements of one string.
	run_sql($_) for ($cycle =~ /DATABASE/ ? split(/; /, $cycle) : $cycle);

	# Some concurrency with the checkpoint: this ends in either cycle.
	my $session = $node->background_psql('postgres');
	$session->query_until(qr/begun/, <<"EOF");
\\echo begun
BEGIN; INSERT INTO plain SELECT i, 'meanwhile' FROM generate_series(1, 2000) i;
SAVEPOINT s; UPDATE plain SET id = id + 1 WHERE id < 500; ROLLBACK TO s;
SELECT fill_docs(9000, 9200); COMMIT;
EOF
	push @redo, checkpoint($node);
	$session->quit;
	push @ours, changed_blocks($node, @redo[ -2, -1 ]);
}
push @redo, checkpoint($node);
push @ours, changed_blocks($node, @redo[ -2, -1 ]);
cmp_ok(scalar(@redo), '>', 20, 'more than 20 checkpoints: ' . scalar(@redo));

my %total;
sub check_range
{
	my ($start, $end, $ours) = @_;

	is(join(' ', differences_from_core($ours, core_blocks($node, $start, $end), \%total)), '', "from $start to $end");
	return;
}

check_range($redo[ $_ - 1 ], $redo[$_], $ours[ $_ - 1 ]) for 1 .. $#redo;
my %by_cycle = %total;
check_range($_, $redo[-1], changed_blocks($node, $_, $redo[-1])) for @redo[ 0, 15 ];

diag(sprintf '%d ranges: %d blocks and %d limit blocks compared; '
	  . '%d blocks only here were truncated away, %d are pages of the visibility map that a truncation changed in place',
	$#redo, @by_cycle{qw(blocks limits truncated vm_tail)});
cmp_ok($by_cycle{blocks}, '>', 5000, 'many blocks were compared');
cmp_ok($by_cycle{vm_tail}, '>', 0, 'a truncation changed the visibility map in place');

$node->stop;
done_testing();
