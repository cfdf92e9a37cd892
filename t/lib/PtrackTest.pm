# What the tests share: servers with ptrack, redo points, sets of changes.
package PtrackTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use PtrackWaldump;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(replays_redo_points need_replayed_redo_points need_hooks new_node new_standby checkpoint
  follows_wal wal_from await_answers await_file await_summary restartpoint flush_wal catch_up crash
  changed_blocks core_blocks lines_missing differences_from_core pagemap
  base_copy refresh_node compare_copy compare_recovered fails_like summary_files summary_crc
  write_summary summary_points change_summary_times
  stretch_summaries make_huge_table log_since poll_until worker_pid stand_still run_regress
  run_c_test call_breaker);

# Servers may take as long to start and to stop as anything else that is waited for.
$ENV{PGCTLTIMEOUT} //= $PostgreSQL::Test::Utils::timeout_default;

# The major version that is tested.
my ($major) = `pg_config --version` =~ /(\d+)/;

# Before 17, replay does not come by the redo points of online checkpoints.  So a
# standby follows WAL, as a server without hooks does; and crash recovery does not
# know a checkpoint that did not complete.
sub replays_redo_points { return $major >= 17; }

# Skips the rest of the test where that is so.
sub need_replayed_redo_points
{
	my $why = "replay of PostgreSQL $major does not come by redo points";

	return if replays_redo_points();
	plan skip_all => $why if Test::More->builder->current_test == 0;
	SKIP: { skip $why, 1; }
	done_testing();
	exit 0;
}

# Skips the test where changes are not made durable by checkpoints themselves.
sub need_hooks
{
	plan skip_all => $_[0] if follows_wal();
	return;
}

# What makes a server remember its changes in a way of its own, to compare with.
# From 17 on it has summaries; before, its WAL must do.
sub core_settings
{
	return $major >= 17 ? "summarize_wal = on\nwal_summary_keep_time = 0\n" : "wal_keep_size = 100GB\n";
}

# A running server with the extension in database postgres.  Without checksums,
# whatever the default is, unless initdb is told otherwise.
#
# conf: lines for postgresql.conf; initdb: more arguments for it; for_core:
# core_blocks is going to be called.
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my @initdb = @{ $options{initdb} // [] };
	my $core = $options{for_core} ? core_settings() : '';

	push @initdb, '--no-data-checksums'
	  if $major >= 18 && !grep { $_ eq '--data-checksums' } @initdb;
	$node->init(allows_streaming => 1, extra => \@initdb);
	$node->append_conf('postgresql.conf', <<"EOF");
shared_preload_libraries = 'ptrack'
autovacuum = off
max_wal_size = 10GB
checkpoint_timeout = 1h
wal_log_hints = off
log_statement = none
$core$options{conf}
EOF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION ptrack');
	return $node;
}

