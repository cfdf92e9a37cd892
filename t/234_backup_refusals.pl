# Backups that cannot be made, or are interrupted: a clear message, exit status 1, and
# nothing is left.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $breaker = call_breaker();

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS v FROM generate_series(1, 40000) i;
CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'word';
EOS
my $full = client_backup($node, 'full');

# Runs a slow backup, and does something meanwhile.  Nothing must be left.
sub interrupted
{
	my ($name, $pattern, $meanwhile) = @_;
	my $dir = $node->backup_dir . '/interrupted';
	my @command = backup_command($node, $dir, args => [ '-j', 2, '-r', '2M' ]);
	my ($run, $stderr);

	# Only its own sessions have that name.
	{
		local $ENV{PGAPPNAME} = 'pg_ptrack';
		$run = IPC::Run::start(\@command, '>', '/dev/null', '2>', \$stderr);
	}
	await_fetching($node, 2);
	$meanwhile->($run);
	$run->finish;
	is($run->result, 1, "$name: exit status");
	like($stderr, $pattern, "$name: says why");
	ok(!-e $dir, "$name: nothing is left");
	ok(poll_until(sub {
		return $node->safe_psql('postgres', <<'EOS') eq '0';
SELECT (SELECT count(*) FROM pg_replication_slots WHERE temporary) + count(*) FROM pg_stat_activity
WHERE application_name = 'pg_ptrack'
EOS
	}), "$name: nor on the server");
	return;
}
interrupted('SIGINT', qr/removing the directory/, sub { $_[0]->signal('INT') });
interrupted('SIGTERM', qr/removing the directory/, sub { $_[0]->signal('TERM') });
for my $which (qw(ASC DESC))
{
	interrupted("a connection is terminated, $which", qr/terminating connection due to administrator command|server closed the connection/, sub {
		$node->safe_psql('postgres', <<"EOS");
SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_ptrack'
	ORDER BY backend_start $which LIMIT 1) p
EOS
	});
}
interrupted('the server is stopped', qr/terminating connection due to administrator command|server closed the connection/,
	sub { $node->restart });

# Full disk, and other errors of files, at calls all over the backup
{
	my $count = PostgreSQL::Test::Utils::tempdir() . '/count';
	{
		local %ENV = (%ENV, LD_PRELOAD => $breaker, KILL_COUNT => $count);
		command_ok([ backup_command($node, $node->backup_dir . '/counted') ], 'without faults');
	}
	my ($calls) = slurp_file($count) =~ /(\d+)/;

	for my $error (28, 5)
	{
		local $! = $error;
		my $text = "$!";

		for my $at (20, map { int($calls * $_ / 6) } 1 .. 5)
		{
			local %ENV = (%ENV, LD_PRELOAD => $breaker, FAIL_AT => $at, FAIL_ERRNO => $error);
			backup_fails($node, "call $at of $calls: $text", qr/error: could not .*: \Q$text\E/);
		}
	}
}

# Passwords
open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die;
print $hba "local all secret scram-sha-256\nlocal all all trust\nlocal replication all trust\n";
close $hba;
$node->reload;
{
	local $ENV{PGPASSWORD} = 'wrong';
	backup_fails($node, 'a wrong password', qr/password authentication failed/, args => [ '-U', 'secret', '-w' ]);
}
backup_fails($node, 'no password', qr/no password supplied/, args => [ '-U', 'secret', '-w' ]);
{
	local $ENV{PGPASSWORD} = 'word';
	command_ok([ backup_command($node, $node->backup_dir . '/by_password', args => [ '-U', 'secret', '-w', '-j', 2 ]) ], 'the right password');
}
backup_fails($node, 'a label of two lines', qr/label cannot have more than one line/, args => [ '-l', "one\nSTART TIMELINE: 7" ]);
backup_fails($node, 'no such server', qr/could not connect|connection to server .* failed/, args => [ '-h', '/nowhere' ]);
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
backup_fails($node, 'a role without privileges', qr/permission denied|must be superuser|permission to/, args => [ '-U', 'nobody' ]);

# Prior backups that are none
sub manifest
{
	my ($name, $change) = @_;
	my $dir = $node->basedir . "/$name";
	my $text = slurp_file("$full/backup_manifest");

	mkdir $dir;
	$change->() for $text;
	$text =~ s/"Manifest-Checksum": "\K[0-9a-f]+/sha256_hex($text =~ s{[^\n]*\n\z}{}r)/e;
	open my $fh, '>', "$dir/backup_manifest" or die;
	print $fh $text;
	close $fh;
	return $dir;
}
backup_fails($node, 'a hostile manifest', qr/leads outside of the backup/,
	prior => manifest('hostile', sub { s{"Path": "PG_VERSION"}{"Path": "../PG_VERSION"} }));
backup_fails($node, 'a manifest of the future', qr/unexpected manifest version/,
	prior => manifest('future', sub { s{Version": \d}{Version": 7} }));
backup_fails($node, 'a manifest without WAL', qr/contains no required WAL ranges/,
	prior => manifest('no_wal', sub { s/"WAL-Ranges": \[.*?\]/"WAL-Ranges": [\n]/s }));
backup_fails($node, 'a manifest that is cut', qr/could not parse backup manifest/,
	prior => manifest('cut', sub { $_ = substr $_, 0, 1000 }));

# A clone of the server, after both have gone their ways: the LSNs alone would do.
my $clone = PostgreSQL::Test::Cluster->new('clone');
$node->stop;
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $clone->data_dir, filterfn => sub { $_[0] ne 'postmaster.pid' });
chmod 0700, $clone->data_dir;
$clone->append_conf('postgresql.conf', 'port = ' . $clone->port);
$_->start for $node, $clone;
$_->safe_psql('postgres', "CREATE TABLE own AS SELECT '" . $_->name . "'; CHECKPOINT") for $node, $clone;
my $of_primary = client_backup($node, 'of_primary', prior => $full);
$clone->safe_psql('postgres', 'CREATE TABLE more AS SELECT * FROM t; SELECT pg_switch_wal(); CHECKPOINT');
backup_fails($clone, 'a prior backup of the server that this was cloned from', qr/is not in the history of this server/, prior => $of_primary);
$clone->stop;

# Without tracking
$node->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$node->restart;
backup_fails($node, 'tracking is disabled', qr/tracking is disabled|change tracking is disabled/, prior => $full);
my $untracked = $node->backup_dir . '/untracked';
command_checks_all([ backup_command($node, $untracked) ], 0, [],
	[qr/warning: tracking of changes is disabled on the server: no incremental backup can be relative to this one/],
	'a full backup without tracking is made, with a warning');
verify_backup($untracked, 'a full backup without tracking');

# Without the library
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
backup_fails($node, 'the library is not loaded', qr/ptrack is not loaded on this server\n.*shared_preload_libraries/s);

# What is no command
command_fails_like(['pg_ptrack'], qr/error: no command specified\n.*hint: Try "pg_ptrack --help"/, 'no command');
command_fails_like([ 'pg_ptrack', 'backups' ], qr/error: unrecognized command "backups"\n.*hint: Try "pg_ptrack --help"/, 'another command');
command_like([ 'pg_ptrack', '--version' ], qr/^pg_ptrack \(ptrack\) \d+\.\d+/, '--version');

$node->stop;
done_testing();
