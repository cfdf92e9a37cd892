# What dev/demo does, once there is a server: see there.
#
# usage: demo.pl DIRECTORY, with the server's programs in PATH; the directory
# gets everything that is made.

use strict;
use warnings FATAL => 'all';

use PtrackCopy;
use Time::HiRes qw(time);

my ($work) = @ARGV or die "usage: demo.pl DIRECTORY\n";
my ($source, $copy) = ("$work/source", "$work/copy");
my $began = time;
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
		'TRUNCATE pgbench_history',
		'DROP TABLE doomed',
		'CREATE TABLE fresh AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i',
		'CREATE INDEX ON fresh (i)',
		'CREATE DATABASE another STRATEGY file_copy',
	);
	run('pgbench', '-h', $work, '-n', '-c', 4, '-t', 200, 'bench');
	return;
}

# A number for each table that depends on every row of it.
sub row_sums
{
	return join "\n", map { query("SELECT '$_', count(*), sum(hashtext(t::text)::bigint) FROM $_ t") }
	  qw(pgbench_accounts pgbench_branches pgbench_tellers pgbench_history shrinking fresh);
}

sub table_row
{
	my ($what, $blocks, $seconds) = @_;

	printf "  %-34s %10s %10.1f %9s\n", $what, $blocks, $blocks * 8 / 1024,
	  defined $seconds ? sprintf('%.2f', $seconds) : '';
	return;
}

progress('making a database with pgbench, scale 20');
make_source();

progress('taking a base copy with pg_basebackup');
my $full = timed(sub { run('pg_basebackup', '-h', $work, '-D', $copy, '-c', 'fast', '-X', 'none') });
my $label = do { local (@ARGV, $/) = "$copy/backup_label"; <> };
my ($since) = $label =~ /^START WAL LOCATION: (\S+)/ or die "no start LSN in backup_label\n";

progress('changing the database');
change_source();
my $total = query(q{SELECT sum(pg_database_size(oid)) / 8192 FROM pg_database});

my $engine = query('SELECT engine FROM pg_stat_ptrack');
progress("bringing the blocks changed since $since onto the copy");
my %result;
my $refresh = timed(sub {
	%result = refresh_copy(psql => \@psql, source => $source, target => $copy,
		scratch => $work, since => $since);
});
my $sums = row_sums();
stop_server($source);

progress('starting the copy, which recovers from WAL');
copy_wal($source, $copy);
start_server($copy);
stop_server($copy);

progress('comparing the copy with the original');
my ($pages, $hints, @different) = compare_clusters($source, $copy);

# After the pages: queries set hint bits, which are logged with checksums on.
start_server($copy);
my $copy_sums = row_sums();
stop_server($copy);

print "\n";
printf "  %-34s %10s %10s %9s\n", '', 'blocks', 'MB', 'seconds';
table_row('in the databases', int $total);
table_row('copied by pg_basebackup', int $total, $full);
table_row("changed since $since", $result{blocks});
table_row('transferred onto the copy', $result{transferred}, $refresh);
print "\n";

if ($sums ne $copy_sums)
{
	print "VERDICT: FAILED, row sums differ\n\noriginal:\n$sums\n\ncopy:\n$copy_sums\n";
	exit 1;
}
if (@different)
{
	my $count = @different;

	print "VERDICT: FAILED, $count pages differ, among them:\n",
	  map { "  $_\n" } splice @different, 0, 10;
	exit 1;
}
print "VERDICT: the copy is the original (engine $engine): row sums of 6 tables agree, and $pages pages ($hints differ in hint bits only)\n";
