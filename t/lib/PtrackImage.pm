# Images of a cluster's tracked files: one short digest for each page, to find
# the pages that differ between two moments of one data directory, or between
# two data directories.  Knows nothing of ptrack or of WAL; it reads files.
#
# Whoever takes an image sees to it that nothing is written meanwhile, and that
# everything was before: the server is stopped, or idle after a checkpoint.
package PtrackImage;

use strict;
use warnings FATAL => 'all';

use Digest::MD5 qw(md5);
use Exporter 'import';
use Time::HiRes qw(time);

our @EXPORT = qw(drop_unlogged take_image each_difference count_pages differ_in_label is_unused_bucket);

my $BLCKSZ = 8192;
my $CHUNK = 1024 * 1024;
my $ZERO_CHUNK = "\0" x $CHUNK;
my $ZERO_PAGE = "\0" x $BLCKSZ;

# An entry for a page is the page's LSN, as it stands there, most of half an MD5, and
# whether a heap's page says that all its rows are visible.
my $ENTRY = 16;
my $NO_LSN = "\0" x 8;
my $ALL_VISIBLE = 4;
my $ZERO_ENTRY = "\0" x $ENTRY;
my $ZERO_ENTRIES = $ZERO_ENTRY x ($CHUNK / $BLCKSZ);

# A heap page that was initialized and never filled, after its LSN and checksum.
# A server that is killed between extending a relation and logging its insertion
# leaves such pages behind: without contents, without LSN, and without WAL.
my $EMPTY_PAGE = pack('vvvvvV', 0, 24, $BLCKSZ, $BLCKSZ, $BLCKSZ | 4, 0) . "\0" x ($BLCKSZ - 24);
# A page that a hash index got for buckets and has not used, likewise: the lower
# end, upper and special, and the special space, which names the kind of index.
my $UNUSED_BUCKET = pack('vvvvvV', 0, 24, $BLCKSZ - 16, $BLCKSZ - 16, $BLCKSZ | 4, 0) . "\0" x ($BLCKSZ - 40)
  . pack('VVVvv', (0xFFFFFFFF) x 3, 0, 0xFF80);

# The names of tracked files: main, visibility-map and init forks.  The free
# space map is not WAL-logged, and temporary relations have other names.
my $RELATION_FILE = qr{^\d+(?:_vm|_init)?(?:\.\d+)?$};

# How recent a change may be for its time of change to say that there was none
# since: file systems count time in ticks.
my $TICK = 0.02;

