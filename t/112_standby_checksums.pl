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
$standby->stop('immediate');
$standby->start;
is($standby->safe_psql('postgres', $changed), 't', 'also if the standby crashed since');
$standby->safe_psql('postgres', 'CHECKPOINT');
$standby->restart;
is($standby->safe_psql('postgres', $changed), 't', 'that stays so');

# That checkpoint ends, and the standby makes a restartpoint of it, which is before
# where it was shut down, too.  Nothing was durable of what comes after.
$primary->append_conf('postgresql.conf', 'checkpoint_completion_target = 0');
$primary->reload;
$primary->wait_for_log(qr/checkpoint complete/, $offset);
catch_up($standby, $primary);
my $before = checkpoint($standby);
is($standby->safe_psql('postgres', "SELECT '$before'::pg_lsn < '$since'"), 't', 'a restartpoint from before the shutdown');
for my $how ('fast', 'immediate')
{
	$standby->stop($how);
	$standby->start;
	is($standby->safe_psql('postgres', $changed), 't', "that stays so after it, and a stop that is $how");
}
$backup->{run}->kill_kill;
my $later = restartpoint($standby, $primary);
restartpoint($standby, $primary);
$later = restartpoint($standby, $primary);
is($standby->safe_psql('postgres', "SELECT count(*) FROM ptrack_get_pagemapset('$later') WHERE path = pg_relation_filepath('pg_proc')"),
	0, 'and later, little changes');

# Checksums are disabled, and enabled again, without a restartpoint in between.  What
# was written meanwhile, hint bits that no WAL tells of, then had wrong ones.
$primary->safe_psql('postgres', 'CREATE TABLE hinted AS SELECT i FROM generate_series(1, 1000) i');
$later = restartpoint($standby, $primary);
my $earlier = $standby->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
isnt($earlier, $later, 'changes are known from before');
# What says it is the summary that ends there, which the worker may still have to write.
await_file($standby, $later);
for my $what ('disable', 'enable')
{
	$standby->stop;
	run_log([ 'pg_checksums', "--$what", '-D', $standby->data_dir ]);
	$standby->start;
	await_answers($standby);
	is($standby->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $later, 'what says that there were some is forgotten') if $what eq 'disable';
	$standby->safe_psql('postgres', 'SELECT count(*) FROM hinted');
}
is($standby->safe_psql('postgres', "SELECT pagecount = pg_relation_size('hinted') / 8192 FROM ptrack_get_pagemapset('$later') WHERE path = pg_relation_filepath('hinted')"),
	't', 'and everything has changed');
$standby->stop;
$primary->stop('immediate');

done_testing();
