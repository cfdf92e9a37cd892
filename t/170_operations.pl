# What happens to a server in use: queries cancelled and sessions terminated in
# the middle, the extension dropped and created, many databases, databases that
# move, checkpoints one after the other, and a store that cannot be read.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => <<'EOS');
allow_in_place_tablespaces = on
wal_keep_size = 1GB
EOS
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub init_lsn { return sql('SELECT ptrack_init_lsn()'); }
my $init = init_lsn();

my $start = checkpoint($node);
sql(<<'EOS');
CREATE TABLESPACE place LOCATION '';
CREATE TABLE big AS SELECT i, repeat('x', 400) FROM generate_series(1, 20000) i;
CREATE TABLE small AS SELECT i, 0 AS n FROM generate_series(1, 2000) i;
EOS

#
# Many databases
#
my @databases = map { "db$_" } 1 .. 30;
sql(join '', map { "CREATE DATABASE $_ STRATEGY wal_log;\n" } @databases);
for my $database (@databases)
{
	$node->safe_psql($database,
		"CREATE TABLE t AS SELECT i, repeat('$database', 50) FROM generate_series(1, 1000) i");
}
my $since = checkpoint($node);
my %expected;
for my $n (1 .. @databases)
{
	# The block of the old version of a row, and that of the new one.
	my ($path, @blocks) = split /[|\n]/, $node->safe_psql($databases[ $n - 1 ], <<"EOS");
SELECT pg_relation_filepath('t'), (ctid::text::point)[0]::int FROM t WHERE i = $n * 20;
UPDATE t SET i = -i WHERE i = $n * 20 RETURNING (ctid::text::point)[0]::int;
EOS

	$expected{$path} = join ' ', sort { $a <=> $b } keys %{ { map { $_ => 1 } @blocks } };
}
my %map = pagemap($node, $since);
my @wrong = grep { !$map{$_} || "@{ $map{$_} }" ne $expected{$_} } sort keys %expected;
is("@wrong", '', 'in each of ' . @databases . ' databases, the blocks that changed');
my @others = grep { m{^base/\d+/(\d+)} && $1 >= 16384 && !$expected{$_} } sort keys %map;
is("@others", '', 'and no other file of a user');
sql(join '', map { "DROP DATABASE $_;\n" } @databases[ 3 .. $#databases ]);
%map = pagemap($node, $since);
is(scalar(grep { $map{$_} } sort keys %expected), 3, 'dropped databases are in no page map');

#
# A database that moves away, changes, and moves back
#
$node->safe_psql('db1', "CREATE INDEX ON t (i); CREATE UNLOGGED TABLE u AS SELECT 1 AS a");
my ($copy, $full);
{
	# In-place tablespaces are directories, which pg_basebackup does not map.
	$full = checkpoint($node);
	$node->stop;
	$copy = PostgreSQL::Test::Cluster->new('copy');
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $copy->data_dir);
	chmod 0700, $copy->data_dir;
	$node->start;
}
sql('ALTER DATABASE db1 SET TABLESPACE place; ALTER DATABASE db2 SET TABLESPACE place');
$node->safe_psql($_, 'UPDATE t SET i = i + 100000 WHERE i % 10 = 0; CREATE TABLE made AS SELECT * FROM t') for qw(db1 db2 db3);
checkpoint($node);
sql('ALTER DATABASE db1 SET TABLESPACE pg_default; ALTER TABLE small SET TABLESPACE place');
$node->safe_psql($_, 'DELETE FROM t WHERE i < 0') for qw(db1 db2);
sql('UPDATE small SET n = 1; ALTER TABLE small SET TABLESPACE pg_default; UPDATE small SET n = 2 WHERE i = 1000');
refresh_node($node, $copy, $full);
compare_copy($node, $copy, 'databases and a table that moved away, and some back');

#
# Queries that end early
#
my $path = sql("SELECT pg_relation_filepath('big')");
my $count = "SELECT count(*) FROM ptrack_get_blocks('$start') WHERE path = '$path'";
my $blocks = sql($count);
is($blocks, sql("SELECT pg_relation_size('big') / 8192"), 'a new table: all its blocks');
my $all = changed_blocks($node, $start, $full);

# The files that a backend has open of what only ptrack reads there: summaries,
# and relations of other databases.
my $here = sql('SELECT oid FROM pg_database WHERE datname = current_database()');
sub open_files
{
	my ($pid) = @_;

	return grep { m{\.summary$|/\Q$path\E$} || m{/base/(\d+)/} && $1 != $here } map { readlink($_) // () } glob "/proc/$pid/fd/*";
}

# Each goes on forever, and is in another place of its work at each moment.
my %endless = map { $_ => "SELECT count(*) FROM generate_series(1, 1000000) g, LATERAL (SELECT g, ($_).*) s" }
  map { "$_('$start')" } qw(ptrack_get_blocks ptrack_get_pagemapset ptrack_changed_blocks ptrack_get_change_stat);

my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->set_query_timer_restart;
my $pid = $session->query('SELECT pg_backend_pid()');
for my $call (sort keys %endless)
{
	for my $turn (1 .. 8)
	{
		my $offset = -s $node->logfile;

		$session->query_until(qr/begun/, "\\echo begun\n$endless{$call};\n");
		$node->poll_query_until('postgres', "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $pid") or die;
		sql("SELECT pg_sleep($turn * 0.005), pg_cancel_backend($pid)");
		$node->wait_for_log(qr/\[$pid\].*canceling statement due to user request/, $offset);
	}
	# The message comes before the transaction is aborted.
	$node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid") or die;
	is(join(' ', open_files($pid)), '', "$call, cancelled at some moments: no file is left open");
}
for my $timeout (1 .. 20)
{
	$session->query("BEGIN; SET LOCAL statement_timeout = '$timeout ms'; $_; ROLLBACK") for values %endless;
}
is(join(' ', open_files($pid)), '', 'timed out at some moments: no file is left open');

# One that fails while it certainly has a file of another database open.
$session->query("SELECT 1 / (CASE WHEN (b).path LIKE 'base/$here/%' THEN 1 ELSE 0 END) FROM (SELECT ptrack_get_blocks('$start') AS b OFFSET 0) s");
is(join(' ', open_files($pid)), '', 'failed in the midst of a file: it is not left open');
is($session->query($count), $blocks, 'and the session works');
$session->quit;

# A connection that streams blocks is terminated.
my $offset = -s $node->logfile;
my $in = '';
my $reader = start [
	'psql', '-X', '-d', $node->connstr('postgres') . " application_name=reader", '-c',
	"COPY (SELECT (b).page FROM (SELECT ptrack_get_blocks('$start') AS b OFFSET 0) s, generate_series(1, 100)) TO STDOUT" ],
  '<', \$in, '>', '/dev/null', '2>', '/dev/null';
my $active = "application_name = 'reader' AND state = 'active'";
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE $active") or die;
sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE $active");
ok(!$reader->finish, 'a reader of blocks is terminated');
like(log_since($node, $offset), qr/FATAL:  terminating connection due to administrator command/, 'in the midst of its work');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'reader'"), 'it is gone');
is(sql($count), $blocks, 'the server answers as before');
is(lines_missing($all, changed_blocks($node, $start, $full)), '', 'completely');

#
# The extension is dropped while it is used
#
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe("DECLARE c CURSOR FOR SELECT (b).blkno FROM (SELECT ptrack_get_blocks('$start') AS b OFFSET 0) s WHERE (b).path = '$path'");
is(scalar(split /\n/, $session->query_safe('FETCH 10 FROM c')), 10, 'reading has begun');
sql('DROP EXTENSION ptrack');
sql('UPDATE small SET n = 3 WHERE i = 1');
my $dropped = checkpoint($node);
my @rest = split /\n/, $session->query_safe('FETCH ALL FROM c');
is(@rest + 10, $blocks, 'a query goes on when the extension is dropped');
$session->query_safe('COMMIT');
$session->quit;
fails_like($node, 'SELECT ptrack_init_lsn()', '42883', 'does not exist', 'without the extension');
$node->stop('immediate');
$node->start;
sql('UPDATE small SET n = 4 WHERE i = 2');
checkpoint($node);
sql('CREATE EXTENSION ptrack');
is(init_lsn(), $init, 'coverage does not depend on the extension');
is(lines_missing($all, changed_blocks($node, $start)), '', 'nor do changes');
is(sql("SELECT count(*) > 0 FROM ptrack_changed_blocks('$dropped') WHERE relfilenode = pg_relation_filenode('small')"),
	't', 'those made without it are known');

#
# Queries while one checkpoint follows another
#
# What is asked is since one redo point; the answer must have all that a server
# at rest says of the range up to the redo point before the question, and
# nothing that it does not say of the range up to the end.
my @running;
sql('CREATE TABLE enough (a int)');
for my $statement ('CHECKPOINT; PERFORM pg_sleep(0.01)',
	"UPDATE small SET n = n + 1 WHERE i = n % 7 + 1; INSERT INTO big SELECT 0, repeat('z', 300) FROM generate_series(1, 3)",
	"TRUNCATE small_copy; INSERT INTO small_copy SELECT * FROM small WHERE i < 100")
{
	sql('CREATE TABLE small_copy AS SELECT * FROM small WHERE false') if $statement =~ /^TRUNCATE/;
	my $background = $node->background_psql('postgres');
	$background->query_until(qr/begun/, <<"EOS");
\\echo begun
DO \$\$ BEGIN
	WHILE NOT EXISTS (SELECT FROM enough) LOOP $statement; COMMIT; END LOOP;
END \$\$;
EOS
	push @running, $background;
}
my @since = (checkpoint($node));
my (@answers, %redo);
my $enough = time + $PostgreSQL::Test::Utils::timeout_default / 3;
for my $turn (1 .. 400)
{
	# On a slow machine, what runs beside it makes more WAL for each question; or
	# checkpoints take longer than questions do.
	last if keys %redo > 10 && ($turn > 40 || time > $enough);
	my $redo = sql('SELECT redo_lsn FROM pg_control_checkpoint()');
	my $from = $since[ $turn % @since ];

	$redo{$redo} = 1;
	push @answers, [ $from, $redo, changed_blocks($node, $from) ];
	push @since, $redo if $turn % 5 == 0;
}
sql('INSERT INTO enough VALUES (1)');
$_->quit for @running;
my $end = checkpoint($node);
my ($too_few, $too_many, $distinct) = ('', '', '');
for my $answer (@answers)
{
	my ($from, $redo, $lines) = @$answer;

	$too_few .= lines_missing(changed_blocks($node, $from, $redo), $lines);
	$too_many .= lines_missing($lines, changed_blocks($node, $from, $end));
}
is($too_few, '', @answers . ' answers while checkpoints were made lack nothing');
is($too_many, '', 'and have nothing that did not change');
cmp_ok(scalar(keys %redo), '>', 10, scalar(keys %redo) . ' redo points came between them');

#
# A store that cannot be read: an error, or nothing that is taken for an answer
#
my $store = $node->data_dir . '/ptrack';
$since = checkpoint($node);
sql('UPDATE small SET n = 5 WHERE i = 3');
checkpoint($node);
my $question = "SELECT count(*) FROM ptrack_get_pagemapset('$start')";
chmod 0000, $store;
fails_like($node, $question, '42501', 'could not read directory "ptrack": Permission denied', 'unreadable store');
fails_like($node, 'SELECT ptrack_init_lsn()', '42501', 'could not read directory', 'unreadable store, coverage');
fails_like($node, 'SELECT * FROM pg_stat_ptrack', '42501', 'could not read directory', 'unreadable store, statistics');
sql('UPDATE small SET n = 6 WHERE i = 4');
sql('CHECKPOINT');
is($node->psql('postgres', 'SELECT 1'), 0, 'the server goes on');
chmod 0600, $store;
fails_like($node, 'SELECT ptrack_init_lsn()', '42501', 'could not stat file', 'store without the right to open files');
fails_like($node, $question, '55000', 'before the changes that are known', 'the same, changes');
chmod 0700, $store;
checkpoint($node);
is(init_lsn(), $init, 'readable again: coverage is as it was');
# With all that it was merged into, if there was time for that: so nothing else tells
# the same, and nothing that it is merged into will.
my ($newest) = reverse summary_files($node);
chmod 0000, $newest;
my @newest = grep { substr($_, -24) eq substr($newest, -24) } summary_files($node);
chmod 0000, @newest;
fails_like($node, $question, '55000', 'before the changes that are known', 'an unreadable summary');
my ($ret, undef, $warning) = $node->psql('postgres', $question);
like($warning, qr/WARNING:  ignoring change summary.*it cannot be opened.*Permission denied/s, 'an unreadable summary: a warning');
chmod 0600, @newest;
is(init_lsn(), $init, 'readable again: coverage is as it was');

# The server starts with such a store, too, and with a file in its place.
$node->stop;
chmod 0000, $store;
$node->start;
fails_like($node, $question, '42501', 'could not read directory', 'started with an unreadable store');
sql('UPDATE small SET n = 7 WHERE i = 5');
sql('CHECKPOINT');
chmod 0700, $store;
checkpoint($node);
is(init_lsn(), $init, 'readable again after the start: coverage is as it was');
rename $store, "$store.away" or die;
append_to_file($store, 'in the way');
fails_like($node, $question, '42809', 'could not read directory "ptrack": Not a directory', 'a file in its place');
sql('UPDATE small SET n = 8 WHERE i = 6');
$offset = -s $node->logfile;
sql('CHECKPOINT');
my $in_the_way = sql('SELECT redo_lsn FROM pg_control_checkpoint()');
ok(poll_until(sub { log_since($node, $offset) =~ /WARNING:  changed blocks up to $in_the_way are not durable/ }),
	'a checkpoint warns of it');
unlink $store;
rename "$store.away", $store or die;
checkpoint($node);
$node->stop('immediate');
$node->start;
is(init_lsn(), $init, 'put back: coverage is as it was');
is(lines_missing($all, changed_blocks($node, $start)), '', 'and no change is missing');

$node->stop;
done_testing();
