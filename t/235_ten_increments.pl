# Ten increments in a row under load.  Each is restored, with all before it, and is
# the server that it was made of.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => "wal_keep_size = 1GB\nmax_connections = 20");

$node->command_ok([ 'pgbench', '-i', '-q', '-s', 3, $node->connstr('postgres') ], 'there is data');
$node->safe_psql('postgres', 'CREATE TABLE notes (id serial PRIMARY KEY, v text)');

# What goes on besides the balances.
my $script = PostgreSQL::Test::Utils::tempdir() . '/notes.sql';
append_to_file($script, <<'EOS');
\set n random(1, 1000)
INSERT INTO notes (v) SELECT repeat(i::text, 50) FROM generate_series(1, 5) i;
DELETE FROM notes WHERE id % 1000 = :n;
UPDATE notes SET v = v || 'x' WHERE id = :n;
EOS

my @chain = client_backup($node, 'full', args => [ '-j', 2 ]);
for my $number (1 .. 10)
{
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-T', 2, '-f', $script, '-b', 'tpcb-like',
			$node->connstr('postgres') ], '>', '/dev/null', '2>', '/dev/null');

	$node->safe_psql('postgres', "CREATE TABLE made_$number AS SELECT * FROM notes; VACUUM notes");
	push @chain, client_backup($node, "increment_$number", prior => $chain[-1], args => [ '-j', 1 + $number % 3 ]);
	$load->finish;
	is($node->safe_psql('postgres', <<'EOS'), 't', "increment $number: balances agree");
SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
EOS
	check_chain($node, "increment $number", @chain);
}

# The same, in steps: increments alone are made one.
my $merged = $node->backup_dir . '/merged';
command_ok([ 'pg_ptrack', 'combine', '--no-sync', '-o', $merged, @chain[ 1 .. $#chain ] ], 'ten increments are made one');
command_ok([ 'pg_ptrack', 'verify', $merged ], 'it verifies');
check_chain($node, 'of full and merged', $chain[0], $merged);

$node->stop;
done_testing();
