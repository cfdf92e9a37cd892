# Makes the inputs that fuzzing starts from: change summaries, WAL records and a
# manifest of a real server, and edge cases made by hand.
#
# usage: make_seeds.pl BINDIR DIRECTORY
#
# BINDIR has the programs of a server with ptrack; below DIRECTORY, which must
# not hold these yet, summary/, wal/, manifest/, incremental/ and tar/ are created.
# "dev/fuzz --make-seeds" calls it.  The form of wal/ is described in wal_records.c.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use File::Path qw(make_path);
use File::Temp;

my ($bin, $target) = @ARGV;
die "usage: make_seeds.pl BINDIR DIRECTORY\n" unless @ARGV == 2;
my $work = File::Temp->newdir;
my $data = "$work/data";

sub run
{
	my (@command) = @_;

	system(@command) == 0 or die "failed: @command\n";
	return;
}

sub slurp
{
	my ($path) = @_;

	open my $fh, '<:raw', $path or die "could not open $path: $!\n";
	local $/ = undef;
	return scalar <$fh>;
}

sub seed
{
	my ($kind, $name, $bytes) = @_;

	open my $fh, '>:raw', "$target/$kind/$name" or die "could not create $target/$kind/$name: $!\n";
	print $fh $bytes;
	close $fh or die "could not write $target/$kind/$name: $!\n";
	return;
}

# A server that has done a bit of everything.
my $load = <<'EOF';
CREATE EXTENSION ptrack;
CREATE TABLE t (id int PRIMARY KEY, v text, n int[]);
CREATE INDEX ON t USING hash (id);
CREATE INDEX ON t USING gin (n);
CREATE INDEX ON t USING brin (id);
CREATE INDEX ON t USING spgist (v);
CREATE TABLE p (p point);
CREATE INDEX ON p USING gist (p);
INSERT INTO p SELECT point(i, i) FROM generate_series(1, 500) i;
INSERT INTO t SELECT i, i, ARRAY[i] FROM generate_series(1, 3000) i;
CREATE UNLOGGED TABLE u (i int);
CREATE SEQUENCE s;
SELECT nextval('s');
CHECKPOINT;
VACUUM (FREEZE) t;
UPDATE t SET v = 'x' WHERE id % 100 = 0;
DELETE FROM t WHERE id % 7 = 0;
SELECT count(*) FROM (SELECT 1 FROM t WHERE id < 20 FOR UPDATE) s;
SELECT count(*) FROM (SELECT 1 FROM t WHERE id < 20 FOR KEY SHARE) s;
CHECKPOINT;
COPY p FROM PROGRAM 'for i in 1 2 3 4 5; do echo "($i,$i)"; done';
DELETE FROM t WHERE id > 100;
VACUUM t;
CREATE TABLE d (i int);
BEGIN; SAVEPOINT a; INSERT INTO d VALUES (1); SAVEPOINT b; INSERT INTO d VALUES (2); DROP TABLE d; COMMIT;
BEGIN; CREATE TABLE d (i int); ROLLBACK;
BEGIN; CREATE TABLE e (i int); PREPARE TRANSACTION 'one'; COMMIT PREPARED 'one';
BEGIN; TRUNCATE e; PREPARE TRANSACTION 'two'; ROLLBACK PREPARED 'two';
CREATE DATABASE a STRATEGY wal_log;
CREATE DATABASE b STRATEGY file_copy;
DROP DATABASE a;
DROP DATABASE b;
CHECKPOINT;
EOF

