# The control file in a backup is one that the server has written, also if it writes
# another one at that moment.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir() . '/torn_control.so';
run_log([ $ENV{CC} // 'cc', '-shared', '-fPIC', '-Wall', '-Werror', '-o', $library, "$FindBin::RealBin/c/torn_control.c", '-ldl' ])
  or BAIL_OUT('could not compile the library');

my $node = new_node('primary', conf => '');
my $schema = $node->safe_psql('postgres', q{SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'ptrack'});
{
	local $ENV{LD_PRELOAD} = $library;
	$node->restart;
}

# pg_controldata says if it is none.
my $dir = PostgreSQL::Test::Utils::tempdir();
mkdir "$dir/global" or die;
my $checkpoints = $node->background_psql('postgres');
$checkpoints->query_until(qr/begun/, "\\echo begun\n" . "CHECKPOINT;\n" x 20);
my @wrong;
for my $turn (1 .. 20)
{
	my $hex = $node->safe_psql('postgres',
		"SELECT encode(substr(part, 33), 'hex') FROM $schema.ptrack_backup_read(ARRAY['global/pg_control'], 0, 8192, NULL) part");

	open my $fh, '>:raw', "$dir/global/pg_control" or die;
	print $fh pack 'H*', $hex;
	close $fh or die;
	push @wrong, $turn if `pg_controldata -D $dir 2>&1` =~ /warning/i;
}
is("@wrong", '', 'each is whole');
$checkpoints->quit;

$node->stop;
done_testing();
