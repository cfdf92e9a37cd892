# For each range between two redo points of the primary, a standby knows of the
# same changes as the primary does, and core's WAL summarizer of the same, too:
# through restartpoints, restarts and crashes of either.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $primary = new_node('primary', for_core => 1, conf => <<'EOS');
wal_keep_size = 2GB
max_prepared_transactions = 5
allow_in_place_tablespaces = on
shared_buffers = 16MB
EOS

# Databases cannot be created among other statements of one string.
sub run_sql
{
	my ($sql) = @_;

	$primary->safe_psql('postgres', "SET client_min_messages = error; $_")
	  for $sql =~ /DATABASE/ ? split(/; /, $sql) : $sql;
	return;
}

# Where WAL is followed, a standby has the past of its primary only if there is a
# summary when it is made.
checkpoint($primary);
my $near = new_standby('near', $primary);
my $far = new_standby('far', $near);
my $late;

run_sql(<<'EOS');
CREATE TABLESPACE place LOCATION '';
CREATE TABLE docs (id int PRIMARY KEY, n int, t text, a int[]);
CREATE INDEX ON docs USING hash (n);
CREATE INDEX ON docs USING gin (a);
CREATE INDEX ON docs USING brin (n);
CREATE TABLE plain (id int, filler text);
CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY);
CREATE FUNCTION fill_docs(lo int, hi int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO docs SELECT i, i % 97, md5(i::text), ARRAY[i % 13, i % 7]
	FROM generate_series(lo, hi) i
	ON CONFLICT (id) DO UPDATE SET n = excluded.n + 1 $$;
EOS

# What happens in a cycle; to the right of it, what happens to the servers at
# its end.
my @cycles = (
	[ 'SELECT fill_docs(1, 3000)' ],
	[ "INSERT INTO plain SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i", sub { checkpoint($near) } ],
	[ 'VACUUM plain; VACUUM (FREEZE) docs' ],
	[ 'UPDATE plain SET id = -id WHERE id % 100 = 0; DELETE FROM docs WHERE id % 10 = 3' ],
	[ 'SELECT id FROM plain WHERE id < 50 FOR UPDATE', sub { $near->stop('immediate'); $near->start } ],
	[ 'SELECT fill_docs(2000, 5000)', sub { checkpoint($far) } ],
	[ 'CREATE DATABASE walled STRATEGY wal_log' ],
	[ 'CREATE DATABASE copied STRATEGY file_copy', sub { $far->stop('immediate'); $far->start } ],
	[ 'ALTER DATABASE copied SET TABLESPACE place; DROP DATABASE walled' ],
	[ 'CLUSTER docs USING docs_pkey', sub { $late = new_standby('late', $primary) } ],
	[ 'DELETE FROM plain WHERE abs(id) > 3000; VACUUM (TRUNCATE) plain' ],
	[ 'REINDEX TABLE docs', sub { $primary->restart } ],
	[ 'BEGIN; CREATE TABLE made AS SELECT * FROM plain; SAVEPOINT s; CREATE TABLE unmade AS SELECT * FROM plain; ROLLBACK TO s; COMMIT' ],
	[ 'BEGIN; DROP TABLE made; CREATE TABLE prep AS SELECT * FROM docs; PREPARE TRANSACTION $$one$$', sub { $near->restart } ],
	[ 'COMMIT PREPARED $$one$$', sub { $primary->stop('immediate'); $primary->start } ],
	[ 'ALTER TABLE docs SET TABLESPACE place; ALTER TABLE prep SET UNLOGGED' ],
	[ 'VACUUM FULL docs; ALTER TABLE prep SET LOGGED', sub { checkpoint($_) for $near, $far, $late } ],
	[ 'INSERT INTO volatile SELECT generate_series(1, 1000); TRUNCATE plain; DROP TABLE prep' ],
	[ 'ANALYZE; UPDATE docs SET t = repeat(t, 300) WHERE id % 50 = 0', sub { $_->stop('immediate') for $near, $far; $_->start for $near, $far } ],
	[ 'VACUUM (FREEZE) docs; DROP DATABASE copied' ],
	[ 'ALTER TABLE docs SET TABLESPACE pg_default' ],
	[ 'SELECT pg_switch_wal(); SELECT fill_docs(1, 500)' ],
);

# Two sets are the same; if not, some of what only one of them has is shown.  A
# standby of 15 may learn of a redo point when it has passed it already: then some
# changes of after are among those of before.
sub same_changes
{
	my ($here, $known, $name, $may_say_more) = @_;
	my ($missing, $more) = map { substr $_, 0, 500 } lines_missing($known, $here), lines_missing($here, $known);

	$more = '' if !replays_redo_points() || $may_say_more;
	is("missing: $missing; more: $more", 'missing: ; more: ', "$name: the same " . (split /\n/, $known) . ' changes');
	return;
}

# A standby makes a cut of its map at every redo point of the primary that it
# replays, and its worker publishes the cycle that ended.  This waits for that.
sub wait_for_summary
{
	my ($standby, $redo) = @_;
	my $end = sprintf '%08X%08X', map { hex } split m{/}, $redo;

	catch_up($standby, $primary);
	poll_until(sub { grep { /$end\.summary$/ } summary_files($standby) })
	  or die $standby->name . " does not publish the cycle that ends at $redo";
	return;
}

# If the cycle before is not yet published at a redo point, the map cannot be cut
# there.  Then the cycle goes on across it, and what is published for it may say
# more.  That is so when several redo points follow each other, or when a server
# starts and replays a lot at once.  After one that is published, the next one is a
# cut.
sub settle
{
	my (@standbys) = @_;
	my $redo;

	for (1 .. 2)
	{
		$redo = checkpoint($primary);
		wait_for_summary($_, $redo) for @standbys;
	}
	return $redo;
}

# For each cycle, what changed on the primary: asked for at once, for merging
# widens a range whose end is inside of a merged summary.
my @redo = (settle($near, $far));
my @known;
for my $cycle (@cycles)
{
	my ($sql, $event) = @$cycle;

	run_sql($sql);

	# Some concurrency with the checkpoint: this ends in either cycle.
	my $session = $primary->background_psql('postgres');
	$session->query_until(qr/begun/, <<"EOS");
\\echo begun
BEGIN; INSERT INTO plain SELECT i, 'meanwhile' FROM generate_series(1, 2000) i;
SAVEPOINT s; UPDATE plain SET id = id + 1 WHERE id < 500; ROLLBACK TO s;
SELECT fill_docs(9000, 9200); COMMIT;
EOS
	my @range = ($redo[-1], checkpoint($primary));
	$session->quit;

	my @standbys = ($near, $far, $late // ());
	wait_for_summary($_, $range[1]) for @standbys;
	push @redo, $range[1];
	push @known, changed_blocks($primary, @range);

	# What is done with databases makes redo points in between.
	my $makes_redo_points = $sql =~ /DATABASE/;
	same_changes(changed_blocks($_, @range), $known[-1], $_->name . ", from $range[0] to $range[1]", $makes_redo_points) for @standbys;
	next unless $event || $makes_redo_points;

	# After that, a new cycle begins.
	$event->() if $event;
	push @redo, settle($near, $far, $late // ());
	push @known, changed_blocks($primary, @redo[ -2, -1 ]);
}
cmp_ok($#redo, '>=', 30, "$#redo ranges");

# Replay after a crash may be faster than what it passes is published: wider
# summaries then replace those of the same range.  Nothing is missing in these.
my $init = $primary->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
my @all = ($redo[0], $redo[-1]);
for my $standby ($near, $far, $late)
{
	is($standby->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init,
		$standby->name . ': coverage begins where it does on the primary');
	is(join('', map { lines_missing($known[ $_ - 1 ], changed_blocks($standby, $redo[ $_ - 1 ], $redo[$_])) } 1 .. $#redo),
		'', $standby->name . ': of all ranges, nothing is missing');
	same_changes(changed_blocks($standby, @all), changed_blocks($primary, @all), $standby->name . ", from $all[0] to $all[1]");
}

# Core's summaries, or its WAL, say the same.
my %total;
is(join(' ', differences_from_core($known[ $_ - 1 ], core_blocks($primary, $redo[ $_ - 1 ], $redo[$_]), \%total)), '',
	"from $redo[ $_ - 1 ] to $redo[$_]: the same as core's summaries")
  for 1 .. $#redo;
cmp_ok($total{blocks}, '>', 3000, "$total{blocks} blocks were compared");

# The next primary answers the same, and goes on with cycles of its own.
my $answer = changed_blocks($primary, @all);
$primary->stop;
$near->promote;
same_changes(changed_blocks($near, @all), $answer, 'promoted');
$primary = $near;
my @next = (settle($far));
$near->safe_psql('postgres', 'UPDATE docs SET n = n + 1');
push @next, checkpoint($near);
wait_for_summary($far, $next[1]);
same_changes(changed_blocks($far, @next), changed_blocks($near, @next), 'on the next timeline');

$_->stop for $near, $far, $late;
done_testing();
