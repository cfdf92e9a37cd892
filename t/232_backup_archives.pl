# "pg_ptrack backup" to archives, to standard output, and with WAL that is streamed:
# what is in them is what a directory has.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => "wal_keep_size = 1GB\nallow_in_place_tablespaces = on\nmax_wal_senders = 5");
my $place = PostgreSQL::Test::Utils::tempdir_short() . '/place';
mkdir $place;
$node->safe_psql('postgres', $_) for "CREATE TABLESPACE place LOCATION '$place'", "CREATE TABLESPACE inside LOCATION ''";
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, repeat(md5(i::text), 10) FROM generate_series(1, 30000) i;
CREATE TABLE in_place TABLESPACE place AS SELECT * FROM t WHERE id < 1000;
CREATE TABLE in_inside TABLESPACE inside AS SELECT * FROM t WHERE id < 1000;
VACUUM;
EOS
my ($oid) = $node->safe_psql('postgres', "SELECT oid FROM pg_tablespace WHERE spcname = 'place'");

# A backup in archives: no tablespace gets another place.
sub archive_backup
{
	my ($name, @args) = @_;
	my $dir = $node->backup_dir . "/$name";

	mkdir $node->backup_dir;
	command_ok([ 'pg_ptrack', 'backup', '-D', $dir, '-c', 'fast', '--no-sync', '-d', $node->connstr('postgres'), '-F', 't', @args ],
		"$name: it is made");
	command_ok([ 'pg_ptrack', 'verify', $dir ], "$name: it verifies");
	return $dir;
}

my $full = archive_backup('full', '-j', 3);
ok(-e "$full/$_", "there is $_") for 'base.tar', "$oid.tar", 'backup_manifest';
$node->safe_psql('postgres', <<'EOS');
UPDATE t SET n = 1 WHERE id % 1000 = 0;
UPDATE in_place SET n = 1;
TRUNCATE in_inside;
EOS

# With each compression; the next one is relative to it.
my @chain = ($full);
for my $method ('gzip:1', 'lz4', 'zstd:level=1,workers=2')
{
	(my $name = $method) =~ s/\W.*//;
	push @chain, archive_backup($name, '-j', 2, '-Z', $method, '-i', "$chain[-1]/backup_manifest");
	my %suffix = (gzip => 'gz', lz4 => 'lz4', zstd => 'zst');
	ok(-s "$chain[-1]/base.tar.$suffix{$name}" < -s "$full/base.tar", "$name: it is compressed");
	$node->safe_psql('postgres', 'UPDATE t SET n = n + 1 WHERE id % 777 = 0');
}
push @chain, client_backup($node, 'directory', prior => $chain[-1], args => [ '-X', 'stream', '-j', 2 ]);
verify_backup($chain[-1], 'with streamed WAL');

# Without a slot, when there is none to be had.  The session of the last backup may
# still have its own.
$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_replication_slots WHERE temporary')
  or die 'a temporary slot stays';
$node->safe_psql('postgres', <<'EOS');
UPDATE t SET n = n + 1 WHERE id % 778 = 0;
SELECT pg_create_physical_replication_slot('taken_' || i)
FROM generate_series(1, current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)) i;
EOS
my @without = backup_command($node, $node->backup_dir . '/refused', args => [ '-X', 'stream' ]);
command_fails_like(\@without, qr/all replication slots are in use/, 'streaming takes a slot');
push @chain, client_backup($node, 'no_slot', prior => $chain[-1], args => [ '-X', 'stream', '--no-slot' ]);
verify_backup($chain[-1], 'with WAL that is streamed without one');
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'taken%'");
check_chain($node, 'archives and a directory', @chain);

# Everything in one archive, manifest included
my $dir = $node->backup_dir . '/unpacked';
mkdir $dir;
my $stdout = PostgreSQL::Test::Utils::tempdir() . '/all.tar.zst';
my $run = IPC::Run::run([ 'pg_ptrack', 'backup', '-D', '-', '-F', 'tar', '-Z', 'zstd', '-c', 'fast', '-j', 2,
		'-X', 'stream', '-d', $node->connstr('postgres') ], '>', $stdout, '2>', '/dev/null');
ok($run, 'to standard output');
command_ok([ 'tar', '--zstd', '-xf', $stdout, '-C', $dir ], 'any tar unpacks it');
ok(-d "$dir/pg_tblspc/$oid", 'a tablespace is a directory in it');
verify_backup($dir, 'what was unpacked');

# What does not go together
sub refused
{
	my ($pattern, @args) = @_;
	command_fails_like([ 'pg_ptrack', 'backup', '-d', $node->connstr('postgres'), @args ], $pattern, "@args");
	return;
}
refused(qr/only tar mode can write to standard output/, '-D', '-');
refused(qr/only tar mode backups can be compressed/, '-D', "$dir.x", '-Z', 'lz4');
refused(qr/unrecognized compression algorithm/, '-D', "$dir.x", '-F', 't', '-Z', 'rot13');
refused(qr/invalid compression specification/, '-D', "$dir.x", '-F', 't', '-Z', 'zstd:level=99');
refused(qr/long-distance mode of compression is not supported|unrecognized compression option/, '-D', "$dir.x", '-F', 't', '-Z', 'zstd:long');
refused(qr/cannot be fetched without a replication slot/, '-D', "$dir.x", '--no-slot');
refused(qr/cannot be resumed/, '-D', "$dir.x", '-F', 't', '--resume');
refused(qr/no target directory specified/);
refused(qr/too many command-line arguments/, '-D', "$dir.x", 'what');
ok(!-e "$dir.x", 'nothing is left of them');

$node->stop;
done_testing();