# A running standby made of a new base backup, that follows the node which the
# backup is of, by streaming.
#
# conf: lines for its postgresql.conf.
sub new_standby
{
	my ($name, $of, %options) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	# What that one still has to read from another server's WAL would be out of reach.
	await_file($of, $of->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()')) if follows_wal();
	$of->backup($name);
	$standby->init_from_backup($of, $name, has_streaming => 1);
	$standby->append_conf('postgresql.conf', ($options{conf} // '') . "\n" . wal_from($of));
	$standby->start;
	return $standby;
}

# Settings for a server that is made of a base backup of that node.  Where WAL is
# followed, the summary that ends where the backup begins may come too late to be
# in it; then it is made anew from WAL.
sub wal_from
{
	my ($of) = @_;

	return follows_wal() ? "ptrack.restore_command = 'cp " . $of->data_dir . "/pg_wal/%f %p'\n" : '';
}

# Makes WAL durable of all that a primary knows to have changed.  What a query
# changes, by pruning, is not written until something is committed after it.
sub flush_wal
{
	my ($primary) = @_;

	$primary->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'ptrack', '')");
	return;
}

# Crashes a primary, of which all that it knew before is to be known after that.
sub crash
{
	my ($primary) = @_;

	flush_wal($primary);
	$primary->stop('immediate');
	return;
}

# Waits until a standby has replayed what was done on the primary so far.  Returns
# the LSN that was waited for.
sub catch_up
{
	my ($standby, $primary) = @_;

	flush_wal($primary);
	my $lsn = $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
	$standby->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$lsn'")
	  or die $standby->name . " does not get to $lsn";
	return $lsn;
}

# Makes a restartpoint at a new redo point of the primary, which is returned.
sub restartpoint
{
	my ($standby, $primary) = @_;
	my $redo = checkpoint($primary);

	catch_up($standby, $primary);
	is(checkpoint($standby), $redo, $standby->name . " makes a restartpoint at $redo");
	return $redo;
}

# Makes a checkpoint and returns its redo point.  Where WAL is followed, that
# takes a moment to be done.
sub checkpoint
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'CHECKPOINT');
	my $redo = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
	await_summary($node, $redo) if follows_wal();
	return $redo;
}

# Is this a server whose changes are known by following WAL?
sub follows_wal
{
	return ($ENV{PTRACK_ENGINE} // '') eq 'wal';
}

# Waits until the server is up, and has read WAL from before its start, if it has to.
sub await_answers
{
	my ($node) = @_;

	poll_until(sub { return ($node->psql('postgres', 'SELECT ptrack_init_lsn()'))[0] == 0 });
	return;
}

# Waits until there is a summary that ends at that redo point.
sub await_file
{
	my ($node, $redo) = @_;
	my $name = sprintf '%08X%08X.summary', map { hex } split m{/}, $redo;

	poll_until(sub {
		# A question about coverage wakes the worker.
		$node->psql('postgres', 'SELECT ptrack_init_lsn()');
		# If it is not a list, the next call gets what is left of this one's.
		my @found = glob $node->data_dir . "/ptrack/*$name";
		return @found > 0;
	}) or die $node->name . " has no summary that ends at $redo";
	return;
}

# The same, on a primary whose worker is there.
sub await_summary
{
	my ($node, $redo) = @_;
	my $works = q{current_setting('ptrack.map_size', true) <> '0' AND current_setting('max_worker_processes') <> '0'};

	await_file($node, $redo)
	  if $node->safe_psql('postgres', "SELECT $works AND NOT pg_is_in_recovery()") eq 't';
	return;
}

# The changes in a range, as lines "space/database/relation/fork:block", with
# an "L" before a limit block.
sub changed_blocks
{
	my ($node, $start, $end) = @_;
	$end = defined $end ? "'$end'" : 'NULL';

	return $node->safe_psql('postgres', <<"EOF");
SELECT format('%s/%s/%s/%s:%s%s', reltablespace, reldatabase, relfilenode,
	relforknumber, CASE WHEN is_limit_block THEN 'L' ELSE '' END, relblocknumber)
FROM ptrack_changed_blocks('$start', $end)
EOF
}

# The lines of one text that another one lacks, in one line.
sub lines_missing
{
	my ($from, $in) = @_;
	my %in = map { $_ => 1 } split /\n/, $in;

	return join ' ', grep { !$in{$_} } split /\n/, $from;
}

# The same from core's own summaries of the range, or from its WAL, without the
# free space map.  In a union of ranges, the least limit is the one that counts.
# The range ends at a redo point that the server has come to.
sub core_blocks
{
	my ($node, $start, $end) = @_;

	return waldump_blocks($node->data_dir . '/pg_wal', $start, $end) if $major < 17;
	$node->poll_query_until('postgres',
		"SELECT max(end_lsn) >= '$end' FROM pg_available_wal_summaries()")
	  or die 'the WAL summarizer lags';
	return $node->safe_psql('postgres', <<"EOF");
SELECT format('%s/%s/%s/%s:%s%s', reltablespace, reldatabase, relfilenode,
	relforknumber, CASE WHEN is_limit_block THEN 'L' ELSE '' END, block)
FROM (SELECT reltablespace, reldatabase, relfilenode, relforknumber, is_limit_block,
		min(relblocknumber) AS block
	FROM pg_available_wal_summaries() s,
		LATERAL pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn)
	WHERE s.start_lsn >= '$start' AND s.end_lsn <= '$end' AND relforknumber <> 1
	GROUP BY 1, 2, 3, 4, 5, CASE WHEN NOT is_limit_block THEN relblocknumber END) c
EOF
}