sub run_server
{
	my $log = "$work/log";

	run("$bin/initdb -A trust -N -D '$data' >'$log' 2>&1");
	open my $conf, '>>', "$data/postgresql.conf" or die $!;
	print $conf <<"EOF";
shared_preload_libraries = 'ptrack'
listen_addresses = ''
unix_socket_directories = '$work'
autovacuum = off
fsync = off
max_prepared_transactions = 5
wal_keep_size = 1GB
wal_level = logical
EOF
	close $conf;
	run("$bin/pg_ctl -w -D '$data' -l '$log' start >/dev/null");
	open my $psql, '|-', "$bin/psql -X -q -h '$work' -v ON_ERROR_STOP=1 -d postgres >/dev/null" or die $!;
	print $psql $load;
	close $psql or die "the load failed\n";
	run("$bin/pg_basebackup -h '$work' -D '$work/backup' -c fast -N -X none >/dev/null 2>&1");
	run("$bin/pg_ctl -w -D '$data' stop >/dev/null");
	return;
}

# The WAL since the server was made, without its page headers.
sub wal_stream
{
	my $stream = '';

	for my $path (sort glob "$data/pg_wal/0*")
	{
		my $segment = slurp($path);

		for (my $at = 0; $at < length $segment; $at += 8192)
		{
			return $stream if substr($segment, $at, 2) eq "\0\0";
			$stream .= substr($segment, $at + ($at == 0 ? 40 : 24), 8192 - ($at == 0 ? 40 : 24));
		}
	}
	return $stream;
}

# One record: its resource manager, what to call its kind, and the form of it that
# the harness reads.
sub record_seed
{
	my ($record) = @_;
	my ($info, $rmid) = unpack 'x16 CC', $record;
	my ($at, $blocks, $previous, $count, $payload, $relation, $settings) = (24, '', -1, 0, 0, '', 0);
	my $main;

	while (!defined $main && $at < length $record)
	{
		my $id = unpack 'C', substr $record, $at++, 1;

		if ($id == 255) { $main = unpack 'C', substr $record, $at++, 1; }
		elsif ($id == 254) { $main = unpack 'V', substr $record, $at, 4; $at += 4; }
		elsif ($id == 253) { $settings |= 2; $at += 2; }
		elsif ($id == 252) { $settings |= 4; $at += 4; }
		else
		{
			my ($flags, $length) = unpack 'C v', substr $record, $at, 3;
			my ($image, $kind) = (0, 0);

			$at += 3;
			if ($flags & 0x10)
			{
				($image, my $image_info) = unpack 'v x2 C', substr $record, $at, 5;
				my $compressed = $image_info & 0x1c;
				$kind = !($image_info & 1) ? 1 : $compressed ? 3 : 2;
				$at += 5 + ($kind == 3 ? 2 : 0);
			}
			unless ($flags & 0x80) { $relation = substr $record, $at, 12; $at += 12; }
			my $number = substr $record, $at, 4;
			$at += 4;
			$blocks .= pack('CC a4 v', $id - $previous - 1,
				($flags & 0xf) | $kind << 4 | ($flags & 0x80 ? 64 : 0) | ($flags & 0x20 ? 128 : 0),
				$number, $image || $length) . ($flags & 0x80 ? '' : $relation);
			$payload += $image + $length;
			$previous = $id;
			$count++;
		}
		# What is left is the data of the headers read so far.
		last if $at + $payload >= length $record;
	}
	$main //= 0;
	return ($rmid, sprintf('%02d-%02x-%s', $rmid, $info, $count > 3 ? 'many' : $count),
		pack('CCCC', $rmid, $info, $settings, $count) . $blocks . pack('C', 0)
		  . substr($record, length($record) - $main));
}

# The resource managers whose records the decoder looks into, and one other:
# XLOG, transaction, storage, database, both of the heap, B-tree.
my %chosen = map { $_ => 1 } 0, 1, 2, 4, 9, 10, 11;

