# What the server shows of backups that are going on: how far they are, to those who
# may know, and that they are gone, however they end.

use strict;
use warnings FATAL => 'all';

use FindBin;
use JSON::PP qw(decode_json);
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $view = 'pg_stat_progress_ptrack_backup';

# Archiving waits for this file, and so does a backup without WAL.
my $go = PostgreSQL::Test::Utils::tempdir() . '/go';
my $node = new_node('primary', conf => <<"EOS");
wal_keep_size = 1GB
archive_mode = on
archive_command = 'test -e $go'
max_connections = 60
EOS
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS v FROM generate_series(1, 40000) i;
CREATE ROLE nobody LOGIN;
CREATE ROLE monitor LOGIN IN ROLE pg_read_all_stats;
CREATE ROLE backup LOGIN REPLICATION;
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO backup;
GRANT EXECUTE ON FUNCTION ptrack_await_summary, ptrack_backup_files, ptrack_backup_read TO backup;
EOS
my $prior = client_backup($node, 'prior');

# Begins a backup, whose sessions have that name, too.
sub begin
{
	my ($name, %options) = @_;
	local $ENV{PGAPPNAME} = $name;
	my %backup = (name => $name, stderr => '');

	push @{ $options{args} }, '--log-json', '-P';
	$backup{run} = IPC::Run::start([ backup_command($node, $node->backup_dir . "/$name", %options) ],
		'>', '/dev/null', '2>', \$backup{stderr});
	return \%backup;
}

# What its client said last of how far it is, once it has said something.
sub said
{
	my ($backup) = @_;
	my @lines;

	poll_until(sub {
		$backup->{run}->pump_nb;
		@lines = grep { /"type": "progress"/ } $backup->{stderr} =~ /^(.*)\n/mg;
		return @lines;
	}) or die "$backup->{name} says nothing of its progress";
	return decode_json($lines[-1]);
}

sub rows
{
	my ($where, @params) = @_;

	return map { decode_json($_) } split /\n/,
	  $node->safe_psql('postgres', "SELECT to_jsonb(p) FROM $view p WHERE $where", extra_params => \@params);
}

# Waits until its row is like that, and returns it.
sub await_row
{
	my ($backup, $name, $condition) = @_;
	my $row;

	ok(poll_until(sub {
		$backup->{run}->pump_nb;
		($row) = rows("pid IN (SELECT pid FROM pg_stat_activity WHERE application_name = '$backup->{name}')");
		return $row && $condition->($row);
	}), "$backup->{name}: $name") or diag(explain($row), $backup->{stderr});
	return $row;
}

sub await_rows
{
	my ($name, @pids) = @_;
	my $expected = join ' ', sort @pids;

	ok(poll_until(sub { $expected eq join ' ', sort map { $_->{pid} } rows('true') }), $name)
	  or diag(explain([ rows('true') ]));
	return;
}

sub is_streaming
{
	my ($row) = @_;

	return $row->{phase} eq 'streaming database files' && $row->{backup_streamed} > 0 && $row->{workers} == 2;
}

# A role that may not show its backups makes them all the same.
my $silent = begin('silent', args => [ '-U', 'backup', '-j', 2, '-r', '128k' ]);
said($silent);
is(scalar rows('true'), 0, 'a role that may not show its backup');
$silent->{run}->signal('KILL');
$silent->{run}->finish;
$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION ptrack_backup_progress, ptrack_backup_join TO backup');

# A full backup, that takes minutes
my $slow = begin('slow', args => [ '-U', 'backup', '-j', 2, '-r', '128k' ]);
my $row = await_row($slow, 'files are streamed', \&is_streaming);
my $said = said($slow);
is($row->{backup_total}, $said->{bytes_total}, 'the total is what the client says');
is($row->{files_total}, $said->{files_total}, 'and so is the number of files');
is($row->{incremental}, JSON::PP::false, 'it is a full backup');
is($row->{datname}, 'postgres', 'its database');
is($node->safe_psql('postgres', "SELECT '$row->{started_at}' BETWEEN backend_start AND now() FROM pg_stat_activity WHERE pid = $row->{pid}"),
	't', 'when it started');
my $grown = await_row($slow, 'it goes on', sub { $_[0]{backup_streamed} > $row->{backup_streamed} });
await_row($slow, 'with files', sub { $_[0]{files_streamed} > 0 });
my $pid = $row->{pid};

# Who sees what
for my $role (qw(nobody monitor backup))
{
	my ($seen) = rows('true', '-U', $role);

	is($seen->{pid}, $pid, "$role sees that there is a backup");
	is($seen->{datname}, 'postgres', 'and where');
	my @details = grep { defined $seen->{$_} } grep { !/^pid$|^dat/ } keys %$seen;
	is(scalar @details, $role eq 'nobody' ? 0 : 8, $role eq 'nobody' ? 'and no more' : 'and all about it');
}

