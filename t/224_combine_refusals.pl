# What "pg_ptrack combine" makes of backups that are not as they should be: broken
# ones, ones that do not belong together, and ones that were made to do harm.  And
# what it makes of lengths and blocks that no server would have written.

use strict;
use warnings FATAL => 'all';

use File::Path qw(make_path);
use FindBin;
use lib "$FindBin::RealBin/lib";
use POSIX qw(mkfifo);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCombine;
use Test::More;

need_core_increments();

my $BLCKSZ = 8192;
my $MAGIC = 0xd3ae1f0d;
my $RELSEG = 131072;
my $node = chain_node('node');

$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t AS SELECT i, repeat('x', 400) AS filler FROM generate_series(1, 2000) i;
CREATE TABLE e TABLESPACE elsewhere AS SELECT * FROM t;
EOS
my $table = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('t')});
(my $increment_of_table = $table) =~ s{([^/]+)$}{INCREMENTAL.$1};
my @chain = make_chain($node, 'UPDATE t SET i = i WHERE i % 100 = 0', 'UPDATE t SET i = i WHERE i % 300 = 0');
my $stranger = chain_node('stranger');
my ($other) = make_chain($stranger);
$stranger->stop;

# A chain whose backup of that number is a copy, changed by a function.
sub changed
{
	my ($number, $change) = @_;
	my @changed = @chain;

	$changed[$number] = copy_dir($chain[$number]);
	$change->($changed[$number]);
	return @changed;
}

# Such a chain must be refused.
sub refused
{
	my ($name, $pattern, $number, $change, @options) = @_;

	combine_fails($name, $pattern, \@options, changed($number, $change));
	return;
}

# An incremental file's bytes.
sub increment
{
	my ($truncation, %blocks) = @_;
	my @numbers = sort { $a <=> $b } keys %blocks;
	my $header = pack 'V*', $MAGIC, scalar @numbers, $truncation, @numbers;

	$header .= "\0" x (-length($header) % $BLCKSZ) if @numbers;
	return $header . join '', map { $blocks{$_} x $BLCKSZ } @numbers;
}

# Bytes of a file, changed.
sub patch
{
	my ($path, $at, $bytes) = @_;
	my $content = slurp_file($path);

	substr($content, $at, length $bytes) = $bytes;
	spew($path, $content);
	return;
}

# Chains that do not fit together
combine_fails('no full backup in the middle', qr/is a full backup, but only the first one can be/, [],
	@chain[ 0, 0, 1 ]);
combine_fails('one is missing', qr/is not relative to backup/, [], @chain[ 0, 2 ]);
combine_fails('wrong order', qr/is not relative to backup|is a full backup/, [], @chain[ 1, 0, 2 ]);
combine_fails('one is there twice', qr/is not relative to backup/, [], @chain[ 0, 1, 1, 2 ]);
combine_fails('another server', qr/has system identifier \d+, but backup/, [], $other, @chain[ 1, 2 ]);
command_fails_like([ 'pg_ptrack', 'combine', '-o', new_dir(), @chain ],
	qr/tablespace at ".*" has no tablespace mapping/, 'tablespaces have to be mapped');
command_fails_like([ 'pg_ptrack', 'combine', '-o', $chain[0], mapped($chain[2]), @chain ],
	qr/exists but is not empty/, 'a directory that is not empty');
command_fails_like([ 'pg_ptrack', 'combine', '-o', "$chain[$_]/base/../in/it", mapped($chain[2]), @chain ],
	qr/directory ".*" is in backup "\Q$chain[$_]\E"/, 'the result is not put into one of the backups') for 0 .. 2;
command_fails_like([ 'pg_ptrack', 'combine', '-o', new_dir(), (map { s/=.*/=$chain[1]\/space/r } mapped($chain[2])), @chain ],
	qr/directory "\Q$chain[1]\E\/space" is in backup "\Q$chain[1]\E"/, 'nor is a tablespace');