# For each kind of record, the shortest and the first one, if it is short.
sub real_records
{
	my $stream = wal_stream();
	my (%first, %shortest);

	for (my $at = 0; $at + 24 < length $stream;)
	{
		my $len = unpack 'V', substr $stream, $at, 4;

		last if $len == 0;
		my ($rmid, $kind, $bytes) = record_seed(substr $stream, $at, $len);
		$at += $len + (-$len % 8);
		next unless $chosen{$rmid};
		$first{$kind} //= $bytes;
		$shortest{$kind} = $bytes if length $bytes < length($shortest{$kind} // $first{$kind});
	}
	for my $kind (sort keys %first)
	{
		seed('wal', "real-$kind", $first{$kind}) if length $first{$kind} <= 1000;
		seed('wal', "real-$kind-short", $shortest{$kind})
		  if defined $shortest{$kind} && length $shortest{$kind} <= 1000;
	}
	return;
}

# Records that are not as a server would write them.
sub odd_records
{
	my $relation = pack 'VVV', 1663, 5, 16384;
	my $block = pack('CCVv', 0, 0, 32672, 0) . $relation;
	my $other = pack 'CCVv', 0, 64, 1, 0;
	my $dropped = pack('Q<VV', 1, 4, 2) . $relation x 2;
	my %odd = (
		'nothing' => '',
		'heap-insert-flags' => pack('CCCC', 10, 0x00, 0, 1) . $block . pack('C v C', 0, 1, 1),
		'heap-insert-no-block' => pack('CCCC', 10, 0x00, 0, 0) . pack('C v C', 0, 1, 1),
		'heap-insert-cut' => pack('CCCC', 10, 0x00, 0, 1) . $block . pack('C C', 0, 1),
		'heap-update-both' => pack('CCCC', 10, 0x20, 0, 2) . $block . $other . pack('C C2', 2, 1, 0) . pack('V v C C V v', 1, 1, 0, 3, 1, 1),
		'heap-hot-update-map' => pack('CCCC', 10, 0x40, 0, 2) . $block . pack('CCVv', 2, 64 | 2, 1, 0) . pack('C V v C C V v', 0, 1, 1, 0, 1, 1, 1),
		'heap-lock' => pack('CCCC', 10, 0x60, 0, 1) . $block . pack('C V v C C', 0, 1, 1, 0, 1),
		'heap2-multi-insert' => pack('CCCC', 9, 0x50, 0, 1) . $block . pack('C C x v', 0, 1, 1),
		'heap2-lock-updated' => pack('CCCC', 9, 0x60, 0, 1) . $block . pack('C V v C C', 0, 1, 1, 0, 1),
		'smgr-create-fork-9' => pack('CCCC', 2, 0x11, 0, 0) . pack('C', 0) . $relation . pack('V', 9),
		'smgr-create-minimal' => pack('CCCC', 2, 0x11, 1, 0) . pack('C', 0) . $relation . pack('V', 0),
		'smgr-truncate-top' => pack('CCCC', 2, 0x21, 0, 0) . pack('CC V', 1, 3, 0xffffffff) . $relation . pack('V', 7),
		'smgr-unknown' => pack('CCCC', 2, 0x31, 0, 0) . pack('C', 0) . $relation,
		'xact-dropped' => pack('CCCC', 1, 0x81, 0, 0) . pack('CC', 1, 1) . $dropped,
		'xact-dropped-cut' => pack('CCCC', 1, 0x81, 0, 0) . pack('C', 0) . substr($dropped, 0, -5),
		'xact-subxacts' => pack('CCCC', 1, 0xa1, 0, 0) . pack('C CCC', 3, 3, 0, 5) . pack('Q<V VV V V3 V', 1, 7, 5, 1663, 3, 1, 2, 3, 1) . $relation,
		'xact-count-negative' => pack('CCCC', 1, 0x81, 0, 0) . pack('C Q<VV', 0, 1, 4, 0xffffffff),
		'xact-count-huge' => pack('CCCC', 1, 0x81, 0, 0) . pack('C Q<VV', 0, 1, 6, 0x7fffffff),
		'dbase-drop' => pack('CCCC', 4, 0x21, 0, 0) . pack('C V V V2', 0, 5, 2, 1663, 1700),
		'dbase-drop-count-huge' => pack('CCCC', 4, 0x21, 0, 0) . pack('C V V V2', 0, 5, 0x7fffffff, 1663, 1700),
		'custom-special' => pack('CCCC', 200, 0x01, 0, 1) . $block . pack('C C', 0, 1),
		'all-blocks' => pack('CCCC', 11, 0x00, 6, 33) . $block . $other x 32 . pack('C a300', 0, 'x'),
	);

	seed('wal', "odd-$_", $odd{$_}) for sort keys %odd;
	return;
}

# Items for summaries, and a summary of them behind a real one's header.  The
# harness makes the trailer right.
sub odd_summaries
{
	my ($real) = @_;
	my $header = substr $real, 0, unpack 'x6 v', $real;
	my $entry = pack 'C VVV C V', 1, 1663, 5, 16384, 0, 0xffffffff;
	my $trailer = pack 'C x8 x4', 0;
	my ($start, $end) = unpack 'x16 Q<2', $real;
	my $point = sub { pack 'C Q<VV a16 q<2', 6, $_[0], 1, $_[1] // 0, 'lineage', 10, 20 };
	my %items = (
		'empty' => '',
		'everything' => pack('C VVV C V', 1, 0, 0, 0, 0, 0),
		'database' => pack('C VVV C V', 1, 1663, 5, 0, 0, 0),
		'forks' => join('', map { pack('C VVV C V', 1, 1663, 5, 16384, $_, 0) } 0, 2, 3),
		'full' => $entry . pack('CC', 2, 1),
		'full-many' => $entry . pack('CC', 2, 1) x 200,
		'last-piece' => $entry . pack('C C4', 2, 0x80, 0x80, 0x80, 0x02),
		'beyond-last-piece' => $entry . pack('C C4', 2, 0x81, 0x80, 0x80, 0x02),
		'distance-long' => $entry . pack('C C5', 2, 0x81, 0x80, 0x80, 0x80, 0x00),
		'bitmap' => $entry . pack('CC', 3, 1) . "\x55" x 128,
		'bitmap-empty' => $entry . pack('CC', 3, 1) . "\0" x 128,
		'list' => $entry . pack('CC C v63', 4, 1, 63, map { 16 * $_ } 0 .. 62),
		'list-empty' => $entry . pack('CC C', 4, 1, 0),
		'list-descending' => $entry . pack('CC C v2', 4, 1, 2, 9, 8),
		'list-beyond' => $entry . pack('CC C v', 4, 1, 1, 1024),
		'runs' => $entry . pack('CC C v4', 5, 1, 2, 0, 10, 20, 1004),
		'runs-of-three' => $entry . pack('CC C v2', 5, 1, 1, 10, 3),
		'runs-beyond' => $entry . pack('CC C v2', 5, 1, 1, 1, 1024),
		'runs-empty' => $entry . pack('CC C v2', 5, 1, 1, 1, 0),
		'unknown-tag' => $entry . pack('CC', 7, 1),
		'points' => $point->($start + 1) . $point->($start + 2, 2) . $point->($end - 1),
		'points-descending' => $point->($start + 2) . $point->($start + 1),
		'point-outside' => $point->($end),
		'point-flags' => $point->($start + 1, 1),
		'point-late' => $entry . $point->($start + 1),
		'descending' => $entry . $entry,
		'piece-alone' => pack('CC', 2, 1),
	);

	seed('summary', "odd-$_", $header . $items{$_} . $trailer) for sort keys %items;
	return;
}

# A manifest with its checksum.
sub manifest
{
	my ($text) = @_;

	return $text . '"Manifest-Checksum": "' . sha256_hex($text) . "\"}\n";
}

# One of a few files, and of those ranges of WAL.
sub manifest_of
{
	my ($version, $files, $ranges) = @_;
	my $system = $version > 1 ? "\"System-Identifier\": 7000000000000000001,\n" : '';

	return manifest(qq({ "PostgreSQL-Backup-Manifest-Version": $version,\n$system"Files": [\n)
		  . join(",\n", @$files) . qq(\n],\n"WAL-Ranges": [\n) . join(",\n", @$ranges) . "\n],\n");
}

# The manifest of a real backup, but for most of its files.
sub real_manifest
{
	my $text = slurp("$work/backup/backup_manifest");
	my $few = 0;

	$text =~ s/^\{ "Path".*,\n/$few++ < 6 ? $& : ''/gme;
	$text =~ s/"Manifest-Checksum".*\n//;
	return manifest($text);
}

sub odd_manifests
{
	my $date = '"Last-Modified": "2026-01-01 00:00:00 GMT"';
	my $crc = '"Checksum-Algorithm": "CRC32C", "Checksum": "0123abcd"';
	my $file = sub { qq({ "$_[0]": "$_[1]", "Size": 8192, $date, $crc }) };
	my $range = '{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000120" }';
	my %odd = (
		'empty' => '',
		'empty-object' => manifest("{\n"),
		'version-1' => manifest_of(1, [ $file->('Path', 'base/1/1') ], [$range]),
		'version-2' => manifest_of(2, [ $file->('Path', 'base/1/1') ], [$range]),
		'version-3' => manifest_of(3, [], []),
		'nothing' => manifest_of(2, [], []),
		'encoded' => manifest_of(2, [ $file->('Encoded-Path', 'ff2f41') ], [$range]),
		'encoded-above' => manifest_of(2, [ $file->('Encoded-Path', '2e2e2f41') ], [$range]),
		'encoded-zero' => manifest_of(2, [ $file->('Encoded-Path', '4100') ], [$range]),
		'escaped' => manifest_of(2, [ $file->('Path', 'a\\"\\u00e4\\u0001\\\\') ], [$range]),
		'utf8' => manifest_of(2, [ $file->('Path', "\xc3\xa4") ], [$range]),
		'absolute' => manifest_of(2, [ $file->('Path', '/etc/passwd') ], [$range]),
		'above' => manifest_of(2, [ $file->('Path', 'a/../../b') ], [$range]),
		'long' => manifest_of(2, [ $file->('Path', 'a' x 1024) ], [$range]),
		'no-checksum' => manifest_of(2, [qq({ "Path": "a", "Size": 0, $date })], [$range]),
		'sha512' => manifest_of(2, [ qq({ "Path": "a", "Size": 0, "Checksum-Algorithm": "SHA512", "Checksum": ") . '5a' x 64 . '" }' ], [$range]),
		'size-negative' => manifest_of(2, ['{ "Path": "a", "Size": -1 }'], [$range]),
		'size-huge' => manifest_of(2, ['{ "Path": "a", "Size": 18446744073709551616 }'], [$range]),
		'size-fraction' => manifest_of(2, ['{ "Path": "a", "Size": 1.5 }'], [$range]),
		'size-null' => manifest_of(2, ['{ "Path": "a", "Size": null }'], [$range]),
		'two-sizes' => manifest_of(2, ['{ "Path": "a", "Size": 1, "Size": 1 }'], [$range]),
		'nested' => manifest_of(2, [ '[' x 200 . ']' x 200 ], [$range]),
		'ranges' => manifest_of(2, [], [ $range, $range =~ s/1,/2,/r ]),
		'range-backwards' => manifest_of(2, [], [ $range =~ s/2000120/1/r ]),
		'range-strange' => manifest_of(2, [], [ $range =~ s/2000120/2000120\/1/r ]),
		'one-line' => manifest_of(2, [ $file->('Path', 'a') ], [$range]) =~ s/\n(?=.)//gr,
		'no-newline' => manifest_of(2, [ $file->('Path', 'a') ], [$range]) =~ s/\n\z//r,
		'goes-on' => manifest_of(2, [ $file->('Path', 'a') ], [$range]) . "{}\n",
	);

	seed('manifest', "odd-$_", $odd{$_}) for sort keys %odd;
	return;
}

sub increments
{
	my $magic = 0xd3ae1f0d;
	my %increment = (
		'empty' => pack('L3', $magic, 0, 7),
		'one' => pack('L4', $magic, 1, 7, 3),
		'many' => pack('L3 L100', $magic, 100, 131072, map { 1000 * $_ } 1 .. 100),
		'last' => pack('L4', $magic, 1, 131072, 131071),
		'beyond' => pack('L4', $magic, 1, 131072, 131072),
		'descending' => pack('L5', $magic, 2, 10, 5, 4),
		'twice' => pack('L5', $magic, 2, 10, 5, 5),
		'too-many' => pack('L3', $magic, 131073, 10),
		'too-long' => pack('L3', $magic, 0, 131073),
		'cut' => pack('L3', $magic, 2, 10),
		'short' => pack('L2', $magic, 0),
		'magic' => pack('L3', $magic + 1, 0, 0),
	);

	seed('incremental', $_, $increment{$_}) for sort keys %increment;
	return;
}

# Archives of GNU tar, in its formats, and of what can be compressed here.
sub archives
{
	my $from = "$work/members";
	my $top = 'a' x 90;
	my $long = join '/', $top, 'b' x 50, 'c' x 90;

	make_path("$from/base/1", "$from/pg_tblspc", "$from/$long", "$from/odd");
	for my $file ('base/1/1', 'PG_VERSION', "$long/file")
	{
		open my $fh, '>', "$from/$file" or die $!;
		print $fh "contents of $file\n" x 20;
		close $fh or die $!;
	}
	symlink '/somewhere', "$from/pg_tblspc/16384" or die $!;
	symlink '/somewhere', "$from/odd/link" or die $!;
	link "$from/PG_VERSION", "$from/odd/hard" or die $!;
	run("truncate -s 1M $from/odd/sparse");
	run("mkfifo $from/odd/pipe");
	my $tar = "tar -C $from -b 1 --owner=0 --group=0 --mtime=2026-01-01 --sort=name -c";
	my %archive = (
		(map { $_ => "--format=$_ base pg_tblspc PG_VERSION" } qw(ustar pax gnu v7)),
		(map { $_ . '-long' => "--format=$_ $top" } qw(ustar pax gnu)),
		'dot' => "--exclude=./odd --exclude=./$top .",
		'link' => 'odd/link', 'pipe' => 'odd/pipe', 'hard' => 'PG_VERSION odd/hard',
		'sparse' => '-S odd/sparse', 'sparse-pax' => '-S --format=pax odd/sparse', 'sparse-0.0' => '-S --format=pax --sparse-version=0.0 odd/sparse',
		'twice' => 'PG_VERSION PG_VERSION', 'absolute' => '-P --transform=s,^,/, PG_VERSION',
		'above' => '-P --transform=s,^,../, PG_VERSION', 'nothing' => '-T /dev/null',
	);

	$archive{$_} = "base PG_VERSION | $_ -c" for qw(gzip lz4 zstd);
	for my $name (sort keys %archive)
	{
		my $bytes = `$tar $archive{$name}`;

		die "failed: $tar $archive{$name}\n" if $? != 0;
		seed('tar', $name, $bytes);
	}
	seed('tar', 'cut', substr(slurp("$target/tar/gnu"), 0, 1700));
	return;
}

make_path(map { "$target/$_" } qw(summary wal manifest incremental tar));
run_server();
my @summaries = sort glob "$data/ptrack/*.summary";
die "no summaries were written\n" unless @summaries;
for my $n (0 .. $#summaries)
{
	my $bytes = slurp($summaries[$n]);

	seed('summary', "real-$n", $bytes);
}
odd_summaries(slurp($summaries[0]));
real_records();
odd_records();
seed('manifest', 'real', real_manifest());
odd_manifests();
increments();
archives();
