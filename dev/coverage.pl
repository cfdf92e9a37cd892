# coverage.pl COUNTS [UNCOVERED]: prints a table of what gcovr counted: for each file,
# for the library, the client and all, how many lines there are, and how many were
# executed.  The lines that were not go to the file UNCOVERED.  Runs at the top of the
# tree; dev/coverage calls it.

use strict;
use warnings FATAL => 'all';

use JSON::PP;

sub slurp
{
	my ($name) = @_;

	open my $fh, '<', $name or die "could not open \"$name\": $!\n";
	local $/ = wantarray ? "\n" : undef;
	return <$fh>;
}

sub print_row
{
	my ($name, $lines, $executed) = @_;

	printf "%-36s %6d %8d %6.1f %%\n", $name, $lines, $executed, 100 * $executed / ($lines || 1);
	return;
}

my ($counts, $uncovered) = @ARGV;
my $list;
open $list, '>', $uncovered or die "could not open \"$uncovered\": $!\n" if defined $uncovered;

my %sums;
printf "%-36s %6s %8s\n", 'file', 'lines', 'executed';
for my $file (sort { $a->{file} cmp $b->{file} } @{ decode_json(scalar slurp($counts))->{files} })
{
	my $name = $file->{file};
	my @lines = grep { !$_->{'gcovr/noncode'} } @{ $file->{lines} };
	my @missed = grep { $_->{count} == 0 } @lines;
	my @source = slurp($name);

	print_row($name, scalar @lines, @lines - @missed);
	for my $sum ($name =~ m{^src/bin/} ? 'the client' : 'the library', 'all')
	{
		$sums{$sum}[0] += @lines;
		$sums{$sum}[1] += @lines - @missed;
	}
	next if !$list;
	print $list "$name:$_->{line_number}:$source[$_->{line_number} - 1]" for @missed;
}
print_row($_, @{ $sums{$_} }) for sort { $sums{$a}[0] <=> $sums{$b}[0] } keys %sums;
close $list or die "could not write \"$uncovered\": $!\n" if $list;
