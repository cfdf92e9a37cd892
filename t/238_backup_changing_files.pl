# Files that grow, shrink, vanish and come while a backup reads them, as a directory
# and as archives: it comes to the server that it was made of.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');
my $turn = 0;

# Tables of some 6 MB each, that are not all read at once; each of them is changed in
# another way.
sub make_tables
{
	$turn++;
	for my $what (qw(grows shrinks goes is_new is_emptied))
	{
		$node->safe_psql('postgres', <<"SQL") for 1 .. 2;
CREATE TABLE ${what}_${turn}_$_ AS SELECT i, repeat(md5(i::text), 6) AS v FROM generate_series(1, 25000) i;
SQL
	}
	return;
}

sub change_tables
{
	for (1 .. 2)
	{
		my $which = "${turn}_$_";

		$node->safe_psql('postgres', $_) for "DROP TABLE goes_$which", "TRUNCATE is_emptied_$which",
		  "INSERT INTO grows_$which SELECT i, 'more' FROM generate_series(1, 50000) i",
		  "DELETE FROM shrinks_$which WHERE i > 1000", "VACUUM (TRUNCATE) shrinks_$which",
		  "VACUUM FULL is_new_$which";
	}

	# That removes the files.
	$node->safe_psql('postgres', 'CHECKPOINT');
	return;
}

# Runs a backup, slowly, while that is done.
sub while_changing
{
	my ($name, @args) = @_;
	my $dir = $node->backup_dir . "/$name";
	my $prior;
	$prior = pop @args if ref $args[-1];

	mkdir $node->backup_dir;
	make_tables();
	my $run = IPC::Run::start([ backup_command($node, $dir, prior => $prior ? $$prior : undef, args => [ '-r', '8M', @args ]) ],
		'>', '/dev/null', '2>', \my $stderr);
	poll_until(sub { -e "$dir/base" || -e "$dir/base.tar" });
	usleep(300_000);
	change_tables();
	my $still_there = $node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots WHERE temporary');
	$run->finish;
	ok(!$run->full_result, "$name: it is made") or diag $stderr;
	is($still_there, '1', "$name: all that was done while it was made");
	command_ok([ 'pg_ptrack', 'verify', $dir ], "$name: it verifies");
	return $dir;
}

my @chain = while_changing('full', '-j', 2);
check_chain($node, 'full', @chain);
push @chain, while_changing('increment', '-j', 2, \$chain[-1]);
check_chain($node, 'increment', @chain);
push @chain, while_changing('archives', '-j', 2, '-F', 't', \$chain[-1]);
check_chain($node, 'archives', @chain);
my $whole = while_changing('whole_archive', '-F', 't', '-r', '30M');
check_chain($node, 'a full backup in archives', $whole);

$node->stop;
done_testing();
