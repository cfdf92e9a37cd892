# Summaries that are damaged, and a store that cannot be written: a warning,
# and a gap that queries report; never a shorter answer.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use File::Copy qw(copy move);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

need_hooks('checkpoints do not write summaries');

# Without workers, summaries stay as they are written.
my $node = new_node('primary', conf => 'max_worker_processes = 0');
$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i');
my @redo = map { $node->safe_psql('postgres', 'UPDATE t SET i = i + 1'); checkpoint($node) } 1 .. 5;
my $init = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
my @files = summary_files($node);
is(scalar(@files), 5, 'a summary for each checkpoint');
my $answer = changed_blocks($node, $redo[0], $redo[-1]);

# The third covers [redo 1, redo 2): without it, answers begin at redo 2.
my $victim = $files[2];
my $good = slurp_file($victim);

sub write_file
{
	my ($path, $bytes) = @_;

	open my $fh, '>:raw', $path or die "could not open $path: $!";
	print $fh $bytes;
	close $fh;
	return;
}

is(summary_crc($good), $good, 'the test computes the CRC as the server does');

sub changed
{
	my ($offset, $bytes) = @_;
	my $copy = $good;

	substr($copy, $offset, length $bytes) = $bytes;
	return $copy;
}

sub check_gap
{
	my ($name, $pattern) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', 'SELECT ptrack_init_lsn()');

	is($out, $redo[2], "$name: answers begin after it");
	like($err, qr/WARNING:  ignoring (?:change summary|file) "ptrack\/[^"]+".*$pattern/, "$name: a warning says why")
	  if defined $pattern;
	fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$redo[1]')", '55000',
		"before the changes that are known.*DETAIL:  Changes are known from $redo[2] to .*HINT:", $name);
	is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM ptrack_changed_blocks('$redo[2]')"), 't',
		"$name: newer changes are known");
	is($node->safe_psql('postgres', 'SELECT gaps FROM pg_stat_ptrack'), 1, "$name: the gap is counted");
	return;
}

my $middle = int(length($good) / 2);
my %damage = (
	'one bit' => [ changed($middle, chr(ord(substr($good, $middle, 1)) ^ 4)), '' ],
	'crc' => [ changed(length($good) - 1, chr(ord(substr($good, -1)) ^ 1)), 'checksum that does not match' ],
	'truncated' => [ substr($good, 0, $middle), 'ends too early' ],
	'header only' => [ substr($good, 0, 112), 'ends too early' ],
	'empty' => [ '', 'ends too early' ],
	'longer' => [ $good . 'x', 'goes on after its end' ],
	'other file' => [ 'x' x 1000, 'is not a change summary' ],
	'later version' => [ summary_crc(changed(4, pack('v', 2))), 'format version that is not known' ],
	'other server' => [ summary_crc(changed(8, pack('Q<', 1))), 'belongs to another server' ],
	'other range' => [ summary_crc(changed(16, pack('Q<', 1))), 'another range than its name' ],
	'other block size' => [ summary_crc(changed(36, pack('V', 4096))), 'another block or segment size' ],
	'unknown flag' => [ summary_crc(changed(44, pack('V', 128))), 'damaged header' ],
	'other lineage' => [ summary_crc(changed(64, 'x' x 16)), undef ],
	'next summary' => [ slurp_file($files[3]), 'another range than its name' ],
);
for my $name (sort keys %damage)
{
	write_file($victim, $damage{$name}[0]);
	check_gap($name, $damage{$name}[1]);
}

# Every single byte of it matters: there is no damage that goes unnoticed.
my $unnoticed = 0;
for my $offset (0 .. length($good) - 1)
{
	last if $offset > 250;
	write_file($victim, changed($offset, chr(ord(substr($good, $offset, 1)) ^ 0x10)));
	$unnoticed++ if $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()') ne $redo[2];
}
is($unnoticed, 0, 'damage to any byte is noticed');

unlink $victim;
check_gap('deleted');
(my $renamed = $victim) =~ s/\.summary$/.old/;
write_file($renamed, $good);
check_gap('renamed', 'its name is not that of a change summary');
unlink $renamed;
(my $other_tli = $victim) =~ s/ptrack\/00000001/ptrack\/00000002/;
write_file($other_tli, $good);
check_gap('of another timeline');
unlink $other_tli;
mkdir $victim;
check_gap('a directory', 'cannot be read');
rmdir $victim;

write_file($victim, $good);
is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, 'put back, it counts again');
is(changed_blocks($node, $redo[0], $redo[-1]), $answer, 'and answers are what they were');

