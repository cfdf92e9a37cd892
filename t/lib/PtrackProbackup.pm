# Backups as pg_probackup 2.5, unmodified, makes them in PTRACK mode: the same
# statements, on one connection, and the same decisions on what to copy.
#
# A backup is kept as the data directory that restoring it would yield: files
# that count as unchanged are hard links to those of the prior backup.
package PtrackProbackup;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use Fcntl qw(SEEK_SET);
use File::Copy qw(copy);
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use PtrackImage;
use PtrackTest;
use Test::More;

our @EXPORT = qw(prepare_probackup probackup restored_node compare_backup check_backup);

my $BLCKSZ = 8192;
my $LARGE = 64 * 1024 * 1024;

# What a file is to pg_probackup: 'main' forks are made of pages that are taken
# one by one; other forks, and all that are no relations, are taken 'whole'.
sub file_kind
{
	my ($path) = @_;

	return 'excluded'
	  if $path =~ m{^(?:pg_wal|pg_replslot|pg_dynshmem|pg_notify|pg_serial|pg_snapshots|pg_stat_tmp|pg_subtrans)/.}
	  or $path =~ m{(?:^|/)(?:pgsql_tmp|t\d+_\d+|pg_internal\.init)}
	  or $path =~ m{^(?:postmaster\.(?:pid|opts)|backup_label.*|tablespace_map.*|current_logfiles|log|standby\.signal|recovery\.signal)$};
	return 'main'
	  if $path =~ m{^(?:global|base/\d+|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(?:\.\d+)?$};
	return 'whole';
}

# Copies a file, holes as holes.  False if there is none any more.
sub copy_file
{
	my ($from, $to) = @_;
	my $size = -s $from // return 0;

	if ($size >= $LARGE)
	{
		PostgreSQL::Test::Utils::system_or_bail('cp', '--sparse=always', $from, $to);
	}
	elsif (!copy($from, $to))
	{
		die "could not copy \"$from\": $!\n" if -e $from;
		unlink $to;
		return 0;
	}
	chmod 0600, $to;
	return 1;
}

# Takes the pages of a file whose bits are set, on top of what the prior backup
# has.  Nothing of these whose LSN says that the prior backup has it already.
# False if the file is gone.
sub copy_pages
{
	my ($backup, $source, $target, $bits, $blocks) = @_;

	open my $in, '<:raw', $source or return 0;
	open my $out, '+<:raw', $target or die "could not open \"$target\": $!\n";
	for my $block (grep { vec($bits, $_, 1) } 0 .. 8 * length($bits) - 1)
	{
		last if $block >= $blocks;
		sysseek $in, $block * $BLCKSZ, SEEK_SET or die "could not seek in \"$source\": $!\n";
		sysread($in, my $page, $BLCKSZ) == $BLCKSZ or last;    # truncated meanwhile
		my ($high, $low) = unpack 'VV', $page;
		my $lsn = $high << 32 | $low;

		if ($lsn > 0 && $lsn < lsn_number($backup->{prior_start}))
		{
			$backup->{filtered}++;
			next;
		}
		sysseek $out, $block * $BLCKSZ, SEEK_SET or die "could not seek in \"$target\": $!\n";
		syswrite($out, $page) == $BLCKSZ or die "could not write \"$target\": $!\n";
		$backup->{pages}++;
	}
	return 1;
}

# Copies one file of the list.  False if it is gone.
sub backup_file
{
	my ($backup, $prior, $source, $path, $size) = @_;
	my $target = "$backup->{dir}/$path";
	my $is_main = file_kind($path) eq 'main';
	my $blocks = int($size / $BLCKSZ);

	if (!$is_main || !$prior || !exists $prior->{files}{$path})
	{
		copy_file("$source/$path", $target) or return 0;
		$backup->{whole}++ if $is_main;
	}
	else
	{
		my $bits = $backup->{map}{$path} // '';
		my $old = "$prior->{dir}/$path";

		# No row, or an empty one: unchanged, but for its length.
		if ($bits !~ /[^\0]/ && -s $old == $blocks * $BLCKSZ)
		{
			link $old, $target or die "could not link \"$target\": $!\n";
			return 1;
		}
		copy_file($old, $target) or die "\"$old\" is gone\n";
		if (!copy_pages($backup, "$source/$path", $target, $bits, $blocks))
		{
			unlink $target;
			return 0;
		}
	}

	# As many blocks are restored as there were when the file was listed.  A file
	# that is shorter by now is left to WAL.
	truncate $target, $blocks * $BLCKSZ or die "could not truncate \"$target\": $!\n"
	  if $is_main && -s $target > $blocks * $BLCKSZ;
	return 1;
}

# The name of the segment with that byte, without the timeline.
sub segment_name
{
	my ($lsn, $size) = @_;
	my $segment = int($lsn / $size);
	my $each = int(2**32 / $size);

	return sprintf '%08X%08X', $segment / $each, $segment % $each;
}

# Copies WAL from a backup's start on; to its stop, or to that LSN.
sub copy_wal_of
{
	my ($node, $backup, $target, $end) = @_;
	my $wal = $node->data_dir . '/pg_wal';
	my $size = -s "$wal/$backup->{segment}"
	  or die "$backup->{name}: segment $backup->{segment} is gone\n";
	my $first = substr $backup->{segment}, 8;
	my $last = segment_name(lsn_number($end // $backup->{stop}) - 1, $size);

	for my $file (glob "$wal/*")
	{
		my ($name) = $file =~ m{/([0-9A-F]{24}|[0-9A-F]{8}\.history)$} or next;

		next if length $name == 24 && (substr($name, 8) lt $first || substr($name, 8) gt $last);
		copy($file, "$target/pg_wal/$name") or die "could not copy \"$file\": $!\n";
	}
	return;
}

# What pg_probackup is given: a database to connect to, with ptrack in a schema of
# its own, and a role without any privilege but the README's GRANTs, and those that
# pg_probackup's documentation asks for.
sub prepare_probackup
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'CREATE DATABASE backup; CREATE ROLE backup LOGIN');
	$node->safe_psql('backup', <<'SQL');
CREATE SCHEMA "Block tracking";
CREATE EXTENSION ptrack SCHEMA "Block tracking";
GRANT USAGE ON SCHEMA "Block tracking" TO backup;
SET search_path = "Block tracking";
GRANT EXECUTE ON FUNCTION ptrack_get_pagemapset(pg_lsn) TO backup;
GRANT EXECUTE ON FUNCTION ptrack_get_change_stat(pg_lsn) TO backup;
GRANT EXECUTE ON FUNCTION ptrack_changed_blocks(pg_lsn, pg_lsn) TO backup;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean) TO backup;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_stop(boolean) TO backup;
SQL
	return;
}

