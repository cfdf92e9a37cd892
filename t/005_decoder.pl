# The WAL decoder, compiled by itself and fed with records that no supported
# server writes any more, or that are damaged: see c/decoder.c.

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $program = PostgreSQL::Test::Utils::tempdir() . '/decoder';
chomp(my $include = `pg_config --includedir-server`);
chomp(my $lib = `pg_config --libdir`);
my $source = "$FindBin::RealBin/..";

run_log([
	$ENV{CC} // 'cc', '-D_GNU_SOURCE', '-g', '-O1', '-fsanitize=undefined',
	'-fno-sanitize-recover=undefined', '-I', "$source/src", '-I', $include,
	"$source/t/c/decoder.c", '-o', $program, '-L', $lib, '-lpgcommon_shlib', '-lpgport_shlib' ])
  or BAIL_OUT('could not compile the test program');

my ($out, $err) = run_command([$program]);
for my $line (split /\n/, $out)
{
	if ($line =~ /^(ok|not ok) \d+ - (.*)/) { ok($1 eq 'ok', $2); }
	elsif ($line =~ /^#/) { diag($line); }
}
is($err, '', 'nothing on standard error');
like($out, qr/^1\.\.\d{3}$/m, 'the program ran to its end');

done_testing();
