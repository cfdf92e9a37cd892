# pg_ptrack report: its text and its page have the numbers that SQL gives, names are
# only ever text, whatever is in them, and what cannot be told is a clear error.

use strict;
use warnings FATAL => 'all';

use Encode qw(decode_utf8);
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use List::Util qw(first sum0);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# SQL_ASCII, so that names may be no text at all.
my $node = new_node('primary', conf => 'autovacuum = off', initdb => [ '-E', 'SQL_ASCII', '--no-locale' ]);
my $work = PostgreSQL::Test::Utils::tempdir();
my $hostile = qq{</script><script>alert("1")</script><!-- & 'x' \\"};
my $strange = "\e[31m\xff \xe2\x80\xae \xc3\xbc\xc2\x9b";
my $strange_shown = "\x{fffd}[31m\x{fffd} \x{202e} \x{fc}\x{fffd}";

sub quoted { return '"' . $_[0] =~ s/"/""/gr . '"'; }

sub report_command
{
	return ('pg_ptrack', 'report', '-d', $node->connstr('postgres'), @_);
}

sub report_fails
{
	my ($name, $pattern, @args) = @_;
	my ($out, $err) = run_command([ report_command(@args) ]);

	is($? >> 8, 1, "$name: exit status");
	is($out, '', "$name: prints nothing");
	like($err, $pattern, "$name: says why");
	return;
}

# Rows of a query, as lists.
sub rows
{
	my ($sql) = @_;

	return map { [ split /\|/, $_, -1 ] } split /\n/, $node->safe_psql('postgres', $sql);
}

# A page, its data, and its table of forks as [relation, fork, changed, increment,
# blocks, limit].
sub page
{
	my (@args) = @_;
	my $file = "$work/page.html";

	command_ok([ report_command('--html', $file, @args) ], "a page is made: @args");
	my $html = slurp_file($file);
	my ($data) = $html =~ m{<script id="data" type="application/json">\n(.*?)\n</script>}s or die 'no data';
	my ($table) = $html =~ m{<table id="forks">(.*?)</table>}s or die 'no table';
	my @forks;

	for my $row ($table =~ m{<tr>(<td>.*)</tr>}g)
	{
		my @cells = map { s/<[^>]*>//gr =~ s/&#(\d+);/chr $1/ger =~ s/&ndash;//r } $row =~ m{<td[^>]*>(.*?)</td>}g;

		push @forks, [ @cells[ 1, 2, 3, 5, 6, 7 ] ];
	}
	return ($html, decode_json($data), \@forks);
}

# What changed of user relations, which nobody but this test changes: by relation and
# fork.  Their numbers identify them, since names are what is tested.
my $user = 'relfilenode >= 16384 AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())';
my @number_columns = qw(changed increment blocks limit);

sub forks_by_sql
{
	my ($since) = @_;

	return { map { ("$_->[0] $_->[1]" => "@$_[2 .. 5]") } rows(<<"EOS") };
SELECT relfilenode, fork, changed_blocks, increment_blocks, blocks, limit_block FROM ptrack_report('$since') WHERE $user
EOS
}

sub forks_of_data
{
	my ($data) = @_;

	return { map { my $fork = $_; ("$_->{relfilenode} $_->{fork}" => join ' ', map { $_ // '' } @$fork{@number_columns}) }
		  grep { $_->{relfilenode} >= 16384 && ($_->{database} // '') eq 'postgres' } @{ $data->{forks} } };
}

# Load, with a redo point after each
my @redo = (checkpoint($node));
for my $sql (
	'CREATE TABLE t (i int, v text) WITH (fillfactor = 50); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i',
	'CREATE TABLE other AS SELECT * FROM t; CREATE INDEX ON other (i); VACUUM other',
	"UPDATE t SET v = 'x' WHERE i % 900 = 1",
	'DELETE FROM other WHERE i > 5000; VACUUM other',
	'CREATE TABLE ' . quoted($hostile) . ' AS SELECT 1 AS i; CREATE DATABASE ' . quoted($hostile),
	'CREATE TABLE ' . quoted($strange) . ' AS SELECT 1 AS i')
{
	$node->safe_psql('postgres', $_) for split /; /, $sql;
	push @redo, checkpoint($node);
}
$node->safe_psql('postgres', 'UPDATE t SET i = 0 WHERE i > 19000');

# Text
my ($text, $err) = run_command([ report_command('--since', $redo[0], '-n', 1000) ]);
is($err, '', 'text: no error');
my $number = qr/(\d+|-)/;
my %name = map { ($_->[0] => $_->[1]) } rows("SELECT relfilenode, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace");
my $by_sql = forks_by_sql($redo[0]);
for my $key (sort keys %$by_sql)
{
	my ($node_number, $fork) = split / /, $key;
	next if ($name{$node_number} // '') !~ /^\w+$/;
	my ($line) = $text =~ /^postgres +public\.$name{$node_number} +$fork +(.*)$/m;
	my ($changed, $increment, $blocks, $limit) = split / /, $by_sql->{$key}, -1;
	my $expected = join ' ', map { $_ eq '' ? '-' : $_ } $changed, $increment, $blocks, $limit;

	is(join(' ', ($line // '') =~ /^$number +[\d.]+ % +$number +$number +$number$/), $expected, "text: $name{$node_number}, $fork");
}
cmp_ok(scalar(keys %$by_sql), '>=', 6, 'there are such forks');
unlike($text, qr/[\x00-\x09\x0b-\x1f\x7f]/, 'text: no control characters, whatever names are');
like(decode_utf8($text), qr/public\."\Q$strange_shown\E"/, 'text: they are replaced, as are bytes that are not UTF-8');
my ($files, $pages) = @{ (rows("SELECT files, pages FROM ptrack_get_change_stat('$redo[3]')"))[0] };
($text) = run_command([ report_command('-s', $redo[3], '-s', $redo[5], '-s', $redo[3], '-n', 1) ]);
like($text, qr/^Changes from \Q$redo[3]\E \(20\d\d-\S+ \S+ GMT\) to /, 'text: from the lowest LSN');
like($text, qr/^and \d+ more$/m, 'text: how many are not shown');
is(scalar(() = $text =~ m{^[0-9A-F]+/[0-9A-F]+ .* \d+ +\d+ +[\d.]+ k?M?B$}mg), 2, 'text: an increment for each LSN');
like($text, qr/^\Q$redo[3]\E .* GMT +$files +$pages /m, 'text: what an increment would take');

# A page
my ($html, $data, $table) = page('--since', $redo[0], '--top', 1000);
is_deeply(forks_of_data($data), forks_by_sql($redo[0]), 'page: data of forks');
is_deeply($table,
	[ map { my $fork = $_; [ map { my $value = $_ // ''; utf8::encode($value); $value }
			  ($fork->{relation} // ($fork->{fork} ? $fork->{relfilenode} : '(all relations)')), @$fork{ 'fork', @number_columns } ] } @{ $data->{forks} } ],
	'page: the table is as the data');
my ($changed) = $html =~ m{<b id="changed">(\d+)</b>};
is($changed, sum0(map { $_->{changed} // 0 } @{ $data->{forks} }), 'page: the sum of all forks');
is(sum0(map { $_->{changed} // 0 } @{ $data->{databases} }), $changed, 'and of databases');
is_deeply([ map { $_->{start} } @{ $data->{steps} } ], \@redo, 'page: time is divided at redo points');
is_deeply([ map { $_->{end} } @{ $data->{steps} } ], [ @redo[ 1 .. $#redo ], undef ], 'and each range ends where the next begins');
for my $step (@{ $data->{steps} })
{
	my $end = defined $step->{end} ? "'$step->{end}'" : 'NULL';
	my (%expected, %got);

	push @{ $expected{"$_->[0]/$_->[1]"} }, $_->[2]
	  for rows("SELECT relfilenode, relforknumber, relblocknumber FROM ptrack_changed_blocks('$step->{start}', $end) WHERE $user AND NOT is_limit_block");
	for my $n (0 .. $#{ $data->{forks} })
	{
		my ($fork, $cell) = ($data->{forks}[$n], $step->{forks}[$n]);
		next if !$cell || !$cell->{changed} || $fork->{relfilenode} < 16384 || ($fork->{database} // '') ne 'postgres';
		my $key = "$fork->{relfilenode}/" . { main => 0, vm => 2, init => 3 }->{ $fork->{fork} };
		my @regions;

		$got{$key} = $cell->{changed};
		$regions[ int($_ / $cell->{width}) ]++ for @{ $expected{$key} // [] };
		is(join(' ', @{ $cell->{regions} }), join(' ', map { $_ // 0 } @regions), "page: regions of $key from $step->{start}");
		cmp_ok(scalar(@regions), '<=', 64, 'not too many');
	}
	is_deeply(\%got, { map { ($_ => scalar @{ $expected{$_} }) } keys %expected }, "page: what changed from $step->{start}");
}
for my $increment (@{ $data->{increments} })
{
	my ($low, $high) = map { $_->[0] } rows("SELECT pages FROM ptrack_get_change_stat('$increment->{since}')"), rows("SELECT pages FROM ptrack_get_change_stat('$redo[0]')");

	cmp_ok($increment->{blocks}, '<=', $low, "page: an increment since $increment->{since}");
	cmp_ok($low - $increment->{blocks}, '<=', 20, 'only pruning of catalogs may have changed more since');
}
is_deeply([ map { $_->{since} } @{ $data->{increments} } ], \@redo, 'page: redo points that increments are told for');

# A range can begin with any step, and the page can be short.
($html, $data) = page('-s', $redo[4], '-n', 3);
is(scalar @{ $data->{forks} }, 3, 'page: no more forks than asked for');
is($data->{steps}[0]{start}, $redo[4], 'page: from an LSN on');
like($html, qr{<p>And \d+ more\.</p>}, 'page: how many are not shown');

# Names are text.
($html, $data) = page('-n', 1000);
my @tags = $html =~ /<(\/?script)\b/g;
is("@tags", 'script /script script /script', 'page: a script of data and one of ours');
unlike($html, qr/alert\("1"\)|<!--/, 'page: names are escaped');
like($html, qr/&#60;\/script&#62;&#60;script&#62;alert\(&#34;&#34;1&#34;&#34;\)/, 'page: in the table');
my $relation = first { ($_->{relation} // '') =~ /alert/ } @{ $data->{forks} };
is($relation->{relation}, 'public.' . quoted($hostile), 'page: in data, a hostile name of a relation is what it was');
is((first { ($_->{database} // '') =~ /alert/ } @{ $data->{databases} })->{database}, $hostile, 'and of a database');
ok((first { ($_->{relation} // '') eq qq{public."$strange_shown"} } @{ $data->{forks} }), 'page: what is not UTF-8 is replaced');
unlike($html, qr/[\x00-\x08\x0b-\x1f\x7f]/, 'page: no control characters');
(my $own = $html) =~ s{'http://www\.w3\.org/2000/svg'}{};
unlike($own, qr{https?:|\bsrc=|\bhref=|url\(|\@import}, 'page: nothing is loaded from elsewhere');
like($html, qr/content="default-src 'none'; style-src 'nonce-([0-9a-f]{32})'; script-src 'nonce-\1'/, 'page: nor may it');
my ($nonce) = $html =~ /nonce-(\w+)/;
isnt((page())[0] =~ /nonce-(\w+)/ ? $1 : '', $nonce, 'page: another nonce each time');
my ($out) = run_command([ report_command('--html', '-') ]);
like($out, qr{^<!DOCTYPE html>.*</html>\n?\z}s, 'page: to standard output');

# Who may
$node->safe_psql('postgres', 'CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN');
command_ok([ report_command('-U', 'watcher', '--html', '-') ], 'members of pg_monitor may make a page');
report_fails('others', qr/error: permission denied for function ptrack_report/, '-U', 'nobody');

# What cannot be told
report_fails('no LSN', qr/error: invalid LSN: "$_"\n.*hint:/, '--since', $_) for '', '0', '0/', '/1', '0/1 ', '0/123456789', 'x/1';
report_fails('before coverage', qr{error: LSN 0/28 is before the changes that are known\n.*detail:.*\n.*hint: Take a full backup}, '-s', '0/28');
report_fails('the future', qr{error: LSN F0000/0 is in the future of this server}, '-s', 'F0000/0');
report_fails('the future, for an increment', qr{error: LSN F0000/0 is in the future of this server}, '-s', $redo[0], '-s', 'F0000/0');
report_fails('no relations', qr/error: .*-n\/--top must be in range 1\.\.1000/, '-n', '0');
report_fails('an argument', qr/too many command-line arguments \(first is "more"\)/, 'more');
report_fails('an option', qr/unrecognized option.*hint: Try "pg_ptrack report --help"/s, '--no-such-option');
report_fails('as JSON', qr/^\{"type": "message", "level": "error", "text": "LSN 0\/28 is before/, '--log-json', '-s', '0/28');
$node->safe_psql('postgres', 'CREATE DATABASE without');
report_fails('no extension', qr/error: there is no extension "ptrack" in database "without"\n.*hint:/, '-d', $node->connstr('without'));
report_fails('no directory', qr{error: could not create file "$work/no/where\.html\.tmp": No such file or directory}, '--html', "$work/no/where.html");
mkdir "$work/directory";
report_fails('a directory', qr{error: could not write file "$work/directory": Is a directory}, '--html', "$work/directory");
my $before = slurp_file("$work/page.html");
report_fails('for a page', qr/before the changes/, '--html', "$work/page.html", '-s', '0/28');
is(slurp_file("$work/page.html"), $before, 'a page that is there stays');
is(join(' ', sort grep { !/^\./ } PostgreSQL::Test::Utils::slurp_dir($work)), 'directory page.html', 'nothing else is left');
SKIP: {
	skip 'there is no /dev/full', 1 unless -c '/dev/full';
	command_fails_like([ 'sh', '-c', join(' ', map { "'$_'" } report_command()) . ' >/dev/full' ], qr/could not write to standard output/, 'disk full');
}

# In a browser, which runs the script: what it draws is what the data say.
SKIP: {
	my ($browser) = grep { -x } map { my $dir = $_; map { "$dir/$_" } qw(chromium-headless-shell chromium) } split /:/, $ENV{PATH};
	skip 'no browser is installed; dev/report-screenshot installs one', 1 unless $browser;
	my ($page, $page_data) = page('-n', 1000);
	my ($dom) = run_command([ $browser, '--headless', '--no-sandbox', '--disable-gpu', "--user-data-dir=$work/browser", '--dump-dom', "file://$work/page.html" ]);
	my %drawn = $dom =~ /<canvas data-fork="(\d+)"[^>]* data-drawn="(\d+)"/g;

	is_deeply([ map { $drawn{$_} } 0 .. $#{ $page_data->{forks} } ],
		[ map { my $n = $_; sum0(map { $_->{forks}[$n] ? $_->{forks}[$n]{changed} // 0 : 0 } @{ $page_data->{steps} }) } 0 .. $#{ $page_data->{forks} } ],
		'browser: maps have all changed blocks');
	is(($dom =~ /<div id="churn" data-drawn="(\d+)"/)[0], sum0(map { $_->{changed} } @{ $page_data->{steps} }), 'browser: so have the bars');
}

# Where nothing is tracked
$node->append_conf('postgresql.conf', 'ptrack.map_size = 0');
$node->restart;
report_fails('tracking is disabled', qr/error: change tracking is disabled/);

$node->stop;
done_testing();
