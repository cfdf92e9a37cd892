# Reading changed blocks: damage, relations that vanish or shrink meanwhile,
# segments, cancellation, and nothing outside the data directory.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $node = new_node('primary', initdb => ['--data-checksums'], conf => <<'EOF');
allow_in_place_tablespaces = on
shared_buffers = 32MB
EOF
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub path_of { return sql("SELECT pg_relation_filepath('$_[0]')"); }

# Puts bytes at an offset of a file.
sub overwrite
{
	my ($path, $offset, $bytes) = @_;

	open my $fh, '+<:raw', $node->data_dir . "/$path" or die "could not open $path: $!";
	seek $fh, $offset, 0;
	print $fh $bytes;
	close $fh;
	return;
}

sub set_length
{
	my ($path, $blocks) = @_;

	open my $fh, '>>', $node->data_dir . "/$path" or die "could not open $path: $!";
	truncate $fh, $blocks * 8192 or die "could not truncate $path: $!";
	close $fh;
	return;
}

# Damage is an error that names the block, unless damage is to be ignored.
my $start = checkpoint($node);
sql("CREATE TABLE t AS SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i");
checkpoint($node);
my $path = path_of('t');
my $good = sql("SELECT md5(ptrack_get_block('$path', 3))");
open my $fh, '<:raw', $node->data_dir . "/$path" or die;
seek $fh, 3 * 8192 + 8000, 0;
read $fh, my $bytes, 4;
overwrite($path, 3 * 8192 + 8000, 'ruin');
fails_like($node, "SELECT ptrack_get_block('$path', 3)", 'XX001',
	"invalid page in block 3 of file \"$path\".*DETAIL:.*checksum", 'damaged page');
fails_like($node, "SELECT count(*) FROM ptrack_get_blocks('$start')", 'XX001',
	"invalid page in block 3 of file \"$path\"", 'damaged page among others');
my ($ret, $out, $err) = $node->psql('postgres',
	"SET ignore_checksum_failure = on; SELECT count(*) FROM ptrack_get_blocks('$start') WHERE path = '$path'");
is($out, sql("SELECT pg_relation_size('t') / 8192"), 'ignored: all blocks are read');
like($err, qr/WARNING:  invalid page in block 3/, 'with a warning');

# A page that is being written when it is read looks damaged, until it is read
# again: here it stays so for some tenths of a second less than is waited.
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_until(qr/begun/, "\\echo begun\nSELECT 'md5 ' || md5(ptrack_get_block('$path', 3));\n");
overwrite($path, 3 * 8192 + 8000, $bytes);
like($session->query("SELECT 'md5 ' || md5(ptrack_get_block('$path', 3))"), qr/md5 $good/, 'a page that was torn is read again');
$session->quit;

# Relations that shrink and vanish while they are read.
sql('CREATE TABLE shrinks AS SELECT * FROM t; CREATE TABLE vanishes AS SELECT * FROM t');
sql('DELETE FROM shrinks');
checkpoint($node);
my ($shrinks, $vanishes) = map { path_of($_) } qw(shrinks vanishes);
my $cursor = $node->background_psql('postgres');
$cursor->query_safe('BEGIN');
$cursor->query_safe("DECLARE c CURSOR FOR SELECT (b).path FROM (SELECT ptrack_get_blocks('$start') AS b OFFSET 0) s WHERE (b).path IN ('$shrinks', '$vanishes')");
is($cursor->query_safe('FETCH 1 FROM c'), $shrinks, 'reading has begun');
sql('DROP TABLE vanishes');
# VACUUM would wait for the lock of nobody: the functions take none.
sql('VACUUM shrinks');
checkpoint($node);
my @rest = split /\n/, $cursor->query_safe('FETCH ALL FROM c');
cmp_ok(scalar(@rest), '<', 40, 'what shrank and vanished is not an error, and not there');
is(scalar(grep { $_ eq $vanishes } @rest), 0, 'no block of the dropped relation');
$cursor->query_safe('COMMIT');
$cursor->quit;

