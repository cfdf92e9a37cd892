# What is known to have changed is the same before a crash and after it, with
# full_page_writes on and off, whether or not pages had been written out: redo
# skips a page that is on disk already, and must mark it all the same.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# How many changed blocks are on disk with a change since that LSN: the first
# eight bytes of a page are the LSN of its last change, as two words.
sub blocks_on_disk
{
	my ($node, $start) = @_;

	return $node->safe_psql('postgres', <<"EOF");
SELECT count(*) FROM (
	SELECT (get_byte(page, 3) * 16777216::bigint + get_byte(page, 2) * 65536 + get_byte(page, 1) * 256 + get_byte(page, 0)) * 4294967296
		+ get_byte(page, 7) * 16777216::bigint + get_byte(page, 6) * 65536 + get_byte(page, 5) * 256 + get_byte(page, 4) AS lsn
	FROM ptrack_get_blocks('$start')) s
WHERE lsn >= '$start'::pg_lsn - '0/0'::pg_lsn
EOF
}

for my $fpw ('on', 'off')
{
	my $node = new_node("fpw_$fpw", conf => "full_page_writes = $fpw\nshared_buffers = 1MB");
	my $init = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');

	$node->safe_psql('postgres', <<'EOF');
CREATE TABLE t (id int PRIMARY KEY, v int);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 50000) i;
VACUUM (FREEZE) t;
EOF
	my $start = checkpoint($node);
	# Changes the heap, clears bits of the visibility map, drops and creates.
	$node->safe_psql('postgres', <<'EOF');
UPDATE t SET v = 1 WHERE id % 5000 = 0;
CREATE TABLE u AS SELECT * FROM t WHERE id < 100;
DELETE FROM t WHERE id BETWEEN 40000 AND 40010;
BEGIN; DROP TABLE u; ROLLBACK;
EOF
	# With a buffer pool this small, reading this writes the dirty pages out.
	$node->safe_psql('postgres', <<'EOF');
CREATE TEMP TABLE other AS SELECT i, repeat('z', 500) FROM generate_series(1, 20000) i;
SELECT count(*) FROM pg_class a, pg_attribute b, pg_proc c WHERE a.oid = b.attrelid AND c.oid = a.oid;
SELECT count(*) FROM t;
SELECT count(*) FROM pg_depend; SELECT count(*) FROM pg_proc;
EOF
	cmp_ok(blocks_on_disk($node, $start), '>', 10, 'changed pages were written out');
	my $before = changed_blocks($node, $start);
	my %map = pagemap($node, $start);

	crash($node);
	$node->start;

	my $after = changed_blocks($node, $start);
	my %map_after = pagemap($node, $start);
	is(lines_missing($before, $after), '',
		"full_page_writes $fpw: all " . scalar(split /\n/, $before) . ' changes are known after the crash');
	is_deeply([ grep { !exists $map_after{$_} } sort keys %map ], [], 'all files are in the page map');
	# Catalogs may be pruned by the very queries that are made here.
	is(lines_missing(join("\n", grep { m{^\d+/\d+/(\d+)/} && $1 >= 16384 } split /\n/, $after), $before),
		'', 'nothing else is');
	is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init,
		'coverage begins where it did');

	# Once more, with the crash after a checkpoint's redo point.
	my $middle = checkpoint($node);
	$node->safe_psql('postgres', 'UPDATE t SET v = 2 WHERE id % 1000 = 0');
	$before = changed_blocks($node, $start);
	my $since_middle = changed_blocks($node, $middle);
	crash($node);
	$node->start;
	is(lines_missing($before, changed_blocks($node, $start)), '', 'over several cycles');
	is(lines_missing($since_middle, changed_blocks($node, $middle)), '', 'in the last cycle');

	# A backend that crashes takes shared memory with it, not the postmaster.
	$node->safe_psql('postgres', 'UPDATE t SET v = 3 WHERE id % 700 = 0');
	$before = changed_blocks($node, $middle);
	$node->append_conf('postgresql.conf', 'restart_after_crash = on');
	$node->reload;
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
	my $offset = -s $node->logfile;
	flush_wal($node);
	kill 9, $pid;
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	is(lines_missing($before, changed_blocks($node, $middle)), '',
		'after the crash of one process');
	is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init,
		'coverage still begins where it did');
	$node->stop;
}

done_testing();
