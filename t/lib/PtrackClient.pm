# Backups by pg_ptrack, and what is made of them.
package PtrackClient;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

our @EXPORT = qw(backup_command client_backup backup_fails await_fetching verify_backup combine_backups damage_page check_chain has_core_increments);

# Damages a page of a table, which has four at least, while the node is stopped.
sub damage_page
{
	my ($node, $table) = @_;
	my $path = $node->safe_psql('postgres', "CHECKPOINT; SELECT pg_relation_filepath('$table')");

	$node->stop;
	open my $fh, '+<', $node->data_dir . "/$path" or die;
	seek $fh, 3 * 8192 + 5000, 0;
	print $fh 'damage';
	close $fh;
	$node->start;
	return $path;
}

# Has this major PostgreSQL's own incremental backups?
sub has_core_increments
{
	return (`pg_config --version` =~ /(\d+)/)[0] >= 17;
}

# The command that makes a backup of a node in that directory.  The tablespaces
# of the node get new places below it.
#
# prior: directory of the backup that it is relative to; args: more arguments.
sub backup_command
{
	my ($node, $dir, %options) = @_;
	my @command = ('pg_ptrack', 'backup', '-D', $dir, '-c', 'fast', '--no-sync', '-d', $node->connstr('postgres'));

	for my $location (split /\n/, $node->safe_psql('postgres', <<'SQL'))
SELECT l FROM pg_tablespace, pg_tablespace_location(oid) l WHERE l LIKE '/%'
SQL
	{
		(my $here = $location) =~ s{/}{_}g;
		push @command, '-T', "$location=$dir$here";
	}
	push @command, '-i', "$options{prior}/backup_manifest" if $options{prior};
	return (@command, @{ $options{args} // [] });
}

# Makes a backup; returns its directory.
sub client_backup
{
	my ($node, $name, %options) = @_;
	my $dir = $node->backup_dir . "/$name";

	mkdir $node->backup_dir;
	PostgreSQL::Test::Utils::system_or_bail(backup_command($node, $dir, %options));
	return $dir;
}

# A backup fails with that message, and leaves nothing.
sub backup_fails
{
	my ($node, $name, $pattern, %options) = @_;
	my $dir = $options{dir} // $node->backup_dir . '/fails';
	my ($stdout, $stderr);

	IPC::Run::run([ backup_command($node, $dir, %options) ], '>', \$stdout, '2>', \$stderr);
	is($? >> 8, 1, "$name: exit status");
	like($stderr, $pattern, "$name: says why");
	ok(!-e $dir || $options{dir}, "$name: nothing is left");
	return;
}

# Waits until files are being fetched, by all backups together through so many connections.
sub await_fetching
{
	my ($node, $connections) = @_;

	poll_until(sub {
		return $node->safe_psql('postgres', <<"SQL") eq 't';
SELECT sum(workers) = $connections AND bool_and(backup_streamed > 0) FROM pg_stat_progress_ptrack_backup
SQL
	}) or die "no files are fetched through $connections connections";
	return;
}

# A backup is what its manifest says, for us and for PostgreSQL.
sub verify_backup
{
	my ($dir, $name) = @_;

	command_ok([ 'pg_ptrack', 'verify', $dir ], "$name: it verifies");
	command_ok([ 'pg_verifybackup', '-e', $dir ], "$name: it verifies for PostgreSQL");
	return;
}

# Combines backups into the data directory of a new node, which is not started.
sub combine_backups
{
	my ($name, $args, @dirs) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	mkdir $node->basedir;
	PostgreSQL::Test::Utils::system_or_bail('pg_ptrack', 'combine', '--no-sync', '-o', $node->data_dir,
		(map { my ($from, $dir) = @$_; ('-T', "$from=$dir") } tablespaces_of($dirs[-1], $node->basedir)),
		@$args, @dirs);
	return $node;
}

# Where the tablespaces of a backup are, and where they are to be.
sub tablespaces_of
{
	my ($backup, $base) = @_;

	return map { [ readlink $_, $base . '/space_' . (m{(\d+)$})[0] ] } grep { -l $_ } glob "$backup/pg_tblspc/*";
}

# What a chain is combined to is, once recovered, the node, which is stopped for that.
sub check_chain
{
	my ($node, $name, @chain) = @_;
	(my $short = $name) =~ s/\W+/_/g;
	my $copy = combine_backups("combined_$short", [], @chain);

	command_ok([ 'pg_ptrack', 'verify', $copy->data_dir ], "$name: combined, it verifies");
	compare_recovered($node, $copy, $name);
	return;
}

1;
