# Following WAL, as servers without the core patch do: the same summaries as with
# hooks; answers that never wait for the worker; and what can happen to the
# worker, its replication slot and the WAL.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# This file says by itself what to wait for.
delete $ENV{PTRACK_ENGINE};

my $follows = 'ptrack.engine = wal';
my $node = new_node('primary', conf => "wal_keep_size = 2GB\nrestart_after_crash = on");
my $engine = sql('SELECT engine FROM pg_stat_ptrack');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub redo_of { return $_[0]->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()'); }

# A checkpoint, of which the worker has written the summary.
sub durable_checkpoint
{
	my ($server) = @_;
	my $redo = checkpoint($server);

	await_summary($server, $redo);
	return $redo;
}

# Mixed load over many cycles, from which a copy that only has the WAL makes the
# same summaries.
sql(<<'SQL');
CREATE TABLE t (id int PRIMARY KEY, v int, w text);
INSERT INTO t SELECT i, 0, repeat('w', 100) FROM generate_series(1, 20000) i;
CREATE TABLE g (p point); CREATE INDEX ON g USING gist (p);
VACUUM (FREEZE) t;
SQL
my @redo = (durable_checkpoint($node));
$node->stop;
my $store = $node->basedir . '/store';
system_or_bail('cp', '-a', $node->data_dir . '/ptrack', $store);
$node->start;
push @redo, redo_of($node);
for my $i (1 .. 52)
{
	sql(<<"SQL");
UPDATE t SET v = v + 1 WHERE id % 997 = $i;
INSERT INTO g SELECT point(i, $i) FROM generate_series(1, 200) i;
DELETE FROM t WHERE id BETWEEN $i * 300 AND $i * 300 + 20;
SQL
	sql('VACUUM t') if $i % 5 == 0;
	sql("CREATE TABLE x$i AS SELECT * FROM t LIMIT 500; CREATE INDEX ON x$i (v)") if $i % 4 == 0;
	sql('DROP TABLE x' . ($i - 4)) if $i % 8 == 0;
	sql('TRUNCATE g') if $i % 11 == 0;
	sql('SELECT pg_switch_wal()') if $i % 7 == 0;
	sql('BEGIN; UPDATE t SET v = -v WHERE id < 100; ROLLBACK; CHECKPOINT');
	push @redo, redo_of($node);
}
await_summary($node, $redo[-1]);
my %here = map { $_ => changed_blocks($node, $redo[ $_ - 1 ], $redo[$_]) } 2 .. $#redo;
my %lineage = map { $_ => sql("SELECT ptrack_lineage('$_')") } @redo;
my $last = sql('SELECT pg_current_wal_insert_lsn()');
my $tail = changed_blocks($node, $redo[-1], $last);
$node->stop;

my $copy = PostgreSQL::Test::Cluster->new('copy');
system_or_bail('cp', '-a', $node->data_dir, $copy->data_dir);
system_or_bail('rm', '-rf', $copy->data_dir . '/ptrack', $copy->data_dir . '/pg_replslot/ptrack');
system_or_bail('cp', '-a', $store, $copy->data_dir . '/ptrack');
$copy->append_conf('postgresql.conf', 'port = ' . $copy->port . "\n$follows");
$copy->start;
is($copy->safe_psql('postgres', 'SELECT engine FROM pg_stat_ptrack'), 'wal', 'the copy follows WAL');
await_summary($copy, $redo[-1]);
my @differ = grep { changed_blocks($copy, $redo[ $_ - 1 ], $redo[$_]) ne $here{$_} } sort { $a <=> $b } keys %here;
is("@differ", '', 'the summaries of ' . keys(%here) . " cycles are those of engine $engine");
is(changed_blocks($copy, $redo[-1], $last), $tail, 'and so is what comes after the last one');
is(join(' ', grep { $copy->safe_psql('postgres', "SELECT ptrack_lineage('$_')") ne $lineage{$_} } @redo), '',
	'and so are the lineages');
$copy->stop;

# Another cluster, of which there is some WAL.
my $foreign = PostgreSQL::Test::Cluster->new('foreign');
$foreign->init;

# From here on, the primary follows WAL as well.
$node->append_conf('postgresql.conf', $follows);
$node->start;
is(sql("SELECT ptrack_init_lsn() <= '$redo[0]'"), 't', 'coverage goes on with another engine');
ok(poll_until(sub { sql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ptrack' AND active}) eq '1' }),
	'there is a replication slot');

# Answers do not wait: the worker stands still.
my $start = durable_checkpoint($node);
my $worker = stand_still($node);
sql('UPDATE t SET v = v + 1 WHERE id % 100 = 0');
my $pages = sql(q{SELECT count(DISTINCT (ctid::text::point)[0]) FROM t WHERE id % 100 = 0});
cmp_ok(sql("SELECT pagecount FROM ptrack_get_pagemapset('$start') WHERE path = pg_relation_filepath('t')"), '>=', $pages,
	'the worker stands still: a query reads WAL itself');
cmp_ok(sql('SELECT scan_lag FROM pg_stat_ptrack'), '>', 0, 'there is a lag');
my $between = checkpoint($node);
sql('UPDATE t SET v = v + 1 WHERE id = 19999');
my $lineage = sql("SELECT ptrack_lineage('$between')");
cmp_ok(sql("SELECT pagecount FROM ptrack_get_pagemapset('$between') WHERE path = pg_relation_filepath('t')"), '<=', 2,
	'what changed before a redo point that the worker has not come to is left out');
my $since = changed_blocks($node, $between);
kill 'CONT', $worker;
await_summary($node, $between);
is(sql("SELECT ptrack_lineage('$between')"), $lineage, 'the lineage is the same before and after');
is(lines_missing($since, changed_blocks($node, $between)), '', 'and what changed is known');

# A long tail is read by several processes, with the same result: records that
# cross segments, one that is longer than a segment, and switches of WAL.
stand_still($node);
$start = $between;
sql($_) for 'CREATE TABLE long_tail AS SELECT i, repeat(md5(i::text), 30) AS v FROM generate_series(1, 40000) i',
	q{SELECT pg_logical_emit_message(false, 'ptrack', repeat('x', 20 * 1024 * 1024))},
	q{SELECT pg_switch_wal()},
	q{UPDATE long_tail SET i = i + 1 WHERE i % 7 = 0; CREATE INDEX ON long_tail (i); DROP TABLE x48; TRUNCATE g};
my %tail;
for my $workers (1, 4)
{
	local $ENV{PGOPTIONS} = "-c ptrack.scan_workers=$workers";
	$tail{$workers} = changed_blocks($node, $start);
}
cmp_ok(sql('SELECT scan_lag FROM pg_stat_ptrack'), '>', 4 * 16 * 1024 * 1024, 'a long tail');
is($tail{4}, $tail{1}, (split /\n/, $tail{1}) . ' changes, by one process and by several');

# Its progress is to be seen, and it can be cancelled.
my $slow = $node->background_psql('postgres', on_error_stop => 0);
$slow->query_until(qr/begun/, "SET ptrack.scan_workers = 2; SET ptrack.scan_rate = '5MB';\n\\echo begun\nSELECT count(*) FROM ptrack_changed_blocks('$start');\n");
ok(poll_until(sub { sql(q{SELECT count(*) FROM pg_stat_progress_ptrack
	WHERE purpose = 'query' AND datname = 'postgres' AND processes = 2 AND bytes_read > 0 AND bytes_read < bytes_total}) eq '1' }),
	'the progress of a long scan');
sql('SELECT pg_cancel_backend(pid) FROM pg_stat_progress_ptrack');
ok(poll_until(sub { sql('SELECT count(*) FROM pg_stat_progress_ptrack') eq '0' }), 'it is cancelled');
ok(poll_until(sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'}) eq '0' }),
	'and so are the processes that help');
$slow->quit;
kill 'CONT', worker_pid($node);

# Prepares a check that nothing is lost by what happens then.
sub changes_to_keep
{
	my ($name) = @_;
	my $from = checkpoint($node);

	sql('UPDATE t SET v = v + 1 WHERE id % 50 = 0');
	my $changed = changed_blocks($node, $from);
	return sub {
		await_answers($node);
		is(lines_missing($changed, changed_blocks($node, $from)), '', $name);
		durable_checkpoint($node);
		is(lines_missing($changed, changed_blocks($node, $from)), '', "$name, and in the next cycle");
	};
}

# The worker is terminated, and comes back; or is killed, and takes the server along.
my $check = changes_to_keep('the worker was terminated');
kill 'TERM', worker_pid($node);
$check->();
$check = changes_to_keep('the worker was killed');
my $offset = -s $node->logfile;
kill 'KILL', worker_pid($node);
poll_until(sub { log_since($node, $offset) =~ /database system is ready/ });
$check->();
$check = changes_to_keep('the server crashed');
$node->stop('immediate');
$node->start;
$check->();

# Without a worker, queries read all of it; and a start of the server does no harm.
my $init = sql('SELECT ptrack_init_lsn()');
$check = changes_to_keep('there was no worker');
$node->stop;
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->start;
like(slurp_file($node->logfile), qr/WARNING:  there is no room for ptrack's background worker\n.*\n.*HINT:  Increase "max_worker_processes"/,
	'no room for a worker: which setting to raise');
is(sql('SELECT ptrack_init_lsn()'), $init, 'no worker: coverage goes on');
sql('UPDATE t SET v = v + 1 WHERE id % 60 = 0');
cmp_ok(sql('SELECT count(*) FROM ptrack_changed_blocks(' . "'" . redo_of($node) . "')"), '>', 0, 'and there are answers');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
$check->();

# Another slot has the name, or there is no room for one.
sub worker_warns
{
	my ($conf, $pattern, $name) = @_;
	my $from = -s $node->logfile;

	$node->append_conf('postgresql.conf', $conf);
	$node->restart;
	ok(poll_until(sub { log_since($node, $from) =~ $pattern }), $name);
	my $redo = checkpoint($node);
	sql('UPDATE t SET v = v + 1 WHERE id % 70 = 0');
	cmp_ok(sql("SELECT count(*) FROM ptrack_changed_blocks('$redo')"), '>', 0, "$name: there are answers");
	return;
}
$node->append_conf('postgresql.conf', 'wal_level = logical');
$node->restart;
sql(q{SELECT pg_create_logical_replication_slot('taken', 'pgoutput')});
worker_warns('ptrack.slot_name = taken', qr/WARNING:.*replication slot "taken" belongs to something else.*HINT:.*ptrack\.slot_name/s,
	'the slot belongs to something else');
# That one, and the one that ptrack had before.
$node->append_conf('postgresql.conf', 'ptrack.slot_name = other');
worker_warns('max_replication_slots = 2', qr/WARNING:.*all replication slots are in use.*HINT:.*max_replication_slots/s,
	'no slot is free');
sql(qq{SELECT pg_drop_replication_slot('$_')}) for 'taken', 'ptrack';
$node->append_conf('postgresql.conf', "ptrack.slot_name = ptrack\nmax_replication_slots = 10\nwal_level = replica");
$node->restart;
is(sql('SELECT ptrack_init_lsn()'), $init, 'coverage goes on');

# A damaged record in the middle of WAL is an error that names the segment, and a
# gap once there is a redo point after it.
$start = durable_checkpoint($node);
stand_still($node);
sql('UPDATE t SET v = v + 1');
my ($name, $place) = split /\|/, sql("SELECT file_name, file_offset FROM pg_walfile_name_offset('$start'::pg_lsn + 60000)");
sql('SELECT pg_switch_wal()');
sql('UPDATE t SET v = v + 1 WHERE id < 10');
open my $fh, '+<', $node->data_dir . "/pg_wal/$name" or die "could not open $name: $!";
binmode $fh;
seek $fh, $place, 0 or die "could not seek: $!";
print $fh "\x5a" x 64;
close $fh;
sub unreadable
{
	my ($what) = @_;
	my ($ret, undef, $err) = $node->psql('postgres', "SELECT count(*) FROM ptrack_changed_blocks('$start')");

	isnt($ret, 0, "$what: no answer");
	like($err, qr/WAL segment "$name" cannot be read/, 'but an error that names the segment');
	return;
}
unreadable('damaged WAL');

# So does a segment of another cluster.
my $segment = $node->data_dir . "/pg_wal/$name";
rename $segment, "$segment.away" or die "could not rename $name: $!";
my ($other) = glob $foreign->data_dir . '/pg_wal/0*';
system_or_bail('cp', $other, $segment);
unreadable('WAL of another cluster');
rename "$segment.away", $segment or die "could not rename $name: $!";
$offset = -s $node->logfile;
sql('CHECKPOINT');
kill 'CONT', worker_pid($node);
ok(poll_until(sub { log_since($node, $offset) =~ /WARNING:  changes from \S+ to \S+ are not known/ }), 'then what is known begins anew');
# It is said before it is done.
poll_until(sub { return ($node->psql('postgres', "SELECT ptrack_init_lsn() > '$start'"))[1] eq 't' })
  or die 'what is known does not begin anew';
fails_like($node, "SELECT count(*) FROM ptrack_changed_blocks('$start')", '55000', 'before the changes that are known', 'damaged WAL');

# WAL that is gone is fetched from an archive; or else that is a gap.
my $archive = $node->basedir . '/archive';
mkdir $archive or die "could not make $archive: $!";
$node->append_conf('postgresql.conf', "archive_mode = on\narchive_command = 'cp %p $archive/%f'\nwal_keep_size = 0");
$node->restart;
for my $restore (1, 0)
{
	$node->append_conf('postgresql.conf', 'ptrack.restore_command = ' . ($restore ? "'cp $archive/%f %p'" : "''"));
	$node->reload;
	$start = durable_checkpoint($node);
	my $needed = sql("SELECT pg_walfile_name('$start')");
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->restart;
	sql($_) for ('UPDATE t SET v = v + 1', 'SELECT pg_switch_wal()', 'CHECKPOINT');
	poll_until(sub { -e "$archive/$needed" }) or die "$needed is not archived";
	$node->stop;
	unlink $node->data_dir . "/pg_wal/$needed" or die "could not remove $needed: $!";
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'");
	$node->start;
	await_answers($node);
	is(sql("SELECT ptrack_init_lsn() <= '$start'"), $restore ? 't' : 'f',
		$restore ? 'WAL comes from an archive' : 'WAL is gone: coverage begins later');
}

# The slot holds back no more than it may.
$node->append_conf('postgresql.conf', "ptrack.max_wal_lag = 32MB\narchive_mode = off");
$node->restart;
durable_checkpoint($node);
$offset = -s $node->logfile;
sql(q{SELECT pg_logical_emit_message(false, '', repeat('x', 1000000)) FROM generate_series(1, 60)});
ok(poll_until(sub { sql('SELECT ptrack_init_lsn()'); log_since($node, $offset) =~ /is not held back any more/ }),
	'ptrack.max_wal_lag: a warning');
ok(poll_until(sub { sql(q{SELECT pg_current_wal_insert_lsn() - restart_lsn <= 34 * 1024 * 1024 FROM pg_replication_slots WHERE slot_name = 'ptrack'}) eq 't' }),
	'and the slot lets go');

# Tracking is switched off: the slot goes.
$node->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$node->restart;
ok(poll_until(sub { sql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ptrack'}) eq '0' }), 'tracking is off: no slot');
$node->stop;

# A standby tracks what it replays, and follows WAL when it is promoted.
my $primary = new_node('source', conf => $follows);
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i');
$start = durable_checkpoint($primary);
my $standby = new_standby('standby', $primary, conf => "ptrack.restore_command = 'cp " . $primary->data_dir . "/pg_wal/%f %p'");
$primary->safe_psql('postgres', 'UPDATE t SET i = i + 1 WHERE i < 1000');
my $known = changed_blocks($primary, $start);
catch_up($standby, $primary);
my $replayed = changed_blocks($standby, $start);
is(lines_missing($known, $replayed), '', 'a standby knows what its primary knows');
$primary->stop('immediate');
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
$standby->safe_psql('postgres', 'UPDATE t SET i = i + 1 WHERE i > 9000');
is(lines_missing($replayed, changed_blocks($standby, $start)), '', 'promoted: what was replayed is known');
$pages = $standby->safe_psql('postgres', q{SELECT count(DISTINCT (ctid::text::point)[0]) FROM t WHERE i > 9001 OR i < 1000});
cmp_ok($standby->safe_psql('postgres', "SELECT pagecount FROM ptrack_get_pagemapset('$start') WHERE path = pg_relation_filepath('t')"),
	'>=', $pages, 'and what was done since');
durable_checkpoint($standby);
is(lines_missing($replayed, changed_blocks($standby, $start)), '', 'in the next cycle, too');
$standby->stop;

done_testing();
