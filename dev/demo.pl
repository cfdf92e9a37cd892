# What dev/demo does, once there is a server: see there.
#
# usage: demo.pl DIRECTORY, with the server's programs in PATH; the directory
# gets everything that is made.

use strict;
use warnings FATAL => 'all';

use File::Find qw(find);
use PtrackCopy;
use Time::HiRes qw(time);

my ($work) = @ARGV or die "usage: demo.pl DIRECTORY\n";
my ($source, $restored, $in_place) = ("$work/source", "$work/restored", "$work/in_place");
my $began = time;
my @rows;
my @psql = ('psql', '-h', $work, '-d', 'bench');

# Comes here from PGOPTIONS and the like only by accident.
delete @ENV{ grep { /^PG(?!_COLOR)/ } keys %ENV };

sub progress
{
	printf STDERR "[%4ds] %s\n", time - $began, $_[0];
	return;
}

# Runs a program quietly; what it printed is shown if it fails.
sub run
{
	my ($log) = ("$work/output.log");
	my $pid = fork // die "could not fork: $!\n";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null' or die;
		open STDOUT, '>', $log or die;
		open STDERR, '>&', \*STDOUT or die;
		exec @_ or die "could not run $_[0]: $!\n";
	}
	waitpid $pid, 0;
	return if $? == 0;
	open my $fh, '<', $log or die;
	print STDERR <$fh>;
	die "failed: @_\n";
}

sub query
{
	my ($sql) = @_;

	open my $fh, '-|', @psql, qw(-X -A -t -q -v ON_ERROR_STOP=1 -c), $sql
	  or die "could not run psql: $!\n";
	my $answer = do { local $/; <$fh> };
	close $fh or die "failed: $sql\n";
	chomp $answer;
	return $answer;
}

sub timed
{
	my ($code) = @_;
	my $start = time;

	$code->();
	return time - $start;
}

sub start_server
{
	my ($data) = @_;

	run('pg_ctl', '-D', $data, '-l', "$data.log", '-w', '-t', '120', 'start');
	return;
}

sub stop_server
{
	my ($data) = @_;

	run('pg_ctl', '-D', $data, '-m', 'fast', '-w', 'stop');
	return;
}

sub make_source
{
	run('initdb', '-D', $source, '-A', 'trust', '-N', '--data-checksums');
	open my $fh, '>>', "$source/postgresql.conf" or die;
	print $fh <<"EOF";
shared_preload_libraries = 'ptrack'
listen_addresses = ''
unix_socket_directories = '$work'
shared_buffers = 256MB
max_wal_size = 8GB
wal_keep_size = 4GB
fsync = off
autovacuum = off
EOF
	close $fh;
	start_server($source);
	run('createdb', '-h', $work, 'bench');
	query('CREATE EXTENSION ptrack');
	run('pgbench', '-h', $work, '-i', '-q', '-s', 20, 'bench');
	query('CREATE TABLE doomed AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i');
	query('CREATE TABLE shrinking AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i');
	query('VACUUM ANALYZE');
	return;
}

sub change_source
{
	run('pgbench', '-h', $work, '-n', '-c', 4, '-t', 500, 'bench');
	query($_) for (
		'UPDATE pgbench_accounts SET filler = md5(aid::text) WHERE aid BETWEEN 500000 AND 510000',
		'DELETE FROM shrinking WHERE i > 20000',
		'VACUUM shrinking',
		'VACUUM pgbench_accounts',
		'TRUNCATE pgbench_history');
	return;
}

sub change_more
{
	query($_) for (
		'DROP TABLE doomed',
		'CREATE TABLE fresh AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i',
		'CREATE INDEX ON fresh (i)',
		'CREATE DATABASE another STRATEGY file_copy');
	run('pgbench', '-h', $work, '-n', '-c', 4, '-t', 200, 'bench');
	return;
}

