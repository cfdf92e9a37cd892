# The changes in a range of WAL as pg_waldump prints it: what core's summaries
# say, for servers before 17, which have none.  A decoder of its own, which knows
# nothing of ptrack's.
package PtrackWaldump;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename qw(basename);

our @EXPORT = qw(waldump_blocks);

my %fork_number = (main => 0, fsm => 1, vm => 2, init => 3);

# Heap blocks that one page of the visibility map describes.
my $VM_HEAP_BLOCKS = (8192 - 24) * 4;

# "space/database/relation" and the fork of a path.
sub parse_path
{
	my ($path) = @_;
	my ($dir, $relation, $fork) = $path =~ m{^(.*)/(\d+)(?:_(fsm|vm|init))?$}
	  or die "not a relation's path: $path";

	$dir =~ s{^global$}{1664/0};
	$dir =~ s{^base/}{1663/};
	$dir =~ s{^pg_tblspc/(\d+)/PG_[^/]*/}{$1/};
	return ("$dir/$relation", $fork_number{ $fork // 'main' });
}

# Which of the blocks that a heap record names had bits of the visibility map
# cleared.  Servers before 17 do not name the map's page.
sub cleared
{
	my ($operation, $flags, @heap) = @_;

	return $heap[0] && $flags & 1 ? $heap[0] : () unless $operation =~ /UPDATE/;
	# The new page comes first.
	return (($flags & 2 ? $heap[0] : ()), ($flags & 1 ? $heap[-1] : ()));
}

# Calls back with fork and block, or with fork, block and 1 for a limit block,
# for each change of a record that its blocks do not tell.
sub special_changes
{
	my ($rmgr, $desc, $heap, $call) = @_;

	if ($rmgr =~ /^Heap/)
	{
		my ($operation, $flags) =
		  $desc =~ /^((?:INSERT|DELETE|UPDATE|HOT_UPDATE|LOCK|MULTI_INSERT|LOCK_UPDATED)(?:\+INIT)?) .*?flags 0x([0-9A-F]+)/
		  or return;
		$call->("$_->[0]/2", int($_->[1] / $VM_HEAP_BLOCKS)) for cleared($operation, hex $flags, @$heap);
	}
	elsif ($rmgr eq 'Storage' && $desc =~ /^CREATE (\S+)/)
	{
		my ($relation, $fork) = parse_path($1);
		$call->("$relation/$fork", 0, 1);
	}
	elsif ($rmgr eq 'Storage' && $desc =~ /^TRUNCATE (\S+) to (\d+) blocks flags (\d+)/)
	{
		my ($relation) = parse_path($1);
		$call->("$relation/0", $2, 1) if $3 & 1;
		$call->("$relation/2", int(($2 + $VM_HEAP_BLOCKS - 1) / $VM_HEAP_BLOCKS), 1) if $3 & 2;
	}
	elsif ($rmgr eq 'Transaction' && $desc =~ /; rels:((?: [^\s;]+)+)/)
	{
		for my $path (split ' ', $1)
		{
			my ($relation) = parse_path($path);
			$call->("$relation/$_", 0, 1) for 0, 2, 3;
		}
	}
	elsif ($rmgr eq 'Database')
	{
		$desc =~ s/^CREATE_FILE_COPY copy dir \S+ to/dir/;
		$call->("$_/0/0", 0, 1) for $desc =~ m{(\d+/\d+)}g;
	}
	return;
}

# The name of the file that holds an LSN, on whatever timeline.
sub segment
{
	my ($wal, $lsn) = @_;
	my ($high, $low) = map { hex } split m{/}, $lsn;
	my ($path) = glob sprintf('%s/*%08X%08X', $wal, $high, $low >> 24);

	return basename($path // die "no file of $wal holds $lsn");
}

# The changes of [start, end), as lines like changed_blocks of PtrackTest
# returns.
sub waldump_blocks
{
	my ($wal, $start, $end) = @_;
	my (%blocks, %limit);
	my $note = sub {
		my ($fork, $block, $is_limit) = @_;

		if ($fork =~ m{/1$}) { }
		elsif (!$is_limit) { $blocks{"$fork:$block"} = 1; }
		elsif (!defined $limit{$fork} || $limit{$fork} > $block) { $limit{$fork} = $block; }
	};

	# If the end is right after a page header, pg_waldump reads on.
	my ($high, $low) = map { hex } split m{/}, $end;
	my $header = $low % (1024 * 1024) == 40 ? 40 : $low % 8192 == 24 ? 24 : 0;
	$end = sprintf '%X/%X', $high, $low - $header;

	# Files have to be named, or it looks at any one, which may be empty.
	open my $dump, '-|', 'pg_waldump', '-p', $wal, '-s', $start, '-e', $end,
	  map { segment($wal, $_) } $start, $end
	  or die "could not run pg_waldump: $!";
	while (my $line = <$dump>)
	{
		my ($rmgr, $desc) = $line =~ /^rmgr: (\S+) .*?desc: (.*)$/ or next;
		my @heap;

		while ($line =~ m{blkref #\d+: rel (\d+/\d+/\d+) (?:fork (\w+) )?blk (\d+)}g)
		{
			my ($relation, $fork, $block) = ($1, $fork_number{ $2 // 'main' }, $3);

			push @heap, [ $relation, $block ] if $fork == 0;
			$note->("$relation/$fork", $block);
		}
		special_changes($rmgr, $desc, \@heap, $note);
	}
	close $dump or die "pg_waldump failed for $start to $end";
	return join "\n", keys %blocks, map { "$_:L$limit{$_}" } keys %limit;
}

1;
