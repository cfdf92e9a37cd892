# The load that dev/sanitize puts on a server: see there.
#
# usage: sanitize.pl SECONDS, in the environment that TAP tests have.  Prints
# TAP.  A primary with ptrack gets everything at once for that many seconds, a
# standby follows it; then both crash, the standby is promoted, and all
# functions are asked everywhere, for things that they refuse as well.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my ($seconds) = @ARGV or die "usage: sanitize.pl SECONDS\n";

# Scripts for pgbench, and their weights; each client has tables of its own.
my %scripts = (
	'ddl@2' => <<'EOF',
DROP TABLE IF EXISTS d:client_id;
CREATE TABLE d:client_id (i int, v text, n int[]);
CREATE UNIQUE INDEX i:client_id ON d:client_id (i);
CREATE INDEX ON d:client_id USING gin (n);
INSERT INTO d:client_id SELECT i, repeat('x', i % 500), ARRAY[i] FROM generate_series(1, 2000) i;
BEGIN;
SAVEPOINT a;
UPDATE d:client_id SET v = 'y' WHERE i % 3 = 0;
ROLLBACK TO a;
DELETE FROM d:client_id WHERE i % 2 = 0;
COMMIT;
VACUUM (FREEZE) d:client_id;
UPDATE d:client_id SET v = 'z' WHERE i < 300;
DELETE FROM d:client_id WHERE i > 100;
VACUUM d:client_id;
BEGIN;
TRUNCATE d:client_id;
INSERT INTO d:client_id VALUES (1);
ROLLBACK;
CLUSTER d:client_id USING i:client_id;
BEGIN;
CREATE TABLE e:client_id AS SELECT * FROM d:client_id;
SAVEPOINT b;
DROP TABLE e:client_id;
ROLLBACK;
EOF
	'query@1' => <<'EOF',
SELECT ptrack_init_lsn() AS lsn \gset
SELECT count(*), sum(length(pagemap)) FROM ptrack_get_pagemapset(':lsn');
SELECT * FROM ptrack_get_change_stat(':lsn');
SELECT count(*) FROM ptrack_changed_blocks(':lsn');
SELECT count(*) FROM ptrack_changed_blocks(':lsn') LIMIT 1;
SELECT count(*), sum(length(page)) FROM (SELECT page FROM ptrack_get_blocks(':lsn') LIMIT 500) b;
SELECT length(ptrack_get_block('global/1262', 0));
SELECT * FROM pg_stat_ptrack;
CHECKPOINT;
EOF
	'database@1' => <<'EOF',
DROP DATABASE IF EXISTS x:client_id;
CREATE DATABASE x:client_id STRATEGY wal_log;
DROP DATABASE x:client_id;
CREATE DATABASE x:client_id STRATEGY file_copy;
EOF
);

sub under_load
{
	my ($node, $clients) = @_;
	my @files;

	for my $name (sort keys %scripts)
	{
		my ($file, $weight) = split /@/, $name;
		my $path = $node->basedir . "/$file.sql";

		unlink $path;
		append_to_file($path, $scripts{$name});
		push @files, '-f', "$path\@$weight";
	}
	# It fails if any client met with an error.
	my ($out, $err) = ('', '');
	my @pgbench = ('pgbench', '-n', '-c', $clients, '-j', 1, '-T', $seconds, '-b', 'tpcb-like@4', @files,
		'-d', $node->connstr('postgres'));
	ok(IPC::Run::run(\@pgbench, '<', \'', '>', \$out, '2>', \$err), "$clients clients did their work")
	  or diag($err);
	cmp_ok($_, '>', 0, "a script was run $_ times") for $out =~ /^ - (\d+) transactions/mg;
	return;
}

# Asks everything since the beginning of what is known.
sub ask_all
{
	my ($node, $name) = @_;
	my $queries = $scripts{'query@1'} =~ s/^CHECKPOINT;$//mr =~ s/':lsn'/:'lsn'/gr;
	my ($ret, $out, $err) = $node->psql('postgres', $queries, on_error_stop => 1);

	is($ret, 0, "$name: all functions answer") or diag($err);
	return;
}

