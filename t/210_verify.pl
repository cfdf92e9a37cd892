# pg_ptrack verify finds nothing wrong with backups that pg_basebackup has made,
# full and incremental, plain and in archives; and every kind of damage to them.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use Digest::SHA qw(sha256_hex);
use File::Path qw(make_path rmtree);
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
my $segment_size = 1024 * 1024;
my $node = new_node('primary', for_core => 1, initdb => ['--wal-segsize=1'], conf => 'max_wal_senders = 4');
# It may be relative.
my $work = abs_path(PostgreSQL::Test::Utils::tempdir());
my $place = PostgreSQL::Test::Utils::tempdir_short() . '/place';

# Backups of a standby, and of a timeline that begins in the segment which the
# backup begins in, too.
my $standby = new_standby('standby', $node);
sub backup_standby
{
	$standby->command_ok([ 'pg_basebackup', '-d', $standby->connstr('postgres'), '-D', "$work/$_[0]", '-c', 'fast', '--no-sync', '-Ft' ],
		"backup of a standby: $_[0]");
	return;
}
restartpoint($standby, $node);
$node->safe_psql('postgres', 'CREATE TABLE replayed (i int)');
catch_up($standby, $node);
backup_standby('standby');
$standby->promote;
backup_standby('promoted');
$standby->stop;

mkdir $place or die $!;
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place'");
$node->safe_psql('postgres', <<'EOF');
CREATE TABLE here AS SELECT i, repeat('x', 100) AS v FROM generate_series(1, 20000) i;
CREATE TABLE there TABLESPACE place AS SELECT i FROM generate_series(1, 20000) i;
CREATE TABLE none (i int);
EOF
my $here = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('here')});
my $there = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('there')});
my ($tablespace) = $there =~ m{pg_tblspc/(\d+)/};

#
# What is done to backups
#

# A new backup, as a path.
sub backup
{
	my ($name, @options) = @_;
	my $path = "$work/$name";

	$node->command_ok(
		[ 'pg_basebackup', '-d', $node->connstr('postgres'), '-D', $path, '-c', 'fast', '--no-sync',
			"--tablespace-mapping=$place=$work/$name-place", @options ], "$name: backup");
	return $path;
}

sub change_file
{
	my ($path, $change) = @_;
	my $bytes = slurp_file($path);

	$change->() for $bytes;
	open my $fh, '>:raw', $path or die "could not open \"$path\": $!";
	print $fh $bytes;
	close $fh or die $!;
	return;
}

sub flip
{
	my ($path, $at) = @_;

	change_file($path, sub { substr($_, $at, 1) ^= "\x01" });
	return;
}

sub cut
{
	my ($path, $len) = @_;

	truncate $path, $len or die "could not truncate \"$path\": $!";
	return;
}

# Changes a manifest, whose own checksum is made right again.
sub change_manifest
{
	my ($backup, $change) = @_;

	change_file("$backup/backup_manifest", sub {
		s/"Manifest-Checksum".*\n//;
		$change->();
		$_ .= '"Manifest-Checksum": "' . sha256_hex($_) . "\"}\n";
	});
	return;
}

