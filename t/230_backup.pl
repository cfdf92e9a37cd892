# "pg_ptrack backup": full and incremental backups are what PostgreSQL's tools take
# them for, and what is restored from them is the server that they are of.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $node = new_node('primary', initdb => ['--data-checksums'], conf => <<'EOS');
allow_in_place_tablespaces = on
wal_keep_size = 1GB
EOS
# A short name, which PostgreSQL's tar format has room for.
my $place = PostgreSQL::Test::Utils::tempdir_short() . '/place';
mkdir $place;
$node->safe_psql('postgres', $_) for "CREATE TABLESPACE place LOCATION '$place'", "CREATE TABLESPACE inside LOCATION ''";
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, md5(i::text) FROM generate_series(1, 30000) i;
CREATE TABLE in_place TABLESPACE place AS SELECT * FROM t;
CREATE TABLE in_inside TABLESPACE inside AS SELECT * FROM t;
CREATE TABLE same AS SELECT * FROM t;
CREATE UNLOGGED TABLE u AS SELECT * FROM t;
CREATE TEMPORARY TABLE temp AS SELECT * FROM t;
CREATE DATABASE other;
VACUUM;
EOS

# A full backup, over several connections
my $full = client_backup($node, 'full', args => [ '-j', 3 ]);
verify_backup($full, 'a full backup');
ok(-e "$full/backup_manifest" && !-e "$full/backup_manifest.tmp", 'it is complete');
check_chain($node, 'a full backup', $full);

# What changed since
my $same = $node->safe_psql('postgres', "SELECT pg_relation_filepath('same')");
$node->safe_psql('postgres', <<'EOS');
UPDATE t SET n = 1 WHERE id % 1000 = 0;
DELETE FROM in_place WHERE id > 10000;
VACUUM in_place;
TRUNCATE in_inside;
CREATE TABLE made AS SELECT * FROM t;
CREATE DATABASE third STRATEGY file_copy;
DROP DATABASE other;
EOS
my $one = client_backup($node, 'one', prior => $full, args => [ '-j', 3 ]);
verify_backup($one, 'an increment');
is(-s $one . '/' . $same =~ s{(\d+)$}{INCREMENTAL.$1}r, 12, 'a file that did not change takes 12 bytes');
like(slurp_file("$one/backup_label"), qr/^INCREMENTAL FROM LSN: /m, 'the label says that it is an increment');
check_chain($node, 'an increment', $full, $one);

$node->safe_psql('postgres', <<'EOS');
INSERT INTO in_inside SELECT * FROM t;
UPDATE made SET n = 2;
DROP TABLE same;
VACUUM FULL in_place;
EOS
my $two = client_backup($node, 'two', prior => $one, args => [ '-j', 2, '--manifest-checksums=SHA256' ]);
verify_backup($two, 'an increment on an increment');
check_chain($node, 'two increments', $full, $one, $two);

# A server does not start from an increment.
my $alone = PostgreSQL::Test::Cluster->new('alone');
mkdir $alone->basedir;
PostgreSQL::Test::Utils::system_or_bail('cp', '-a', $two, $alone->data_dir);
chmod 0700, $alone->data_dir;
$alone->append_conf('postgresql.conf', 'port = ' . $alone->port);
is($alone->start(fail_ok => 1), 0, 'a server does not start from an increment');
like(slurp_file($alone->logfile), qr/FATAL: .*(?:incremental|backup_label)/, 'and says so');

# By a role that may do just that
$node->safe_psql('postgres', <<'EOS');
CREATE ROLE backup LOGIN REPLICATION;
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO backup;
GRANT EXECUTE ON FUNCTION ptrack_get_pagemapset(pg_lsn), ptrack_get_pagemapset(pg_lsn, uuid), ptrack_await_summary,
	ptrack_backup_files, ptrack_backup_read, ptrack_backup_read_blocks TO backup;
EOS
my $by_role = client_backup($node, 'by_role', prior => $two, args => [ '-U', 'backup', '-j', 2 ]);
verify_backup($by_role, 'an increment by a role with no more privileges');

