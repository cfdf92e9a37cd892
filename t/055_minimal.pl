# wal_level = minimal: what a transaction puts into a relation that it made
# itself is not logged, and may come long after the redo point that followed
# the creation.  It must be known as changed all the same.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

need_hooks('WAL of wal_level minimal cannot be followed');

my $node = new_node('primary', conf => <<'EOF');
wal_level = minimal
max_wal_senders = 0
EOF

sub blocks_of
{
	my ($table) = @_;
	return $node->safe_psql('postgres', "SELECT pg_relation_size('$table') / 8192");
}

my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; CREATE TABLE made (a int); INSERT INTO made SELECT generate_series(1, 10)');
my @redo = (checkpoint($node));
push @redo, checkpoint($node);
$session->query_safe('INSERT INTO made SELECT generate_series(1, 100000); COMMIT');
$session->quit;

for my $since (@redo)
{
	my %map = pagemap($node, $since);
	is(scalar @{ $map{ $node->safe_psql('postgres', "SELECT pg_relation_filepath('made')") } // [] },
		blocks_of('made'), 'all blocks of a relation made before the redo point and filled after it');
}

# A crash after the redo point loses what was carried over in memory, and replay
# has no record of it.
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN; CREATE TABLE crashed (a int); INSERT INTO crashed SELECT generate_series(1, 10)');
my $before = checkpoint($node);
$session->query_safe('INSERT INTO crashed SELECT generate_series(1, 100000); COMMIT');
$session->quit;
for my $round (1 .. 3)
{
	# The second time round, only the summary of the first recovery knows.
	$node->stop('immediate');
	$node->start;
	my %map = pagemap($node, $before);
	is(scalar @{ $map{ $node->safe_psql('postgres', "SELECT pg_relation_filepath('crashed')") } // [] },
		blocks_of('crashed'), "after crash $round");
}

# The visibility map, too: nothing tells of it but the relation being new.
my $start = checkpoint($node);
$node->safe_psql('postgres', q{BEGIN; CREATE TABLE frozen (a int);
COPY frozen FROM PROGRAM 'seq 10000' (FREEZE); COMMIT});
my %map = pagemap($node, $start);
my $path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('frozen')");
is(scalar @{ $map{$path} // [] }, blocks_of('frozen'), 'a relation filled by COPY FREEZE');
is_deeply($map{"${path}_vm"}, [0], 'and its visibility map');

# Also when that is replayed after a crash, whatever the level is by then.
my $from = checkpoint($node);
$node->safe_psql('postgres', q{BEGIN; CREATE TABLE replayed (a int);
COPY replayed FROM PROGRAM 'seq 10000' (FREEZE); COMMIT});
$node->stop('immediate');
$node->append_conf('postgresql.conf', 'wal_level = replica');
$node->start;
%map = pagemap($node, $from);
$path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('replayed')");
is(scalar @{ $map{$path} // [] }, blocks_of('replayed'), 'a relation filled by COPY FREEZE, after a crash and with another level');
is_deeply($map{"${path}_vm"}, [0], 'and its visibility map');
$node->append_conf('postgresql.conf', 'wal_level = minimal');
$node->restart;

# Coverage goes on when the level changes, and back.
my $init = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
for my $level ('replica', 'minimal', 'logical')
{
	$node->append_conf('postgresql.conf', "wal_level = $level");
	$node->restart;
	$node->safe_psql('postgres', 'UPDATE made SET a = a + 1 WHERE a < 5');
	checkpoint($node);
	is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, "wal_level = $level: no gap");
}
$start = checkpoint($node);
checkpoint($node);
$node->safe_psql('postgres', 'UPDATE made SET a = 0 WHERE a = 1000');
%map = pagemap($node, $start);
cmp_ok(scalar @{ $map{ $node->safe_psql('postgres', "SELECT pg_relation_filepath('made')") } }, '<', 4,
	'after a restart, relations are not new any more');

# The map has no room for so many relations: their database stands for them, and
# is new in later cycles as they are, in memory and after a crash.
$node->append_conf('postgresql.conf', <<'EOF');
wal_level = minimal
ptrack.map_size = 1
max_locks_per_transaction = 1024
EOF
$node->restart;
my $many = $node->background_psql('postgres');
$many->query_safe(q{BEGIN; DO $$ BEGIN FOR i IN 1 .. 2500 LOOP
EXECUTE format('CREATE TABLE many_%s (a int)', i); END LOOP; END $$});
@redo = map { checkpoint($node) } 1 .. 3;
$many->query_safe('INSERT INTO many_2500 SELECT generate_series(1, 100000); COMMIT');
$many->quit;
$path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('many_2500')");
for my $round ('in memory', 'after a crash')
{
	for my $since (@redo)
	{
		%map = pagemap($node, $since);
		is(scalar @{ $map{$path} // [] }, blocks_of('many_2500'),
			"$round: all blocks since $since of a relation that the map had no room for");
	}
	$node->stop('immediate');
	$node->start;
}

$node->stop;
done_testing();