# A number for each table that depends on every row of it.
sub row_sums
{
	return join "\n", map { query("SELECT '$_', count(*), sum(hashtext(t::text)::bigint) FROM $_ t") }
	  qw(pgbench_accounts pgbench_branches pgbench_tellers pgbench_history shrinking fresh);
}

sub row
{
	my ($what, $seconds, $dir) = @_;
	my $size = defined $dir ? sprintf('%.1f', directory_bytes($dir) / 1024 / 1024) : '';

	push @rows, sprintf "  %-46s %9.2f %10s\n", $what, $seconds, $size;
	return;
}

# What a backup takes besides its WAL.
sub directory_bytes
{
	my ($dir) = @_;
	my $bytes = 0;

	find({ no_chdir => 1, wanted => sub { $bytes += -s if -f && !m{/pg_wal/} } }, $dir);
	return $bytes;
}

# A backup, full or relative to another one.
sub backup
{
	my ($name, $prior) = @_;
	my @relative = $prior ? ('-i', "$work/$prior/backup_manifest") : ();

	row("pg_ptrack backup: $name",
		timed(sub { run('pg_ptrack', 'backup', '-h', $work, '-d', 'bench', '-D', "$work/$name", '-c', 'fast', '-j', 2, @relative) }),
		"$work/$name");
	return;
}

# Recovers a restored backup with the rest of the WAL, and compares it with the
# source, which is stopped.  Returns the number of pages; dies if they differ.
sub compare_restored
{
	my ($data, $sums) = @_;

	copy_wal($source, $data);
	start_server($data);
	stop_server($data);
	my ($pages, $hints, @different) = compare_clusters($source, $data);

	# After the pages: queries set hint bits, which are logged with checksums on.
	start_server($data);
	my $there = row_sums();
	stop_server($data);
	failed("row sums differ\n\noriginal:\n$sums\n\nrestored:\n$there") if $sums ne $there;
	failed(scalar(@different) . " pages differ, among them:\n" . join "\n", splice @different, 0, 10) if @different;
	return ($pages, $hints);
}

sub failed
{
	print "\nVERDICT: FAILED, $_[0]\n";
	exit 1;
}

progress('making a database with pgbench, scale 20');
make_source();
my $engine = query('SELECT engine FROM pg_stat_ptrack');

progress('a full backup');
backup('full');
progress('changing the database, and an increment');
change_source();
backup('first', 'full');
progress('changing it again, and another one');
change_more();
backup('second', 'first');
my $sums = row_sums();
stop_server($source);

progress('making one increment of two');
row('pg_ptrack combine: first and second, an increment', timed(sub {
	run('pg_ptrack', 'combine', '-o', "$work/both", "$work/first", "$work/second") }), "$work/both");
progress('restoring: full and increments, by copy');
row('pg_ptrack combine: full and that increment', timed(sub {
	run('pg_ptrack', 'combine', '-j', 2, '-o', $restored, "$work/full", "$work/both") }), $restored);
progress('restoring: increments onto the full backup, in place');
run('cp', '-a', "$work/full", $in_place);
row('pg_ptrack combine --in-place: onto full', timed(sub {
	run('pg_ptrack', 'combine', '--in-place', '-j', 2, $in_place, "$work/first", "$work/second") }));
progress('verifying all of them');
run('pg_ptrack', 'verify', '-j', 2, "$work/$_") for qw(full first second both restored in_place);

progress('starting what was restored, and comparing it with the original');
my ($pages, $hints) = compare_restored($restored, $sums);
my ($pages_in_place, $hints_in_place) = compare_restored($in_place, $sums);

printf "\n  %-46s %9s %10s\n%s\n", '', 'seconds', 'MB', join '', @rows;
print "VERDICT: what was restored is the original (engine $engine): row sums of 6 tables agree, and\n",
  "$pages pages by copy ($hints differ in hint bits only), $pages_in_place in place ($hints_in_place)\n";