# How changed_blocks and core_blocks of the same range differ.  Returns the lines
# that are not accounted for.  Core forgets blocks at or past a limit block,
# ptrack keeps them: the limit block says all there is to say.  And core does
# not know the page of the visibility map that a truncation changes in place.
#
# total: to which the numbers of blocks and limit blocks compared, and of either
# kind of difference (truncated, vm_tail) are added.
sub differences_from_core
{
	my ($ours, $core, $total) = @_;
	my @ours = split /\n/, $ours;
	my %limit = map { /^(.*):L(\d+)$/ ? ($1 => $2) : () } @ours;
	my @unexplained = map { "core: $_" } split / /, lines_missing($core, $ours);

	$total->{$_} //= 0 for qw(blocks limits truncated vm_tail);
	$total->{ /:L/ ? 'limits' : 'blocks' }++ for @ours;
	for my $line (split / /, lines_missing($ours, $core))
	{
		my ($fork, $block) = $line =~ /^(.*):(\d+)$/;
		my $limit = defined $fork ? $limit{$fork} : undef;

		if (defined $limit && $block >= $limit) { $total->{truncated}++; }
		elsif (defined $limit && $block == $limit - 1 && $fork =~ m{/2$}) { $total->{vm_tail}++; }
		else { push @unexplained, "ours: $line"; }
	}
	return @unexplained;
}

# The page map since an LSN: path => [block, ...].
sub pagemap
{
	my ($node, $start) = @_;
	my %map;

	for my $row (split /\n/, $node->safe_psql('postgres',
			"SELECT path, encode(pagemap, 'hex') FROM ptrack_get_pagemapset('$start')"))
	{
		my ($path, $hex) = split /\|/, $row;
		my $bits = unpack 'b*', pack('H*', $hex);

		$map{$path} = [ grep { substr($bits, $_, 1) } 0 .. length($bits) - 1 ];
	}
	return %map;
}

# A base backup of a node that is never started, only refreshed.  Returns it and
# the LSN that it started at.
sub base_copy
{
	my ($name, $node) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	$node->backup($name);
	$copy->init_from_backup($node, $name);
	my ($start) = slurp_file($copy->data_dir . '/backup_label') =~ /^START WAL LOCATION: (\S+)/;
	return ($copy, $start);
}

# Makes a copy of a node, which is not running, what a new backup would be.
sub refresh_node
{
	my ($node, $copy, $since) = @_;

	return refresh_copy(
		psql => [ 'psql', '-d', $node->connstr('postgres') ],
		source => $node->data_dir,
		target => $copy->data_dir,
		scratch => PostgreSQL::Test::Utils::tempdir,
		since => $since);
}

# Recovers a copy with a node's WAL, and compares all pages with those of the node,
# which is stopped for that.  Returns the number of pages.
sub compare_recovered
{
	my ($node, $running, $name) = @_;

	$node->stop;
	chmod 0700, $running->data_dir;
	$running->append_conf('postgresql.conf', "archive_mode = off\nport = " . $running->port);
	copy_wal($node->data_dir, $running->data_dir);
	# Copied from a standby, but to be recovered to the end, and no further.
	unlink $running->data_dir . '/standby.signal';
	$running->start;
	$running->stop;
	my ($compared, $hints, @different) = compare_clusters($node->data_dir, $running->data_dir);
	my $some = @different > 20 ? '...' : '';
	is("@different[0 .. ($some ? 19 : $#different)]$some", '', "$name: $compared pages agree, $hints but for hint bits");
	$running->clean_node;
	$node->start;
	return $compared;
}

