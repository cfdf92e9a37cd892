# Where redo points are not in WAL, the worker goes back to one that it learns of
# late, and reads WAL from there on again.  A query that has the worker's position
# from before that, and the map from after it, must not miss what is still to be read.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

plan skip_all => 'redo points are in WAL' if replays_redo_points();

# Nothing but a debugger halts a query in between.
plan skip_all => 'there is no gdb that may attach to a process'
  if system("sleep 60 & gdb -p \$! --batch -ex detach > /dev/null 2>&1; s=\$?; kill \$!; exit \$s") != 0;

my $primary = new_node('primary', conf => <<'EOF');
wal_keep_size = 1GB
checkpoint_completion_target = 0.9
shared_buffers = 64MB
EOF
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i; CREATE TABLE filler (a text)');
my $standby = new_standby('standby', $primary);

sub lag { return $standby->safe_psql('postgres', 'SELECT scan_lag FROM pg_stat_ptrack'); }

restartpoint($standby, $primary);

# A checkpoint has begun, and something changes long after its redo point.  It waits
# a tenth of a second after each page, so that it goes on until it is told to hurry.
$primary->safe_psql('postgres', q{UPDATE t SET i = i + 1; INSERT INTO filler SELECT repeat('y', 1000) FROM generate_series(1, 20000)});
my $offset = -s $primary->logfile;
my $backup = $primary->background_psql('postgres');
$backup->query_until(qr/begins/, "\\echo begins\nSELECT pg_backup_start('ptrack', false);\n");
$primary->wait_for_log(qr/checkpoint starting/, $offset);
$primary->safe_psql('postgres', q{INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 2000)});
my $since = $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
$primary->safe_psql('postgres', 'UPDATE t SET i = 0 WHERE i = 1000');
catch_up($standby, $primary);
ok(poll_until(sub { return lag() == 0 }), 'the worker has read past the redo point');
my $query = "SELECT 'found ' || count(*) FROM ptrack_get_pagemapset('$since') WHERE path = pg_relation_filepath('t')";
is($standby->safe_psql('postgres', $query), 'found 1', 'the change is known');

# A query is halted that has the worker's position, and no copy of the map yet.
my $directory = PostgreSQL::Test::Utils::tempdir();
my $session = $standby->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
append_to_file("$directory/commands", <<"EOF");
break map_snapshot_both
shell touch $directory/attached
continue
shell touch $directory/halted; until [ -e $directory/go ]; do sleep 0.1; done
detach
EOF
my $output = '';
my $debugger = IPC::Run::start([ 'gdb', '-p', $pid, '--batch', '-x', "$directory/commands" ],
	'<', \undef, '>', \$output, '2>&1');
ok(poll_until(sub { return -e "$directory/attached" }), 'the debugger is there');
$session->query_until(qr/asked/, "\\echo asked\n$query;\n\\echo answered\n");
ok(poll_until(sub { return -e "$directory/halted" }), 'a query is halted');

# The checkpoint ends, and the worker goes back.  It takes its time to read again:
# who was signalled before a new session began knows of that.
$standby->append_conf('postgresql.conf', 'ptrack.scan_rate = 256kB');
$standby->reload;
$standby->poll_query_until('postgres', "SELECT current_setting('ptrack.scan_rate') = '256kB'") or die;
$primary->safe_psql('postgres', 'CHECKPOINT');
ok(poll_until(sub { return lag() > 500000 }), 'the worker has gone back');
append_to_file("$directory/go", '');
$debugger->finish;
like($session->query_until(qr/answered/, ''), qr/found 1/, 'the query has found the change');

$session->quit;
$backup->quit;
$standby->stop('immediate');
$primary->stop('immediate');
done_testing();