# A query that is cancelled, or ends early, leaves no file open behind.
# Of the table: catalogs may be pruned meanwhile.
my $count_blocks = "SELECT count(*) FROM ptrack_get_blocks('$start') WHERE path = '$path'";
my $blocks = sql($count_blocks);
$session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query('SELECT pg_backend_pid()');
$session->query("SELECT count(*) FROM (SELECT (ptrack_get_blocks('$start')).path LIMIT 3) s");
$session->query("SELECT 1 / (length((b).page) - 8192) FROM (SELECT ptrack_get_blocks('$start') AS b OFFSET 0) s");
$session->query("BEGIN; SET LOCAL statement_timeout = '1ms'; SELECT count(*) FROM generate_series(1, 100), ptrack_get_blocks('$start'); ROLLBACK");
my @open = grep { m{\.summary$|/\Q$path\E$} } map { readlink($_) // () } glob "/proc/$pid/fd/*";
is(scalar(@open), 0, 'no files are left open');
is($session->query($count_blocks), $blocks, 'and the session works');
$session->quit;

# Segments.  A sparse file stands in for a gigabyte; pages of zeroes are fine.
sql('CREATE TABLE big (a int) WITH (autovacuum_enabled = off); INSERT INTO big VALUES (1)');
$path = path_of('big');
checkpoint($node);
$node->stop;
set_length($path, 131072);
set_length("$path.1", 131072);
set_length("$path.2", 10);
$node->start;
$start = checkpoint($node);
sql('INSERT INTO big VALUES (2)');
my %map = pagemap($node, $start);
is_deeply([ map { [ $_, @{ $map{$_} } ] } grep { /^\Q$path\E(\.\d+)?$/ } sort keys %map ],
	[ [ "$path.2", 9 ] ], 'a change in the third segment');
checkpoint($node);
is(sql("SELECT path || ' ' || blkno || ' ' || (page = ptrack_get_block(path, blkno)) FROM ptrack_get_blocks('$start') WHERE path LIKE '$path%'"),
	"$path.2 9 true", 'and its contents, of which the checksum includes the block number');
is(sql("SELECT relblocknumber FROM ptrack_changed_blocks('$start') WHERE relfilenode = pg_relation_filenode('big')"),
	2 * 131072 + 9, 'and its number in the fork');

# The limit block is in the second segment: from there on, all blocks count.
$node->stop;
overwrite("$path.2", 9 * 8192, "\0" x 8192);
set_length("$path.2", 0);
unlink $node->data_dir . "/$path.2";
set_length("$path.1", 5000);
overwrite("$path.1", 2 * 8192, do { open my $f, '<:raw', $node->data_dir . "/$path"; read $f, my $p, 8192; $p });
$node->append_conf('postgresql.conf', 'ignore_checksum_failure = on');
$node->start;
$start = checkpoint($node);
sql('VACUUM (TRUNCATE) big');
is(sql("SELECT relblocknumber FROM ptrack_changed_blocks('$start') WHERE relfilenode = pg_relation_filenode('big') AND relforknumber = 0 AND is_limit_block"),
	131072 + 3, 'a truncation within the second segment');
$node->stop;
set_length("$path.1", 131072);
set_length("$path.2", 20);
$node->start;
%map = pagemap($node, $start);
is("@{ $map{$path} // [] }[0 .. 0]", '0', 'the first segment: what was changed');
my %marked = map { $_ => 1 } @{ $map{"$path.1"} };
is(scalar(grep { !$marked{$_} } 3 .. 131071), 0, 'the second: all blocks from the limit on');
is(scalar(@{ $map{"$path.2"} }), 20, 'the third: all blocks');

# In-place tablespaces, and databases in them.
sql("CREATE TABLESPACE place LOCATION ''");
$start = checkpoint($node);
sql('CREATE DATABASE other TABLESPACE place STRATEGY file_copy');
sql('CREATE TABLE placed (a int) TABLESPACE place; INSERT INTO placed VALUES (1)');
%map = pagemap($node, $start);
ok($map{ path_of('placed') }, 'a relation in a tablespace: ' . path_of('placed'));
my $space = sql("SELECT oid FROM pg_tablespace WHERE spcname = 'place'");
my $db = sql("SELECT oid FROM pg_database WHERE datname = 'other'");
my $count = grep { m{^pg_tblspc/$space/PG_\d+_\d+/$db/\d} } keys %map;
is($count, sql("SELECT count(*) FROM pg_ls_dir('pg_tblspc/$space/' || (SELECT d FROM pg_ls_dir('pg_tblspc/$space') d) || '/$db') f,
	pg_stat_file('pg_tblspc/$space/' || (SELECT d FROM pg_ls_dir('pg_tblspc/$space') d) || '/$db/' || f) s
	WHERE f ~ '^[0-9]+(_vm|_init)?(\\.[0-9]+)?\$' AND s.size > 0"), 'all files of a new database in a tablespace');
$node->safe_psql('postgres', 'ALTER DATABASE other SET TABLESPACE pg_default');
%map = pagemap($node, $start);
is(scalar(grep { m{^pg_tblspc/$space/PG_\d+_\d+/$db/} } keys %map), 0, 'moved away: none there');
cmp_ok(scalar(grep { m{^base/$db/} } keys %map), '>', 100, 'but where it is now');
$node->safe_psql('postgres', 'ALTER DATABASE other SET TABLESPACE place');
%map = pagemap($node, $start);
cmp_ok(scalar(grep { m{^pg_tblspc/$space/PG_\d+_\d+/$db/} } keys %map), '>', 100, 'moved back: there again');

# An errno other than "no such file" is an error, not "unchanged".
my $dir = $node->data_dir . '/base/' . sql("SELECT oid FROM pg_database WHERE datname = 'template1'");
$node->safe_psql('template1', 'CREATE TABLE hidden (a int); INSERT INTO hidden VALUES (1)');
chmod 0000, $dir;
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$start')", '42501', 'could not stat file', 'unreadable directory');
chmod 0700, $dir;

$node->stop;
done_testing();
