# "pg_ptrack backup" as it is run in production: everything is made durable, the
# manifest last; large files are taken in ranges, by several connections; and the
# backup can be made a standby's.

use strict;
use warnings FATAL => 'all';

use File::Find qw(find);
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $MB = 1024 * 1024;
my $breaker = call_breaker();
my $log = PostgreSQL::Test::Utils::tempdir() . '/sync_log';

my $node = new_node('primary', initdb => ['--data-checksums'], conf => 'wal_keep_size = 1GB');
my $place = PostgreSQL::Test::Utils::tempdir_short() . '/place';
mkdir $place;
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place'");
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, md5(i::text) FROM generate_series(1, 30000) i;
CREATE TABLE in_place TABLESPACE place AS SELECT * FROM t;
SQL

# A table whose file is just larger than two ranges, with rows in each third.
# Between these are pages that were never used.
sub make_large
{
	my ($name, $megabytes) = @_;
	my $file = $node->data_dir . '/' . $node->safe_psql('postgres', <<"SQL");
CREATE TABLE $name (i int, v text);
SELECT pg_relation_filepath('$name')
SQL

	for my $third (1 .. 3)
	{
		$node->safe_psql('postgres', <<"SQL");
INSERT INTO $name SELECT i, repeat(md5('$name' || i), 20) FROM generate_series(${third}0001, ${third}2000) i;
CHECKPOINT
SQL
		truncate $file, int($megabytes * $third / 3) * $MB or die "could not stretch \"$file\": $!";
	}
	return;
}
make_large('large', 258);
make_large('larger', 270);
# Hint bits, which are logged, are set now and not in increments.
$node->safe_psql('postgres', 'SELECT sum(i) FROM large; SELECT sum(i) FROM larger');

# The command of a backup that is durable.
sub durable_command
{
	return grep { $_ ne '--no-sync' } backup_command(@_);
}

# Makes one; returns its directory.  The log tells what was made durable.
sub durable_backup
{
	my ($name, %options) = @_;
	my $dir = $node->backup_dir . "/$name";
	local %ENV = (%ENV, LD_PRELOAD => $breaker, SYNC_LOG => $log);

	mkdir $node->backup_dir;
	unlink $log;
	command_ok([ durable_command($node, $dir, %options) ], "$name: it is made");
	return $dir;
}

# The paths in the log, of calls of these functions.
sub synced
{
	my %functions = map { $_ => 1 } @_;

	return map { /^(\S+) (.*)/ && $functions{$1} ? $2 : () } split /\n/, slurp_file($log);
}

