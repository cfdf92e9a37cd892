# "pg_ptrack backup -X stream" of a server at work: WAL of many segments comes while
# files are fetched, and answers go back in time, without which the server would end
# the connection.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('primary', initdb => ['--wal-segsize=1'], conf => "wal_sender_timeout = 3s\nmin_wal_size = 2MB\nlog_replication_commands = on");
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, repeat(md5(i::text), 10) FROM generate_series(1, 30000) i;
VACUUM;
SQL

# Makes a backup that takes some seconds, while several segments are written and
# removed, if none but the backup's connection needs them; then nothing is, for
# longer than the server waits.
sub slow_backup
{
	my ($name, %options) = @_;
	my $dir = $node->backup_dir . "/$name";
	my $stderr = '';
	my $logged = -s $node->logfile;
	my $began = time;

	mkdir $node->backup_dir;
	my $run = IPC::Run::start([ backup_command($node, $dir, %options, args => [ '-r', '5M', '-X', 'stream' ]) ],
		'>', '/dev/null', '2>', \$stderr);
	poll_until(sub { -e "$dir/base" });
	for my $turn (1 .. 3)
	{
		$node->safe_psql('postgres', "CREATE TABLE ${name}_$turn AS SELECT * FROM t WHERE id <= 5000; CHECKPOINT");
	}
	$run->finish;
	ok(!$run->full_result, "$name: it is made") or diag($stderr);
	cmp_ok(time - $began, '>', 4, "$name: while the server would have ended the connection");
	unlike(log_since($node, $logged), qr/terminating walsender process due to replication timeout/, "$name: it did not");
	my @segments = map { m{/(\w{24})$} } glob "$dir/pg_wal/*";
	my ($first) = slurp_file("$dir/backup_label") =~ /^START WAL LOCATION: .*\(file (\w{24})\)/m;
	is($segments[0], $first, "$name: WAL begins with the segment that the backup starts in");
	cmp_ok(scalar @segments, '>=', 5, "$name: there are many");
	is(join(' ', grep { -s "$dir/pg_wal/$_" != 1024 * 1024 } @segments), '', "$name: all are whole");
	verify_backup($dir, $name);
	return ($dir, $first);
}

my ($full, $first) = slow_backup('full');
# Its slot goes when the server notices that the connection has ended.
ok(poll_until(sub {
	$node->safe_psql('postgres', 'CHECKPOINT');
	return !-e $node->data_dir . "/pg_wal/$first";
}), 'full: the server has its first segment no more');
$node->safe_psql('postgres', 'UPDATE t SET n = 1');
my ($one) = slow_backup('one', prior => $full);

# What was streamed is all that there is of it: recovered alone, the copy has what
# was committed while the backup ran.
for my $copy ([ full => $full ], [ one => $full, $one ])
{
	my ($name, @chain) = @$copy;
	my $restored = combine_backups("restored_$name", [], @chain);

	chmod 0700, $restored->data_dir;
	$restored->append_conf('postgresql.conf', 'port = ' . $restored->port);
	$restored->start;
	is($restored->safe_psql('postgres', "SELECT count(*), md5(string_agg(v, '' ORDER BY id)) FROM ${name}_3"),
		$node->safe_psql('postgres', "SELECT count(*), md5(string_agg(v, '' ORDER BY id)) FROM ${name}_3"), "$name: recovered from WAL that was streamed");
	is($restored->safe_psql('postgres', 'SELECT sum(n) FROM t'), $name eq 'one' ? 30000 : 0, "$name: and so is what was there before");
	$restored->stop;
	$restored->clean_node;
}

# WAL that is fetched, and not there in the end.
sub without_wal
{
	my ($name, $pattern, $act) = @_;
	my $dir = $node->backup_dir . '/fails';
	my $run = IPC::Run::start([ backup_command($node, $dir, prior => $one, args => [ '-r', '5M' ]) ], '>', '/dev/null', '2>', \my $stderr);

	poll_until(sub { -e "$dir/base" });
	$run->signal('STOP');
	my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()');
	$node->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'ptrack', ''); SELECT pg_switch_wal()");
	$act->($node->data_dir . "/pg_wal/$segment");
	$run->signal('CONT');
	$run->finish;
	is($run->result, 1, "$name: exit status");
	like($stderr, $pattern->($segment), "$name: says why");
	ok(!-e $dir, "$name: nothing is left");
	return;
}
# Where WAL is followed, ptrack itself is the first to miss it.
if (!follows_wal())
{
	without_wal('a segment is gone', sub { qr/requested WAL segment $_[0] has already been removed/ }, sub { unlink $_[0] or die });
	without_wal('a segment is short', sub { qr/WAL segment "$_[0]" has 524288 bytes instead of 1048576/ },
		sub { truncate $_[0], 524288 or die });
}

$node->stop('immediate');
done_testing();
