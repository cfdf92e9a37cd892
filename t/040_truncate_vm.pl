# Changes of the visibility map that WAL does not name.
#
# VACUUM truncates a table whose tail was all-visible already, without
# checksums: the page of the visibility map that holds the new end changes and
# no WAL record names it.  A copy that misses it keeps bits past the new end,
# so that rows which were inserted there and rolled back come back from an
# index-only scan.
#
# A heap record that clears the bit of an all-visible page does not register the
# map's page.  A copy that misses it finds rows in an
# index-only scan that were updated since.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');

$node->safe_psql('postgres', <<'EOF');
CREATE TABLE t (id int PRIMARY KEY, filler text) WITH (autovacuum_enabled = off);
INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i;
VACUUM (FREEZE) t;
DELETE FROM t WHERE id > 10000;
CREATE TABLE visible (id int PRIMARY KEY) WITH (autovacuum_enabled = off);
INSERT INTO visible SELECT generate_series(1, 20000);
VACUUM (FREEZE) visible;
EOF
# The tail is empty and all-visible, and still there.
$node->safe_psql('postgres', 'VACUUM (TRUNCATE off) t');

$node->backup('base');
my $since = $node->safe_psql('postgres', <<'EOF');
SELECT redo_lsn FROM pg_control_checkpoint()
EOF
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'base');

my $vm = $node->safe_psql('postgres', "SELECT pg_relation_filepath('t') || '_vm'");
checkpoint($node);
my $start = checkpoint($node);
$node->safe_psql('postgres', 'VACUUM (TRUNCATE) t');
cmp_ok($node->safe_psql('postgres', "SELECT pg_relation_size('t') / 8192"), '<', 400,
	'the table was truncated');

my %map = pagemap($node, $start);
is_deeply($map{$vm}, [0], 'the page of the visibility map is reported');

my $visible = $node->safe_psql('postgres', "SELECT pg_relation_filepath('visible')");
$node->safe_psql('postgres', 'UPDATE visible SET id = -id WHERE id = 4711');
%map = pagemap($node, $start);
is_deeply($map{"${visible}_vm"}, [0], 'so it is when a page is updated that was all-visible');
is(scalar @{ $map{$visible} }, 2, 'with the two of the table');

my %refreshed = refresh_node($node, $copy, $since);
cmp_ok($refreshed{transferred}, '<', 50, "$refreshed{transferred} blocks transferred");
$node->stop;
copy_wal($node->data_dir, $copy->data_dir);
$copy->start;

my $count = <<'EOF';
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*) FROM t WHERE id > 10000
EOF
$copy->safe_psql('postgres', <<'EOF');
BEGIN;
INSERT INTO t SELECT i, repeat('y', 200) FROM generate_series(10001, 11000) i;
ROLLBACK
EOF
like($copy->safe_psql('postgres', "SET enable_seqscan = off; SET enable_bitmapscan = off;
	EXPLAIN SELECT count(*) FROM t WHERE id > 10000"), qr/Index Only Scan/,
	'the query is an index-only scan');
is($copy->safe_psql('postgres', $count), 0, 'no row that was rolled back is found');
is($copy->safe_psql('postgres', $count =~ s/FROM.*/FROM visible WHERE abs(id) = 4711/r), 1,
	'no row that was updated is found');
like($copy->safe_psql('postgres', 'SET enable_seqscan = off; SET enable_bitmapscan = off;
	EXPLAIN SELECT count(*) FROM visible WHERE abs(id) = 4711'), qr/Index Only Scan/,
	'that was an index-only scan, too');

$copy->stop;
done_testing();
