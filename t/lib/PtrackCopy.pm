# Bringing a base copy of a cluster up to date by means of ptrack's functions,
# and comparing clusters page by page.  Used by the tests, the demo and
# dev/torture.
#
# This is what a backup tool does: changed blocks come from ptrack, and
# whatever is not made of tracked blocks is copied whole.
package PtrackCopy;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use Fcntl qw(SEEK_SET);
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Find qw(find);
use File::Path qw(make_path remove_tree);
use IPC::Open2;
use PtrackImage;

our @EXPORT = qw(lsn_number open_session refresh_copy copy_wal compare_clusters);

my $BLCKSZ = 8192;

# What a file below the data directory is to a backup.  Returns 'tracked' for
# main, visibility-map and init forks, 'skipped' for what no backup contains
# and for settings, which stay the copy's own, and 'whole' for the rest.
sub file_kind
{
	my ($path) = @_;

	return 'skipped'
	  if $path =~ m{^(?:pg_wal|pg_replslot|pg_dynshmem|pg_notify|pg_serial|pg_snapshots|pg_stat_tmp|pg_subtrans)/}
	  or $path =~ m{(?:^|/)(?:pgsql_tmp|t\d+_\d+|pg_internal\.init)}
	  or $path =~ m{^(?:postgresql(?:\.auto)?\.conf|postmaster\.(?:pid|opts)|backup_label.*|tablespace_map.*|current_logfiles|log.*)$};
	return 'whole' if $path =~ m{_fsm(?:\.\d+)?$};
	return 'tracked'
	  if $path =~ m{^(?:global|base/\d+|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(?:_vm|_init)?(?:\.\d+)?$};
	return 'whole';
}

# The files of a cluster: path => size.  Directories are path => undef.
sub list_cluster
{
	my ($dir) = @_;
	my %files;

	find(
		{
			follow_fast => 1,
			follow_skip => 2,
			no_chdir => 1,
			wanted => sub {
				return if $_ eq $dir;
				my $path = substr($_, length($dir) + 1);
				my @stat = stat $_ or return;    # it vanished
				$files{$path} = -d _ ? undef : $stat[7];
			},
		},
		$dir);
	drop_unlogged(\%files);
	return \%files;
}

# Everything but the changed blocks: files come and go, and get their length.
sub sync_files
{
	my ($source, $target) = @_;
	my $here = list_cluster($source);
	my $there = list_cluster($target);

	for my $path (reverse sort keys %$there)
	{
		next if exists $here->{$path} or file_kind("$path/") eq 'skipped';
		remove_tree("$target/$path");
	}
	for my $path (sort keys %$here)
	{
		my $kind = file_kind($path);

		next if $kind eq 'skipped';
		if (!defined $here->{$path})
		{
			make_path("$target/$path", { mode => 0700 });
		}
		elsif ($kind eq 'whole')
		{
			copy("$source/$path", "$target/$path")
			  or -e "$source/$path" && die "could not copy \"$path\": $!";
		}
		else
		{
			open my $fh, '>>', "$target/$path" or die "could not open \"$path\": $!";
			truncate $fh, $here->{$path} or die "could not truncate \"$path\": $!";
		}
	}
	return;
}

# Reads the binary COPY format row by row; calls back with the fields' bytes.
sub read_binary_copy
{
	my ($file, $row) = @_;

	open my $fh, '<:raw', $file or die "could not open \"$file\": $!";
	my $take = sub {
		my ($len) = @_;
		my $bytes = '';
		my $got = read $fh, $bytes, $len;
		die "\"$file\" ends too early\n" unless $got == $len;
		return $bytes;
	};

	die "\"$file\" is not binary COPY data\n"
	  unless $take->(11) eq "PGCOPY\n\377\r\n\0";
	my (undef, $extension) = unpack 'NN', $take->(8);
	$take->($extension) if $extension;
	for (;;)
	{
		my $count = unpack 'n', $take->(2);
		last if $count == 0xffff;
		$row->(map { $take->(unpack 'N', $take->(4)) } 1 .. $count);
	}
	return;
}

# Writes every block of ptrack_get_blocks to its place.  Returns their number.
sub apply_blocks
{
	my ($file, $target) = @_;
	my ($blocks, $open_path, $fh) = (0, '');

	read_binary_copy($file, sub {
		my ($path, $blkno, $page) = @_;

		if ($path ne $open_path)
		{
			# A file that came into being after the files were listed, or its
			# directory, too.
			make_path(dirname("$target/$path"), { mode => 0700 });
			open $fh, -e "$target/$path" ? '+<:raw' : '+>:raw', "$target/$path"
			  or die "could not open \"$target/$path\": $!";
			$open_path = $path;
		}
		sysseek $fh, unpack('Q>', $blkno) * $BLCKSZ, SEEK_SET or die "could not seek: $!";
		syswrite($fh, $page) == $BLCKSZ or die "could not write \"$path\": $!";
		$blocks++;
	});
	return $blocks;
}

# Counts the blocks that ptrack_get_pagemapset named.
sub count_map
{
	my ($file) = @_;
	my ($files, $blocks) = (0, 0);

	read_binary_copy($file, sub {
		my ($path, $count, $map) = @_;
		my $set = unpack '%32b*', $map;

		die "page map of \"$path\" has $set bits, not " . unpack('Q>', $count) . "\n"
		  if $set != unpack('Q>', $count);
		$files++;
		$blocks += $set;
	});
	return ($files, $blocks);
}

# An LSN as a number.
sub lsn_number
{
	my ($high, $low) = map { hex } split m{/}, $_[0];

	return $high << 32 | $low;
}

# One psql session, to which commands are sent and that answers each.
sub open_session
{
	my (@psql) = @_;
	my $pid = open2(my $out, my $in, @psql, qw(-X -A -t -q -v ON_ERROR_STOP=1 -f -));

	return sub {
		my ($command) = @_;
		my $answer = '';

		if (!defined $command)
		{
			close $in;
			waitpid $pid, 0;
			return $?;
		}
		print $in "$command\n\\echo =done=\n";
		$in->flush;
		while (my $line = <$out>)
		{
			return $answer if $line eq "=done=\n";
			$answer .= $line;
		}
		die "psql ended at: $command\n";
	};
}

# Makes the copy of the cluster in source what a new base backup would be,
# given that it is one that started at that LSN.
#
# psql: command line that connects; scratch: a directory for temporary files.
# Returns numbers: files and blocks named by the page map, blocks transferred.
sub refresh_copy
{
	my (%args) = @_;
	my $session = open_session(@{ $args{psql} });
	my ($map, $blocks) = map { "$args{scratch}/$_.copy" } qw(map blocks);
	my %result;

	$session->(q{SELECT pg_backup_start('ptrack', true);});
	# In the select list, and not in FROM, the rows are streamed.
	$session->("\\copy (SELECT path, pagecount, pagemap FROM ptrack_get_pagemapset('$args{since}')) TO '$map' (FORMAT binary)");
	sync_files($args{source}, $args{target});
	$session->("\\copy (SELECT (b).path, (b).blkno, (b).page FROM (SELECT ptrack_get_blocks('$args{since}') AS b OFFSET 0) AS s) TO '$blocks' (FORMAT binary)");
	($result{files}, $result{blocks}) = count_map($map);
	$result{transferred} = apply_blocks($blocks, $args{target});

	# In a backup made on a standby, recovery is complete at the LSN that
	# pg_control has.
	copy("$args{source}/global/pg_control", "$args{target}/global/pg_control")
	  or die "could not copy pg_control: $!";

	my $label = $session->('SELECT labelfile FROM pg_backup_stop(false);');
	open my $fh, '>', "$args{target}/backup_label" or die "could not write backup_label: $!";
	print $fh $label;
	close $fh;
	die "psql failed\n" if $session->(undef) != 0;
	unlink $map, $blocks;
	return %result;
}

# The WAL that the copy needs for its recovery.
sub copy_wal
{
	my ($source, $target) = @_;

	unlink glob "$target/pg_wal/0*";
	make_path("$target/pg_wal/archive_status", { mode => 0700 });
	for my $segment (glob "$source/pg_wal/0*")
	{
		(my $copy = $segment) =~ s/^\Q$source\E/$target/;
		copy($segment, $copy) or die "could not copy \"$segment\": $!";
	}
	return;
}

# Compares the tracked files of two clusters, neither of which is running; one has
# replayed all of the other's WAL.
# Returns the number of pages compared, of those that only differ in hint bits or by
# the record that last logged them, and a list of "path:block" that differ otherwise.
sub compare_clusters
{
	my ($source, $copy) = @_;
	my ($here, $there) = map { take_image($_) } $source, $copy;
	my ($hints, @different) = (0);

	each_difference($here, $there, sub {
		my ($path, $block, $verdict) = @_;

		$verdict ne 'different' || differ_in_label($source, $copy, $path, $block)
		  ? $hints++
		  : push @different, "$path:$block";
	});
	return (count_pages($here), $hints, @different);
}

1;
