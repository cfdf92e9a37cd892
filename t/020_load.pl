# Where and how the library is loaded, and what it says when that is wrong.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# Not preloaded.
my $node = PostgreSQL::Test::Cluster->new('plain');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION ptrack');
is($node->safe_psql('postgres', 'SELECT ptrack_version()'), '3.0', 'the version is always told');
for my $call ('ptrack_init_lsn()', "ptrack_get_pagemapset('0/28')", 'pg_stat_ptrack',
	"ptrack_get_blocks('0/28')", "ptrack_changed_blocks('0/28')", "ptrack_get_change_stat('0/28')",
	'pg_stat_progress_ptrack_backup', "ptrack_backup_progress('listing files')", 'ptrack_backup_join(1)')
{
	fails_like($node, "SELECT * FROM $call", '55000',
		q{must be loaded via "shared_preload_libraries".*HINT:.*shared_preload_libraries = 'ptrack'},
		"not preloaded, $call");
}
ok(!-e $node->data_dir . '/ptrack', 'nothing is written');
$node->stop;

# Preloaded, on a server of a data directory that never had it.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'\nwal_level = replica");
$node->start;
my $init = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
is($init, $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()'),
	'coverage begins at the redo point of the first start');
checkpoint($node);
is($node->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, 'and stays there');
ok(-d $node->data_dir . '/ptrack', 'summaries are written');
$node->stop;

# Disabled: the store goes, and coverage begins anew when it is enabled again.
$node->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$node->start;
is($node->safe_psql('postgres', 'SHOW ptrack.map_size'), '0', 'the setting is shown as 0');
my ($ret, $out, $err) = $node->psql('postgres', 'SELECT ptrack_init_lsn()');
is($out, '0/0', 'disabled: no LSN');
like($err, qr/WARNING:  change tracking is disabled/, 'disabled: a warning');
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$init')", '55000',
	'change tracking is disabled.*HINT:.*ptrack.map_size', 'disabled');
is($node->safe_psql('postgres', 'SELECT engine FROM pg_stat_ptrack'), 'off', 'the view says so');
ok(!-e $node->data_dir . '/ptrack', 'the store is removed');
checkpoint($node);
$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT 1 AS a');
$node->stop;
$node->append_conf('postgresql.conf', 'ptrack.map_size = 8');
$node->start;
is($node->safe_psql('postgres', "SELECT ptrack_init_lsn() > '$init'"), 't',
	'enabled again: coverage begins later');
fails_like($node, "SELECT * FROM ptrack_get_pagemapset('$init')", '55000',
	'before the changes that are known.*DETAIL:.*known from.*HINT:.*full backup',
	'enabled again');
$node->stop;

# A single-user session with the library tracks like any other.
$node->start;
my $start = checkpoint($node);
$node->stop;
run_log([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ], '<',
	\"CREATE TABLE single AS SELECT 1 AS a\n");
$node->start;
my %map = pagemap($node, $start);
ok($map{ $node->safe_psql('postgres', "SELECT pg_relation_filepath('single')") },
	'a single-user session is tracked');
$node->stop;

# A server without the hooks follows WAL, and says so if it was told otherwise.
SKIP:
{
	skip 'PTRACK_STOCK does not name a stock server', 6 unless $ENV{PTRACK_STOCK};

	my $stock = PostgreSQL::Test::Cluster->new('stock', install_path => $ENV{PTRACK_STOCK});
	$stock->init;
	$stock->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'\nptrack.engine = hooks");
	$stock->start;
	$stock->safe_psql('postgres', 'CREATE EXTENSION ptrack');
	like(slurp_file($stock->logfile), qr/WARNING:  ptrack cannot use the hooks of this server and follows WAL instead.*built without ptrack's core patch/s,
		'a stock server starts, and its log says what it lacks');
	fails_like($stock, 'SELECT ptrack_init_lsn()', '55000', 'wal_level.*minimal.*HINT:.*replica', 'wal_level minimal');
	is($stock->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), '0', 'and no slot');
	$stock->append_conf('postgresql.conf', 'wal_level = replica');
	$stock->restart;
	is($stock->safe_psql('postgres', 'SELECT engine FROM pg_stat_ptrack'), 'wal', 'the engine is wal');
	$stock->stop;

	# Hooks of another version are not used, whatever they are.
	my $hooks = PostgreSQL::Test::Utils::tempdir() . '/hooks';
	append_to_file("$hooks.c", "int xlog_hooks_version = 99;\nvoid *xlog_insert_hook;\n");
	run_log([ $ENV{CC} // 'cc', '-shared', '-fPIC', '-o', "$hooks.so", "$hooks.c" ]) or BAIL_OUT('could not compile');
	$stock->append_conf('postgresql.conf', 'ptrack.engine = auto');
	my $offset = -s $stock->logfile;
	{
		local $ENV{LD_PRELOAD} = "$hooks.so";
		$stock->start;
	}
	like(log_since($stock, $offset), qr/WARNING:  ptrack cannot use the hooks of this server and follows WAL instead.*another version/s,
		'hooks of another version: a warning');
	is($stock->safe_psql('postgres', 'SELECT engine FROM pg_stat_ptrack'), 'wal', 'and the engine is wal');
	$stock->stop;
}

done_testing();
