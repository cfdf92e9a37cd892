# "pg_ptrack backup" of a standby: increments of the primary and of the standby make
# one chain, what it comes to is the server that the last one was made on, and a
# standby that is promoted meanwhile gives no backup.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;
use Time::HiRes qw(usleep);

my $primary = new_node('primary', conf => 'wal_keep_size = 1GB');
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, repeat(md5(i::text), 10) FROM generate_series(1, 30000) i;
VACUUM;
SQL
checkpoint($primary);
my $standby = new_standby('standby', $primary);

sub change
{
	my ($turn) = @_;

	$primary->safe_psql('postgres', <<"SQL");
UPDATE t SET n = $turn WHERE id % 1000 = $turn;
CREATE TABLE made_$turn AS SELECT * FROM t WHERE id < 3000;
SQL
	restartpoint($standby, $primary);
	return;
}

change(1);
my @chain = client_backup($primary, 'of_primary');
change(2);
push @chain, client_backup($standby, 'of_standby', prior => $chain[-1], args => [ '-j', 2 ]);
like(slurp_file("$chain[-1]/backup_label"), qr/^BACKUP FROM: standby$/m, 'the label tells of a standby');
cmp_ok(-s (glob "$chain[-1]/base/*/INCREMENTAL.*")[0], '<', 10_000_000, 'there are files with changed blocks alone');
verify_backup($chain[-1], 'of the standby');
change(3);
push @chain, client_backup($standby, 'of_standby_again', prior => $chain[-1], args => [ '-X', 'stream' ]);
restartpoint($standby, $primary);
check_chain($standby, 'of the standby', @chain);
change(4);
push @chain, client_backup($primary, 'of_primary_again', prior => $chain[-1]);
check_chain($primary, 'of the primary', @chain);

# A standby that is made of such a chain
my $next = combine_backups('next', [], @chain);
$next->append_conf('postgresql.conf', 'port = ' . $next->port . "\n" . wal_from($primary));
$next->enable_streaming($primary);
chmod 0700, $next->data_dir;
$next->start;
change(5);
catch_up($next, $primary);
is($next->safe_psql('postgres', 'SELECT count(*) FROM made_5'), '2999', 'it can be a standby, and follows');
$next->stop;

# Promoted meanwhile
my $dir = $standby->backup_dir . '/promoted';
my $run = IPC::Run::start([ backup_command($standby, $dir, args => [ '-r', '4M' ]) ], '>', '/dev/null', '2>', \my $stderr);
poll_until(sub { -e "$dir/base" });
usleep(300_000);
$standby->promote;
$run->finish;
is($run->result, 1, 'promoted meanwhile: exit status');
like($stderr, qr/the standby was promoted during online backup/, 'promoted meanwhile: says why');
ok(!-e $dir, 'promoted meanwhile: nothing is left');

# It has gone its own way: a backup of either may follow one of before, and not one
# of after.
$standby->safe_psql('postgres', 'CREATE TABLE own AS SELECT * FROM t; CHECKPOINT');
my $promoted = client_backup($standby, 'of_promoted', prior => $chain[-1]);
check_chain($standby, 'of the promoted one', @chain, $promoted);
$primary->safe_psql('postgres', 'CREATE TABLE other AS SELECT * FROM t; SELECT pg_switch_wal(); CHECKPOINT');
backup_fails($primary, 'relative to another history', qr/is not in the history of this server|timeline/, prior => $promoted);

$_->stop for $primary, $standby;
done_testing();
