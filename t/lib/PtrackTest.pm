# What the tests share: servers with ptrack, redo points, sets of changes.
package PtrackTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use Test::More;

our @EXPORT = qw(new_node checkpoint changed_blocks pagemap refresh_node
  fails_like summary_files log_since);

# A running server with the extension in database postgres.
#
# conf: lines for postgresql.conf; initdb: more arguments for it.
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1, extra => $options{initdb} // []);
	$node->append_conf('postgresql.conf', <<"EOF");
shared_preload_libraries = 'ptrack'
autovacuum = off
max_wal_size = 10GB
checkpoint_timeout = 1h
wal_log_hints = off
log_statement = none
$options{conf}
EOF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION ptrack');
	return $node;
}

# Makes a checkpoint and returns its redo point.
sub checkpoint
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'CHECKPOINT');
	return $node->safe_psql('postgres',
		'SELECT redo_lsn FROM pg_control_checkpoint()');
}

# The changes in a range, as lines "space/database/relation/fork:block", with
# an "L" before a limit block.
sub changed_blocks
{
	my ($node, $start, $end) = @_;
	$end = defined $end ? "'$end'" : 'NULL';

	return $node->safe_psql('postgres', <<"EOF");
SELECT format('%s/%s/%s/%s:%s%s', reltablespace, reldatabase, relfilenode,
	relforknumber, CASE WHEN is_limit_block THEN 'L' ELSE '' END, relblocknumber)
FROM ptrack_changed_blocks('$start', $end)
EOF
}

# The page map since an LSN: path => [block, ...].
sub pagemap
{
	my ($node, $start) = @_;
	my %map;

	for my $row (split /\n/, $node->safe_psql('postgres',
			"SELECT path, encode(pagemap, 'hex') FROM ptrack_get_pagemapset('$start')"))
	{
		my ($path, $hex) = split /\|/, $row;
		my $bits = unpack 'b*', pack('H*', $hex);

		$map{$path} = [ grep { substr($bits, $_, 1) } 0 .. length($bits) - 1 ];
	}
	return %map;
}

# Makes a copy of a node, which is not running, what a new backup would be.
sub refresh_node
{
	my ($node, $copy, $since) = @_;

	return refresh_copy(
		psql => [ 'psql', '-d', $node->connstr('postgres') ],
		source => $node->data_dir,
		target => $copy->data_dir,
		scratch => PostgreSQL::Test::Utils::tempdir,
		since => $since);
}

# A statement must fail with that SQLSTATE and a message that matches.
sub fails_like
{
	my ($node, $sql, $sqlstate, $pattern, $name) = @_;
	my ($ret, $stdout, $stderr) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	isnt($ret, 0, "$name: fails");
	like($stderr, qr/ERROR:\s+$sqlstate:.*$pattern/s, "$name: says why");
	return;
}

# The summaries in the store, oldest first, as paths.
sub summary_files
{
	my ($node) = @_;

	my @files = sort { substr($a, -24) cmp substr($b, -24) }
	  glob($node->data_dir . '/ptrack/*.summary');

	return @files;
}

# What was logged from that offset on.
sub log_since
{
	my ($node, $offset) = @_;

	return substr(slurp_file($node->logfile), $offset);
}

1;
