# A tablespace whose directory is missing: a backup without it is none.  One that is
# dropped meanwhile does not matter.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');
my $place = PostgreSQL::Test::Utils::tempdir() . '/place';
mkdir $place or die;
$node->safe_psql('postgres', $_) for "CREATE TABLESPACE elsewhere LOCATION '$place'",
  'CREATE TABLE t TABLESPACE elsewhere AS SELECT i FROM generate_series(1, 1000) i';
my $file = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('t')});
my ($link, $version) = $file =~ m{^(pg_tblspc/\d+)/(PG_\w+)};
my $missing = qr{directory "\Q$link/$version\E" of a tablespace is missing};

# What is there is called otherwise while that is done.
sub without
{
	my ($what, $do) = @_;

	rename $what, "$what.away" or die;
	$do->();
	rename "$what.away", $what or die;
	return;
}
my $full = client_backup($node, 'full');
without($place, sub { backup_fails($node, 'no directory', $missing) });
without($place, sub { backup_fails($node, 'no directory, incremental', $missing, prior => $full) });
without("$place/$version", sub { backup_fails($node, 'an empty directory', $missing) });

# It may be lost between being listed and being read, too.
my $schema = $node->safe_psql('postgres', q{SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'ptrack'});
my $read = "SELECT count(*) FROM $schema.ptrack_backup_read(ARRAY['$file'], 0, 8192, NULL)";
without($place, sub { fails_like($node, $read, '58P01', $missing, 'a file of it') });
is($node->safe_psql('postgres', $read =~ s/'\Q$file\E'/'$file.5'/r), '1', 'a file that is not there, in a directory that is');
# Nor are its files taken for unchanged.
my $changes = "SELECT count(*) FROM $schema.ptrack_get_pagemapset('" . $node->safe_psql('postgres', "SELECT $schema.ptrack_init_lsn()") . "') WHERE path = '$file'";
is($node->safe_psql('postgres', $changes), '1', 'a changed file');
without($place, sub { fails_like($node, $changes, '58P01', $missing, 'what has changed of it') });
my $lists = "SELECT count(*) FROM $schema.ptrack_backup_files() WHERE path ~ '^$link'";
is($node->safe_psql('postgres', $lists), '4', 'what is there');

# A tablespace that is being dropped has lost its directory, but not yet its link.
without("$place/$version", sub {
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $link_path = $node->data_dir . "/$link";

	$session->query_until(qr/begun/, "\\echo begun\n$lists;\n");
	# It has come to the links when it has their directory open, and sleeps.
	poll_until(sub {
		return slurp_file("/proc/$pid/stat") =~ /\) S / && grep { (readlink $_ // '') =~ m{/pg_tblspc$} } glob "/proc/$pid/fd/*";
	}) or die 'nobody waits for the link';
	unlink $link_path or die;
	my $output = $session->query(q{SELECT 'done'});
	like($output, qr/^1\ndone/, 'the link goes, too: it is dropped');
	$session->quit;
	symlink $place, $link_path or die;
});
my $copy = client_backup($node, 'once_more');
verify_backup($copy, 'all is there again');
check_chain($node, 'all is there again', $copy);

$node->stop;
done_testing();