# Drops the main forks of unlogged relations from a list of files, by path:
# recovery makes them anew, and their changes are not logged.
sub drop_unlogged
{
	my ($files) = @_;
	my %unlogged = map { s/_init$//r => 1 } grep { /_init$/ } keys %$files;

	return if !%unlogged;
	for my $path (keys %$files)
	{
		my ($main) = $path =~ m{^(.*/\d+)(?:_vm|_fsm)?(?:\.\d+)?$} or next;
		delete $files->{$path} if $unlogged{$main};
	}
	return;
}

# The directories that hold relation files, relative to the data directory.
sub relation_directories
{
	my ($dir) = @_;
	my @found = ('global');

	for my $parent ('base', map { substr $_, length("$dir/") } glob("$dir/pg_tblspc/*/PG_*"))
	{
		opendir my $dh, "$dir/$parent" or next;
		push @found, map { "$parent/$_" } grep { /^\d+$/ } readdir $dh;
	}
	return @found;
}

# With wal_level = minimal there are pages with contents and without LSN, of which an
# LSN cannot tell whether anything but hint bits changed: their digest does.
sub page_entry
{
	my ($page) = @_;
	my $lsn = substr $page, 0, 8;
	my $visible = unpack('x10 v', $page) & $ALL_VISIBLE;

	if ($lsn eq $NO_LSN)
	{
		return $ZERO_ENTRY if $page eq $ZERO_PAGE || substr($page, 10) eq $EMPTY_PAGE;
		$page = without_hints($page);
		substr $page, 10, 1, chr(ord(substr $page, 10, 1) & ~$ALL_VISIBLE);
	}
	return $lsn . substr(md5($page), 0, $ENTRY - 9) . chr $visible;
}

# The entries of all pages of a file, in one string.
sub read_entries
{
	my ($name) = @_;
	my ($entries, $chunk) = ('', '');

	open my $fh, '<:raw', $name or die "could not open \"$name\": $!\n";
	while (my $got = sysread $fh, $chunk, $CHUNK)
	{
		if ($chunk eq $ZERO_CHUNK)
		{
			$entries .= $ZERO_ENTRIES;
			next;
		}
		$entries .= page_entry(substr $chunk, $_ * $BLCKSZ, $BLCKSZ)
		  for 0 .. int($got / $BLCKSZ) - 1;
	}
	return $entries;
}

# Takes an image of a data directory: path => { stamp, entries }.  Files that
# were not touched since the previous image, if one is given, are not read.
sub take_image
{
	my ($dir, $previous) = @_;
	my %image;

	for my $sub (relation_directories($dir))
	{
		opendir my $dh, "$dir/$sub" or die "could not open \"$dir/$sub\": $!\n";
		for my $path (map { "$sub/$_" } grep { /$RELATION_FILE/ } readdir $dh)
		{
			my @stat = Time::HiRes::stat("$dir/$path") or die "could not stat \"$path\": $!\n";
			my $stamp = join ' ', @stat[ 0, 1, 7, 9, 10 ];
			my $known = $previous && $previous->{$path};

			if ($known && $known->{stamp} eq $stamp)
			{
				$image{$path} = $known;
				next;
			}
			$stamp = '' if time - $stat[9] < $TICK or time - $stat[10] < $TICK;
			$image{$path} = { stamp => $stamp, entries => read_entries("$dir/$path") };
		}
	}
	drop_unlogged(\%image);
	return \%image;
}

# What a page is to another version of it: '' if they are the same, 'hint' if
# they can differ by hint bits only, 'visible' if by whether all rows are visible, too,
# else 'different'.
#
# Hint bits are set without WAL, so they leave the page's LSN alone; every other
# change is logged and moves it, except that from whatever wal_level = minimal did
# not log, and the record by which all rows become visible may leave it.  Only pages
# of main forks have any.
sub entry_verdict
{
	my ($path, $old, $new) = @_;
	my $lsn = substr $old, 0, 8;
	my $visible = substr($old, -1) ne substr($new, -1);

	return '' if $old eq $new;
	return 'different' if $path =~ /_(?:vm|init)(?:\.\d+)?$/ || $lsn ne substr $new, 0, 8;
	return 'different' if $lsn eq $NO_LSN && substr($old, 0, -1) ne substr $new, 0, -1;
	return $visible ? 'visible' : 'hint';
}

# Calls back with path, number of the page in the file, and verdict for each page
# that differs.  What one image lacks counts as pages of zeroes, which is what
# pages without contents are.
sub each_difference
{
	my ($old, $new, $call) = @_;
	my %paths = map { $_ => 1 } keys %$old, keys %$new;
	my $step = 64 * $ENTRY;

	for my $path (sort keys %paths)
	{
		my ($one, $other) = map { $_->{$path} ? $_->{$path}{entries} : '' } $old, $new;

		next if $one eq $other;
		my ($length) = sort { $b <=> $a } length $one, length $other;
		$_ .= "\0" x ($length - length $_) for $one, $other;
		for (my $from = 0; $from < $length; $from += $step)
		{
			next if substr($one, $from, $step) eq substr($other, $from, $step);
			for (my $at = $from; $at < $from + $step && $at < $length; $at += $ENTRY)
			{
				my $verdict = entry_verdict($path, substr($one, $at, $ENTRY), substr($other, $at, $ENTRY));

				$call->($path, $at / $ENTRY, $verdict) if $verdict ne '';
			}
		}
	}
	return;
}

# The pages of an image, or of one file of it; 0 if it has no such file.
sub count_pages
{
	my ($image, $path) = @_;
	my $pages = 0;

	$pages += length($_->{entries}) / $ENTRY
	  for grep { defined } defined $path ? $image->{$path} : values %$image;
	return $pages;
}

# A page of a file; '' if it ends before.
sub read_page
{
	my ($name, $page) = @_;
	my $bytes = '';

	open my $fh, '<:raw', $name or return '';
	return '' if !seek($fh, $page * $BLCKSZ, 0) || (read($fh, $bytes, $BLCKSZ) // 0) < $BLCKSZ;
	return $bytes;
}

sub is_unused_bucket
{
	my ($dir, $path, $page) = @_;
	my $bytes = read_page("$dir/$path", $page);

	return $bytes ne '' && substr($bytes, 10) eq $UNUSED_BUCKET;
}

# What an index has set when it has noted dead entries on a page, by the identifier
# at the page's end: BTP_HAS_GARBAGE, LH_PAGE_HAS_DEAD_TUPLES, F_HAS_GARBAGE.
sub garbage_flag
{
	my ($identifier) = @_;

	return $identifier <= 0xff7f ? 0x40 : { 0xff80 => 0x80, 0xff81 => 0x10 }->{$identifier} // 0;
}

# A page without its LSN and checksum, without what is set with no record or with
# one that may be lost (hints in its header, on a heap's rows and on the dead entries
# of an index), and without what is left of the past in its free space, which an
# image in WAL does not have.
sub without_hints
{
	my ($bytes) = @_;
	my ($flags, $lower, $upper, $special) = unpack 'x10 vvvv', $bytes;
	my $is_heap = $special == $BLCKSZ;

	substr $bytes, 0, 12, "\0" x 10 . pack 'v', $flags & ~3;
	substr $bytes, 20, 4, "\0" x 4;
	return $bytes if $lower < 24 || $lower > $upper || $upper > $special || $special > $BLCKSZ;
	for (my $at = 24; $at + 4 <= $lower; $at += 4)
	{
		my $item = unpack 'V', substr $bytes, $at, 4;
		my ($offset, $state) = ($item & 0x7fff, $item >> 15 & 3);

		if ($is_heap && $state == 1)
		{
			my $infomask = unpack 'v', substr $bytes, $offset + 20, 2;

			# HEAP_XMIN_COMMITTED to HEAP_XMAX_INVALID, but not a frozen row's first two,
			# which are logged
			$infomask &= ($infomask & 0x0300) == 0x0300 ? ~0x0c00 : ~0x0f00;
			substr $bytes, $offset + 20, 2, pack 'v', $infomask;
		}
		elsif (!$is_heap && $state == 3)
		{
			substr $bytes, $at, 4, pack 'V', $item & ~(2 << 15);
		}
	}
	if ($special == $BLCKSZ - 16)
	{
		my ($opaque, $identifier) = unpack 'vv', substr $bytes, $special + 12, 4;

		substr $bytes, $special + 12, 2, pack 'v', $opaque & ~garbage_flag($identifier);
	}
	elsif ($special == $BLCKSZ - 8)
	{
		my ($opaque, $identifier) = unpack 'v x4 v', substr $bytes, $special, 8;

		# The first page of an SP-GiST index has the pages that were used last, unlogged.
		substr $bytes, 28, 64, "\0" x 64 if $identifier == 0xff82 && $opaque & 1;
	}
	# Metapages and the like have their contents there, unless they say otherwise.
	substr $bytes, $lower, $upper - $lower, "\0" x ($upper - $lower) if $lower > 24;
	return $bytes;
}

# Is a page of one data directory that of another one, from which WAL was replayed, but
# for its LSN and hint bits?
#
# Replay gives every page of which a record has an image that record's LSN.  Who wrote
# the record does not, if it changed nothing, as when a hash index's bucket is squeezed;
# or if it logged hint bits and then found that the page was dirty already: because
# another session logged some at once, or because the page was just being written.
sub differ_in_label
{
	my ($one, $other, $path, $page) = @_;
	my ($here, $there) = map { read_page("$_/$path", $page) } $one, $other;

	return 0 if $here eq '' || $there eq '' || $path =~ /_(?:vm|init)(?:\.\d+)?$/;
	return 0 if grep { substr($_, 0, 8) eq $NO_LSN } $here, $there;
	return without_hints($here) eq without_hints($there);
}

1;