# The same with a refreshed copy.  What recovers is a copy of the copy, which can
# thus be refreshed again.
sub compare_copy
{
	my ($node, $copy, $name) = @_;
	my $running = PostgreSQL::Test::Cluster->new($copy->name . '_running');

	PostgreSQL::Test::RecursiveCopy::copypath($copy->data_dir, $running->data_dir);
	return compare_recovered($node, $running, $name);
}

# A statement must fail with that SQLSTATE and a message that matches.
sub fails_like
{
	my ($node, $sql, $sqlstate, $pattern, $name) = @_;
	my ($ret, $stdout, $stderr) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	isnt($ret, 0, "$name: fails");
	like($stderr, qr/ERROR:\s+$sqlstate:.*$pattern/s, "$name: says why");
	return;
}

# The summaries in the store, oldest first, as paths.
sub summary_files
{
	my ($node) = @_;

	my @files = sort { substr($a, -24) cmp substr($b, -24) }
	  glob($node->data_dir . '/ptrack/*.summary');

	return @files;
}

# The CRC of a summary is its last four bytes: gives bytes that were changed a
# right one again.
my @crc_table = map {
	my $crc = $_;
	$crc = $crc & 1 ? $crc >> 1 ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
	$crc;
} 0 .. 255;

sub summary_crc
{
	my ($bytes) = @_;
	my $crc = 0xffffffff;

	$crc = $crc_table[ ($crc ^ $_) & 0xff ] ^ $crc >> 8
	  for unpack 'C*', substr($bytes, 0, -4);
	return substr($bytes, 0, -4) . pack('V', $crc ^ 0xffffffff);
}

# Writes a file of the store, with a right CRC if it is a summary.
sub write_summary
{
	my ($path, $bytes) = @_;

	open my $fh, '>:raw', $path or die "could not open $path: $!";
	print $fh $path =~ /\.summary$/ ? summary_crc($bytes) : $bytes;
	close $fh;
	return;
}

# The LSNs of the redo points inside a summary.
sub summary_points
{
	my ($file) = @_;
	my $bytes = slurp_file($file);
	my @points;

	for (my $at = 112; substr($bytes, $at, 1) eq "\6"; $at += 49)
	{
		push @points, sprintf '%X/%X', (unpack 'VV', substr($bytes, $at + 1, 8))[ 1, 0 ];
	}
	return @points;
}

# Gives summaries other times of their start and end: path => function of both.
sub change_summary_times
{
	my (%change) = @_;

	for my $file (keys %change)
	{
		my $bytes = slurp_file($file);

		substr($bytes, 96, 16) = pack 'q<2', $change{$file}->(unpack 'q<2', substr($bytes, 96, 16));
		write_summary($file, $bytes);
	}
	return;
}

# Gives summaries, oldest first, a length of so many seconds each.  The newest
# ended three hours ago.
sub stretch_summaries
{
	my ($seconds, @files) = @_;
	my $now = time - 3 * 3600;
	my $n = @files;

	change_summary_times(map {
		my $age = ($n - $_) * $seconds;
		$files[$_] => sub { ($now - $age, $now - $age + $seconds) }
	} 0 .. $#files);
	return;
}

# A new database with a table "huge" of more than one segment, most of which are
# pages that were never used: a hole at the end of the first segment's file, where
# rows go next.
sub make_huge_table
{
	my ($node, $database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, q{CREATE TABLE huge (i int, v text);
		INSERT INTO huge SELECT i, 'first' FROM generate_series(1, 100) i});
	my $file = $node->data_dir . '/' . $node->safe_psql($database, q{SELECT pg_relation_filepath('huge')});
	$node->safe_psql('postgres', 'CHECKPOINT');
	truncate $file, 1024 * 1024 * 1024 or die "could not stretch \"$file\": $!";
	return;
}

# Waits until that is true, for as long as other tests of PostgreSQL's do.
sub poll_until
{
	my ($condition) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if $condition->();
		usleep(100_000);
	}
	return 0;
}

