# Histories are told apart by their lineage: the same on a primary, its standbys
# and what is restored from it, whatever happens to them; another one on clones
# that went their own ways, be it in nothing but a value, at the same LSNs.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $one = new_node('one', conf => <<'EOS');
wal_keep_size = 1GB
hot_standby_feedback = off
EOS
$one->safe_psql('postgres', 'CREATE TABLE t AS SELECT i, 0 AS n FROM generate_series(1, 10000) i');

sub lineage
{
	my ($node, $lsn) = @_;

	return $node->safe_psql('postgres', "SELECT ptrack_lineage('$lsn')");
}

# All that a question can be asked by, with a prior backup's LSN and lineage.
sub questions
{
	my ($lsn, $lineage) = @_;

	return map { "SELECT * FROM $_" } "ptrack_get_pagemapset('$lsn', $lineage)",
	  "ptrack_get_blocks('$lsn', $lineage)", "ptrack_get_change_stat('$lsn', $lineage)",
	  "ptrack_changed_blocks('$lsn', NULL, $lineage)", "ptrack_report('$lsn', $lineage)";
}

# The answer is the one without a lineage.  The queries themselves may prune
# pages of catalogs, which are left out, and out of numbers, too; and a page on disk
# may be written at any time.
sub accepted
{
	my ($node, $lsn, $lineage, $name) = @_;

	for my $question (questions($lsn, "'$lineage'"))
	{
		my $digest = 'SELECT count(*), md5(string_agg(q::text, chr(10) ORDER BY q::text))';
		my $check = $question =~ /change_stat/ ? 'SELECT files > 0 AND pages > 0 FROM (%s) q'
		  : $question =~ /changed_blocks|report/ ? "$digest FROM (%s) q WHERE relfilenode >= 16384"
		  : $question =~ /get_blocks/ ? "$digest FROM (SELECT path, blkno FROM (%s) b WHERE path ~ '/[0-9]{5}') q"
		  : "$digest FROM (%s) q WHERE path ~ '/[0-9]{5}'";
		my ($with, $without) = map { $node->safe_psql('postgres', sprintf $check, $_) } $question, $question =~ s/, '$lineage'//r;

		is($with, $without, "$name: $question");
	}
	return;
}

sub refused
{
	my ($node, $lsn, $lineage, $name) = @_;

	fails_like($node, $_, '55000', "LSN $lsn of lineage $lineage is not in the history of this server.*DETAIL:.*HINT:.*full backup", $name)
	  for questions($lsn, "'$lineage'");
	return;
}

sub lineages
{
	my ($node, @lsn) = @_;

	return join ' ', map { lineage($node, $_) } @lsn;
}

#
# One history
#
my @redo = map { $one->safe_psql('postgres', 'UPDATE t SET n = n + 1 WHERE i % 1000 = 0'); checkpoint($one) } 1 .. 4;
my $known = lineages($one, @redo);
like($known, qr/^([0-9a-f-]{36} ?){4}$/, 'a lineage at each redo point');
my ($base, $base_lsn) = base_copy('base', $one);
my $base_lineage = lineage($one, $base_lsn);
my $standby = new_standby('standby', $one);
$one->safe_psql('postgres', 'UPDATE t SET n = n + 1 WHERE i % 500 = 0');
push @redo, restartpoint($standby, $one);
$one->safe_psql('postgres', 'UPDATE t SET n = n + 1 WHERE i % 300 = 0');
push @redo, checkpoint($one);
$known = lineages($one, @redo);
catch_up($standby, $one);
is(lineages($standby, @redo), $known, 'the same on the standby');
$standby->stop('immediate');
$standby->start;
catch_up($standby, $one);
is(lineages($standby, @redo), $known, 'after a crash of it');
$_->stop('immediate') for $one;
$one->start;
is(lineages($one, @redo), $known, 'after a crash of the primary');
$one->restart;
is(lineages($one, @redo), $known, 'after a restart');
push @redo, checkpoint($one);
$known = lineages($one, @redo);
if ($standby)
{
	catch_up($standby, $one);
	is(lineages($standby, @redo), $known, 'the same after that');
	accepted($standby, $base_lsn, $base_lineage, 'a backup of the primary, on the standby');
}
accepted($one, $redo[-1], lineage($one, $redo[-1]), 'the running cycle');

# The same data, elsewhere.
my $restored = PostgreSQL::Test::Cluster->new('restored');
$one->backup('restored');
$restored->init_from_backup($one, 'restored');
$restored->append_conf('postgresql.conf', wal_from($one));
$restored->start;
is(lineages($restored, @redo), $known, 'the same on a restored server');
accepted($restored, $base_lsn, $base_lineage, 'a backup from before, on the restored server');

#
# What is not known
#
my $unknown = '00000000-0000-4000-8000-000000000001';
refused($one, $redo[2], $unknown, 'a lineage that never was');
refused($one, $redo[2], lineage($one, $redo[3]), 'the lineage at another redo point');
my ($high, $low) = split m{/}, $redo[3];
my $between = sprintf '%s/%X', $high, hex($low) + 8;
refused($one, $between, lineage($one, $redo[3]), 'an LSN that is no redo point');
fails_like($one, "SELECT ptrack_lineage('$between')", '22023', "no redo point is known at LSN $between.*HINT:", 'the lineage there');
fails_like($one, "SELECT ptrack_lineage('0/28')", '55000', 'before the changes that are known', 'the lineage before coverage');
fails_like($one, $_, '55000', 'before the changes that are known|history', 'before coverage')
  for questions('0/28', "'$unknown'");
