# The manual pages of pg_ptrack: they have the options that the program says it has,
# refer to pages that exist, are well-formed, and are installed.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use PtrackClient;
use Test::More;

my $src = "$FindBin::RealBin/../src/bin";
my $bin = `pg_config --bindir`;
chomp $bin;

sub help
{
	my ($out, $err) = run_command([ 'pg_ptrack', @_, '--help' ]);

	is($err, '', join ' ', 'there is help:', @_);
	return $out;
}

# The pages in a directory.
sub names
{
	my ($dir) = @_;

	return sort map { s/\.1$//r } grep { !/^\./ } PostgreSQL::Test::Utils::slurp_dir($dir);
}

# The options, with their short forms and arguments, of help's text.
sub options_of_help
{
	return $_[0] =~ /^ {2}(?: {4})?(--\S+|-\S(?:, --\S+)?)/mg;
}

# A page without escapes; what is bold or italic is as the rest.
sub page
{
	my $text = slurp_file("$src/man/$_[0].1");

	$text =~ s/\\f[BIR]//g;
	$text =~ s/\\-/-/g;
	return $text;
}

# What a line of a page prints.
sub line_text
{
	my ($line) = @_;
	my $joined = $line =~ s/^\.(?:BI|BR|IB|IR|RB|RI) //;
	my @args;

	$line =~ s/^\.[BI] //;
	push @args, $1 // $2 while $line =~ /\G\s*(?:"([^"]*)"|(\S+))/gc;
	return join $joined ? '' : ' ', @args;
}

sub section
{
	my ($page, $name) = @_;

	return $page =~ /^\.SH \Q$name\E\n(.*?)(?=^\.SH |\z)/ms ? $1 : '';
}

# The heads of a list.
sub heads
{
	return map { line_text($_) } $_[0] =~ /^\.TP\n(.*)$/mg;
}

# Of the program, and of each command
my $general = help();
my ($commands) = $general =~ /^Commands:\n(.*?)\n\n/ms;
my @commands = $commands =~ /^  (\w+)/mg;
my %help = ('pg_ptrack' => $general, map { ("pg_ptrack-$_" => help($_)) } @commands);
my @pages = sort keys %help;
my %known = map { ($_ => 1) } map { /(--[\w-]+|-.)/g } map { options_of_help($_) } values %help;

is_deeply([ names("$src/man") ], \@pages, 'there is a page for each command');
is_deeply([ heads(section(page('pg_ptrack'), 'COMMANDS')) ], \@commands, 'pg_ptrack: commands');
for my $name (@pages)
{
	my $page = page($name);
	my @expected = options_of_help($help{$name});
	my %reached = map { ($_ => 1) } $page =~ /^\.BR (\S+) \(1\)/mg;

	cmp_ok(scalar @expected, '>=', 2, "$name: help has options");
	is(join("\n", heads(section($page, 'OPTIONS'))), join("\n", @expected), "$name: options are those of help");
	is(join(' ', grep { !$known{$_} } $page =~ /(?<![\w-])(--[a-z][a-z-]*[a-z]|-[A-Za-z](?![\w-]))/g), '', "$name: no other option is named");
	like($page, qr/^\.TH \U\Q$name\E\E 1 /, "$name: title");
	like(section($page, 'NAME'), qr/^\Q$name\E \\?- [a-z].*[^.]$/, "$name: name");
	ok(section($page, $_), "$name: there is $_") for 'SYNOPSIS', 'DESCRIPTION', 'EXIT STATUS', 'ENVIRONMENT', 'EXAMPLES', 'SEE ALSO';
	ok($name eq 'pg_ptrack' || $reached{pg_ptrack}, "$name: leads to the main page");

	# PostgreSQL's own programs have pages, too; some of them from 17 on.
	for my $other (sort keys %reached)
	{
		next if $other !~ /^pg_ptrack/ && !has_core_increments();
		ok($help{$other} || -x "$bin/$other", "$name: $other exists");
	}
}
like(section(page('pg_ptrack'), 'SEE ALSO'), qr/^\.BR pg_ptrack-$_ \(1\)/m, "pg_ptrack: leads to $_") for @commands;

# Well-formed
SKIP: {
	skip 'groff is not installed', 2 * @pages if system('groff --version >/dev/null 2>&1') != 0;
	for my $name (@pages)
	{
		my ($out, $err) = run_command([ 'groff', '-man', '-Tutf8', '-ww', "$src/man/$name.1" ]);

		is($err, '', "$name: no warnings");
		$out =~ s{.\x08}{}g;
		like($out, qr{^SEE ALSO$}m, "$name: it is formatted");
	}
}

# Installed and removed, without the program being built
my $dest = abs_path(PostgreSQL::Test::Utils::tempdir());
my @make = ('make', '-s', '-C', $src, 'PG_CONFIG=pg_config', "DESTDIR=$dest");
my $mandir = `pg_config --mandir`;
chomp $mandir;

command_ok([ @make, 'install-man' ], 'they are installed');
is_deeply([ names("$dest$mandir/man1") ], \@pages, 'all of them');
command_ok([ @make, 'uninstall-man' ], 'they are removed');
is_deeply([ names("$dest$mandir/man1") ], [], 'all of them');

done_testing();