# All files and directories of a backup were made durable, and then the manifest
# got its name, which was made so after that.
sub is_durable
{
	my ($dir, $name) = @_;
	my @lines = synced('fsync', 'rename');
	my ($renamed) = grep { $lines[$_] eq "$dir/backup_manifest" } 0 .. $#lines;
	my %before = map { $_ => 1 } @lines[0 .. ($renamed // $#lines)];
	my @missing;

	for my $root ($dir, map { readlink $_ } grep { -l } glob "$dir/pg_tblspc/*")
	{
		find({ no_chdir => 1, wanted => sub { push @missing, $_ if !-l $_ && !$before{$_} } }, $root);
	}
	is("@missing", '', "$name: all files and directories are durable before the manifest has its name");
	ok(defined $renamed && (grep { $_ eq $dir } @lines[ $renamed + 1 .. $#lines ]), "$name: and then its name is");
	return;
}

# The file systems of all directories were synchronized before the manifest got its
# name, and after.
sub is_synced_twice
{
	my ($dir, $name, @others) = @_;
	my @lines = grep { /^(?:syncfs|rename) / } split /\n/, slurp_file($log);
	my @syncs = sort map { "syncfs $_" } $dir, @others;
	my ($renamed) = grep { $lines[$_] eq "rename $dir/backup_manifest" } 0 .. $#lines;

	is(join(' ', sort @lines[0 .. $renamed - 1 ]), "@syncs", "$name: file systems are synchronized before");
	is(join(' ', sort @lines[$renamed + 1 .. $#lines]), "@syncs", "$name: and after");
	return;
}

# Full, with files taken in ranges by all connections
my $full = durable_backup('full', args => [ '-j', 3 ]);
is_durable($full, 'full');
my %paths = map { $_ => $node->safe_psql('postgres', "SELECT pg_relation_filepath('$_')") } qw(large larger);
for my $table (sort keys %paths)
{
	cmp_ok(-s "$full/$paths{$table}", '>', 256 * $MB, "$table: the file is longer than two ranges");
	cmp_ok(scalar(grep { $_ eq "$full/$paths{$table}" } synced('sync_file_range')), '>=', 3, "$table: it is written behind");
}
verify_backup($full, 'full');

# An increment
$node->safe_psql('postgres', <<'SQL');
UPDATE t SET n = 1 WHERE id % 1000 = 0;
UPDATE in_place SET n = 1 WHERE id % 1000 = 0;
UPDATE larger SET v = 'changed' WHERE i % 1000 = 7;
SQL
my $one = durable_backup('one', prior => $full, args => [ '-j', 3 ]);
is_durable($one, 'increment');
verify_backup($one, 'increment');
cmp_ok(-s "$one/" . $paths{larger} =~ s{(\d+)$}{INCREMENTAL.$1}r, '<', $MB, 'increment: a large file has changed blocks alone');

# By file system
$node->safe_psql('postgres', "UPDATE large SET v = 'changed' WHERE i % 1000 = 8");
my $two = durable_backup('two', prior => $one, args => [ '-j', 2, '-X', 'stream', '--sync-method=syncfs' ]);
is_synced_twice($two, 'syncfs', map { readlink } grep { -l } glob "$two/pg_tblspc/*");
is(scalar(grep { -f } synced('fsync')), 0, 'syncfs: and no file by itself');
verify_backup($two, 'syncfs');
check_chain($node, 'durable', $full, $one, $two);

# Archives
for my $method (qw(fsync syncfs))
{
	my $tar = $node->backup_dir . "/tar_$method";
	my $check = $method eq 'syncfs' ? \&is_synced_twice : \&is_durable;
	local %ENV = (%ENV, LD_PRELOAD => $breaker, SYNC_LOG => $log);

	unlink $log;
	command_ok([
			'pg_ptrack', 'backup', '-D', $tar, '-F', 't', '-c', 'fast', '-j', 3, '-d', $node->connstr('postgres'),
			'-i', "$two/backup_manifest", "--sync-method=$method" ], "archives, $method: an increment is made");
	$check->($tar, "archives, $method");
	command_ok([ 'pg_ptrack', 'verify', $tar ], "archives, $method: they verify");
}

# What could not be made durable is no backup.
for my $function (qw(fsync sync_file_range syncfs rename))
{
	my $dir = $node->backup_dir . '/fails';
	my @method = $function eq 'syncfs' ? ('--sync-method=syncfs') : ();
	my @prior = $function eq 'sync_file_range' ? () : (prior => $two);
	local %ENV = (%ENV, LD_PRELOAD => $breaker, FAIL_CALL => $function, FAIL_ERRNO => 5);

	command_fails_like([ durable_command($node, $dir, @prior, args => [ '-j', 3, @method ]) ],
		qr/could not (?:fsync|write|synchronize file system for|rename) file ".*": Input.output error/, "$function fails: says why");
	ok(!-e $dir, "$function fails: nothing is left");
}

# A standby's: it streams, with nothing done to it but that it gets a port.
sub streams
{
	my ($standby, $name) = @_;

	$standby->append_conf('postgresql.conf', 'port = ' . $standby->port . "\n" . wal_from($node));
	chmod 0700, $standby->data_dir;
	$standby->start;
	$node->safe_psql('postgres', "CREATE TABLE \"for $name\" AS SELECT * FROM t");
	catch_up($standby, $node);
	is($standby->safe_psql('postgres', 'SELECT status FROM pg_stat_wal_receiver'), 'streaming', "$name: it streams");
	for my $query (qq{SELECT sum(n), md5(string_agg(v, '' ORDER BY id)) FROM "for $name"}, "SELECT sum(i), max(v) FROM larger",
		'SELECT sum(n) FROM in_place')
	{
		is($standby->safe_psql('postgres', $query), $node->safe_psql('postgres', $query), "$name: it has the same as the primary");
	}
	$standby->stop;
	$standby->clean_node;
	return;
}

for my $how ([ fetch => '-X', 'fetch' ], [ no_slot => '-X', 'stream', '--no-slot' ])
{
	my ($name, @args) = @$how;
	my $standby = PostgreSQL::Test::Cluster->new("standby_$name");

	mkdir $standby->basedir;
	{
		local %ENV = (%ENV, LD_PRELOAD => $breaker, SYNC_LOG => $log);
		unlink $log;
		command_ok([ durable_command($node, $standby->data_dir, args => [ '-R', '-j', 2, @args ]) ], "standby_$name: it is made");
	}
	is_durable($standby->data_dir, "standby_$name");
	verify_backup($standby->data_dir, "standby_$name");
	streams($standby, "standby_$name");
}
$node->safe_psql('postgres', 'UPDATE in_place SET n = 2');
my $last = client_backup($node, 'last', prior => $two, args => [ '-R', '-X', 'stream' ]);
verify_backup($last, 'increment for a standby');
streams(combine_backups('combined_standby', [], $full, $one, $two, $last), 'combined_standby');
command_fails_like([ 'pg_ptrack', 'backup', '-D', $node->backup_dir . '/tar_standby', '-F', 't', '-R', '-d', $node->connstr('postgres') ],
	qr/cannot write recovery settings to a backup in tar format/, 'archives get no recovery settings');

$node->stop;
done_testing();