my $future = 'F00000/0';
fails_like($one, "SELECT ptrack_lineage('$future')", '22023', 'in the future of this server', 'the lineage in the future');
fails_like($one, $_, '22023', 'in the future of this server', 'the future') for questions($future, "'$unknown'");
fails_like($one, 'SELECT ptrack_lineage(NULL)', '22004', 'argument "lsn" must not be null', 'no LSN');
fails_like($one, $_, '22004', 'argument "lineage" must not be null', 'no lineage') for questions($redo[2], 'NULL');
fails_like($one, $_ =~ s/'$redo[2]'/NULL/r, '22004', 'argument "start_lsn" must not be null', 'lineage, but no LSN')
  for questions($redo[2], "'$unknown'");

#
# Clones of a server that was stopped
#
my $fork = checkpoint($one);
$one->stop;
my $two = PostgreSQL::Test::Cluster->new('two');
PostgreSQL::Test::RecursiveCopy::copypath($one->data_dir, $two->data_dir);
chmod 0700, $two->data_dir;
$two->append_conf('postgresql.conf', 'port = ' . $two->port);
$_->start for $one, $two;

# Both do the same, to other rows, at the same time; so they have redo points in
# common.  Switching WAL puts these at the start of a segment.
my (@one, @two);
my $common;
for my $try (1 .. 10)
{
	$one->safe_psql('postgres', 'UPDATE t SET n = -1 WHERE i = 4000');
	$two->safe_psql('postgres', 'UPDATE t SET n = -2 WHERE i = 6000');
	$_->safe_psql('postgres', 'SELECT pg_switch_wal()') for $one, $two;
	push @one, checkpoint($one);
	push @two, checkpoint($two);
	$common = $one[-1];
	last if $one[-1] eq $two[-1];
}
is($two[-1], $common, 'two histories have a redo point in common');
isnt(lineage($two, $common), lineage($one, $common), 'but not their lineages there');
is(lineages($two, @redo, $fork), lineages($one, @redo, $fork), 'what was before is of both');
for my $node ($one, $two)
{
	$node->safe_psql('postgres', 'UPDATE t SET n = n + 1 WHERE i % 100 = 0');
	checkpoint($node);
	accepted($node, $fork, lineage($one, $fork), $node->name . ', with a backup from before the clone');
}
my $of_one = lineage($one, $common);
accepted($one, $common, $of_one, 'its own backup');
is($two->psql('postgres', "SELECT count(*) FROM ptrack_get_pagemapset('$common')"), 0, 'by the LSN alone, the other clone would accept it');
refused($two, $common, $of_one, 'the backup of the other clone');
$two->stop('immediate');
$two->start;
refused($two, $common, $of_one, 'the same after a crash');
checkpoint($two);
$two->restart;
refused($two, $common, $of_one, 'and a restart');

# The copy of a store does not make the history one's own.
$two->stop;
PostgreSQL::Test::Utils::system_or_bail('cp', '-a', '-f', summary_files($one), $two->data_dir . '/ptrack');
$two->start;
fails_like($two, $_, '55000', '', 'nor is it accepted with the summaries of the other one')
  for questions($common, "'$of_one'");
$two->stop;

#
# Who may ask
#
$one->safe_psql('postgres', 'CREATE ROLE nobody; CREATE ROLE watcher IN ROLE pg_monitor');
my %may = (nobody => 1, watcher => 5);
for my $role (sort keys %may)
{
	my @allowed = grep { $one->psql('postgres', "SET ROLE $role; $_") == 0 }
	  "SELECT ptrack_lineage('$common')", questions($common, "'$of_one'");

	is(scalar(@allowed), $may{$role}, "$role may ask: @allowed");
	is(scalar(grep { /get_blocks/ } @allowed), 0, 'not for contents');
}

#
# Promotion: the old primary goes on for a while, beyond where it was left
#
$one->safe_psql('postgres', 'UPDATE t SET n = 0 WHERE i = 1');
push @redo, $fork, $common, checkpoint($one);
$known = lineages($one, @redo);
catch_up($standby, $one);
$standby->promote;
is(lineages($standby, @redo), $known, 'promoted: the lineages are what they were');
$one->safe_psql('postgres', 'UPDATE t SET n = 1 WHERE i % 10 = 0; SELECT pg_switch_wal()');
my $abandoned = checkpoint($one);
my $abandoned_lineage = lineage($one, $abandoned);
$standby->safe_psql('postgres', 'UPDATE t SET n = 2 WHERE i % 10 = 0; SELECT pg_switch_wal()');
checkpoint($standby);
$standby->safe_psql('postgres', 'UPDATE t SET n = 3 WHERE i % 10 = 0; SELECT pg_switch_wal()');
checkpoint($standby);
is($standby->psql('postgres', "SELECT count(*) FROM ptrack_get_pagemapset('$abandoned')"), 0,
	'by the LSN alone, a backup of the abandoned part of the timeline would be accepted');
refused($standby, $abandoned, $abandoned_lineage, 'a backup of the abandoned part of the timeline');
accepted($standby, $base_lsn, $base_lineage, 'a backup of the timeline before');
refresh_node($standby, $base, $base_lsn);
compare_copy($standby, $base, 'a copy from the timeline before');
is(lineages($standby, @redo), $known, 'still the same after a restart on the new timeline');

$_->stop for $standby, $restored, $one;
done_testing();