# With nothing changed
my $none = client_backup($node, 'none', prior => $two);
verify_backup($none, 'an increment of nothing');
check_chain($node, 'an increment of nothing', $full, $one, $two, $none);

# What it says of it
command_checks_all([ backup_command($node, $node->backup_dir . '/verbose', prior => $two, args => ['--verbose']) ], 0, [],
	[ map { qr/^pg_ptrack: $_/m } 'write-ahead log start point: [0-9A-F]+/[0-9A-F]+ on timeline 1$',
		'receiving file "global/INCREMENTAL\.\d+"$', 'receiving file "PG_VERSION"$', 'write-ahead log end point: ' ], '--verbose');

# Chains of both kinds
if (has_core_increments())
{
	$node->append_conf('postgresql.conf', 'summarize_wal = on');
	$node->reload;
	my $base = client_backup($node, 'base');
	$node->safe_psql('postgres', 'UPDATE made SET n = 3 WHERE id % 100 = 0');
	my $theirs = $node->backup_dir . '/theirs';
	command_ok([ 'pg_basebackup', '-D', $theirs, '-c', 'fast', '--no-sync', '-d', $node->connstr('postgres'),
			'-T', "$place=$theirs.place", '-i', "$base/backup_manifest" ], "PostgreSQL's increment on our backup");
	$node->safe_psql('postgres', 'UPDATE t SET n = 4 WHERE id % 100 = 0');
	my $ours = client_backup($node, 'ours', prior => $theirs);
	verify_backup($ours, "our increment on PostgreSQL's");
	check_chain($node, 'mixed', $base, $theirs, $ours);

	my $combined = PostgreSQL::Test::Cluster->new('by_core');
	mkdir $combined->basedir;
	command_ok([ 'pg_combinebackup', '--no-sync', '-o', $combined->data_dir, '-T',
			readlink((grep { -l } glob "$ours/pg_tblspc/*")[0]) . '=' . $combined->basedir . '/space',
			$base, $theirs, $ours ], 'PostgreSQL combines it');
	compare_recovered($node, $combined, 'mixed, combined by PostgreSQL');
}

# Damaged pages are told, and the backup is there.
if ($node->safe_psql('postgres', 'SHOW data_checksums') eq 'on')
{
	my $path = damage_page($node, 'made');
	my $dir = $node->backup_dir . '/damaged';
	my ($stdout, $stderr);
	IPC::Run::run([ backup_command($node, $dir) ], '>', \$stdout, '2>', \$stderr);
	is($? >> 8, 1, 'a damaged page: exit status');
	like($stderr, qr/checksum verification failed in file "\Q$path\E", block 3\n/, 'the block is named');
	ok(-e "$dir/backup_manifest", 'the backup is finished');
	command_ok([ backup_command($node, "$dir.2", args => ['--no-verify-checksums']) ], 'unless nobody wants to know');
}

# What cannot be
my $other = new_node('stranger', conf => '');
backup_fails($other, 'a prior backup of another server', qr/system identifier|another server|the prior backup ends at/, prior => $full);
backup_fails($node, 'no manifest', qr/could not open file/, prior => $node->basedir);
backup_fails($node, 'a directory that is not empty', qr/exists but is not empty/, dir => $full);
backup_fails($node, 'a tablespace without a place', qr/exists but is not empty/, args => [ '-T', "$place=$full" ]);
backup_fails($node, 'a checksum algorithm', qr/unrecognized checksum algorithm/, args => ['--manifest-checksums=MD5']);
$node->safe_psql('postgres', 'CREATE DATABASE bare');
backup_fails($node, 'no extension', qr/no extension "ptrack" in database "bare"\n.*CREATE EXTENSION/s,
	args => [ '-d', $node->connstr('bare') ]);
(my $cut = slurp_file("$full/backup_manifest")) =~ s/Size": 8192/Size": 8193/;
mkdir $node->basedir . '/cut';
open my $fh, '>', $node->basedir . '/cut/backup_manifest' or die;
print $fh $cut;
close $fh;
backup_fails($node, 'a damaged manifest', qr/manifest checksum mismatch/, prior => $node->basedir . '/cut');

$_->stop for $node, $other;
done_testing();