# What is refused: reasons of all kinds, none of them a crash.
my @refused = (
	"SELECT * FROM ptrack_get_pagemapset('0/1')",
	"SELECT * FROM ptrack_get_pagemapset('FFFF/0')",
	"SELECT * FROM ptrack_get_pagemapset(NULL)",
	"SELECT * FROM ptrack_changed_blocks('0/2', '0/1')",
	"SELECT * FROM ptrack_get_blocks('FFFFFFFF/FFFFFFFF')",
	"SELECT ptrack_get_block('../x', 0)",
	"SELECT ptrack_get_block('/etc/passwd', 0)",
	"SELECT ptrack_get_block('base/5/1', -1)",
	"SELECT ptrack_get_block(repeat('base/', 1000), 0)",
	"SELECT ptrack_get_block('pg_tblspc/1/PG_17_202406281/5/16410', 0) FROM ptrack_get_pagemapset('0/1')",
);

sub ask_for_errors
{
	my ($node) = @_;
	my @answered = grep { ($node->psql('postgres', $_))[0] == 0 } @refused;

	is(join("\n", @answered), '', 'what is to be refused is refused');
	return;
}

# Bytes of a summary are changed, one by one; then it is gone.
sub damage
{
	my ($node) = @_;
	my $file = (summary_files($node))[-2];
	my $bytes = slurp_file($file);

	for my $offset (map { int(length($bytes) * $_ / 10) } 0 .. 9)
	{
		my $damaged = $bytes;

		substr($damaged, $offset, 1) = chr(ord(substr $bytes, $offset, 1) ^ 0x55);
		open my $fh, '>:raw', $file or die "could not open $file: $!";
		print $fh $damaged;
		close $fh;
		ask_all($node, "with byte $offset of a summary damaged");
	}
	unlink $file;
	ask_all($node, 'without that summary');
	return;
}

my $primary = new_node('primary', conf => <<'EOF');
wal_keep_size = 1GB
max_prepared_transactions = 5
shared_buffers = 16MB
log_error_verbosity = verbose
ptrack.map_size = 1
EOF
run_log([ 'pgbench', '-i', '-s', 1, '-q', '-d', $primary->connstr('postgres') ]) or die;
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

under_load($primary, 4);
$primary->safe_psql('postgres', q{BEGIN; CREATE TABLE p (i int); PREPARE TRANSACTION 'p'});
$primary->safe_psql('postgres', q{COMMIT PREPARED 'p'});
catch_up($standby, $primary);
$standby->safe_psql('postgres', 'CHECKPOINT');
ask_all($_, $_->name) for $primary, $standby;
ask_for_errors($primary);

for my $node ($primary, $standby)
{
	$node->stop('immediate');
	$node->start;
	ask_all($node, $node->name . ' after a crash');
}

# More relations than the map has room for.
$primary->safe_psql('postgres', <<'EOF');
DO $$BEGIN FOR i IN 1 .. 2500 LOOP
	EXECUTE format('CREATE TABLE o%s (i int)', i);
	EXECUTE format('INSERT INTO o%s VALUES (1)', i);
	IF i % 500 = 0 THEN COMMIT; END IF;
END LOOP; END$$
EOF
cmp_ok($primary->safe_psql('postgres', 'SELECT overflows FROM pg_stat_ptrack'), '>', 0, 'the map overflowed');
ask_all($primary, 'with a map that is full');
checkpoint($primary);
ask_all($primary, 'after a checkpoint of it');

catch_up($standby, $primary);
$standby->promote;
$standby->safe_psql('postgres', 'CHECKPOINT');
ask_all($standby, 'promoted');
damage($primary);
$_->stop for $primary, $standby;

for my $node ($primary, $standby)
{
	unlike(slurp_file($node->logfile),
		qr/PANIC: |terminated by signal|TRAP: |detected write past chunk end|problem in alloc set/,
		'nothing in the log of the ' . $node->name);
}

done_testing();
