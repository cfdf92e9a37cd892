# The physical oracle: has every page that changed been reported?
#
# It knows of no WAL and of no decoder.  It has images of a data directory at
# two moments when everything was on disk, and what ptrack reported for the
# time between them.  Each page that differs must be in that report.
package PtrackOracle;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PtrackImage;

our @EXPORT = qw(reported_changes lost_changes parse_path);

my $SEGMENT_BLOCKS = 131072;
my %fork_number = ('' => 0, '_vm' => 2, '_init' => 3);

# What was reported since an LSN, in both ways that there are: by
# ptrack_changed_blocks and by the page map.  "query" runs SQL and returns rows
# as psql -A -t prints them.
#
# Returns forks => { "space/database/relation/fork" => { limit, marks } }, map =>
# { path => bits }, and marks, the number of them.
sub reported_changes
{
	my ($query, $since) = @_;
	my %reported = (forks => {}, map => {}, marks => 0);
	my $blocks = $query->(<<"EOF");
SELECT reltablespace || '/' || reldatabase || '/' || relfilenode || '/' || relforknumber,
	min(relblocknumber) FILTER (WHERE is_limit_block), count(*) FILTER (WHERE NOT is_limit_block),
	string_agg(relblocknumber::text, ',') FILTER (WHERE NOT is_limit_block)
FROM ptrack_changed_blocks('$since') GROUP BY 1
EOF
	my $map = $query->("SELECT path, encode(pagemap, 'hex') FROM ptrack_get_pagemapset('$since')");

	for my $row (split /\n/, $blocks)
	{
		my ($fork, $limit, $count, $list) = split /\|/, $row, -1;
		my $marks = '';

		vec($marks, $_, 1) = 1 for split /,/, $list;
		$reported{forks}{$fork} = { limit => $limit, marks => $marks };
		$reported{marks} += $count;
	}
	for my $row (split /\n/, $map)
	{
		my ($path, $hex) = split /\|/, $row;

		$reported{map}{$path} = pack 'H*', $hex;
	}
	return \%reported;
}

# The fork that a file belongs to, as reports name it, that fork's database, and
# the number of the file's first block.
sub parse_path
{
	my ($path) = @_;
	my ($dir, $relation, $fork, $segment) = $path =~ m{^(.*)/(\d+)(_vm|_init)?(?:\.(\d+))?$};
	my $where =
		$dir eq 'global'                         ? '1664/0'
	  : $dir =~ m{^base/(\d+)$}                  ? "1663/$1"
	  : $dir =~ m{^pg_tblspc/(\d+)/[^/]+/(\d+)$} ? "$1/$2"
	  :                                            die "what file is \"$path\"?\n";

	return ("$where/$relation/" . $fork_number{ $fork // '' }, $where, ($segment // 0) * $SEGMENT_BLOCKS);
}

# Is everything of that fork from that block on reported as a whole?
sub is_limited
{
	my ($reported, $fork, $where, $block) = @_;
	my $forks = $reported->{forks};
	my $limit = $forks->{$fork} ? $forks->{$fork}{limit} : '';

	return 1 if $forks->{'0/0/0/0'} or $forks->{"$where/0/0"};
	return $limit ne '' && $limit <= $block;
}

# Why a page that differs counts as lost, or '' if it was reported.
sub why_lost
{
	my ($prior, $now, $reported, $path, $page) = @_;
	my ($fork, $where, $first) = parse_path($path);
	my $limited = is_limited($reported, $fork, $where, $first + $page);
	my $entry = $reported->{forks}{$fork};

	# What is gone cannot be marked: only a limit block tells.
	return $limited ? '' : 'is gone, and past no limit block' if $page >= count_pages($now, $path);

	# A visibility map comes into being without a record, at its first page.
	return 'is in a file that is new, and the fork is not'
	  if !$prior->{$path} && $first == 0 && $path !~ /_vm$/
	  && !is_limited($reported, $fork, $where, 0);
	return 'is not among the changed blocks'
	  if !$limited && !($entry && vec($entry->{marks}, $first + $page, 1));
	return 'is not in the page map' if !vec($reported->{map}{$path} // '', $page, 1);
	return '';
}

# Compares an image with a prior one, given what was reported for the time
# between them.  Returns numbers: pages, those that differ, those that differ in
# hint bits only, and lost: a list of { path, page, why }, of those that were not
# reported.
#
# That all rows of a page are visible reaches the disk before the record of it does,
# since without checksums and wal_log_hints the page keeps its LSN.  So a crash in
# between may have lost that record, unless $kept says that there was none.
sub lost_changes
{
	my ($prior, $now, $reported, $kept) = @_;
	my %result = (pages => count_pages($now), differing => 0, hints => 0, lost => []);

	each_difference($prior, $now, sub {
		my ($path, $page, $verdict) = @_;

		if ($verdict eq 'hint' || $verdict eq 'visible' && !$kept)
		{
			$result{hints}++;
			return;
		}
		$result{differing}++;
		my $why = why_lost($prior, $now, $reported, $path, $page);
		push @{ $result{lost} }, { path => $path, page => $page, why => $why } if $why ne '';
	});
	return \%result;
}

1;
