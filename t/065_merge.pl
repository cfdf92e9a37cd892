# Merging and removing old summaries: answers stay right, and what is older than
# the question by more than an eighth stays out of them.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use File::Copy qw(copy);
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# The plan, over years: see c/merge_plan.c.
run_c_test('merge_plan', '-lm');

my $node = new_node('primary', conf => '');
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub blocks { return join ' ', sort grep { /\/\d{5,}\// } split /\n/, changed_blocks($node, @_); }

sql('CREATE TABLE t AS SELECT i, repeat(i::text, 100) FROM generate_series(1, 10000) i');
my @redo = (checkpoint($node));
my @lineage = (sql("SELECT ptrack_lineage('$redo[0]')"));
for my $i (1 .. 12)
{
	sql("UPDATE t SET i = -i WHERE abs(i) BETWEEN $i * 500 AND $i * 500 + 100; CREATE TABLE u$i (i int); DROP TABLE u$i");
	push @redo, checkpoint($node);
	push @lineage, sql("SELECT ptrack_lineage('$redo[$i]')");
}
my $init = sql('SELECT ptrack_init_lsn()');
my @exact = map { blocks($redo[$_]) } 0 .. 11;
my $known = max(map { scalar split / / } @exact);
cmp_ok($known, '>', 100, "$known changes to ask for");

sub removed_after_a_day
{
	utime time - 2 * 86400, time - 2 * 86400, summary_files($node);
	$node->restart;
	return;
}

$node->stop;
my @before = summary_files($node);
my %content = map { $_ => slurp_file($_) } @before;
stretch_summaries(600, @before);
my $offset = -s $node->logfile;
$node->append_conf('postgresql.conf', 'log_min_messages = debug1');
$node->start;
$node->wait_for_log(qr/merged \d+ change summaries/, $offset);

# Those that were merged stay for a day: the closest answer is still given.
my %there = map { $_ => 1 } summary_files($node);
is(join(' ', grep { !$there{$_} } @before), '', 'summaries that were merged stay at first');
cmp_ok(scalar(keys %there), '>', scalar(@before), 'and there is a merged one');
is(join("\n", map { blocks($redo[$_]) } 0 .. 11), join("\n", @exact), 'answers are as close as before');

# They go when that has been there for a day, even if it is merged again itself.
my @first = grep { !$content{$_} } keys %there;
$node->stop;
change_summary_times(map { $_ => sub { ($_[0] - 86400 * 5, $_[1] - 86400 * 5) } } summary_files($node));
utime time - 2 * 86400, time - 2 * 86400, @first;
$offset = -s $node->logfile;
$node->start;
$node->wait_for_log(qr/merged \d+ change summaries/, $offset);
ok(poll_until(sub { my @now = grep { -e } @before; @now < @before - @first }), 'those that were merged twice go');
is(join(' ', grep { !-e } @first), '', 'and what was made of them by the first merge stays');

# Then that goes, too.
removed_after_a_day();
ok(poll_until(sub { !grep { -e } @first }), 'in the end there are only those that were made last');
is(sql('SELECT ptrack_init_lsn()'), $init, 'coverage is the same');
is(sql('SELECT gaps FROM pg_stat_ptrack'), 0, 'and has no gap');
my $wider = 0;
for my $i (0 .. 11)
{
	my %got = map { $_ => 1 } split / /, blocks($redo[$i]);
	my %wanted = map { $_ => 1 } split / /, $exact[$i];

	is(join(' ', grep { !$got{$_} } keys %wanted), '', "redo point $i: nothing is missing");
	$wider++ if grep { !$wanted{$_} } keys %got;
	is(sql("SELECT ptrack_lineage('$redo[$i]')"), $lineage[$i], "redo point $i: its lineage is known");
	is(sql("SELECT count(*) > 0 FROM ptrack_changed_blocks('$redo[$i]', NULL, '$lineage[$i]')"), 't', 'and accepted');
}
cmp_ok($wider, '>', 0, "$wider answers reach back further");

# How far: a summary of ten minutes each; those that are merged are at least
# eight times as old as they are long.
for my $file (summary_files($node))
{
	my ($start, $end) = unpack 'q<q<', substr(slurp_file($file), 96, 16);
	my $points = () = summary_points($file);

	next if $points == 0;
	cmp_ok(($end - $start) * 8, '<=', time - $end, "$points redo points inside: not longer than an eighth of its age");
}

# A crash at every point of that: with the merged ones, the old ones, and any
# of both, coverage is the same.
my @after = summary_files($node);
my %merged = map { $_ => slurp_file($_) } @after;
$node->stop;
my @old = grep { !$merged{$_} } @before;
for my $keep (0 .. @old)
{
	write_summary($_, $content{$_}) for @old;
	unlink $_ for @old[ 0 .. $keep - 1 ];
	write_summary("$after[0].123.tmp", substr($merged{ $after[0] }, 0, 100)) if $keep % 2;
	$node->start;
	is(sql('SELECT ptrack_init_lsn()'), $init, "without $keep of those that were merged");
	$node->stop('immediate');
}
unlink @old;

# A restored backup, or a server that was rewound, starts from a redo point
# inside a merged summary.  So does this one, which is rolled back.
$node->start;
checkpoint($node);
$node->backup('inside', backup_options => ['--checkpoint=fast']);
my ($inside) = slurp_file($node->backup_dir . '/inside/backup_label') =~ /START WAL LOCATION: (\S+)/;
my $lineage = sql("SELECT ptrack_lineage('$inside')");
my $changes = blocks($redo[5], $inside);
for (1 .. 3)
{
	sql("UPDATE t SET i = -i WHERE abs(i) BETWEEN $_ * 1000 AND $_ * 1000 + 10");
	checkpoint($node);
}
$node->stop;
stretch_summaries(600, summary_files($node));
change_summary_times(map { $_ => sub { ($_[0] - 86400 * 5, $_[1] - 86400 * 5) } } summary_files($node));
$offset = -s $node->logfile;
$node->start;
$node->wait_for_log(qr/merged \d+ change summaries/, $offset);
removed_after_a_day();
my $hex = sprintf '%08X%08X', map { hex } split m{/}, $inside;
ok(poll_until(sub { !grep { /$hex/ } summary_files($node) }), 'no summary begins or ends at the start of the backup any more');
is(sql("SELECT ptrack_lineage('$inside')"), $lineage, 'but it is a redo point still');
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'inside');
system_or_bail('rm', '-rf', $restored->data_dir . '/ptrack');
# The worker may still be removing others.
$node->stop;
system_or_bail('cp', '-a', $node->data_dir . '/ptrack', $restored->data_dir);
$node->start;
$restored->start;
is($restored->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, 'coverage goes on from a redo point inside a summary');
is($restored->safe_psql('postgres', "SELECT ptrack_lineage('$inside')"), $lineage, 'with its lineage');
my %got = map { $_ => 1 } split /\n/, changed_blocks($restored, $redo[5]);
is(join(' ', grep { !$got{$_} } split / /, $changes), '', 'nothing is missing');
$restored->stop;

# Retention goes by the age of the changes, oldest first.
checkpoint($node);
$node->stop;
my @all = summary_files($node);
change_summary_times($all[0] => sub { ($_[0] - 20 * 86400, $_[1] - 20 * 86400) });
$node->start;
ok(poll_until(sub { !-e $all[0] }), 'a summary of changes older than ptrack.keep_time is removed');
ok(-e $all[1], 'the next one is not');
isnt(sql('SELECT ptrack_init_lsn()'), $init, 'coverage begins later');
is(sql('SELECT gaps FROM pg_stat_ptrack'), 0, 'without a gap');

# A summary that cannot be reached goes when its file is that old.
my ($stray) = $all[-1];
(my $other = $stray) =~ s/ptrack\/00000001/ptrack\/00000007/;
copy($stray, $other);
utime time - 20 * 86400, time - 20 * 86400, $other;
checkpoint($node);
ok(poll_until(sub { !-e $other }), 'one of another history, too');

# The worker can be terminated, and comes back.
my $pid = worker_pid($node);
ok($pid, 'there is a worker');
kill 'TERM', $pid;
ok(poll_until(sub { my $now = worker_pid($node); $now && $now != $pid }),
	'it comes back after it was terminated');
$node->stop;

done_testing();