# The process that is ptrack's worker; 0 if there is none.  It has no database,
# so that no view shows it.
sub worker_pid
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	for my $dir (glob '/proc/[0-9]*')
	{
		open my $fh, '<', "$dir/stat" or next;
		my ($parent) = (<$fh> // '') =~ /\) \S (\d+)/;
		next unless ($parent // 0) == $postmaster;
		open $fh, '<', "$dir/cmdline" or next;
		return $dir =~ s{.*/}{}r if (<$fh> // '') =~ /ptrack worker/;
	}
	return 0;
}

# Stops the worker while it has nothing to do: it might hold a lock that a
# checkpoint or a query needs.  Returns its process identifier.
sub stand_still
{
	my ($node) = @_;
	my $pid = worker_pid($node);

	poll_until(sub {
			open my $fh, '<', "/proc/$pid/wchan" or die "could not open /proc/$pid/wchan: $!";
			return (<$fh> // '') =~ /poll/;
		}) or die 'the worker is busy for ever';
	kill 'STOP', $pid;
	return $pid;
}

# Has pg_regress run tests of sql/ on a node.  Returns whether they passed.
sub run_regress
{
	my ($node, $output, @tests) = @_;
	my $top = "$FindBin::RealBin/..";

	return run_log([
		$ENV{PG_REGRESS}, '--bindir=' . $node->config_data('--bindir'),
		'--host=' . $node->host, '--port=' . $node->port,
		"--inputdir=$top", "--outputdir=$output",
		# Before 16, that is where the input is.
		($major >= 16 ? "--expecteddir=$top" : ()), @tests ]);
}

# Compiles c/break_call.c, for LD_PRELOAD; returns its path.
sub call_breaker
{
	my $library = PostgreSQL::Test::Utils::tempdir() . '/break_call.so';

	run_log([
		$ENV{CC} // 'cc', '-shared', '-fPIC', '-Wall', '-Werror', '-o', $library,
		"$FindBin::RealBin/c/break_call.c", '-ldl' ])
	  or BAIL_OUT('could not compile the library that breaks calls');
	return $library;
}

# Compiles a program of c/, which includes the sources that it tests and prints
# TAP, and passes on its results.
sub run_c_test
{
	my ($name, @libraries) = @_;
	my $program = PostgreSQL::Test::Utils::tempdir() . "/$name";
	my $source = "$FindBin::RealBin/..";

	chomp(my $include = `pg_config --includedir-server`);
	chomp(my $lib = `pg_config --libdir`);
	run_log([
		$ENV{CC} // 'cc', '-D_GNU_SOURCE', '-g', '-O1', '-fsanitize=undefined',
		'-fno-sanitize-recover=undefined', '-I', "$source/src", '-I', $include,
		"$source/t/c/$name.c", '-o', $program, '-L', $lib,
		'-lpgcommon_shlib', '-lpgport_shlib', @libraries ])
	  or BAIL_OUT('could not compile the test program');

	my ($out, $err) = run_command([$program]);
	for my $line (split /\n/, $out)
	{
		if ($line =~ /^(ok|not ok) \d+ - (.*)/) { ok($1 eq 'ok', $2); }
		elsif ($line =~ /^#/) { diag($line); }
	}
	is($err, '', 'nothing on standard error');
	like($out, qr/^1\.\.\d+$/m, 'the program ran to its end');
	return;
}

# What was logged from that offset on.
sub log_since
{
	my ($node, $offset) = @_;

	return substr(slurp_file($node->logfile), $offset);
}

1;
