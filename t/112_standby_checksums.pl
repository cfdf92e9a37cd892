# pg_checksums writes every page of a standby, where that was shut down.  Replay
# begins earlier, and comes by another redo point before it is there again: all
# the same, everything has changed since any moment before.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $primary = new_node('primary', conf => "wal_keep_size = 1GB\ncheckpoint_completion_target = 0.9");
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 100000) i');
my $standby = new_standby('standby', $primary);
checkpoint($primary);

# A checkpoint of the primary begins, and does not end.
$primary->safe_psql('postgres', 'UPDATE t SET i = i + 1');
my $offset = -s $primary->logfile;
my $backup = $primary->background_psql('postgres');
$backup->query_until(qr/begins/, "\\echo begins\nSELECT pg_backup_start('ptrack', false);\n");
$primary->wait_for_log(qr/checkpoint starting/, $offset);
$primary->safe_psql('postgres', 'CREATE TABLE u AS SELECT i FROM generate_series(1, 100000) i');
catch_up($standby, $primary);
my $since = $standby->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
$standby->stop;
run_log([ 'pg_checksums', '--enable', '-D', $standby->data_dir ]);
$standby->start;
catch_up($standby, $primary);
my $changed = "SELECT pagecount = pg_relation_size('pg_proc') / 8192 FROM ptrack_get_pagemapset('$since') WHERE path = pg_relation_filepath('pg_proc')";
is($standby->safe_psql('postgres', $changed), 't', 'everything has changed since the shutdown');
$standby->safe_psql('postgres', 'CHECKPOINT');
$standby->restart;
is($standby->safe_psql('postgres', $changed), 't', 'that stays so');
$backup->{run}->kill_kill;
my $later = restartpoint($standby, $primary);
restartpoint($standby, $primary);
$later = restartpoint($standby, $primary);
is($standby->safe_psql('postgres', "SELECT count(*) FROM ptrack_get_pagemapset('$later') WHERE path = pg_relation_filepath('pg_proc')"),
	0, 'and later, little changes');
$standby->stop;
$primary->stop('immediate');

done_testing();