# One that would lead back to no LSN at all is refused, and the search ends.
my $endless = $files[0];
substr($endless, -40, 16) = '0' x 16;
write_summary($endless, substr(slurp_file($files[0]), 0, 16) . pack('Q<', 0) . substr(slurp_file($files[0]), 24));
my ($ret, $out, $err) =
  $node->psql('postgres', 'SELECT ptrack_init_lsn()', timeout => $PostgreSQL::Test::Utils::timeout_default, timed_out => \my $timed_out);
ok(!$timed_out, 'there is an answer with a summary that begins at 0/0');
is($out, $init, 'which does not count');
like($err, qr/WARNING:  ignoring change summary .*: it begins at LSN 0\/0/, 'and is warned of');
unlink $endless;

# A store that cannot be written.  The checkpoint succeeds, the map keeps what
# it holds; so nothing is lost as long as the server runs.
my $store = $node->data_dir . '/ptrack';
my $offset = -s $node->logfile;
chmod 0500, $store;
$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
my $unwritable = checkpoint($node);
isnt($unwritable, $redo[-1], 'the checkpoint succeeds');
like(log_since($node, $offset), qr/WARNING:  could not write change summary "ptrack\/.*Permission denied.*WARNING:  changed blocks up to $unwritable are not durable/s,
	'there is a warning that names the file');
is($node->safe_psql('postgres', 'SELECT flush_failures FROM pg_stat_ptrack'), 1, 'it is counted');
is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, 'nothing is lost yet');
$node->safe_psql('postgres', 'CREATE TABLE later AS SELECT i FROM generate_series(1, 1000) i');
checkpoint($node);
chmod 0700, $store;
my $before = changed_blocks($node, $redo[-1]);
my $written = checkpoint($node);
is($node->safe_psql('postgres', 'SELECT flush_failures FROM pg_stat_ptrack'), 2, 'the next checkpoint succeeds');
my %after = map { $_ => 1 } split /\n/, changed_blocks($node, $redo[-1], $written);
is(join(' ', grep { !$after{$_} } split /\n/, $before), '', 'what could not be written then is in the store now');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, 'there is no gap after that');

# A full disk: the file that the next checkpoint is going to write is a link to
# a device that has no space left.  Its name has the redo points in it, of which
# the next one is where WAL ends, as long as nothing else is going on.
my $checkpointer = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
my $full;
for my $try (1 .. 10)
{
	my $now = checkpoint($node);

	$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
	$full = sprintf '%s/00000001%016X%016X.summary.%d.tmp', $store,
	  (map { my ($high, $low) = split m{/}; hex($high) << 32 | hex $low }
	  $now, $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()')), $checkpointer;
	symlink '/dev/full', $full or die "could not create $full: $!";
	$offset = -s $node->logfile;
	checkpoint($node);
	last if log_since($node, $offset) =~ /not durable/;
	unlink $full;
}
like(log_since($node, $offset), qr/WARNING:  could not write change summary.*No space left on device/,
	'a full disk is a warning');
ok(!-e $full && !-l $full, 'the unfinished file is removed');
is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, 'nothing is lost');
checkpoint($node);
is($node->safe_psql('postgres', 'SELECT gaps FROM pg_stat_ptrack'), 0, 'the next checkpoint writes it');

# If the server goes down before it can be written, that is a gap.
checkpoint($node);
chmod 0500, $store;
$node->safe_psql('postgres', 'UPDATE t SET i = i + 1');
my $lost = checkpoint($node);
$node->stop('immediate');
chmod 0700, $store;
$node->start;
my $reached = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
is($reached, $lost, 'coverage begins at the redo point that recovery began from');
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$written')", '55000',
	"DETAIL:  Changes are known from $lost", 'after a cycle was lost');
is($node->safe_psql('postgres', 'SELECT gaps FROM pg_stat_ptrack'), 1, 'the gap is counted');

ok(!glob("$store/*.tmp"), 'no temporary file is left');
write_file("$store/0000.tmp", 'left by a crash');
$node->restart;
ok(!glob("$store/*.tmp"), 'what a crash leaves is removed');

# What a file-level backup took along continues in the restored server.
$reached = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
$node->backup('copy');
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'copy');
$restored->start;
is($restored->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $reached,
	'a restored server goes on where the backup was taken');
$restored->safe_psql('postgres', 'UPDATE t SET i = i + 1');
checkpoint($restored);
is($restored->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $reached, 'and has no gap');
$restored->stop;
$node->stop;

done_testing();
