# What dev/report-screenshot does, once there are a server and a browser: see there.
#
# usage: report-screenshot.pl DIRECTORY, with the server's programs in PATH; the
# directory gets everything that is made, report.png among it.

use strict;
use warnings FATAL => 'all';

my ($work) = @ARGV or die "usage: report-screenshot.pl DIRECTORY\n";
my @connection = ('-h', $work, '-p', 5432, '-U', 'postgres');
my @browser = ('chromium-headless-shell', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', "--user-data-dir=$work/browser");
my $page = "file://$work/report.html";
my %problems;

# Comes here from PGOPTIONS and the like only by accident.
delete @ENV{ grep { /^PG(?!_COLOR)/ } keys %ENV };

# Runs a program, and returns what it printed; messages go to the log.
sub output
{
	my (@command) = @_;
	my $pid = open(my $fh, '-|') // die "could not fork: $!\n";

	if ($pid == 0)
	{
		open STDERR, '>>', "$work/log" or die;
		exec @command or die "could not run $command[0]: $!\n";
	}
	my $output = do { local $/; <$fh> } // '';
	return $output if close $fh;
	open my $log, '<', "$work/log" or die;
	print STDERR <$log>;
	die "failed: @command\n";
}

sub sql
{
	return output('psql', @connection, qw(-X -A -t -q -v ON_ERROR_STOP=1 -d postgres -c), $_[0]) =~ s/\n\z//r;
}

sub start_server
{
	output('initdb', '-D', "$work/data", '--no-sync', '--no-locale', '-A', 'trust', '-U', 'postgres', '-E', 'UTF8');
	open my $conf, '>>', "$work/data/postgresql.conf" or die "could not write settings: $!\n";
	print $conf <<"EOS";
shared_preload_libraries = 'ptrack'
unix_socket_directories = '$work'
listen_addresses = ''
autovacuum = off
fsync = off
max_wal_size = 8GB
EOS
	close $conf or die;
	output('pg_ctl', '-s', '-w', '-D', "$work/data", '-l', "$work/server.log", 'start');
	sql('CREATE EXTENSION ptrack');
	return;
}

# A hot range of accounts that wanders, history that grows, and now and then something
# larger; with a redo point after each round.  Returns the first one.
sub load
{
	my $rounds = 24;
	my %larger = (
		4 => 'UPDATE pgbench_accounts SET filler = filler WHERE aid BETWEEN 500000 AND 560000',
		9 => 'CREATE TABLE events AS SELECT i, md5(i::text) AS v FROM generate_series(1, 400000) i',
		13 => 'CREATE INDEX events_i_idx ON events (i)',
		17 => 'DELETE FROM events WHERE i > 250000',
		18 => 'VACUUM events',
		20 => 'UPDATE events SET v = v WHERE i % 40 = 0');

	output('pgbench', @connection, qw(-i -q -s 10 postgres));
	sql('CHECKPOINT');
	my $first = sql('SELECT redo_lsn FROM pg_control_checkpoint()');
	for my $round (0 .. $rounds - 1)
	{
		my $low = int(900000 * $round / $rounds);

		open my $script, '>', "$work/script.sql" or die;
		print $script <<"EOS";
\\set aid random_gaussian($low, $low + 100000, 4)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = 1 + :aid % 100;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, :delta, CURRENT_TIMESTAMP);
END;
EOS
		close $script or die;
		output('pgbench', @connection, '-n', '-f', "$work/script.sql", '-t', 1500, 'postgres');
		sql($larger{$round}) if $larger{$round};
		sql('CHECKPOINT');
	}
	return $first;
}

sub compare
{
	my ($what, $shown, $expected) = @_;

	return if $shown eq $expected;
	$problems{$what} = 1;
	print STDERR "$what: the page has \"$shown\", SQL says \"$expected\"\n";
	return;
}

# The rows of a table as the browser has them: lists of texts.
sub rendered_rows
{
	my ($dom, $id) = @_;
	my ($table) = $dom =~ m{<table id="$id">(.*?)</table>}s or die "the page has no table \"$id\"\n";

	return map { [ map { s/<[^>]*>//gr } m{<td[^>]*>(.*?)</td>}g ] } $table =~ m{<tr>(<td.*?)</tr>}gs;
}

# What is shown of user tables, and what was drawn in their maps.
sub check
{
	my ($dom, $first) = @_;
	my @rows = rendered_rows($dom, 'forks');
	my %drawn = $dom =~ /<canvas data-fork="(\d+)"[^>]* data-drawn="(\d+)"/g;
	my @redo = ((map { "'$_'" } $first, split /\n/, sql("SELECT lsn FROM ptrack_redo_points() WHERE lsn > '$first' ORDER BY lsn")), 'NULL');
	my $checked = 0;

	for my $i (0 .. $#rows)
	{
		my (undef, $name, $fork, $changed, undef, $increment, $blocks, $limit) = @{ $rows[$i] };
		next if $name !~ /^public\.(\w+)$/;
		my $where = "relfilenode = pg_relation_filenode('$name') AND relforknumber = " . { main => 0, vm => 2 }->{$fork};

		compare("$name $fork: changed", $changed,
			sql("SELECT count(*) FROM ptrack_changed_blocks('$first') WHERE $where AND NOT is_limit_block"));
		compare("$name $fork: blocks", $blocks, sql("SELECT pg_relation_size('$name', '$fork') / 8192"));
		compare("$name $fork: limit", $limit =~ /^\d+$/ ? $limit : '',
			sql("SELECT relblocknumber FROM ptrack_changed_blocks('$first') WHERE $where AND is_limit_block"));
		compare("$name $fork: increment", $increment,
			sql("SELECT sum(pagecount) FROM ptrack_get_pagemapset('$first') WHERE path = pg_relation_filepath('$name') || '" . ($fork eq 'vm' ? '_vm' : '') . "'"));
		compare("$name $fork: drawn", $drawn{$i} // 'nothing',
			sql('SELECT ' . join ' + ', map { "(SELECT count(*) FROM ptrack_changed_blocks($redo[$_], $redo[$_ + 1]) WHERE $where AND NOT is_limit_block)" } 0 .. $#redo - 1));
		$checked++;
	}
	die "the page has no more than $checked forks of user tables\n" if $checked < 5;

	# The last bar is of a range that goes on.
	my @bars = $dom =~ /<rect[^>]*><title>(\d+) blocks/g;
	compare('number of bars', scalar @bars, scalar @redo - 1);
	compare("bar from $redo[$_]", $bars[$_] // 'nothing', sql("SELECT count(*) FROM ptrack_changed_blocks($redo[$_], $redo[$_ + 1]) WHERE NOT is_limit_block"))
	  for 0 .. $#redo - 2;
	printf STDERR "compared %d relation forks, %d bars\n", $checked, @bars - 1;
	return;
}

start_server();
my $first = load();
output('pg_ptrack', 'report', @connection, '-n', 14, '--since', $first, '--html', "$work/report.html");
check(output(@browser, '--dump-dom', $page), $first);
output(@browser, '--window-size=1340,1480', "--screenshot=$work/report.png", $page);
die "the page is wrong\n" if %problems;