command_fails_like([ 'pg_ptrack', 'combine', @chain ], qr/no output directory specified/, 'no output');
command_fails_like([ 'pg_ptrack', 'combine', '-o', new_dir() ], qr/no input directories/, 'no input');

# Labels and control files
refused('a label of nothing', qr/invalid data in file ".*backup_label"/, 1, sub { spew("$_[0]/backup_label", '') });
refused('a label with two starts', qr/invalid data in file ".*backup_label"/, 1, sub {
	spew("$_[0]/backup_label", slurp_file("$_[0]/backup_label") . "START TIMELINE: 2\n");
});
refused("a damaged label: $_", qr/checksum of file ".*backup_label" is not that of its manifest/, $_, sub {
	spew("$_[0]/backup_label", slurp_file("$_[0]/backup_label") =~ s{^(CHECKPOINT LOCATION: )(\S+)}{$1${2}8}mr);
}) for 0 .. 2;
refused('no label', qr/could not open file ".*backup_label"/, 2, sub { unlink "$_[0]/backup_label" });
refused('a control file of zeros', qr/has version 0, but/, 1, sub { spew("$_[0]/global/pg_control", "\0" x 8192) });
refused('a short control file', qr/has 100 bytes, and not/, 1, sub { spew("$_[0]/global/pg_control", "\0" x 100) });
refused('a changed control file', qr/CRC of file ".*pg_control" is incorrect/, 0, sub {
	patch("$_[0]/global/pg_control", 100, "\xff\xff");
});
refused('a manifest of another server', qr/manifest ".*" has system identifier 1,/, 1, sub {
	write_manifest($_[0], sub { $_[0] =~ s/"System-Identifier": \d+/"System-Identifier": 1/r });
});