# Gives a file that was changed the size and checksum that it has now.
sub forgive
{
	my ($backup, $file) = @_;
	my $sum = sha256_hex(slurp_file("$backup/$file"));
	my $size = -s "$backup/$file";

	change_manifest($backup, sub {
		s/("Path": "\Q$file\E", "Size": )\d+(.*?"Checksum-Algorithm": ")\w+(", "Checksum": ")\w+/$1$size$2SHA256$3$sum/;
	});
	return;
}

sub wal_files
{
	my ($backup) = @_;

	return sort grep { /\/[0-9A-F]{24}$/ } glob "$backup/pg_wal/*";
}

# Where the WAL that a backup needs starts and ends.
sub wal_range { return slurp_file("$_[0]/backup_manifest") =~ m{"Start-LSN": "\w+/(\w+)", "End-LSN": "\w+/(\w+)"}; }

# Damages the first record, in a directory of WAL.
sub flip_record
{
	my ($directory, $backup) = @_;
	my $at = hex((wal_range($backup))[0]);

	flip(sprintf('%s/%08X%08X%08X', $directory, 1, 0, $at / $segment_size), $at % $segment_size + 26);
	return;
}

# A changed archive: its members are below the directory in which that is done.
sub change_archive
{
	my ($archive, $change, @options) = @_;
	my $members = "$work/members";

	make_path($members);
	system_or_bail('tar', '-C', $members, '-xf', $archive);
	$change->($members);
	unlink $archive;
	system_or_bail('tar', '-C', $members, '-cf', $archive, @options, '.');
	rmtree($members);
	return;
}

#
# What is expected
#

sub verify { return run_command([ 'pg_ptrack', 'verify', @_ ]); }

sub good
{
	my ($name, @arguments) = @_;
	my ($out, $err) = verify(@arguments);

	is($out, 'backup successfully verified', "$name: good");
	unlike($err, qr/error/, "$name: no error");
	return $err;
}

# The last argument is the backup.
sub bad
{
	my ($name, $pattern, @arguments) = @_;

	IPC::Run::run([ 'pg_ptrack', 'verify', @arguments ], '<', '/dev/null', '>', \my $out, '2>', \my $err);
	is($? >> 8, 1, "$name: exit status");
	is($out, '', "$name: is not said to be good");
	like($err, $pattern, "$name: says what is wrong");
	return $err;
}

# A copy of a backup is bad once that was done to it.
sub damaged
{
	my ($name, $backup, $damage, $pattern, @options) = @_;
	my $copy = "$work/copy";

	system_or_bail('cp', '-a', $backup, $copy);
	$damage->($copy);
	my $err = bad($name, $pattern, @options, $copy);
	chmod 0700, "$copy/base";
	rmtree($copy);
	return $err;
}

#
# Good ones
#

my %full = (plain => backup('full'));
for my $method ('none', 'gzip', 'lz4', 'zstd')
{
	SKIP: {
		my $name = "HAVE_LIB" . uc($method eq 'gzip' ? 'z' : $method);
		skip "no $method here", 1 unless $method eq 'none' || check_pg_config("#define $name 1") || check_pg_config("#define USE_" . uc($method) . ' 1');
		$full{$method} = backup("full_$method", '-Ft', '-Z', $method);
	}
}
my $fetched = backup('fetched', '-Ft', '-X', 'fetch', '--manifest-checksums=SHA512');
my $unsummed = backup('unsummed', '--manifest-checksums=NONE');

# While these were made, segments were left early, and a record went over several.  The
# client is halted meanwhile, so that it is not done before.
my %busy;
for my $name ('busy', 'busy_gzip')
{
	my $path = "$work/$name";
	my @command = ('pg_basebackup', '-d', $node->connstr('postgres'), '-D', $path, '-c', 'fast', '--no-sync', '--max-rate=8M',
		"--tablespace-mapping=$place=$path-place", '-X', 'fetch', $name eq 'busy' ? () : ('-Ft', '-Z', 'gzip'));
	my $running = IPC::Run::start(\@command);

	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_progress_basebackup WHERE phase LIKE 'streaming database%'")
	  or die 'no backup is running';
	$running->signal('STOP');
	for (1 .. 4)
	{
		$node->safe_psql('postgres', "INSERT INTO none SELECT generate_series(1, 1000)");
		$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
		$node->safe_psql('postgres', "SELECT count(pg_logical_emit_message(false, 'a', repeat('x', $_ * 700000)))");
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_progress_basebackup'), '1', "$name: WAL was written meanwhile");
	$running->signal('CONT');
	IPC::Run::finish($running);
	$busy{$name} = $path;
}

my %incremental;
if ($major >= 17)
{
	$node->safe_psql('postgres', "UPDATE here SET v = 'y' WHERE i % 1000 = 0; INSERT INTO there VALUES (0)");
	my @from = ('-i', "$full{plain}/backup_manifest");
	$incremental{plain} = backup('incremental', @from);
	$incremental{none} = backup('incremental_none', '-Ft', @from);
	$incremental{zstd} = backup('incremental_zstd', '-Ft', '-Z', 'zstd', @from) if $full{zstd};
}

for my $jobs (1, 4)
{
	is(good("full, $_, $jobs jobs", '-j', $jobs, $full{$_}), '', "$_: nothing to say") for sort keys %full;
	good("incremental, $_, $jobs jobs", '-j', $jobs, $incremental{$_}) for sort keys %incremental;
}
is(good($_, $busy{$_}), '', "$_: nothing to say") for sort keys %busy;
good('WAL among the files', $fetched);
good('no checksums', $unsummed);
good('checksums skipped', '-s', $incremental{plain} // $full{plain});
good('format given', '-F', 'tar', $fetched);
command_ok([ 'pg_verifybackup', $_ ], "pg_verifybackup agrees: $_") for grep { defined } $full{plain}, $unsummed, $busy{busy}, $incremental{plain};
if ($major >= 18)
{
	command_ok([ 'pg_verifybackup', '-n', $_ ], "pg_verifybackup agrees: $_") for $fetched, @full{qw(none gzip)}, $incremental{none};
}

# All in one archive; also of a standard input that cannot be sought in.
system_or_bail('tar', '-h', '-C', $full{plain}, '-cf', "$work/all.tar", '.');
good('one archive', "$work/all.tar");
is(`cat $work/all.tar | pg_ptrack verify -q -m $full{plain}/backup_manifest - 2>&1`, '', 'standard input, quietly');
is($?, 0, 'standard input is good');
bad('standard input without a manifest', qr/no manifest specified.*-m/s, '-');

good('standby', "$work/standby");
good('new timeline', "$work/promoted");

# Options
my ($out, $err) = verify('-q', $full{plain});
is("$out$err", '', 'quiet');
like(good('progress', '-P', $full{plain}), qr/\(100%\)/, 'progress');
($out, $err) = verify('-P', '--log-json', $full{none});
decode_json($_) for split /\n/, $err;
like($err, qr/"type": "progress"/, 'progress as JSON');
like((verify('--help'))[0], qr/^Usage:/m, 'help');
bad('no backup', qr/no backup specified/);
bad('two backups', qr/too many/, 'a', 'b');
bad('no such backup', qr/could not open backup "nowhere"/, 'nowhere');
bad('jobs', qr/-j\/--jobs must be in range/, '-j', '0', $full{plain});
bad('progress and quiet', qr/neither/, '-P', '-q', $full{plain});
bad('not a backup', qr/backup_manifest/, $place);

#
# Damage to files
#

damaged('byte flipped', $full{plain}, sub { flip("$_[0]/$here", 8192) }, qr/checksum mismatch for file "\Q$here\E"/);
damaged('byte flipped in a tablespace', $full{plain}, sub { flip("$work/full-place" . $there =~ s{pg_tblspc/\d+}{}r, 8192) },
	qr/checksum mismatch for file "\Q$there\E"/);
flip("$work/full-place" . $there =~ s{pg_tblspc/\d+}{}r, 8192);
damaged('file cut', $full{plain}, sub { cut("$_[0]/$here", 8192) }, qr/"\Q$here\E" has size 8192 in the backup but \d+ in the manifest/);
damaged('file grown', $full{plain}, sub { append_to_file("$_[0]/$here", 'x') }, qr/"\Q$here\E" has size/);
damaged('file missing', $full{plain}, sub { unlink "$_[0]/$here" }, qr/"\Q$here\E" is in the manifest but not in the backup/);
damaged('file extra', $full{plain}, sub { append_to_file("$_[0]/base/extra", '') }, qr/"base\/extra" is in the backup but not in the manifest/);
damaged('directory cannot be read', $full{plain}, sub { chmod 0, "$_[0]/base" }, qr/could not open directory/) if $> != 0;
damaged('file is a link', $full{plain}, sub { rename "$_[0]/$here", "$work/elsewhere"; symlink "$work/elsewhere", "$_[0]/$here" },
	qr/is not a regular file or directory/);
damaged('directory is a link', $full{plain}, sub { rename "$_[0]/pg_xact", "$work/pg_xact"; symlink "$work/pg_xact", "$_[0]/pg_xact" },
	qr/is not a regular file or directory/);
damaged('link leads nowhere', $full{plain}, sub { unlink "$_[0]/pg_tblspc/$tablespace"; symlink '/nowhere', "$_[0]/pg_tblspc/$tablespace" },
	qr/could not stat/);
damaged('pipe', $full{plain}, sub { system_or_bail('mkfifo', "$_[0]/pipe") }, qr/pipe" is not a regular file/);

my $two = sub { flip("$_[0]/$here", 8192); unlink "$_[0]/PG_VERSION" };
is(scalar(() = damaged('two problems', $full{plain}, $two, qr/./, '-F', 'p', '-j', '3') =~ /error:/g), 2, 'both are listed');
is(scalar(() = damaged('exit at the first', $full{plain}, $two, qr/./, '-F', 'p', '-e') =~ /error:/g), 1, 'only one is');

my $copy = "$work/changed";
system_or_bail('cp', '-a', $full{plain}, $copy);
append_to_file("$copy/$_", 'x') for 'postgresql.auto.conf', 'standby.signal', 'recovery.signal', 'pg_wal/anything', 'mine';
mkdir "$copy/more" or die $!;
append_to_file("$copy/more/$_", '') for 'a', 'b';
bad('own files', qr/"mine".*"more\/[ab]"|"more\/[ab]".*"mine"/s, $copy);
good('own files ignored', '-i', 'mine', '-i', 'more/', $copy);
rmtree($copy);

#
# Damage to what files mean
#

damaged('pg_control', $full{plain}, sub { flip("$_[0]/global/pg_control", 40) }, qr/incorrect CRC/, '-s');
damaged('pg_control and the manifest', $full{plain},
	sub { flip("$_[0]/global/pg_control", 40); forgive($_[0], 'global/pg_control') }, qr/incorrect CRC/);
damaged('pg_control is too short', $full{plain},
	sub { cut("$_[0]/global/pg_control", 100); forgive($_[0], 'global/pg_control') }, qr/pg_control" is too short/);
damaged('another system', $full{plain}, sub { change_manifest($_[0], sub { s/("System-Identifier": )/${1}1/ }) },
	qr/manifest system identifier is 1\d+, but/) if $major >= 17;
damaged('label of another backup', $full{plain},
	sub { change_file("$_[0]/backup_label", sub { s{(LOCATION: )\w+/}{${1}F/} }); forgive($_[0], 'backup_label') },
	qr/says that the backup starts at F\/\w+ on timeline 1, but/);
damaged('label of nonsense', $full{plain},
	sub { change_file("$_[0]/backup_label", sub { $_ = "\0nothing" }); forgive($_[0], 'backup_label') }, qr/does not tell where/);
damaged('label missing', $full{plain},
	sub { unlink "$_[0]/backup_label"; change_manifest($_[0], sub { s/\{ "Path": "backup_label".*\n// }) },
	qr/"backup_label" is not in the manifest/);

if ($incremental{plain})
{
	my $file = $here =~ s{(\d+)$}{INCREMENTAL.$1}r;
	my $change = sub {
		my ($change) = @_;
		return sub { change_file("$_[0]/$file", $change); forgive($_[0], $file) };
	};

	ok(-e "$incremental{plain}/$file", 'there is an increment');
	damaged('increment: magic', $incremental{plain}, $change->(sub { substr($_, 0, 1) ^= "\x01" }), qr/\Q$file\E" is damaged: .*magic/);
	damaged('increment: magic, checksums skipped', $incremental{plain}, sub { flip("$_[0]/$file", 0) }, qr/magic/, '-s');
	damaged('increment: count', $incremental{plain}, $change->(sub { substr($_, 4, 4) = pack 'L', 1 }), qr/size does not fit/);
	damaged('increment: too many', $incremental{plain}, $change->(sub { substr($_, 4, 4) = pack 'L', 0xffffffff }), qr/more blocks than a segment/);
	damaged('increment: order', $incremental{plain}, $change->(sub { substr($_, 12, 8) = pack 'L2', 5, 5 }), qr/ascending/);
	damaged('increment: number', $incremental{plain}, $change->(sub { substr($_, 12, 4) = pack 'L', 1 << 20 }), qr/past the end/);
	damaged('increment: cut', $incremental{plain}, $change->(sub { $_ = substr $_, 0, 14 }), qr/too short/);
	damaged('increment: empty', $incremental{plain}, $change->(sub { $_ = '' }), qr/too short/);
	damaged('increment of a full backup', $incremental{plain},
		sub { change_file("$_[0]/backup_label", sub { s/INCREMENTAL.*\n//g }); forgive($_[0], 'backup_label') },
		qr/has incremental files, but is a full one/);
	damaged('increment and whole file', $incremental{plain},
		sub { append_to_file("$_[0]/$here", ''); change_manifest($_[0], sub { s/("Files": \[)/$1 . qq({ "Path": "$here", "Size": 0 },)/e }) },
		qr/has both "\Q$file\E" and "\Q$here\E"/);
}

#
# Damage to the manifest
#

damaged('manifest: flipped', $full{plain}, sub { flip("$_[0]/backup_manifest", 500) }, qr/backup manifest.*backup_manifest": /);
damaged('manifest: checksum', $full{plain}, sub { change_file("$_[0]/backup_manifest", sub { s/[0-9a-f]{64}/0 x 64/e }) },
	qr/checksum mismatch/);
damaged('manifest: cut', $full{plain}, sub { cut("$_[0]/backup_manifest", 3000) }, qr/could not parse backup manifest/);
damaged('manifest: missing', $full{plain}, sub { unlink "$_[0]/backup_manifest" }, qr/could not open file/);
damaged('manifest: checksum of a file', $full{plain},
	sub { change_manifest($_[0], sub { s/("\Q$here\E".*"Checksum": ")\w+/${1}00000000/ }) }, qr/checksum mismatch for file "\Q$here\E"/);
damaged('manifest: file twice', $full{plain}, sub { change_manifest($_[0], sub { s/(\{ "Path": "PG_VERSION".*\n)/$1$1/ }) },
	qr/"PG_VERSION" is in the manifest twice/);
for my $name ('../outside', '/etc/passwd', 'base/../../outside', 'base//1', '', '.', 'base/.')
{
	damaged("manifest: file name \"$name\"", $full{plain}, sub { change_manifest($_[0], sub { s/"PG_VERSION"/"$name"/ }) },
		qr/leads outside of the backup/);
}

# Manifests that are not in the form that they must have, with a right checksum.
mkdir "$work/form" or die $!;
sub manifest_in_form
{
	my ($change, $change_all) = @_;

	system_or_bail('cp', "$full{plain}/backup_manifest", "$work/form");
	change_manifest("$work/form", $change) if $change;
	change_file("$work/form/backup_manifest", $change_all) if $change_all;
	return ('-m', "$work/form/backup_manifest", $full{plain});
}

my $file_line = qr/\{ "Path": "PG_VERSION", .*? \}/;
my $in_file = sub {
	my ($from, $to) = @_;
	return sub { s/($file_line)/my $line = $1; $line =~ s{$from}{$to} or die; $line/e or die };
};
my %form = (
	'no JSON' => [ sub { s/"Files"/Files/ }, qr/it is not valid JSON/ ],
	'a list' => [ sub { s/^/[/ }, qr/unexpected array/ ],
	'without a version' => [ sub { s/"PostgreSQL-Backup-Manifest-Version": \d,// }, qr/the manifest version does not come first/ ],
	'of a later version' => [ sub { s/(Manifest-Version": )\d/${1}3/ }, qr/unexpected manifest version/ ],
	'without WAL' => [ sub { s/"WAL-Ranges": \[.*?\],//s }, qr/"WAL-Ranges" is missing/ ],
	'field unknown' => [ $in_file->('Last-Modified', 'Modified'), qr/unrecognized field "Modified"/ ],
	'field twice' => [ $in_file->('("Size": \d+)', '"Size": 3, "Size": 3'), qr/"Size" is there twice/ ],
	'number negative' => [ $in_file->('"Size": \d+', '"Size": -3'), qr/"-3" is not a number that can be here/ ],
	'number too large' => [ $in_file->('"Size": \d+', '"Size": 18446744073709551616'), qr/"18446744073709551616" is not a number/ ],
	'number for a name' => [ $in_file->('"PG_VERSION"', '1'), qr/unexpected number/ ],
	'text for a number' => [ $in_file->('"Size": \d+', '"Size": "3"'), qr/unexpected string/ ],
	'nothing for a number' => [ $in_file->('"Size": \d+', '"Size": null'), qr/unexpected value/ ],
	'truth for a number' => [ $in_file->('"Size": \d+', '"Size": true'), qr/unexpected value/ ],
	'object for a number' => [ $in_file->('"Size": \d+', '"Size": {}'), qr/unexpected object/ ],
	'list for a number' => [ $in_file->('"Size": \d+', '"Size": []'), qr/unexpected array/ ],
	'name too long' => [ $in_file->('PG_VERSION', 'x' x 1024), qr/file name is too long, or none/ ],
	'name with a zero' => [ $in_file->('PG_VERSION', 'PG\u0000VERSION'), qr/file name is too long, or none/ ],
	'name of half a byte' => [ $in_file->('"Path": "PG_VERSION"', '"Encoded-Path": "50475"'), qr/could not decode file name/ ],
	'name of no digits' => [ $in_file->('"Path": "PG_VERSION"', '"Encoded-Path": "5x"'), qr/could not decode file name/ ],
	'name with a zero, encoded' => [ $in_file->('"Path": "PG_VERSION"', '"Encoded-Path": "500047"'), qr/could not decode file name/ ],
	'name outside, encoded' => [ $in_file->('"Path": "PG_VERSION"', '"Encoded-Path": "2e2e2f61"'), qr/file name "..\/a" leads outside/ ],
	'two names' => [ $in_file->('"Path": "PG_VERSION"', '"Path": "PG_VERSION", "Encoded-Path": "5047"'), qr/a file has no name, or two/ ],
	'no name' => [ $in_file->('"Path": "PG_VERSION", ', ''), qr/a file has no name, or two/ ],
	'no size' => [ $in_file->('"Size": \d+, ', ''), qr/size of file "PG_VERSION" is missing/ ],
	'no checksum' => [ $in_file->(', "Checksum": "\w+"', ''), qr/file "PG_VERSION" has a checksum or its algorithm, but not both/ ],
	'no algorithm' => [ $in_file->('"Checksum-Algorithm": "\w+", ', ''), qr/file "PG_VERSION" has a checksum or its algorithm, but not both/ ],
	'algorithm unknown' => [ $in_file->('CRC32C', 'MD5'), qr/unrecognized checksum algorithm/ ],
	'checksum of another length' => [ $in_file->('"Checksum": "\w+"', '"Checksum": "0000"'), qr/invalid checksum for file "PG_VERSION": "0000"/ ],
	'checksum too long' => [ $in_file->('"Checksum": "\w+"', '"Checksum": "' . '0' x 130 . '"'), qr/checksum is too long/ ],
	'line too long' => [ $in_file->('"Size"', ' ' x 65536 . '"Size"'), qr/a line is too long/ ],
	'timeline 0' => [ sub { s/("Timeline": )\d+/${1}0/ }, qr/timeline is not an integer that can be one/ ],
	'timeline too large' => [ sub { s/("Timeline": )\d+/${1}4294967296/ }, qr/timeline is not an integer that can be one/ ],
	'LSN' => [ sub { s/("Start-LSN": )"[^"]*"/${1}"0-3000028"/ }, qr/could not parse an LSN of a WAL range/ ],
	'WAL without an end' => [ sub { s/, "End-LSN": "[^"]*"// }, qr/a WAL range lacks its timeline, start or end/ ],
	'WAL backwards' => [ sub { s/("End-LSN": )"[^"]*"/${1}"0\/0"/ }, qr/a WAL range ends before it starts/ ],
);
for my $name (sort keys %form)
{
	my ($change, $pattern) = @{ $form{$name} };

	bad("manifest: $name", qr/could not parse backup manifest ".*form.*": $pattern/, manifest_in_form($change));
}
bad('manifest: its checksum is short', qr/manifest checksum has not the length of a SHA-256/,
	manifest_in_form(undef, sub { s/\w\w(?="\}\n\z)// }));
bad('manifest: its checksum has no digits', qr/invalid manifest checksum: "zz/, manifest_in_form(undef, sub { s/\w{64}(?="\}\n\z)/'z' x 64/e }));
bad('manifest: last line', qr/its last line is not newline-terminated/, manifest_in_form(undef, sub { chomp }));
good('manifest: name encoded', manifest_in_form($in_file->('"Path": "PG_VERSION"', '"Encoded-Path": "50475f56455253494F4E"')));

#
# Damage to WAL
#

my $wal = (wal_files($full{plain}))[0];
my ($wal_name) = $wal =~ /([^\/]+)$/;
my ($start) = wal_range($full{plain});
my $start_at = hex($start) % $segment_size;
damaged('WAL: segment missing', $full{plain}, sub { unlink "$_[0]/pg_wal/$wal_name" }, qr/WAL segment "$wal_name" is missing/);
damaged('WAL: directory missing', $full{plain}, sub { rmtree("$_[0]/pg_wal") }, qr/could not open directory/);
damaged('WAL: segment cut', $full{plain}, sub { cut("$_[0]/pg_wal/$wal_name", 8192) }, qr/WAL segment "$wal_name" has size 8192/);
damaged('WAL: segment half', $full{plain}, sub { cut("$_[0]/pg_wal/$wal_name", $segment_size + 1) }, qr/WAL segment "$wal_name" has size/);
damaged('WAL: magic', $full{plain}, sub { flip("$_[0]/pg_wal/$wal_name", 1) }, qr/page at .* has a bad magic number/);
damaged('WAL: timeline', $full{plain}, sub { flip("$_[0]/pg_wal/$wal_name", 4) }, qr/has an unexpected timeline/);
damaged('WAL: address', $full{plain}, sub { flip("$_[0]/pg_wal/$wal_name", 9) }, qr/has the address of another page/);
damaged('WAL: system', $full{plain}, sub { flip("$_[0]/pg_wal/$wal_name", 24) }, qr/is of a server with system identifier/);
damaged('WAL: segment size', $full{plain}, sub { flip("$_[0]/pg_wal/$wal_name", 33) }, qr/another segment size/);
damaged('WAL: short header', $full{plain}, sub { change_file("$_[0]/pg_wal/$wal_name", sub { substr($_, 2, 1) &= "\xfd" }) }, qr/no long header/);
damaged('WAL: record', $full{plain}, sub { flip("$_[0]/pg_wal/$wal_name", $start_at + 24 + 2) }, qr/WAL record at 0\/$start on timeline 1 is damaged: its checksum does not/);
damaged('WAL: link', $full{plain}, sub { rename "$_[0]/pg_wal", "$work/wal"; symlink "$work/wal", "$_[0]/pg_wal" }, qr/pg_wal" is a symbolic link.*-w/s);
damaged('WAL: start of no record', $full{plain}, sub { change_manifest($_[0], sub { s/("Start-LSN": "\w+\/\w+)\w"/${1}F"/ }) }, qr/is damaged: no record can begin there/);
damaged('WAL: start inside of a record', $full{plain}, sub { change_manifest($_[0], sub { s/("Start-LSN": "\w+\/)\w+/$1 . sprintf '%X', hex($start) + 8/e }) }, qr/WAL record at .* is damaged/);
damaged('WAL: endless', $full{plain}, sub { change_manifest($_[0], sub { s/("End-LSN": )"[^"]*"/$1"FFFFFFFF\/FFFFFFFF"/ }) }, qr/more WAL segments are missing/);

# Damage to any byte of a record is found.
my ($from, $to) = map { hex } wal_range($busy{busy});
for my $at (map { $from + 8 + int(($to - $from - 8) * $_ / 20) } 0 .. 19)
{
	my $segment = sprintf '%08X%08X%08X', 1, 0, $at / $segment_size;
	my $byte = substr slurp_file("$busy{busy}/pg_wal/$segment"), $at % $segment_size, 1;

	# Where a segment was left there are zeros, and between records.
	next if $byte eq "\0";
	damaged("WAL: byte $at", $busy{busy}, sub { flip("$_[0]/pg_wal/$segment", $at % $segment_size) }, qr/WAL (record|segment)|page at/);
}

system_or_bail('cp', '-a', $full{plain}, $copy);
rename "$copy/pg_wal", "$work/wal_elsewhere" or die $!;
mkdir "$copy/pg_wal" or die $!;
bad('WAL is not there', qr/is missing/, $copy);
good('WAL is elsewhere', '-w', "$work/wal_elsewhere", $copy);
good('WAL is not looked at', '-n', $copy);
rmtree($copy);
system_or_bail('cp', '-a', $full{none}, $copy);
mkdir "$work/extracted" or die $!;
system_or_bail('tar', '-C', "$work/extracted", '-xf', "$copy/pg_wal.tar");
unlink "$copy/pg_wal.tar" or die $!;
good('WAL is not in an archive', '-w', "$work/extracted", $copy);
bad('WAL is of another backup', qr/is missing/, '-w', "$full{plain}/pg_wal", $copy);
rmtree($copy);

#
# Damage to archives
#

for my $method (grep { $full{$_} } qw(none gzip lz4 zstd))
{
	my $ending = { none => '', gzip => '.gz', lz4 => '.lz4', zstd => '.zst' }->{$method};
	my $base = "base.tar$ending";

	damaged("archive, $method: flipped", $full{$method}, sub { flip("$_[0]/$base", (-s "$_[0]/$base") / 2) }, qr/error/, '-j', '2');
	damaged("archive, $method: cut", $full{$method}, sub { cut("$_[0]/$base", (-s "$_[0]/$base") / 2) }, qr/is in the manifest but not/);
	damaged("archive, $method: empty", $full{$method}, sub { cut("$_[0]/$base", 0) }, qr/is in the manifest but not/);
	damaged("archive, $method: missing", $full{$method}, sub { unlink "$_[0]/$tablespace.tar$ending" }, qr/"\Q$there\E" is in the manifest but not/);
}
damaged('archive: none', $full{none}, sub { unlink "$_[0]/base.tar" }, qr/has no archive "base.tar"/);
damaged('archive: WAL missing', $full{none}, sub { unlink "$_[0]/pg_wal.tar" }, qr/WAL segment "\w+" is missing/);
damaged('archive: two', $full{none}, sub { append_to_file("$_[0]/base.tar.gz", 'x') }, qr/both "base.tar" and "base.tar.gz"/);
damaged('archive: strange file', $full{none}, sub { append_to_file("$_[0]/other.tar", 'x') }, qr/other.tar" is not an archive of a backup/);
damaged('archive: not one', $full{none}, sub { change_file("$_[0]/base.tar", sub { $_ = 'x' x 10000 }) }, qr/could not read archive/);

my %member = (
	'flipped' => [ sub { flip("$_[0]/$here", 8192) }, qr/checksum mismatch for file "\Q$here\E"/ ],
	'grown' => [ sub { append_to_file("$_[0]/$here", 'x') }, qr/"\Q$here\E" has size/ ],
	'extra' => [ sub { append_to_file("$_[0]/extra", '') }, qr/"extra" is in the backup but not in the manifest/ ],
	'missing' => [ sub { unlink "$_[0]/$here" }, qr/"\Q$here\E" is in the manifest but not in the backup/ ],
	'hard link' => [ sub { link "$_[0]/PG_VERSION", "$_[0]/linked" }, qr/is a hard link/ ],
	'link' => [ sub { symlink '/etc', "$_[0]/linked" }, qr/"linked" in archive .* is a symbolic link but not a tablespace's/ ],
	'pipe' => [ sub { system_or_bail('mkfifo', "$_[0]/pipe") }, qr/"pipe" in archive .* is not a file, directory or/ ],
	'above' => [ sub { }, qr{file name "../PG_VERSION" in archive .* leads outside}, '--transform=s,^\./PG_VERSION,../PG_VERSION,', '-P' ],
	'absolute' => [ sub { }, qr{file name "/etc/PG_VERSION" in archive .* leads outside}, '--transform=s,^\./PG_VERSION,/etc/PG_VERSION,', '-P' ],
	'twice' => [ sub { }, qr/"PG_VERSION" is twice in archive/, '--transform=s,^\./backup_label,PG_VERSION,' ],
	'in two archives' => [ sub {
		# The directory takes the place of the link.
		unlink "$_[0]/pg_tblspc/$tablespace";
		make_path("$_[0]/$there" =~ s{/[^/]*$}{}r);
		append_to_file("$_[0]/$there", '');
	}, qr/"\Q$there\E" is in two archives/ ],
);
for my $name (sort keys %member)
{
	my ($change, $pattern, @options) = @{ $member{$name} };

	damaged("archive, member: $name", $full{none}, sub { change_archive("$_[0]/base.tar", $change, @options) }, $pattern, '-j', '2');
}
damaged('archive: record of WAL', $full{none}, sub { change_archive("$_[0]/pg_wal.tar", sub { flip_record($_[0], $full{none}) }) },
	qr/WAL record at .* is damaged: its checksum does not/);
damaged('archive: page of WAL', $full{none},
	sub { change_archive("$_[0]/pg_wal.tar", sub { flip($_, 9) for glob "$_[0]/0*" }) },
	qr/has the address of another page/);

$node->stop;
done_testing();
