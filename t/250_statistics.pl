# What an operator sees: counters that can be reset, what the worker does, and
# names of what is waited for.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Fcntl;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;

# Before 17, what extensions wait for has no names.
sub name_of { return $major >= 17 ? "Ptrack$_[0]" : 'Extension'; }

my $node = new_node('primary', conf => "ptrack.map_size = 1MB\nmax_wal_senders = 2");
my $store = $node->data_dir . '/ptrack';
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[0] FROM pg_stat_ptrack"); }

# Waits until a session, or the process of that kind, waits for that.
sub waits_for
{
	my ($who, $event) = @_;

	return poll_until(sub {
		sql("SELECT count(*) > 0 FROM pg_stat_activity WHERE $who AND wait_event_type = 'Extension' AND wait_event = '"
			  . name_of($event) . "'") eq 't';
	});
}

# A session that goes on with a statement, however long that takes.
sub begin_statement
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_until(qr/begun/, "\\echo begun\n$sql;\n");
	return $session;
}

# Many new tables, of which each is noted.
sub make_tables
{
	my ($name, $count) = @_;

	sql("DO 'BEGIN FOR n IN 1 .. $count LOOP EXECUTE format(''CREATE TABLE t_$name%s (i int)'', n); COMMIT; END LOOP; END'");
	return;
}

# A checkpoint, before which everything is durable: with hooks at once, otherwise soon.
sub durable_checkpoint
{
	my $redo = checkpoint($node);

	poll_until(sub { stat_of("flushed_lsn >= '$redo'") eq 't' }) or die "not durable before $redo";
	return $redo;
}

sub is_idle { return poll_until(sub { stat_of('worker_wait') eq name_of('WorkerMain') }); }

# The worker.
is(stat_of('worker_pid'), worker_pid($node), 'the worker is shown');
ok(is_idle(), 'and that it has nothing to do');
my $was = worker_pid($node);
kill 'TERM', $was;
ok(poll_until(sub { my $now = stat_of('worker_pid'); $now && $now != $was }), 'and another one after it was terminated');

# All counters move, and are reset together; what is so at the moment stays.
my $begun = stat_of('stats_reset');
is(sql("SELECT '$begun' BETWEEN pg_postmaster_start_time() - interval '1 minute' AND now()"), 't', 'what is counted is counted since the server started');
checkpoint($node);
make_tables('first', 2500);
chmod 0500, $store;
sql('CHECKPOINT');
ok(poll_until(sub { stat_of('flush_failures > 0') eq 't' }), 'a checkpoint whose summary cannot be written is counted');
is(sql('SELECT flushed_lsn < redo_lsn FROM pg_stat_ptrack, pg_control_checkpoint()'), 't', 'what changed before it is not durable');
is(stat_of('overflows > 0'), 't', 'and so is what the map had no room for');
chmod 0700, $store;
my $redo = durable_checkpoint();
is(stat_of("flushed_lsn = '$redo'"), 't', 'now it is durable');
is(stat_of('flushes > 0'), 't', 'summaries are counted');
is(stat_of("last_flush > '$begun'"), 't', 'the time of the latest one is shown');
ok(is_idle(), 'the worker has done all that is left');
my $still = 'coverage_start, flushed_lsn, summaries, gaps, last_flush, last_flush_ms, worker_pid';
my $state = stat_of($still);
sql('SELECT ptrack_stat_reset()');
is(stat_of("flushes, flush_failures, overflows, stats_reset > '$begun'"), '0|0|0|t', 'a reset sets all counters to zero');
is(stat_of($still), $state, 'and nothing else');

# Nothing goes by what was reset: summaries are written, merged or removed as before.
sql('UPDATE t_first1 SET i = i + 1');
$redo = durable_checkpoint();
is(stat_of("flushes, flushed_lsn = '$redo'"), '1|t', 'the next summary is counted anew');
my $stray = "$store/00000007" . '0' x 31 . '1.summary';
append_to_file($stray, '');
utime time - 20 * 86400, time - 20 * 86400, $stray;
sql('SELECT ptrack_stat_reset()');
checkpoint($node);
ok(poll_until(sub { !-e $stray }), 'and the worker tidies up after it');
my $reset = stat_of('stats_reset');
$node->restart;
is(stat_of("stats_reset > '$reset', flush_failures"), 't|0', 'a restart begins anew, too');

