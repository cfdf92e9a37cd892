# "pg_ptrack backup" where timelines end: of a standby whose primary fails over while
# the backup runs, and of servers whose prior backup is of an older timeline.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $primary = new_node('primary', conf => 'wal_keep_size = 1GB');
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, repeat(md5(i::text), 10) FROM generate_series(1, 30000) i;
SELECT format('CREATE TABLE filler_%s AS SELECT * FROM t WHERE id <= 5000', i) FROM generate_series(1, 9) i \gexec
VACUUM;
SQL
checkpoint($primary);
my $next = new_standby('next', $primary, conf => 'wal_keep_size = 1GB');
checkpoint($next);
my $standby = new_standby('standby', $next);
restartpoint($_, $primary) for $next, $standby;

# By PostgreSQL: such a backup does not say which history it is of, but timelines.
sub core_backup
{
	my ($node, $name) = @_;
	my $dir = $node->backup_dir . "/$name";

	mkdir $node->backup_dir;
	command_ok([ 'pg_basebackup', '-D', $dir, '-c', 'fast', '--no-sync', '-d', $node->connstr('postgres') ], "by PostgreSQL: $name");
	return $dir;
}

# The WAL that a manifest asks for, as lines "timeline start end".
sub wal_ranges
{
	my ($dir) = @_;
	my ($ranges) = slurp_file("$dir/backup_manifest") =~ /"WAL-Ranges": \[(.*?)\]/s;

	return map { [/"Timeline": (\d+), "Start-LSN": "([^"]+)", "End-LSN": "([^"]+)"/] } grep { /Timeline/ } split /\n/, $ranges;
}

my $full = client_backup($standby, 'full');
my $of_core = core_backup($primary, 'of_core');
# What makes the next ones last.  Of one large file, the statement that reads it would
# hold up replay for as long.
$primary->safe_psql('postgres', 'UPDATE t SET n = 1 WHERE id % 1000 = 0; ' . join '; ', map { "UPDATE filler_$_ SET n = 1" } 1 .. 9);
restartpoint($_, $primary) for $next, $standby;

# Fails over while two backups of the other standby run, whose files come slowly.
my %run;
for my $method (qw(fetch stream))
{
	my $dir = $standby->backup_dir . "/$method";
	my $stderr = '';

	$run{$method} = { dir => $dir, stderr => \$stderr, run => IPC::Run::start(
		[ backup_command($standby, $dir, prior => $full, args => [ '-r', '4M', '-X', $method ]) ], '>', '/dev/null', '2>', \$stderr) };
}
await_fetching($standby, 2);
$next->promote;
$next->safe_psql('postgres', 'UPDATE t SET n = 2 WHERE id % 1000 = 1; CREATE TABLE after_promotion AS SELECT * FROM t WHERE id < 2000');
restartpoint($standby, $next);
$_->{run}->finish for values %run;

# WAL that is streamed ends with the timeline.
my $stream = $run{stream};
is($stream->{run}->result, 1, 'streamed: exit status');
like(${ $stream->{stderr} }, qr/the server ended the WAL stream at .*\n.*hint: Use -X fetch/, 'streamed: says why');
ok(!-e $stream->{dir}, 'streamed: nothing is left');

# WAL that is fetched has both.
my $across = $run{fetch}{dir};
ok(!$run{fetch}{run}->full_result, 'fetched: the backup is made') or diag(${ $run{fetch}{stderr} });
my @ranges = wal_ranges($across);
is(join(' ', map { $_->[0] } @ranges), '2 1', 'its manifest has WAL of both timelines, the newest first');
my ($switch) = slurp_file($next->data_dir . '/pg_wal/00000002.history') =~ /^1\t(\S+)/m;
is("$ranges[0][1] $ranges[1][2]", "$switch $switch", 'where the one ends, the other begins');
my ($start) = slurp_file("$across/backup_label") =~ /^START WAL LOCATION: (\S+)/m;
is($ranges[1][1], $start, 'and it starts where the backup does');
ok(-e "$across/pg_wal/00000002.history", 'the history file is there');
verify_backup($across, 'across timelines');
check_chain($standby, 'across timelines', $full, $across);

# What leads here is a prior backup, what does not is none.
$next->safe_psql('postgres', 'UPDATE t SET n = 3 WHERE id % 1000 = 2');
check_chain($next, 'relative to the older timeline', $of_core, client_backup($next, 'of_promoted', prior => $of_core));
$_->safe_psql('postgres', 'CREATE TABLE own AS SELECT * FROM t WHERE id < 1000') for $primary, $next;
my %after = map { $_->name => core_backup($_, 'after') } $primary, $next;
for my $turn ([ $next, 'primary', 1, 2 ], [ $primary, 'next', 2, 1 ])
{
	my ($node, $other, $from, $to) = @$turn;

	$node->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'ptrack', ''); SELECT pg_switch_wal()") for 1 .. 4;
	backup_fails($node, "timeline $from to $to", qr{the prior backup ends at \S+ on timeline $from, which did not lead to \S+ on timeline $to\n.*Take a full backup},
		prior => $after{$other});
}

$_->stop for $standby, $next, $primary;
done_testing();