# Makes a backup of a running server.
#
# prior: the backup that it is relative to; without one, it is a full backup.
# started: called between the start of the backup and the query for the map;
# listed: called before files are copied; map: called with the map, to change it.
#
# Dies if pg_probackup would refuse.  Returns the backup: its dir, start and stop,
# files, map, engine, and how many pages came by the map, how many of these were filtered
# out again, and how many main-fork files were taken whole.
sub probackup
{
	my ($node, $name, %options) = @_;
	my $prior = $options{prior};
	my $backup = { name => $name, dir => $node->backup_dir . "/$name", map => {},
		pages => 0, filtered => 0, whole => 0 };
	my $session = open_session('psql', '-d', $node->connstr('backup') . ' user=backup');
	my $refuse = sub { $session->(undef); die "$_[0]\n"; };

	$session->("SELECT pg_catalog.set_config('search_path', '', false); SET client_min_messages = warning;");

	# In every mode.
	my ($schema, $version) = split /[|\n]/, $session->(<<'SQL');
SELECT extnamespace::regnamespace, extversion FROM pg_catalog.pg_extension WHERE extname = 'ptrack'::name;
SQL
	$refuse->('there is no ptrack') if !defined $schema;
	my ($major, $minor) = $version =~ /^(\d+)\.(\d\d?)$/ or $refuse->("version \"$version\" is not understood");
	$refuse->("version $version is too old") if $major * 100 + $minor < 201;
	chomp(my $size = $session->('SHOW ptrack.map_size;'));
	$refuse->('ptrack is disabled') if $size =~ /^(?:0|-1)$/ && $prior;

	chomp($backup->{start} = $session->("SELECT pg_catalog.pg_backup_start('$name', true);"));
	if ($prior)
	{
		chomp(my $known = $session->("SELECT $schema.ptrack_init_lsn();"));
		$refuse->("changes are known from $known, the prior backup starts at $prior->{start}")
		  if lsn_number($known) == 0 || lsn_number($known) > lsn_number($prior->{start});
	}
	$options{started}->() if $options{started};

	my $source = $node->data_dir;
	my $files = PtrackCopy::list_cluster($source);
	delete @$files{ grep { file_kind($_) eq 'excluded' } keys %$files };
	if ($prior)
	{
		my $rows = $session->(<<"SQL");
PREPARE map_since AS SELECT path, pagemap FROM $schema.ptrack_get_pagemapset(\$1) ORDER BY 1;
EXECUTE map_since('$prior->{start}');
SQL
		for my $row (split /\n/, $rows)
		{
			my ($path, $hex) = $row =~ /^(.+)\|\\x((?:[0-9a-f]{2})*)$/ or die "what is \"$row\"?\n";

			die "two rows for \"$path\"\n" if exists $backup->{map}{$path};
			$backup->{map}{$path} = pack 'H*', $hex;
		}
		$backup->{prior_start} = $prior->{start};
		$options{map}->($backup->{map}) if $options{map};
	}
	$options{listed}->() if $options{listed};

	make_path("$backup->{dir}/pg_wal", { mode => 0700 });
	for my $path (sort keys %$files)
	{
		if (!defined $files->{$path}) { make_path("$backup->{dir}/$path", { mode => 0700 }); }
		elsif ($path ne 'global/pg_control')
		{
			backup_file($backup, $prior, $source, $path, $files->{$path}) or delete $files->{$path};
		}
	}
	# The last one, for a backup of a standby.
	copy_file("$source/global/pg_control", "$backup->{dir}/global/pg_control");
	$backup->{files} = $files;

	my ($stop, $label, $spaces) = split /[|\n]/, $session->(<<'SQL'), -1;
SELECT lsn, encode(convert_to(labelfile, 'UTF8'), 'hex'), encode(convert_to(spcmapfile, 'UTF8'), 'hex')
FROM pg_catalog.pg_backup_stop(false);
SQL
	$session->(undef) == 0 or die "psql failed\n";
	$backup->{stop} = $stop;
	$backup->{engine} = $node->safe_psql('postgres', 'SELECT engine FROM pg_stat_ptrack');
	$backup->{label} = pack 'H*', $label =~ s/\n//gr;
	$backup->{spaces} = pack 'H*', $spaces =~ s/\n//gr;
	($backup->{segment}) = $backup->{label} =~ /^START WAL LOCATION: \S+ \(file (\w+)\)/
	  or die "what is this label: $backup->{label}";
	append_to_file("$backup->{dir}/backup_label", $backup->{label});
	copy_wal_of($node, $backup, $backup->{dir});
	return $backup;
}

