# What the tests of "pg_ptrack combine" share: chains of backups by PostgreSQL's
# own tools, and comparing directories file by file.
package PtrackCombine;

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use Exporter 'import';
use File::Find qw(find);
use File::Path qw(make_path remove_tree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(need_core_increments chain_node make_backup make_chain new_dir copy_dir
  core_combine mapped combine_ok combine_fails list_tree modes same_trees verifies
  spew write_manifest drop_manifest);

my ($major) = `pg_config --version` =~ /(\d+)/;
my $work = PostgreSQL::Test::Utils::tempdir_short();
my $number = 0;

# Before 17, PostgreSQL makes no increments that the results could be compared
# with; what ptrack's own backups of older servers become is tested with these.
sub need_core_increments
{
	plan skip_all => "pg_basebackup $major makes no incremental backups" if $major < 17;
	return;
}

# The name of a directory that does not exist, short enough for a tablespace.
sub new_dir { return "$work/d" . ++$number; }

# A running server with tablespaces: one elsewhere, one in place.
sub chain_node
{
	my ($name, @initdb) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $dir = new_dir();

	$node->init(allows_streaming => 1, extra => \@initdb);
	$node->append_conf('postgresql.conf', <<'EOS');
summarize_wal = on
autovacuum = off
max_wal_size = 1GB
allow_in_place_tablespaces = on
EOS
	$node->start;
	mkdir $dir or die "could not create $dir: $!";
	$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$dir'");
	$node->safe_psql('postgres', "CREATE TABLESPACE inside LOCATION ''");
	return $node;
}

# Where tablespaces of a plain backup are: path in pg_tblspc => directory.
sub tablespace_dirs
{
	my ($backup) = @_;

	return map { -l $_ ? ($_ => readlink $_) : () } glob "$backup/pg_tblspc/*";
}

# Options that put all tablespaces of a backup into new directories.
sub mapped
{
	my ($backup) = @_;
	my %dirs = tablespace_dirs($backup);

	return map { ('-T', $dirs{$_} . '=' . new_dir()) } sort keys %dirs;
}

# A backup, relative to another one if given.
sub make_backup
{
	my ($node, $prior) = @_;
	my $dir = new_dir();
	my @options = ('-D', $dir, '-d', $node->connstr('postgres'), '--no-sync', '-cfast');

	push @options, '--incremental', "$prior/backup_manifest" if defined $prior;
	$node->command_ok([ 'pg_basebackup', @options, mapped($node->data_dir) ], 'base backup');
	return $dir;
}

# A full backup, and an increment after each of those changes, as directories.
sub make_chain
{
	my ($node, @changes) = @_;
	my @chain = make_backup($node);

	for my $change (@changes)
	{
		$node->safe_psql('postgres', $_) for ref $change ? @$change : $change;
		push @chain, make_backup($node, $chain[-1]);
	}
	return @chain;
}

# A copy of a backup, its tablespaces included.
sub copy_dir
{
	my ($from) = @_;
	my $to = new_dir();
	my %tablespaces = tablespace_dirs($from);

	system_or_bail('cp', '-a', $from, $to);
	for my $link (sort keys %tablespaces)
	{
		my $dir = new_dir();
		(my $copy = $link) =~ s/^\Q$from\E/$to/;

		system_or_bail('cp', '-a', $tablespaces{$link}, $dir);
		unlink $copy or die "could not remove $copy: $!";
		symlink $dir, $copy or die "could not create $copy: $!";
	}
	return $to;
}

# What PostgreSQL makes of backups; without a manifest, if the last one has none.
sub core_combine
{
	my (@backups) = @_;
	my $dir = new_dir();
	my @options = -e "$backups[-1]/backup_manifest" ? () : ('--no-manifest');

	command_ok([ 'pg_combinebackup', '--no-sync', @options, '-o', $dir, mapped($backups[-1]), @backups ],
		'pg_combinebackup of ' . @backups);
	return $dir;
}

# What pg_ptrack makes of them.  options: its options; backups: what to combine.
sub combine_ok
{
	my ($name, $options, @backups) = @_;
	my $dir = new_dir();

	command_ok([ 'pg_ptrack', 'combine', '-N', '-o', $dir, mapped($backups[-1]), @$options, @backups ],
		$name);
	return $dir;
}

# It must refuse, say why, and leave nothing.
sub combine_fails
{
	my ($name, $pattern, $options, @backups) = @_;
	my $dir = new_dir();
	my @mapped = mapped($backups[-1]);

	command_fails_like(
		[ 'pg_ptrack', 'combine', '-N', '-o', $dir, @mapped, @$options, @backups ],
		$pattern, "$name: refused");
	ok(!-e $dir, "$name: nothing is left");
	ok(!(grep { /=(.*)/ && -e $1 } @mapped), "$name: nor of tablespaces") if @mapped;
	return;
}

# What is in a directory: path => contents, undef for directories.  Links are
# followed.
sub list_tree
{
	my ($dir) = @_;
	my %tree;

	find({
		follow => 1, no_chdir => 1,
		wanted => sub {
			my $path = substr $File::Find::name, length $dir;

			$tree{$path} = -d $File::Find::name ? undef : slurp_file($File::Find::name);
		} }, $dir);
	return \%tree;
}

# The permissions of all that.
sub modes
{
	my ($dir) = @_;
	my $tree = list_tree($dir);

	return { map { ($_ => sprintf '%04o', (stat $dir . $_)[2] & 07777) } keys %$tree };
}

# Two backups must have the same files with the same contents, and each must be
# what its manifest says.
sub same_trees
{
	my ($dir, $other, $name) = @_;
	my ($tree, $expected) = (list_tree($dir), list_tree($other));
	my @different;

	delete $_->{'/backup_manifest'} for $tree, $expected;
	for my $path (sort keys %{ { %$tree, %$expected } })
	{
		push @different, "$path is not in the one" and next if !exists $tree->{$path};
		push @different, "$path is not in the other" and next if !exists $expected->{$path};
		push @different, $path if ($tree->{$path} // 'dir') ne ($expected->{$path} // 'dir');
	}
	is(join("\n", @different), '', "$name: " . keys(%$tree) . ' files and directories are the same');
	verifies($dir, $name);
	return;
}

sub verifies
{
	my ($dir, $name) = @_;

	command_ok([ 'pg_verifybackup', '-q', $dir ], "$name: pg_verifybackup agrees");
	return;
}

# Writes a file, of which there may be other links.
sub spew
{
	my ($path, $bytes) = @_;

	unlink $path;
	open my $fh, '>:raw', $path or die "could not create $path: $!";
	print $fh $bytes;
	close $fh;
	return;
}

# Gives a backup's manifest, changed by a function, the right checksum again.
sub write_manifest
{
	my ($dir, $change) = @_;
	my ($text) = slurp_file("$dir/backup_manifest") =~ /^(.*^)"Manifest-Checksum"/ms;

	$text = $change->($text);
	spew("$dir/backup_manifest", qq($text"Manifest-Checksum": ") . sha256_hex($text) . qq("}\n));
	return;
}

# What its files are is then for themselves to say.
sub drop_manifest
{
	my ($dir) = @_;

	unlink "$dir/backup_manifest" or die "could not remove manifest of $dir: $!";
	return;
}

1;