# Another one at the same time has sent everything, to the byte and the file, and
# waits to be archived.
my $none = begin('none', args => [ '-j', 3, '-X', 'none' ]);
$row = await_row($none, 'archiving is waited for', sub { $_[0]{phase} eq 'waiting for wal archiving to finish' });
my $control = -s $node->data_dir . '/global/pg_control';
ok(poll_until(sub { $said = said($none); return $said->{bytes} + $control >= $row->{backup_streamed} }), 'its client has got all');
is($row->{backup_streamed}, $said->{bytes} + $control, 'as many bytes were sent as the client got');
is($row->{files_streamed}, $said->{files} + 1, 'and as many files');
cmp_ok($row->{backup_total}, '>=', $said->{bytes_total}, 'the total');
# The server may be a moment later than the client to notice that they end.
await_row($none, 'its connections have gone', sub { $_[0]{workers} == 0 });
my $none_pid = $row->{pid};
await_rows('both are shown', $pid, $none_pid);

# And an increment, with the changed blocks only
$node->safe_psql('postgres', 'UPDATE t SET i = -i WHERE i > 20000');
my $increment = begin('increment', prior => $prior, args => [ '-j', 2, '-r', '128k' ]);
$row = await_row($increment, 'blocks are streamed', \&is_streaming);
$said = said($increment);
is($row->{backup_total}, $said->{bytes_total}, 'the total of an increment');
cmp_ok($row->{files_total}, '<', $said->{files_total}, 'files that did not change do not count');
is($row->{incremental}, JSON::PP::true, 'it is an increment');
await_row($increment, 'it goes on', sub { $_[0]{backup_streamed} > $row->{backup_streamed} });
await_row($slow, 'and so does the other one', sub { $_[0]{backup_streamed} > $grown->{backup_streamed} });
await_rows('all three are shown', $pid, $none_pid, $row->{pid});

# However it ends
$slow->{run}->signal('KILL');
$slow->{run}->finish;
await_rows('the client is killed', $none_pid, $row->{pid});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($row->{pid})");
ok(!$increment->{run}->finish, 'the connection is terminated');
await_rows('it is not shown any more', $none_pid);
append_to_file($go, '');
$node->reload;
ok($none->{run}->finish, 'the last one completes');
await_rows('and is gone');

# A session that has joined, and outlives the backup, counts for no other one.
sub show
{
	my ($session) = @_;

	return $session->query_safe("SELECT ptrack_backup_progress('streaming database files', 1000000, 100)");
}
sub pid_of { return $_[0]->query_safe('SELECT pg_backend_pid()'); }
my $read = q{SELECT count(*) FROM ptrack_backup_read(ARRAY['global/1262'], 0, 8192, NULL)};
my ($owner, $worker, $next) = map { $node->background_psql('postgres') } 1 .. 3;
show($owner);
is($worker->query_safe('SELECT ptrack_backup_join(' . pid_of($owner) . ')'), 't', 'joined');
is($worker->query_safe('SELECT ptrack_backup_join(' . pid_of($owner) . ')'), 't', 'and again');
$worker->query_safe($read);
($row) = rows('true');
is("$row->{workers} $row->{backup_streamed} $row->{files_streamed}", '1 8192 1', 'what it sends counts');
my $gone = pid_of($owner);
$owner->quit;
await_rows('the backup is gone');
show($next);
$worker->query_safe($read);
($row) = rows('true');
is($row->{pid}, pid_of($next), 'there is another one');
is("$row->{workers} $row->{backup_streamed} $row->{files_streamed}", '0 0 0', 'to which nothing was added');
is($worker->query_safe("SELECT ptrack_backup_join($gone)"), 'f', 'what is gone cannot be joined');
is($worker->query_safe('SELECT ptrack_backup_join(' . pid_of($next) . ')'), 't', 'but the next one can');
$worker->quit;
ok(poll_until(sub { (rows('true'))[0]{workers} == 0 }), 'workers go, too');

# Another role's
$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION ptrack_backup_join TO nobody');
my ($ret, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT ptrack_backup_join(" . pid_of($next) . ')',
	extra_params => [ '-U', 'nobody' ]);
like($stderr, qr/ERROR:  42501: permission denied to join a backup of another role/, "another role's backup");
is((rows('true'))[0]{workers}, 0, 'was not joined');
$next->quit;
await_rows('none is left');

# There is room for so many, and after these no less.  Their place is free when those
# that joined have left, too.
ok(poll_until(sub {
	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('slow', 'none', 'increment')") eq '0';
}), 'all sessions of backups have ended');
for my $round (1, 2)
{
	my @sessions = map { $node->background_psql('postgres') } 1 .. 17;

	is(join(' ', map { show($_) } @sessions), join(' ', ('t') x 16, 'f'), "round $round: room for 16");
	is(scalar rows('true'), 16, 'which are shown');
	is($sessions[-1]->query_safe('SELECT ptrack_backup_join(' . pid_of($sessions[3]) . ')'), 't', 'one is joined');
	$sessions[3]->query_safe('SELECT ptrack_backup_progress(NULL)');
	is(scalar rows('true'), 15, 'and ends');
	is(show($sessions[3]), 'f', 'there is no room as long as it is joined');
	is(show($sessions[-1]), 't', 'and then there is');
	$_->quit for @sessions;
	await_rows('all are gone');
}

# After a crash
my $session = $node->background_psql('postgres');
show($session);
$node->stop('immediate');
$node->start;
is(scalar rows('true'), 0, 'none is left after a crash');

# Without tracking, there is nothing to see, and nothing fails.
$node->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$node->restart;
is($node->safe_psql('postgres', "SELECT ptrack_backup_progress('listing files'), ptrack_backup_join(1), count(*) FROM $view"),
	'f|f|0', 'tracking is disabled');
$node->stop;
done_testing();