# The names, of which the documentation has all.
my $page = slurp_file("$FindBin::RealBin/../docs/operation.md");
my @documented = sort $page =~ /^\| `(Ptrack\w+)` \|/mg;
cmp_ok(scalar(@documented), '>', 3, 'the documentation has a list of wait events');
is(join(' ', @documented), sql(q{SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM pg_wait_events
	WHERE type = 'Extension' AND name LIKE 'Ptrack%'}), 'which is that of the server') if $major >= 17;

# A summary that another process is to write.
my $session = begin_statement(q{SELECT ptrack_await_summary(pg_current_wal_insert_lsn() + 1000000, 600)});
ok(waits_for("query LIKE 'SELECT ptrack_await_summary%'", 'SummaryReady'), 'waiting for a summary');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT ptrack_await_summary%'});
$session->quit;

# Writing one: the file is a pipe that nobody empties.  Its name has the redo points
# in it, of which the next one is where WAL ends, as long as nothing else is going on.
my $writer = follows_wal() ? stat_of('worker_pid') : sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});
my $seen = 0;
for my $try (1 .. 10)
{
	my $from = durable_checkpoint();

	make_tables("try$try", 500);
	my $pipe = sprintf '%s/00000001%016X%016X.summary.%d.tmp', $store,
	  (map { my ($high, $low) = split m{/}; hex($high) << 32 | hex $low } $from, sql('SELECT pg_current_wal_insert_lsn()')), $writer;
	mkfifo($pipe, 0600) or die "could not create $pipe: $!";
	sysopen my $reader, $pipe, O_RDONLY | O_NONBLOCK or die "could not open $pipe: $!";
	fcntl $reader, 1031, 4096 or die "could not make the pipe smaller: $!";    # F_SETPIPE_SZ
	$session = begin_statement('CHECKPOINT');
	$seen = poll_until(sub {
		my $event = follows_wal() ? stat_of('worker_wait') : sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $writer");
		return 1 if $event eq name_of('SummaryWrite');
		return stat_of("flushed_lsn > '$from'") eq 't';
	}) && stat_of("flushed_lsn = '$from'") eq 't';
	close $reader;
	$session->quit;
	unlink $pipe;
	last if $seen;
}
ok($seen, 'writing a summary');
checkpoint($node);

# What is known from before the start, when that cannot be read.  Where WAL is followed,
# it is read from WAL instead.
SKIP:
{
	skip 'WAL is followed', 1 if follows_wal();
	$node->stop;
	my $newest = (summary_files($node))[-1];
	chmod 0000, $newest;
	$node->start;
	$session = begin_statement('SELECT ptrack_init_lsn()');
	ok(waits_for("query LIKE 'SELECT ptrack_init_lsn%'", 'Start'), 'waiting for what is known from before the start');
	chmod 0600, $newest;
	$session->quit;
}

# Reading WAL slowly, on a server that follows it, while its worker stands still.
$node->append_conf('postgresql.conf', 'ptrack.engine = wal');
$node->restart;
ok(is_idle(), 'the worker has nothing to do');
my $worker = stand_still($node);
$redo = sql('SELECT redo_lsn FROM pg_control_checkpoint()');
sql(q{SELECT pg_logical_emit_message(false, '', repeat('x', 4000000))});
$session = begin_statement("SET ptrack.scan_rate = '100kB'; SELECT count(*) FROM ptrack_changed_blocks('$redo')");
ok(waits_for("query LIKE '%ptrack_changed_blocks%' AND pid <> pg_backend_pid()", 'ScanThrottle'), 'reading WAL slowly');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_progress_ptrack});
$session->quit;
kill 'CONT', $worker;
$node->stop;

done_testing();