# A server restored from a backup, not started yet: with the WAL that the backup
# needs, and with tablespaces at places of their own.
sub restored_node
{
	my ($name, $backup) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $data = $node->data_dir;

	PostgreSQL::Test::Utils::system_or_bail('cp', '-a', '--sparse=always', $backup->{dir}, $data);
	chmod 0700, $data;
	for my $space (map { /^(\d+) / } split /\n/, $backup->{spaces})
	{
		my $place = $node->basedir . "/space_$space";

		rename "$data/pg_tblspc/$space", $place or die "could not move tablespace $space: $!\n";
		append_to_file("$data/tablespace_map", "$space $place\n");
	}
	$node->append_conf('postgresql.conf', 'port = ' . $node->port);
	return $node;
}

# What tables of a node's databases contain, a line for each.
sub table_rows
{
	my ($node) = @_;
	my $rows = '';

	for my $database (split /\n/, $node->safe_psql('postgres',
			'SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1'))
	{
		$rows .= "$database:\n" . $node->safe_psql($database, <<'SQL') . "\n";
SELECT format('SELECT %L, count(*), sum(hashtext(x::text)::bigint) FROM %s x', oid::regclass, oid::regclass)
FROM pg_class WHERE relkind IN ('r', 'm') AND relpersistence = 'p' AND relnamespace = 'public'::regnamespace
ORDER BY oid::regclass::text \gexec
SQL
	}
	return $rows;
}

# Restores a backup, recovers it with all of a server's WAL, and compares it with
# the server, which must be idle: a backup that was made on its standby, too.
#
# Returns pages, how many were compared; hints, how many of these differ in hint
# bits only; different, a list of others as "path:block"; rows and expected, what
# tables contain in the restored server, and in the other; and init, where
# coverage of the restored one begins.
sub compare_backup
{
	my ($node, $backup) = @_;
	my $restored = restored_node("$backup->{name}_restored", $backup);
	my %result = (hints => 0, different => [], expected => table_rows($node));

	# Reading may have pruned pages, which is logged.
	$node->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'ptrack', ''); CHECKPOINT");
	my $image = $node->{probackup_image} = take_image($node->data_dir, $node->{probackup_image});
	copy_wal_of($node, $backup, $restored->data_dir,
		$node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()'));

	# Recovery ends with a checkpoint: what it did is on disk.
	$restored->start;
	each_difference($image, take_image($restored->data_dir), sub {
		my ($path, $block, $verdict) = @_;

		$verdict ne 'different' ? $result{hints}++ : push @{ $result{different} }, "$path:$block";
	});
	$result{pages} = count_pages($image);
	$result{rows} = table_rows($restored);
	$result{init} = $restored->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
	$restored->stop('immediate');
	$restored->clean_node;
	return \%result;
}

# The same, as tests.
sub check_backup
{
	my ($node, $backup, $name) = @_;
	my $result = compare_backup($node, $backup);
	my @different = @{ $result->{different} };
	my $some = @different > 20 ? '...' : '';

	is("@different[0 .. ($some ? 19 : $#different)]$some", '',
		"$name: $result->{pages} pages agree, $result->{hints} but for hint bits");
	is($result->{rows}, $result->{expected}, "$name: rows agree; $backup->{pages} pages by map, "
		  . "$backup->{filtered} filtered out, $backup->{whole} files whole");
	# Where the server that was backed up follows WAL, or the one that it is a standby
	# of does, the summary that ends where the backup starts, or where the standby
	# began, may come too late to be in it, and pg_probackup waits for nothing.
	my $init = $node->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
	my $engines = "$backup->{engine} " . $node->safe_psql('postgres', 'SELECT engine FROM pg_stat_ptrack');

	ok($result->{init} eq $init
		  || $engines =~ /wal/ && lsn_number($result->{init}) <= lsn_number($backup->{start}),
		"$name: coverage begins at $result->{init}; before, at $init");
	return;
}

1;
