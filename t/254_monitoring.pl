# The queries for the Prometheus exporter, as a role that may do no more than monitor:
# on a primary, on a standby, and where tracking is switched off.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CPAN::Meta::YAML;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $top = "$FindBin::RealBin/..";
my $queries = CPAN::Meta::YAML->read_string(slurp_file("$top/monitoring/postgres_exporter.yaml"))->[0];
is(join(' ', sort keys %$queries), 'ptrack ptrack_backup ptrack_scan ptrack_slot', 'the file has the queries');

# Each metric: what it is used as, by its name.
my %usage;
for my $query (sort keys %$queries)
{
	for my $metric (@{ $queries->{$query}{metrics} })
	{
		my ($name) = keys %$metric;

		$usage{$query}{$name} = $metric->{$name}{usage};
		ok($metric->{$name}{description}, "${query}_$name has a description");
		like($metric->{$name}{usage}, qr/^(?:LABEL|GAUGE|COUNTER)$/, 'and a usage');
	}
}

# What a query gives, as [{column => value}, ...].
sub rows
{
	my ($node, $query) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "SET ROLE watcher; $queries->{$query}{query}",
		extra_params => [ '--pset=tuples_only=off', '--pset=footer=off', '--pset=null=(null)' ]);
	my @lines = split /\n/, $out;
	my @names = split /\|/, shift @lines // '';

	is($ret, 0, $node->name . ": $query can be asked") or diag($err);
	is(join(' ', sort @names), join(' ', sort keys %{ $usage{$query} }), 'its columns are those that are described');
	my @rows = map { my %row; @row{@names} = split /\|/, $_, -1; \%row } @lines;
	my @odd = grep { $_->[1] ne '(null)' && $_->[1] !~ /^-?\d+(?:\.\d+)?$/ }
	  map { my $row = $_; map { [ $_, $row->{$_} ] } grep { $usage{$query}{$_} ne 'LABEL' } @names } @rows;
	is(join(' ', map { "@$_" } @odd), '', 'and what is no label is a number');
	return @rows;
}

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE ROLE watcher; GRANT pg_monitor TO watcher; CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i');
checkpoint($node);
# When it was written is noted last.
poll_until(sub { sql('SELECT flushed_lsn >= redo_lsn AND last_flush IS NOT NULL FROM pg_stat_ptrack, pg_control_checkpoint()') eq 't' });
sql('UPDATE t SET i = i + 1');
my ($row) = rows($node, 'ptrack');
is($row->{engine}, follows_wal() ? 'wal' : 'hooks', 'the engine is a label');
is("$row->{tracking} $row->{worker_up} $row->{gaps} $row->{flush_failures} $row->{overdue_bytes}", '1 1 0 0 0', 'all is well');
cmp_ok($row->{unflushed_bytes}, '>', 0, 'something is in memory');
cmp_ok($row->{coverage_bytes}, '>', $row->{unflushed_bytes}, 'and more is known');
cmp_ok(abs($row->{last_flush_timestamp_seconds} - time), '<', 600, 'it was written lately');

my @slots = rows($node, 'ptrack_slot');
is(scalar(@slots), follows_wal() ? 1 : 0, 'a slot, where WAL is held back');
is("$slots[0]{active} $slots[0]{limit_bytes}", '1 ' . 16 * 1024**3, 'which is in use, and has a limit') if @slots;

is(join(' ', map { "$_->{purpose} $_->{running} $_->{unread_bytes}" } sort { $a->{purpose} cmp $b->{purpose} } rows($node, 'ptrack_scan')),
	'gap 0 0 overflow 0 0 query 0 0', 'no WAL is being scanned');

is(scalar(rows($node, 'ptrack_backup')), 0, 'nor is there a backup');
my $backup = $node->background_psql('postgres');
$backup->query_safe("SELECT ptrack_backup_progress('streaming database files', 30000, 2, true)");
my ($running) = rows($node, 'ptrack_backup');
is("$running->{phase} $running->{incremental} $running->{total_bytes} $running->{streamed_bytes}",
	'streaming database files true 30000 0', 'a backup, and how far it has come');
$backup->quit;

# What cannot be written shows.
chmod 0500, $node->data_dir . '/ptrack';
$node->safe_psql('postgres', 'CHECKPOINT');
ok(poll_until(sub { sql('SELECT flush_failures FROM pg_stat_ptrack') > 0 }), 'a summary cannot be written');
($row) = rows($node, 'ptrack');
cmp_ok($row->{overdue_bytes}, '>', 0, 'that is overdue');
cmp_ok($row->{flush_failures}, '>', 0, 'and counted');
chmod 0700, $node->data_dir . '/ptrack';
checkpoint($node);

my $standby = new_standby('standby', $node);
catch_up($standby, $node);
await_answers($standby);
rows($standby, $_) for sort keys %$queries;
$standby->stop;

# Switched off: still a row, that says so, and no errors.
$node->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$node->restart;
($row) = rows($node, 'ptrack');
is("$row->{engine} $row->{tracking} $row->{worker_up} $row->{gaps}", 'off 0 0 (null)', 'switched off');
is(scalar(rows($node, $_)), { ptrack_scan => 3 }->{$_} // 0, 'and nothing else') for qw(ptrack_slot ptrack_scan ptrack_backup);
$node->stop;

# Every metric that the documentation would be alarmed by is there.
my %known = map { my $query = $_; map { ("${query}_$_" => 1) } keys %{ $usage{$query} } } keys %usage;
my $page = slurp_file("$top/docs/operation.md");
my %used = map { $_ => 1 } map { /\b(ptrack_\w+)(?=[ )\[{\/])/g } $page =~ /^\| `([^`]*ptrack_[^`]*)` \|/mg;
cmp_ok(scalar(keys %used), '>', 5, 'the documentation has ' . keys(%used) . ' metrics to be alarmed by');
is(join(' ', grep { !$known{$_} } sort keys %used), '', 'all of them are in the file');

done_testing();
