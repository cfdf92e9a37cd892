# pg_upgrade makes another server: what the old one knew does not count there, and no
# backup of the old one is a prior backup.  The new one tracks from its first start on.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $old = new_node('old', conf => '');
$old->safe_psql('postgres', 'CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i');
my @redo = map { $old->safe_psql('postgres', 'UPDATE t SET i = i + 1'); checkpoint($old) } 1 .. 3;
my %lineage = map { $_ => $old->safe_psql('postgres', "SELECT ptrack_lineage('$_')") } @redo;
$old->stop;

# The new one has the library from its first moment on, and so while its contents are made.
my $new = new_node('new', conf => '');
$new->safe_psql('postgres', 'DROP EXTENSION ptrack');
my $system = $new->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()');
$new->stop;
my $bindir = $new->config_data('--bindir');
chdir PostgreSQL::Test::Utils::tempdir() or die "could not change directory: $!";
command_ok([
		'pg_upgrade', '--old-datadir' => $old->data_dir, '--new-datadir' => $new->data_dir,
		'--old-bindir' => $bindir, '--new-bindir' => $bindir, '--socketdir' => $new->host,
		'--old-port' => $old->port, '--new-port' => $new->port ],
	'pg_upgrade with the extension and the library');

$new->start;
await_answers($new);
sub sql { return $new->safe_psql('postgres', $_[0]); }
is(sql(q{SELECT extversion FROM pg_extension WHERE extname = 'ptrack'}), '3.0', 'the extension is there');
is(sql('SELECT system_identifier FROM pg_control_system()'), $system, 'the server is the new one');
my $init = sql('SELECT ptrack_init_lsn()');
is(sql("SELECT '$init' > '$redo[-1]'::pg_lsn"), 't', 'what is known begins after all that the old server did');
for my $redo (@redo)
{
	for my $question ("ptrack_get_pagemapset('$redo')", "ptrack_get_pagemapset('$redo', '$lineage{$redo}')")
	{
		fails_like($new, "SELECT * FROM $question", '55000', 'HINT:.*full backup', $question);
	}
}

# From there on, everything is known, as on any other server.
my $start = checkpoint($new);
sql('UPDATE t SET i = i + 1');
my %map = pagemap($new, $start);
my $path = sql(q{SELECT pg_relation_filepath('t')});
cmp_ok(scalar(@{ $map{$path} // [] }), '>=', sql('SELECT count(DISTINCT (ctid::text::point)[0]) FROM t'), 'it tracks changes');
$new->restart;
is(sql('SELECT ptrack_init_lsn()'), $init, 'and knows them after a restart');

# Summaries that somebody carries over from the old server are no more than files.
$new->stop;
my %own = map { s{.*/}{}r => 1 } summary_files($new);
my @stray = grep { !$own{ s{.*/}{}r } } summary_files($old);
cmp_ok(scalar(@stray), '>', 1, 'there are summaries of the old server');
system_or_bail('cp', @stray, $new->data_dir . '/ptrack');
my $offset = -s $new->logfile;
$new->start;
is(sql('SELECT ptrack_init_lsn()'), $init, 'put there, they change nothing');
sql('SELECT gaps FROM pg_stat_ptrack');
like(log_since($new, $offset), qr/WARNING:  ignoring change summary .*belongs to another server/, 'and there is a warning');
fails_like($new, "SELECT * FROM ptrack_get_pagemapset('$redo[0]')", '55000', 'before the changes that are known', 'with the old summaries');
$new->stop;

done_testing();
