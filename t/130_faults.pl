# Every system call on the store fails once, with every error that fits it: in
# checkpoints, in queries, when the server starts.  Checkpoints succeed all the
# same; an answer is complete, or an error; and when the cause is gone, nothing
# is left of it.  How calls are made to fail: c/io_faults.c.

use strict;
use warnings FATAL => 'all';

use Errno qw(EACCES EIO EMFILE ENOENT ENOSPC EROFS);
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use PtrackTest;
use Test::More;

need_hooks('checkpoints do not write summaries');

# Kinds of calls in the order of the shim's, and the errors that they get; 0: a
# read or write that stops half-way.
my @kinds = qw(none open read write fsync close rename mkdir rmdir unlink opendir readdir stat);
my %kind = map { $kinds[$_] => $_ } 0 .. $#kinds;
my %errors = (
	open => [ EACCES, EIO, EMFILE, ENOSPC, EROFS ],
	read => [ 0, EIO ],
	write => [ 0, EIO, ENOSPC ],
	fsync => [ EIO, ENOSPC ],
	close => [EIO],
	rename => [ EACCES, EIO, ENOSPC, EROFS ],
	mkdir => [ EACCES, EIO, ENOSPC, EROFS ],
	unlink => [ EACCES, EIO, EROFS ],
	opendir => [ EACCES, EIO, EMFILE ],
	readdir => [EIO],
	stat => [ EACCES, EIO ],
);
# What is there and cannot be seen is worst where it is looked for.
my %query_errors = map { $_ => [ @{ $errors{$_} // [] }, ENOENT ] } qw(open read opendir readdir stat);

my $shim = PostgreSQL::Test::Utils::tempdir() . '/io_faults.so';
my $source = "$FindBin::RealBin/c/io_faults.c";
run_log([ $ENV{CC} // 'cc', '-g', '-O1', '-shared', '-fPIC', $source, '-o', $shim, '-ldl' ])
  or BAIL_OUT('could not compile the shim');

my $control = PostgreSQL::Test::Utils::tempdir() . '/control';
my $control_len = 4 * 4 + 32 + 4 + 4 * @kinds;

sub write_control
{
	my ($bytes) = @_;

	open my $fh, '+<:raw', $control or die "could not open $control: $!";
	syswrite($fh, $bytes) == $control_len or die "could not write $control: $!";
	close $fh;
	return;
}

# From now on that call of that kind fails in processes of that title.
sub arm
{
	my ($process, $kind, $first, $error, $times) = @_;

	write_control(pack 'L4 a32 x' . (4 + 4 * @kinds), $kind{$kind}, $first, $times // 1, $error, $process);
	return;
}

# Ends that; returns how many calls failed, and how many there were by kind.
sub disarm
{
	my ($hits, @counts) = unpack 'x48 L*', slurp_file($control);

	write_control("\0" x $control_len);
	return ($hits, map { $kinds[$_] => $counts[$_] } 0 .. $#kinds);
}

append_to_file($control, "\0" x $control_len);
# Without its worker, which would try again at once; for that, see the end.
# Nobody writes pages but checkpoints, so that contents stay the same.
my $node = new_node('faults', conf => <<'EOS');
fsync = on
max_worker_processes = 0
shared_buffers = 64MB
bgwriter_lru_maxpages = 0
EOS
$node->safe_psql('postgres', <<'EOF');
CREATE TABLE t (id int PRIMARY KEY, v int) WITH (fillfactor = 50);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 10000) i;
EOF
$node->stop;

sub start
{
	local $ENV{LD_PRELOAD} = $shim;
	local $ENV{IO_FAULTS} = $control;

	$node->start;
	return;
}
start();

my $path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('t')");
my $store = $node->data_dir . '/ptrack';
my $round = 0;

# Changes rows in some pages, others each time; returns the blocks that the old
# and the new versions are in.
sub change
{
	my $ids = join ',', map { ($round * 137 + $_ * 2500) % 10000 + 1 } 0 .. 3;

	$round++;
	return split /\n/, $node->safe_psql('postgres', <<"EOF");
SELECT (ctid::text::point)[0]::int FROM t WHERE id IN ($ids);
UPDATE t SET v = v + 1 WHERE id IN ($ids) RETURNING (ctid::text::point)[0]::int;
EOF
}

# Those of the blocks that the answer lacks.
sub missing
{
	my ($since, @blocks) = @_;
	my %map = pagemap($node, $since);
	my %seen = map { $_ => 1 } @{ $map{$path} // [] };

	return grep { !$seen{$_} } @blocks;
}

sub state
{
	my ($redo, $init, $failures, $gaps, $pid) = split /\|/, $node->safe_psql('postgres', <<'EOF');
SELECT redo_lsn, ptrack_init_lsn(), flush_failures, gaps,
	(SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer')
FROM pg_control_checkpoint(), pg_stat_ptrack
EOF
	return { redo => $redo, init => $init, failures => $failures, gaps => $gaps, checkpointer => $pid };
}

# Files of the store that a process has open.
sub open_files
{
	my ($pid) = @_;

	return grep { m{^\Q$store\E(/|$)} } map { readlink($_) // () } glob "/proc/$pid/fd/*";
}

# How many files there are that were not finished.
sub temporary_files
{
	my @files = glob "$store/*.tmp";

	return scalar @files;
}

# The name of a summary of that range.
sub summary_name
{
	my ($start, $end) = @_;

	return sprintf '%s/00000001%016X%016X.summary', $store, $start, $end;
}

# Something for each checkpoint to remove: a file that the next summary covers.
sub leave_covered
{
	my ($redo) = @_;
	my $name = summary_name(lsn_number($redo), lsn_number($redo) + 1);

	append_to_file($name, 'left over');
	return $name;
}

sub error_name
{
	my ($error) = @_;
	local $! = $error;

	return $error == 0 ? 'half-way' : "$!";
}

# A checkpoint with one fault, and then one without; returns what is wrong.
sub checkpoint_round
{
	my ($kind, $n, $error) = @_;
	my $before = state();
	my @blocks = change();
	my $covered = leave_covered($before->{redo});
	my $open_before = open_files($before->{checkpointer});
	my $offset = -s $node->logfile;
	my @wrong;

	arm('checkpointer', $kind, $n, $error);
	my ($ret) = $node->psql('postgres', 'CHECKPOINT');
	my ($hits) = disarm();
	my $log = log_since($node, $offset);

	push @wrong, 'the call was not made' if $hits != 1;
	push @wrong, 'the checkpoint failed' if $ret != 0;
	push @wrong, "logged: $1" if $log =~ /((?:ERROR|FATAL|PANIC): .*)/;
	my $after = state();
	push @wrong, 'there was no checkpoint' if $after->{redo} eq $before->{redo};
	my ($published) = glob sprintf '%s/*%016X.summary', $store, lsn_number($after->{redo});
	push @wrong, 'not published, and no warning' if !$published && $log !~ /WARNING: .*not durable/;
	push @wrong, 'published, and said not to be' if $published && $log =~ /WARNING: .*not durable/;
	push @wrong, 'not published, and not counted'
	  if !$published && $after->{failures} != $before->{failures} + 1;
	push @wrong, 'changes are not known' if missing($before->{redo}, @blocks);

	push @blocks, change();
	$node->safe_psql('postgres', 'CHECKPOINT');
	my $end = state();
	push @wrong, 'the next one failed, too' if $end->{failures} != $after->{failures};
	push @wrong, 'changes are not known after the next one' if missing($before->{redo}, @blocks);
	push @wrong, "answers begin at $end->{init}, $before->{init} before" if $end->{init} ne $before->{init};
	push @wrong, 'there is a gap' if $end->{gaps} != $before->{gaps};
	push @wrong, 'temporary files are left' if temporary_files();
	push @wrong, 'what was covered is left, and no warning'
	  if -e $covered && $log !~ /WARNING: .*could not (?:remove file|read directory) "ptrack/;
	push @wrong, 'files are left open' if open_files($end->{checkpointer}) > $open_before;
	push @wrong, 'another checkpointer' if $end->{checkpointer} != $before->{checkpointer};
	unlink $covered;
	return join '; ', @wrong;
}

# Which of so many calls of a kind fail in turn: the first ones and the last.
sub chosen_calls
{
	my ($count, $at_most) = @_;

	return 1 .. $count if $count <= $at_most;
	return (1 .. $at_most - 1, $count);
}

# Queries.  A few summaries to read; nothing else is going on.
my $since = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
my @changed;
for (1 .. 3)
{
	push @changed, change();
	checkpoint($node);
}
push @changed, change();

sub query
{
	my ($sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', $sql);

	return ($ret, $out, $err);
}

my %queries = (
	'page map' => "SELECT path, encode(pagemap, 'hex') FROM ptrack_get_pagemapset('$since')",
	'changed blocks' => "SELECT * FROM ptrack_changed_blocks('$since')",
	'init_lsn' => 'SELECT ptrack_init_lsn() <= ' . "'$since'",
	'statistics' => "SELECT coverage_start <= '$since' FROM pg_stat_ptrack",
	'contents' => "SELECT path, blkno, md5(page) FROM ptrack_get_blocks('$since')",
);
is(join(' ', missing($since, @changed)), '', 'without faults, the answer is complete');
for my $name (sort keys %queries)
{
	my ($ret, $answer) = query($queries{$name});
	my @wrong;
	my $faults = 0;

	is($ret, 0, "$name: without faults, there is an answer");
	arm('[local]', 'none', 0, 0);
	query($queries{$name});
	my (undef, %counts) = disarm();
	for my $kind (grep { $counts{$_} } sort keys %query_errors)
	{
		for my $n (chosen_calls($counts{$kind}, 12))
		{
			for my $error (@{ $query_errors{$kind} })
			{
				my $what = "$kind $n, " . error_name($error);

				arm('[local]', $kind, $n, $error);
				my ($fault_ret, $out, $err) = query($queries{$name});
				my ($hits) = disarm();
				push @wrong, "$what: the call was not made" if $hits != 1;
				next if $fault_ret == 3 && $err =~ /ERROR: /;
				# That less is known is an answer to these, and then they say so.
				next if $fault_ret == 0 && $out eq 'f' && $name =~ /init_lsn|statistics/;
				push @wrong, "$what: another answer" if $fault_ret != 0 || $out ne $answer;
			}
			continue { $faults++ }
		}
	}
	cmp_ok($faults, '>=', 10, "$name: $faults faults");
	is(join("\n", @wrong), '', "$name: with each fault, an error or the whole answer");
}

# Checkpoints.
my $begin = state();
leave_covered($begin->{redo});
push @changed, change();
arm('checkpointer', 'none', 0, 0);
$node->safe_psql('postgres', 'CHECKPOINT');
my (undef, %counts) = disarm();
note('calls of a checkpoint: ' . join ', ', map { "$_ $counts{$_}" } grep { $counts{$_} } sort keys %counts);
for my $kind (qw(open write fsync close rename mkdir unlink opendir readdir))
{
	cmp_ok($counts{$kind}, '>', 0, "a checkpoint makes calls of the kind $kind");
	for my $n (chosen_calls($counts{$kind}, $kind eq 'readdir' ? 3 : 20))
	{
		is(checkpoint_round($kind, $n, $_), '', "checkpoint: $kind $n, " . error_name($_)) for @{ $errors{$kind} };
	}
}
is(join(' ', missing($since, @changed)), '', 'the answer over all of that is complete');
is(state()->{init}, $begin->{init}, 'and reaches back as far as before');

# A fault that lasts: all that is in the map is kept over many checkpoints.
my $kept_from = state();
my @kept;
arm('checkpointer', 'write', 1, ENOSPC, 1000);
for (1 .. 5)
{
	push @kept, change();
	$node->safe_psql('postgres', 'CHECKPOINT');
}
is(join(' ', missing($kept_from->{redo}, @kept)), '', 'disk full for five checkpoints: everything is known');
disarm();
$node->safe_psql('postgres', 'CHECKPOINT');
my $kept_to = state();
is($kept_to->{failures}, $kept_from->{failures} + 5, 'each was counted');
is($kept_to->{init}, $kept_from->{init}, 'there is no gap after that');
is(join(' ', missing($kept_from->{redo}, @kept)), '', 'and nothing is missing');

# What is asked first after a start looks for the summary before it.  As long as
# that cannot be read, nothing is said, and nothing is published; then it goes on
# as if nothing had been.  A query waits for that, unless the whole store cannot be
# read.
for my $fault ([ 'opendir', 1, EIO ], [ 'opendir', 1, EMFILE ], [ 'readdir', 1, EIO ],
	[ 'open', 1, EIO ], [ 'open', 1, EMFILE ], [ 'read', 1, EIO ], [ 'read', 2, EIO ], [ 'read', 1, 0 ])
{
	my ($kind, $n, $error) = @$fault;
	my $name = "first after a start: $kind $n, " . error_name($error);
	my $before = state();

	for my $process ('[local]', 'checkpointer')
	{
		$node->stop;
		start();
		arm($process, $kind, $n, $error);
		my ($ret, $out, $err) = query($process eq '[local]' ? 'SELECT ptrack_init_lsn()' : 'CHECKPOINT');
		my ($hits) = disarm();
		is($hits, 1, "$name, $process: the call was made");
		# With too many open files, the server closes some and tries again.
		my $succeeds = $process eq 'checkpointer' || $error == 0 || $error == EMFILE || $kind !~ /dir/;
		is($ret, $succeeds ? 0 : 3, "$name, $process: " . ($succeeds ? 'succeeds' : 'an error'));
		is(state()->{init}, $before->{init}, "$name, $process: then all is known");
		$node->safe_psql('postgres', 'CHECKPOINT');
		is(state()->{gaps}, $before->{gaps}, "$name, $process: and is published");
	}
}

# A failure, and then a crash: that is a gap, unless the summary was written.
for my $fault ([ 'mkdir', 1, EROFS ], [ 'open', 1, ENOSPC ], [ 'write', 1, ENOSPC ], [ 'fsync', 1, EIO ],
	[ 'close', 1, EIO ], [ 'rename', 1, EROFS ], [ 'fsync', 2, EIO ])
{
	my ($kind, $n, $error) = @$fault;
	my $name = "crash after $kind $n, " . error_name($error);
	my $from = checkpoint($node);
	my @lost = change();

	arm('checkpointer', $kind, $n, $error);
	$node->safe_psql('postgres', 'CHECKPOINT');
	my ($hits) = disarm();
	my $to = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
	$node->stop('immediate');
	start();
	is($hits, 1, "$name: the call was made");
	is(state()->{init}, $to, "$name: changes are known from the last redo point on");
	fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$from')", '55000',
		'before the changes that are known', $name);
	is(temporary_files(), 0, "$name: no temporary file is left");
}

# The start of the server.
for my $fault ([ 'opendir', EACCES ], [ 'readdir', EIO ], [ 'unlink', EROFS ])
{
	my ($kind, $error) = @$fault;
	my $name = "start: $kind, " . error_name($error);
	my $from = checkpoint($node);
	my @blocks = change();
	my $offset = -s $node->logfile;

	$node->stop;
	append_to_file("$store/0000.tmp", 'left by a crash');
	arm('', $kind, 1, $error);
	start();
	my ($hits) = disarm();
	is($hits, 1, "$name: the call was made");
	like(log_since($node, $offset),
		qr/WARNING: .*could not (?:open directory|read directory|remove file)/, "$name: a warning");
	is(join(' ', missing($from, @blocks)), '', "$name: nothing is lost");
	$node->stop;
	start();
	ok(!-e "$store/0000.tmp", "$name: the next start removes it");
}

# Tracking is disabled, and the summaries cannot be removed.
my $disabled = checkpoint($node);
$node->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$node->stop;
arm('', 'unlink', 1, EROFS, 1000);
start();
disarm();
cmp_ok(scalar(summary_files($node)), '>', 0, 'summaries that cannot be removed are left');
change();
$node->append_conf('postgresql.conf', 'ptrack.map_size = 8MB');
$node->stop;
start();
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$disabled')", '55000',
	'before the changes that are known', 'they do not count later');
$node->stop;

# The worker: merging.  Each time from the same data directory, whose summaries get
# times at which some are due to be merged.
$node = new_node('merging', conf => "fsync = on\nlog_min_messages = debug1");
$store = $node->data_dir . '/ptrack';
$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i');
my $first = checkpoint($node);
for my $i (1 .. 12)
{
	$node->safe_psql('postgres', "UPDATE t SET i = -i WHERE abs(i) = $i * 700");
	checkpoint($node);
}
my $all = changed_blocks($node, $first);
my $init = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
$node->stop;
my $due = PostgreSQL::Test::Utils::tempdir() . '/due';
system_or_bail('cp', '-a', $node->data_dir, $due);

# One look of the worker at its store, with a fault; returns the calls by kind.
sub merge_with
{
	my ($kind, $n, $error) = @_;

	system_or_bail('rm', '-rf', $node->data_dir);
	system_or_bail('cp', '-a', $due, $node->data_dir);
	stretch_summaries(600, summary_files($node));
	my $offset = -s $node->logfile;
	arm('ptrack worker', $kind, $n, $error);
	start();
	$node->wait_for_log(qr/merged \d+ change|WARNING: .*ptrack|ERROR: /, $offset);

	# It goes on, and other calls are made after that: until the one that is to fail, or
	# until it waits.  Before 17 it does not say for what, so it must be quiet as well.
	my $before = '';
	poll_until(sub {
		my $now = slurp_file($control);
		my $quiet = $now eq $before;

		return unpack('x48 L', $now) > 0 if $kind ne 'none';
		$before = $now;
		return $quiet
		  && $node->safe_psql('postgres', 'SELECT worker_wait FROM pg_stat_ptrack') =~ /^(?:PtrackWorkerMain|Extension)$/;
	});
	return disarm();
}

(undef, %counts) = merge_with('none', 0, 0);
$node->stop;
note('calls of the worker: ' . join ', ', map { "$_ $counts{$_}" } grep { $counts{$_} } sort keys %counts);
# Not close: PostgreSQL itself takes a failed close of a file that it manages for
# the reader, which the kernel has no reason for, for the end of the world.
for my $kind (qw(open read write fsync rename mkdir opendir readdir))
{
	cmp_ok($counts{$kind}, '>', 0, "merging makes calls of the kind $kind");
	for my $n (chosen_calls($counts{$kind}, 3))
	{
		my $name = "merging: $kind $n fails";
		my ($hits) = merge_with($kind, $n, $kind eq 'write' ? ENOSPC : EIO);
		my %known = map { $_ => 1 } split /\n/, changed_blocks($node, $first);

		is($hits, 1, "$name: the call was made");
		is(join(' ', grep { !$known{$_} } split /\n/, $all), '', "$name: nothing is lost");
		is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, "$name: nor coverage");
		ok(poll_until(sub { checkpoint($node); temporary_files() == 0 && grep { summary_points($_) } summary_files($node) }),
			"$name: later it succeeds");
		$node->stop;
	}
}

done_testing();
