# pg_ptrack summary prints what is in change summaries: as pg_walsummary prints
# core's summaries of the same ranges, as JSON that says the same as SQL, and for
# people; and says what is wrong with those that are damaged.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
my $node = new_node('primary', for_core => 1, conf => '');
my $work = abs_path(PostgreSQL::Test::Utils::tempdir());
my %fork = (main => 0, fsm => 1, vm => 2, init => 3);

sub summary
{
	my ($out, $err) = run_command([ 'pg_ptrack', 'summary', @_ ]);

	is($err, '', "no error: @_");
	return $out;
}

# A copy of the summary that ends there, as it may soon be merged with others; and
# where it starts.
sub summary_until
{
	my ($end) = @_;
	my $name = sprintf '%08X%08X', map { hex } split m{/}, $end;
	my @files;

	$node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
	poll_until(sub { @files = sort glob $node->data_dir . "/ptrack/*$name.summary" }) or die "no summary until $end";
	my ($high, $low) = $files[-1] =~ /([0-9A-F]{8})([0-9A-F]{8})[0-9A-F]{16}\.summary$/;
	system_or_bail('cp', $files[-1], $work);
	return ($files[-1] =~ s{.*/}{$work/}r, sprintf '%X/%X', hex $high, hex $low);
}

# Lines of pg_walsummary in the form that changed_blocks has, without the free
# space map.
sub lines_of
{
	my ($text) = @_;
	my @lines;

	for my $line (split /\n/, $text)
	{
		my ($ts, $db, $rel, $fork, $kind, $block) =
		  $line =~ /^TS (\d+), DB (\d+), REL (\d+), FORK (\w+): (limit|block) (\d+)$/ or die "strange line: $line";
		push @lines, "$ts/$db/$rel/$fork{$fork}:" . ($kind eq 'limit' ? 'L' : '') . $block if $fork ne 'fsm';
	}
	return join "\n", @lines;
}

sub json_lines
{
	my ($object) = @_;
	my @lines;

	for my $change (@{ $object->{changes} })
	{
		my $name = "$change->{tablespace}/$change->{database}/$change->{relation}/$fork{$change->{fork}}";

		push @lines, "$name:L$change->{limit}" if defined $change->{limit};
		push @lines, map { my ($first, $last) = @$_; map { "$name:$_" } $first .. $last } @{ $change->{blocks} };
	}
	return join "\n", @lines;
}

sub sorted { return join "\n", sort split /\n/, $_[0]; }

my @redo = (checkpoint($node));
my %total;
my @summaries;