# Contents that are not as their manifest says
refused('a changed file', qr/checksum of file ".*PG_VERSION" is not/, 2, sub { patch("$_[0]/PG_VERSION", 0, '9') });
refused('a longer file', qr/PG_VERSION" has 4 bytes, but its manifest says 3/, 2, sub { spew("$_[0]/PG_VERSION", "170\n") });
refused('a changed increment', qr/could not use incremental file .*checksum/, 1, sub {
	patch("$_[0]/$increment_of_table", 3 * $BLCKSZ, 'x');
});
refused('a shorter whole file', qr/bytes, but its manifest says/, 0, sub {
	truncate "$_[0]/$table", 5 * $BLCKSZ or die $!;
});
refused('a changed block of a full backup', qr/checksum of file ".*\Q$table\E" is not/, 0, sub { patch("$_[0]/$table", 8200, 'x') });
refused('a file is missing', qr/is in the manifest of backup ".*", but not on disk/, 2, sub { unlink "$_[0]/PG_VERSION" });
refused('a source is missing', qr/could not open file ".*\Q$table\E"/, 0, sub { unlink "$_[0]/$table" });
refused('a source is missing in the manifest, too', qr/is incremental in backup .*, but it is not in backup/, 1, sub {
	unlink "$_[0]/$increment_of_table";
	write_manifest($_[0], sub { join '', grep { !/\Q$increment_of_table\E"/ } split /^/, $_[0] });
});
refused('a file in both forms', qr/is twice in backup/, 2, sub { spew("$_[0]/$table", 'x' x $BLCKSZ) });
refused('a changed manifest', qr/manifest checksum mismatch/, 0, sub {
	my $text = slurp_file("$_[0]/backup_manifest");
	spew("$_[0]/backup_manifest", $text =~ s/"Size": 3,/"Size": 4,/r);
});
refused('half a manifest', qr/could not parse backup manifest/, 1, sub {
	spew("$_[0]/backup_manifest", substr slurp_file("$_[0]/backup_manifest"), 0, 5000);
});

refused('a file twice in a manifest', qr/file "PG_VERSION" is twice in backup/, 2, sub {
	write_manifest($_[0], sub { $_[0] =~ s/^(.*"PG_VERSION".*\n)/$1$1/mr });
});
combine_fails('an unknown format', qr/invalid output format "zip", must be "plain" or "tar"/, ['--format=zip'], @chain);
combine_fails('an unknown sync method', qr/unrecognized sync method: hope/, ['--sync-method=hope'], @chain);

# Settings of recovery may be others than the manifest says, or none.
my @settings = changed(2, sub { spew("$_[0]/postgresql.auto.conf", "work_mem = '5MB'\n"); spew("$_[0]/standby.signal", '') });
my $changed_settings = combine_ok('changed settings', [ '--format=plain', '--sync-method=fsync' ], @settings);
is(slurp_file("$changed_settings/postgresql.auto.conf"), "work_mem = '5MB'\n", 'changed settings: they are those of the last backup');
ok(-e "$changed_settings/standby.signal", 'changed settings: it is a standby');
verifies($changed_settings, 'changed settings');
my $in_place = copy_dir($settings[0]);
command_ok([ 'pg_ptrack', 'combine', '--in-place', '-N', $in_place, @settings[ 1, 2 ] ], 'changed settings, in place');
is(slurp_file("$in_place/postgresql.auto.conf"), "work_mem = '5MB'\n", 'changed settings, in place: they are those of the last backup');
ok(-e "$in_place/standby.signal", 'changed settings, in place: it is a standby');
verifies($in_place, 'changed settings, in place');
unlink "$settings[2]/postgresql.auto.conf";
ok(!-e combine_ok('settings removed', [], @settings) . '/postgresql.auto.conf', 'settings removed: there are none');

refused('no manifest of the last backup', qr/cannot make a manifest, as backup ".*" has none/, 2, sub { drop_manifest($_[0]) });

# Headers that lie, in files of which no manifest says anything
my %lies = (
	'a bad magic number' => [ qr/bad magic number/, pack 'V3', 1, 0, 1 ],
	'more blocks than a segment' => [ qr/more blocks than a segment/, pack 'V3', $MAGIC, $RELSEG + 1, 1 ],
	'4 billion blocks' => [ qr/more blocks than a segment/, pack 'V3', $MAGIC, 0xffffffff, 1 ],
	'a length past the segment' => [ qr/truncation block length is more/, pack 'V3', $MAGIC, 0, $RELSEG + 1 ],
	'a block past the segment' => [ qr/block number past the end/, increment(1, $RELSEG => 'x') ],
	'a block twice' => [ qr/not in ascending order/, pack('V5', $MAGIC, 2, 9, 3, 3) . "\0" x (3 * $BLCKSZ - 20) ],
	'fewer blocks than it says' => [ qr/its length is not/, substr increment(9, 1 => 'x', 2 => 'y'), 0, -1 ],
	'more blocks than it says' => [ qr/its length is not/, increment(9, 1 => 'x') . 'x' ],
	'half a header' => [ qr/it ends early/, pack 'V2', $MAGIC, 1 ],
	'nothing' => [ qr/it ends early/, '' ]);
for my $lie (sort keys %lies)
{
	my ($pattern, $bytes) = @{ $lies{$lie} };

	refused($lie, $pattern, 1 + length($lie) % 2, sub { drop_manifest($_[0]); spew("$_[0]/$increment_of_table", $bytes) },
		'--no-manifest');
}
refused('an increment in a full backup', qr/is incremental in full backup/, 0, sub {
	drop_manifest($_[0]);
	unlink "$_[0]/$table";
	spew("$_[0]/$increment_of_table", increment(1));
});

# Names that lead elsewhere
for my $path ('../outside', '/etc/passwd', 'base/../../outside', 'base//1', '')
{
	refused("file name \"$path\"", qr/could not parse backup manifest ".*": file name/, $_, sub {
		write_manifest($_[0], sub { $_[0] =~ s/"Path": "PG_VERSION"/"Path": "$path"/r });
	}) for 0, 2;
}
refused('a symbolic link for a file', qr/is a symbolic link/, 2, sub { unlink "$_[0]/PG_VERSION"; symlink '/etc/passwd', "$_[0]/PG_VERSION" });
refused('a symbolic link for a source', qr/there is a symbolic link, or no directory, on the way/, 0, sub {
	rename "$_[0]/$table", "$_[0]/elsewhere" or die $!;
	symlink "$_[0]/elsewhere", "$_[0]/$table";
});
refused('a symbolic link for its directory', qr/there is a symbolic link, or no directory, on the way/, 1, sub {
	rename "$_[0]/base", "$_[0]/elsewhere" or die $!;
	symlink 'elsewhere', "$_[0]/base";
});
refused('a symbolic link for a directory', qr/is a symbolic link/, 2, sub {
	rename "$_[0]/base", "$_[0]/elsewhere" or die $!;
	symlink 'elsewhere', "$_[0]/base";
});
refused('a symbolic link for a label', qr/there is a symbolic link/, 1, sub {
	rename "$_[0]/backup_label", "$_[0]/elsewhere" or die $!;
	symlink 'elsewhere', "$_[0]/backup_label";
});
refused('a pipe', qr/is neither a file nor a directory/, 2, sub { mkfifo("$_[0]/pipe", 0600) or die $! });
refused('a pipe for a source', qr/is not a regular file/, 0, sub {
	unlink "$_[0]/$table";
	mkfifo("$_[0]/$table", 0600) or die $!;
});

# Histories: a lineage is what a file's name says
my $start_of = sub { slurp_file("$_[0]/backup_label") =~ /^START WAL LOCATION: (\S+)/m ? $1 : die };
sub lineage
{
	my ($kind, $of, $lineage) = @_;

	return sprintf 'ptrack/%s.%08X.%08X%08X.%s', $kind, 1, (map { hex } split m{/}, $start_of->($of)), $lineage;
}
sub add_file
{
	my ($dir, $path) = @_;

	make_path("$dir/ptrack");
	spew("$dir/$path", '');
	write_manifest($dir, sub { $_[0] =~ s/^(\{ "Path": "PG_VERSION")/{ "Path": "$path", "Size": 0, "Last-Modified": "2026-01-01 00:00:00 GMT" },\n$1/mr });
	return;
}
my ($one, $two) = ('11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222');
my @with = map { copy_dir($_) } @chain;
add_file($with[$_], lineage('lineage', $chain[$_], $one)) for 0 .. 2;
add_file($with[$_], lineage('lineage_prior', $chain[ $_ - 1 ], $one)) for 1, 2;
my $full = combine_ok('one lineage', [], @with);
ok(-e "$full/" . lineage('lineage', $chain[2], $one), 'the result has its lineage');
ok(!glob("$full/ptrack/lineage_prior*"), 'and none that it is relative to');
verifies($full, 'one lineage');
my $merged = combine_ok('one lineage, increments', [], @with[ 1, 2 ]);
is_deeply([ glob "$merged/ptrack/lineage_prior*" ], [ "$merged/" . lineage('lineage_prior', $chain[0], $one) ],
	'merged increments are relative to what the first is');
verifies($merged, 'one lineage, increments');
my $clone = copy_dir($chain[1]);
add_file($clone, lineage('lineage_prior', $chain[0], $two));
combine_fails('a clone', qr/are of different histories/, [], $with[0], $clone);

# Files that the manifest does not have are taken, as pg_combinebackup does it
my @more = changed(2, sub { spew("$_[0]/more", 'more') });
my $dir = new_dir();
command_checks_all([ 'pg_ptrack', 'combine', '-N', '-o', $dir, mapped($more[2]), @more ], 0, [],
	[qr/manifest ".*" contains no entry for file "more"/], 'a file that is not in the manifest');
is(slurp_file("$dir/more"), 'more', 'is copied');
verifies($dir, 'a file that is not in the manifest');

# After an error, what was made stays if that is asked for.
my @broken = changed(2, sub { patch("$_[0]/PG_VERSION", 0, '9') });
$dir = new_dir();
command_fails([ 'pg_ptrack', 'combine', '-N', '--no-clean', '-o', $dir, mapped($broken[2]), @broken ], 'fails');
ok(-d "$dir/base", '--no-clean leaves what was made');
ok(!-e "$dir/backup_manifest", 'without a manifest');
command_fails_like([ 'pg_ptrack', 'combine', '--log-json', '-o', new_dir(), mapped($broken[2]), @broken ],
	qr/^\{"type": "message", "level": "error", "text": ".*PG_VERSION\\" is not/m, 'errors as JSON');

# Nobody may read the messages any more.
{
	local $SIG{PIPE} = 'DEFAULT';
	pipe(my $reads, my $writes) or die;
	close $reads;
	my $deaf = new_dir();
	ok(IPC::Run::run([ 'pg_ptrack', 'combine', '-N', '--debug', '-o', $deaf, mapped($chain[2]), @chain ], '2>', $writes),
		'messages that cannot be written');
	verifies($deaf, 'messages that cannot be written');
}

# Lengths.  The file had 5 blocks; then it was truncated to 2, of which the second
# was changed, and had a block 7 added; then, of 9, it has block 4 written, and some
# that nobody wrote to.
sub lengths
{
	my @files = @_;
	my @changed = map { copy_dir($_) } @chain[ 0 .. $#files ];

	for my $i (0 .. $#files)
	{
		drop_manifest($changed[$i]);
		unlink "$changed[$i]/$table", "$changed[$i]/$increment_of_table";
		spew("$changed[$i]/" . ($i == 0 ? $table : $increment_of_table), $files[$i]);
	}
	return @changed;
}

# The first byte of each block.
sub blocks { return join '', map { substr $_[0], $_ * $BLCKSZ, 1 } 0 .. length($_[0]) / $BLCKSZ - 1; }
my $old = join '', map { $_ x $BLCKSZ } qw(a b c d e);
my @lengths = lengths($old, increment(2, 1 => 'B', 7 => 'H'), increment(9, 4 => 'E'));
my $result = slurp_file(combine_ok('lengths', ['--no-manifest'], @lengths) . "/$table");
is(blocks($result), "aB\0\0E\0\0H\0", 'what was truncated away does not come back');
is(length $result, 9 * $BLCKSZ, 'the length is the last one');
my $step = combine_ok('lengths, increments', ['--no-manifest'], @lengths[ 1, 2 ]);
is(slurp_file("$step/$increment_of_table"),
	increment(9, 1 => 'B', 2 => "\0", 3 => "\0", 4 => 'E', 5 => "\0", 6 => "\0", 7 => 'H', 8 => "\0"),
	'merged increments have zeros for it');
is(slurp_file(combine_ok('lengths, in steps', ['--no-manifest'], $lengths[0], $step) . "/$table"), $result, 'in steps, it is the same');
is(slurp_file(core_combine($lengths[0], $step) . "/$table"), $result, 'and to pg_combinebackup');
my $place = copy_dir($chain[0]);
spew("$place/$table", $old);
write_manifest($place, sub {
	$_[0] =~ s/("Path": "\Q$table\E", "Size": )\d+(.*?), "Checksum-Algorithm.*?"(?= \})/$1 . 5 * $BLCKSZ . $2/er;
});
for my $i (1, 2)
{
	my $bytes = slurp_file("$lengths[$i]/$increment_of_table");
	$lengths[$i] = copy_dir($chain[$i]);
	spew("$lengths[$i]/$increment_of_table", $bytes);
	write_manifest($lengths[$i], sub {
		$_[0] =~ s/("Path": "\Q$increment_of_table\E", "Size": )\d+(.*?), "Checksum-Algorithm.*?"(?= \})/$1 . length($bytes) . $2/er;
	});
}
command_ok([ 'pg_ptrack', 'combine', '-N', '--in-place', $place, @lengths[ 1, 2 ] ], 'lengths, in place');
is(slurp_file("$place/$table"), $result, 'the same in place');
verifies($place, 'lengths, in place');


# In place, a file that was damaged in the full backup does not get a checksum that
# is right: not if its checksum is made of the old one, nor if it is read for it.
for my $method ('CRC32C', 'SHA256')
{
	my $damaged = copy_dir($chain[0]);
	my @command = ('pg_ptrack', 'combine', '-N', '--in-place', "--manifest-checksums=$method", $damaged, @chain[ 1, 2 ]);

	patch("$damaged/$table", 8200, 'x');
	$method eq 'CRC32C' ? command_ok(\@command, 'in place, damaged') :
	  command_fails_like(\@command, qr/checksum of file ".*\Q$table\E" is not/, 'in place, damaged, to be read');
	command_fails([ 'pg_verifybackup', '-q', $damaged ], "in place, damaged, $method: it is known to be");
	ok(!-e "$damaged/ptrack_combine.journal", "in place, damaged, $method: nothing was begun, or it is complete");
}

# What is wrong with an increment is found before anything is changed.
for my $file ('PG_VERSION', $increment_of_table)
{
	my ($first, $last) = (copy_dir($chain[0]), copy_dir($chain[1]));
	my $before = list_tree($first);

	patch("$last/$file", 0, '9');
	command_fails_like([ 'pg_ptrack', 'combine', '-N', '--in-place', $first, $last ], qr/checksum/,
		"in place, damaged $file of an increment");
	is_deeply(list_tree($first), $before, 'nothing is changed');
}

is(blocks(slurp_file(combine_ok('shorter', ['--no-manifest'], lengths($old, increment(5, 0 => 'A'), increment(3))) . "/$table")),
	'Abc', 'a file that becomes shorter');
is(slurp_file(combine_ok('empty', ['--no-manifest'], lengths($old, increment(0), increment(0))) . "/$table"), '', 'a file that becomes empty');
is(blocks(slurp_file(combine_ok('a part of a block', ['--no-manifest'], lengths("$old!", increment(7), increment(7, 0 => 'A'))) . "/$table")),
	"Abcde\0\0", 'a part of a block is none');

# Checksums of pages that were enabled meanwhile: PostgreSQL's increments lack these pages.
$node->stop;
$node = chain_node('checksums', `initdb --help` =~ /--no-data-checksums/ ? '--no-data-checksums' : ());
$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i');
@chain = make_chain($node);
$node->stop;
system_or_bail('pg_checksums', '--enable', '-D', $node->data_dir);
$node->start;
push @chain, make_backup($node, $chain[0]);
push @chain, make_backup($node, $chain[1]);
command_checks_all([ 'pg_ptrack', 'combine', '-N', '-o', new_dir(), mapped($chain[2]), @chain ], 0, [],
	[qr/^pg_ptrack: warning: checksums of pages were enabled between backups "\Q$chain[0]\E" and "\Q$chain[1]\E"\npg_ptrack: hint: .*\n\z/],
	'checksums of pages were enabled');
my @with_lineage = ($chain[0], copy_dir($chain[1]), $chain[2]);
add_file($with_lineage[1], lineage('lineage_prior', $chain[0], $one));
command_checks_all([ 'pg_ptrack', 'combine', '-N', '-o', new_dir(), mapped($chain[2]), @with_lineage ], 0, [], [qr/^\z/],
	'checksums of pages were enabled, of which ptrack knows');

$node->stop;
done_testing();
