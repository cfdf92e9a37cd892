# "pg_ptrack combine" of backups that are archives, of all kinds, mixed with
# directories, gives what it gives of directories; and so do results that are
# archives.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCombine;
use Test::More;

need_core_increments();

my $node = chain_node('node');

# A backup as archives.
sub archive_backup
{
	my ($prior, @options) = @_;
	my $dir = new_dir();

	push @options, '--incremental', "$prior/backup_manifest" if defined $prior;
	$node->command_ok([ 'pg_basebackup', '-Ft', '-D', $dir, '-d', $node->connstr('postgres'),
			'--no-sync', '-cfast', @options ], "base backup @options");
	return $dir;
}

sub untar
{
	my ($archive, $dir) = @_;
	my ($ending) = $archive =~ /([^.]*)$/;
	my $cat = { gz => 'gzip -dc', lz4 => 'lz4 -dc', zst => 'zstd -dc', tar => 'cat' }->{$ending};

	system("$cat '$archive' | tar -C '$dir' -xf -") == 0 or die "could not unpack $archive";
	return;
}

# The same backup as a directory.
sub unpack_backup
{
	my ($archives) = @_;
	my $dir = new_dir();

	mkdir $dir, 0700 or die "could not create $dir: $!";
	untar($_, $dir) for glob "$archives/base.tar*";
	mkdir "$dir/pg_wal";
	untar($_, "$dir/pg_wal") for glob "$archives/pg_wal.tar*";
	for my $archive (glob "$archives/[0-9]*.tar*")
	{
		my ($oid) = $archive =~ m{/(\d+)\.tar[^/]*$};
		my $elsewhere = -e "$dir/tablespace_map" && slurp_file("$dir/tablespace_map") =~ /^$oid /m;
		my $place = $elsewhere ? new_dir() : "$dir/pg_tblspc/$oid";

		mkdir $place, 0700 or die "could not create $place: $!";
		symlink $place, "$dir/pg_tblspc/$oid" if $elsewhere;
		untar($archive, $place);
	}
	unlink "$dir/tablespace_map";
	system_or_bail('cp', "$archives/backup_manifest", $dir);
	write_manifest($dir, sub { $_[0] =~ s/^\{ "Path": "tablespace_map".*?\},\n//mr });
	return $dir;
}

# Options for where the server's tablespaces are to be.
sub mapped_from_server
{
	return map { ('-T', readlink($_) . '=' . new_dir()) } grep { -l } glob $node->data_dir . '/pg_tblspc/*';
}

$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t AS SELECT i, repeat('x', 400) AS filler FROM generate_series(1, 20000) i;
CREATE TABLE e TABLESPACE elsewhere AS SELECT * FROM t WHERE i < 5000;
CREATE TABLE i TABLESPACE inside AS SELECT * FROM t WHERE i < 5000;
CREATE TABLE dropped AS SELECT * FROM t WHERE i < 5000;
EOS
# What the tests unpack with has to be there, too.
my @compressed = grep { system("command -v $_ >/dev/null 2>&1") == 0 } qw(gzip lz4 zstd);
my @chain = archive_backup(undef);
for my $turn (1 .. 4)
{
	my $method = ('none', @compressed)[ $turn - 1 ] // 'none';

	$node->safe_psql('postgres', "UPDATE t SET i = i WHERE i % 500 = $turn");
	$node->safe_psql('postgres', "UPDATE $_ SET i = i WHERE i % 900 = $turn") for qw(e i);
	$node->safe_psql('postgres', 'DROP TABLE dropped') if $turn == 2;
	$node->safe_psql('postgres', "CREATE TABLE new$turn AS SELECT * FROM e WHERE i % 2 = 0");
	push @chain, archive_backup($chain[-1], '-Z', $method);
}
$node->stop;
my @plain = map { unpack_backup($_) } @chain;
my $core = core_combine(@plain);

sub from_archives
{
	my ($name, $options, @backups) = @_;
	my $dir = new_dir();

	command_ok([ 'pg_ptrack', 'combine', '-N', '-o', $dir, mapped_from_server(), @$options, @backups ], $name);
	return $dir;
}

sub to_archives
{
	my ($name, $options, @backups) = @_;
	my $dir = new_dir();

	command_ok([ 'pg_ptrack', 'combine', '-Ft', '-o', $dir, @$options, @backups ], $name);
	command_ok([ 'pg_ptrack', 'verify', '-q', $dir ], "$name: pg_ptrack verify agrees");
	return $dir;
}
same_trees(from_archives('archives', [], @chain), $core, 'archives');
same_trees(from_archives('archives, in threads', [ '-j', 4 ], @chain), $core, 'archives, in threads');
same_trees(from_archives('copy_file_range', ['--copy-file-range'], @chain), $core, 'copy_file_range');
same_trees(from_archives('mixed', [], $plain[0], $chain[1], $plain[2], @chain[ 3, 4 ]), $core, 'mixed');
same_trees(combine_ok('mixed the other way', [], $chain[0], $plain[1], $chain[2], @plain[ 3, 4 ]), $core,
	'mixed the other way');
my $merged = from_archives('increments alone', [], @chain[ 1 .. 4 ]);
verifies($merged, 'increments alone');
same_trees(core_combine($plain[0], $merged), $core, 'pg_combinebackup of merged increments');

my $whole = new_dir();
system_or_bail('cp', '-a', $chain[0], $whole);
system_or_bail('gzip', '-q1', glob "$whole/*.tar");
same_trees(from_archives('a compressed full backup', [], $whole, @chain[ 1 .. 4 ]), $core, 'a compressed full backup');

same_trees(from_archives('the same, in threads', [ '-j', 3, '--copy-file-range' ], $whole, @chain[ 1 .. 4 ]), $core,
	'the same, in threads');
same_trees(from_archives('the same, to archives and back', [], to_archives('to archives', ['-N'], $whole, @chain[ 1 .. 4 ])),
	$core, 'the same, to archives and back');
same_trees(from_archives('a compressed full backup alone', [], $whole), $plain[0], 'a compressed full backup alone');
my $no_manifest = new_dir();
system_or_bail('cp', '-a', $whole, $no_manifest);
drop_manifest($no_manifest);
same_trees(from_archives('without a manifest', [], $no_manifest, @chain[ 1 .. 4 ]), $core, 'without a manifest');

my $place = copy_dir($plain[0]);
command_ok([ 'pg_ptrack', 'combine', '-N', '--in-place', $place, @chain[ 1 .. 4 ] ], 'in place');
same_trees($place, $core, 'in place');

# Results that are archives
my $made = to_archives('to archives', ['-N'], @chain);
is_deeply([ sort map { s{.*/}{}r } glob "$made/*" ], [ sort map { s{.*/}{}r } glob "$chain[0]/*" ],
	'they are those of pg_basebackup');
same_trees(unpack_backup($made), $core, 'to archives');
is(slurp_file((glob "$made/base.tar")[0]) =~ /^backup_label\0/, 1, 'the label comes first');
for my $method ('gzip:1', 'lz4', 'zstd:1')
{
	my $compressed = to_archives("compressed, $method", [ '-N', '-Z', $method ], @chain);

	is(join(' ', grep { !/\.(gz|lz4|zst)$|backup_manifest$/ } glob "$compressed/*"), '', "compressed, $method: by name");
	same_trees(unpack_backup($compressed), $core, "compressed, $method");
}
command_fails_like([ 'pg_ptrack', 'combine', '-Z', 'lz4', '-o', $made . '_no', @chain ], qr/only archives can be compressed/, 'a directory is not compressed');
same_trees(unpack_backup(to_archives('from directories to archives', [ '-j', 3 ], @plain)), $core,
	'from directories to archives');
same_trees(unpack_backup(to_archives('with syncfs', ['--sync-method=syncfs'], @plain)), $core, 'with syncfs');
my $packed = to_archives('increments to archives', [ '-N', '-j', 2 ], @chain[ 1 .. 4 ]);
same_trees(unpack_backup($packed), $merged, 'increments to archives');
same_trees(from_archives('archives of our own', [], $chain[0], $packed), $core, 'archives of our own');
my ($place_of_server) = map { readlink } grep { -l } glob $node->data_dir . '/pg_tblspc/*';
my $moved = to_archives('tablespaces moved', [ '-T', "$place_of_server=/elsewhere\\=there" ], @chain);
like(join('', `tar -xOf $moved/base.tar tablespace_map`), qr{^\d+ /elsewhere=there$}m, 'the map says where to');
command_ok([ 'pg_verifybackup', '-n', $made ], 'pg_verifybackup agrees')
  if `pg_config --version` =~ /(\d+)/ && $1 >= 18;

# What cannot be
command_fails_like([ 'pg_ptrack', 'combine', '--in-place', @chain ], qr/cannot be changed in place/, 'archives in place');
command_fails_like([ 'pg_ptrack', 'combine', '--link', '-o', new_dir(), mapped_from_server(), @chain ],
	qr/cannot be linked or cloned/, 'archives cannot be linked');
command_fails_like([ 'pg_ptrack', 'combine', '-o', new_dir(), @chain ],
	qr/tablespace at ".*" has no tablespace mapping/, 'tablespaces have to be mapped');
my $damaged = new_dir();
system_or_bail('cp', '-a', $chain[1], $damaged);
substr(my $base = slurp_file("$damaged/base.tar"), index(slurp_file("$damaged/base.tar"), "$place_of_server\n"), 1) = '?';
spew("$damaged/base.tar", $base);
command_fails_like([ 'pg_ptrack', 'combine', @$_, '-o', new_dir(), $chain[0], $damaged ],
	qr/checksum of file ".*tablespace_map" is not that of its manifest/, "a damaged tablespace_map, @$_")
  for [ '-F', 'tar' ], [ '-F', 'plain', mapped_from_server() ];
for my $number (0 .. 2)
{
	my @cut = ($number == 0 ? $whole : $chain[0], @chain[ 1, 2 ]);
	my $dir = new_dir();
	my $out = new_dir();

	system_or_bail('cp', '-a', $cut[$number], $dir);
	for my $archive (glob "$dir/base.tar*")
	{
		truncate $archive, (-s $archive) / 2 or die "could not truncate $archive: $!";
	}
	$cut[$number] = $dir;
	command_fails_like([ 'pg_ptrack', 'combine', '-o', $out, mapped_from_server(), @cut ],
		qr/could not read|ends|truncated/i, "half an archive of backup $number is refused");
	ok(!-e $out, 'and nothing is left');
}

done_testing();