for my $sql (
	'CREATE TABLE t AS SELECT i, i::text AS v FROM generate_series(1, 300000) i',
	'CREATE INDEX ON t (i); VACUUM t',
	"UPDATE t SET v = 'x' WHERE i % 5000 = 0",
	'DELETE FROM t WHERE i > 1000; VACUUM t',
	'TRUNCATE t; CREATE UNLOGGED TABLE u (i int)',
	'CREATE DATABASE d',
	'DROP DATABASE d')
{
	$node->safe_psql('postgres', $_) for split /; /, $sql;
	push @redo, checkpoint($node);

	# Some of these make a checkpoint themselves.
	my ($file, $start) = summary_until($redo[-1]);
	my $asked = changed_blocks($node, $start, $redo[-1]);
	my $individual = summary('--format=core', '--individual', $file);
	my $json = decode_json(summary('--format=json', $file));

	push @summaries, $file;
	is(sorted(lines_of($individual)), sorted($asked), "core's format says the same as SQL: $sql");
	is(sorted(json_lines($json)), sorted($asked), 'so does JSON');
	is($json->{blocks_changed}, scalar(() = $asked =~ /:\d/g), 'JSON: number of blocks');
	is_deeply([ @$json{qw(start_lsn problem)}, $json->{end}{lsn} ], [ $start, undef, $redo[-1] ], 'JSON: range');
	next if $major < 17;

	my $name = $file =~ s{.*/}{}r;
	my $core = $node->data_dir . "/pg_wal/summaries/$name";
	poll_until(sub { -e $core }) or die "core has no summary $name";
	is(join(' ', differences_from_core(lines_of($individual), lines_of((run_command([ 'pg_walsummary', '-i', $core ]))[0]), \%total)),
		'', 'and as pg_walsummary');
	next if $sql !~ /UPDATE/;
	is(sorted(summary('--format=core', $file)), sorted((run_command([ 'pg_walsummary', $core ]))[0] =~ s/^.*FORK fsm.*\n?//mgr),
		'ranges as well');
}
cmp_ok($total{blocks}, '>', 1000, "many blocks were compared: $total{blocks}") if $major >= 17;

# For people
my $text = summary($summaries[2]);
like($text, qr/^  start: \Q$redo[2]\E\n    lineage: [0-9a-f]{32}\n    reached: 20\d\d-.* GMT\n  end: \Q$redo[3]\E on timeline 1$/m, 'text: range');
like($text, qr/^  tablespace 1663, database \d+, relation \d+, fork main: blocks \d+(-\d+)?, \d+/m, 'text: blocks');
like(summary($summaries[4]), qr/fork main: limit block 0/, 'text: limit block');
like(summary($summaries[6]), qr/^  tablespace 1663, database \d+: all relations are new$/m, 'text: database dropped');
unlike(summary('-q', $summaries[2]), qr/fork main/, 'quietly, text is the header');
is(summary('-q', '--format=core', $summaries[2]), '', "quietly, core's format is nothing");
is_deeply(decode_json(summary('-q', '--format=json', $summaries[2]))->{changes}, [], 'quietly, JSON has no changes');

# Several; standard input
is(summary('--format=core', @summaries), join("\n", map { summary('--format=core', $_) } @summaries), 'several files');
my @objects = map { decode_json($_) } split /\n/, summary('--format=json', @summaries);
is_deeply([ map { $_->{file} } @objects ], \@summaries, 'JSON: an object a line');
is(`pg_ptrack summary --format=core - <$summaries[0]`, `pg_ptrack summary --format=core $summaries[0]`, 'standard input');

# Redo points inside
for (1 .. 6)
{
	$node->safe_psql('postgres', 'INSERT INTO t VALUES (0)');
	checkpoint($node);
}
$node->stop;
stretch_summaries(600, summary_files($node));
my $offset = -s $node->logfile;
$node->append_conf('postgresql.conf', 'log_min_messages = debug1');
$node->start;
$node->wait_for_log(qr/merged \d+ change summaries/, $offset);
$node->stop;
my @merged = grep { summary_points($_) > 0 } summary_files($node);
for my $file (@merged)
{
	my $json = decode_json(summary('--format=json', $file));

	is_deeply([ map { $_->{lsn} } @{ $json->{redo_points} } ], [ summary_points($file) ], 'redo points');
	like($_->{lineage}, qr/^[0-9a-f]{32}$/, 'with their lineage') for @{ $json->{redo_points} };
}
like(summary($merged[0]), qr/^  redo point: /m, 'redo points for people');

# Damaged ones
sub damaged
{
	my ($name, $change, $pattern) = @_;
	my $bytes = slurp_file($summaries[1]);
	my $file = "$work/damaged";

	$change->() for $bytes;
	open my $fh, '>:raw', $file or die $!;
	print $fh $bytes;
	close $fh or die $!;
	for my $format ('text', 'json', 'core')
	{
		my ($out, $err) = run_command([ 'pg_ptrack', 'summary', "--format=$format", $summaries[0], $file, $summaries[2] ]);

		is($? >> 8, 1, "$name, $format: exit status");
		like($err, qr/^pg_ptrack: error: file "\Q$file\E" $pattern$/, "$name, $format: says what is wrong");
		next if $format ne 'json';
		my @objects = map { decode_json($_) } split /\n/, $out;
		like($objects[1]{problem}, qr/^$pattern$/, "$name: JSON says it, too") if @objects == 3;
		is_deeply([ map { $_->{problem} } @objects[ 0, -1 ] ], [ undef, undef ], "$name: the others are printed");
	}
	return;
}

damaged('empty', sub { $_ = '' }, qr/ends too early/);
damaged('something else', sub { $_ = 'something else' x 100 }, qr/is not a change summary/);
damaged('version', sub { substr($_, 4, 1) = "\x02" }, qr/has a format version that is not known/);
damaged('cut', sub { chop }, qr/ends too early/);
damaged('grown', sub { $_ .= "\0" }, qr/goes on after its end/);
damaged('flipped', sub { substr($_, 10, 1) ^= "\x01" }, qr/has a checksum that does not match its contents/);
damaged('flipped in an item', sub { substr($_, 115, 1) ^= "\x80" }, qr/has .*/);
damaged('ends where it starts', sub { substr($_, 24, 8) = substr($_, 16, 8); $_ = summary_crc($_) }, qr/has an end that is not past its start/);

my $renamed = $summaries[1] =~ s/[0-9A-F](?=\.summary)/F/r;
system_or_bail('cp', $summaries[1], $renamed);
command_fails_like([ 'pg_ptrack', 'summary', '-q', $renamed ], qr/another range than its name/, 'renamed');
command_fails_like([ 'pg_ptrack', 'summary', 'nowhere' ], qr/could not open file "nowhere"/, 'no such file');
command_fails_like([ 'pg_ptrack', 'summary' ], qr/no change summary specified/, 'no file');
command_fails_like([ 'pg_ptrack', 'summary', '--format=xml', $renamed ], qr/invalid format/, 'no such format');
command_fails_like([ 'pg_ptrack', 'summary', '-i', $renamed ], qr/only with --format=core/, 'individual blocks for people');
like(summary('--help'), qr/^Usage:/m, 'help');
SKIP: {
	skip 'there is no /dev/full', 1 unless -c '/dev/full';
	command_fails_like([ 'sh', '-c', "pg_ptrack summary $summaries[1] >/dev/full" ], qr/could not write to standard output/, 'disk full');
}

done_testing();
