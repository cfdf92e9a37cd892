# A name that stands for several servers: all files of a backup come from the one that
# it was started on, or there is none.  Settings of a database do not hide that they
# are different ones.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
plan skip_all => "libpq $major does not choose between servers at random" if $major < 16;

my $node = new_node('primary', conf => "wal_keep_size = 1GB\nmax_connections = 50");
$node->safe_psql('template1', 'ALTER DATABASE postgres SET extra_float_digits = -15');
my $standby = new_standby('standby', $node);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$node->safe_psql('postgres', "CREATE TABLE t AS SELECT i, repeat('x', 400) AS filler FROM generate_series(1, 18000) i");

# Of 33 connections, some lead to the one, and some to the other; of two, they do so
# sooner or later.
my $either = join ' ', 'dbname=postgres', 'load_balance_hosts=random',
  map { my $what = $_; "$what=" . join ',', map { $_->$what } $node, $standby } 'host', 'port';
backup_fails($node, 'several servers', qr/is to another server than that on which the backup was started/,
	args => [ '-j', 32, '-d', $either ]);
for my $slot ([], ['--no-slot'])
{
	my $stderr = '';

	for (1 .. 40)
	{
		my $dir = $node->backup_dir . "/stream_${_}_" . @$slot;

		IPC::Run::run([ backup_command($node, $dir, args => [ '-X', 'stream', @$slot, '-d', $either ]) ], '2>', \$stderr);
		last if $stderr =~ /the connection for WAL is to another server than that for the backup/;
	}
	like($stderr, qr/the connection for WAL is to another server/, "WAL of another server @$slot");
}

$standby->stop;
$node->stop;
done_testing();
