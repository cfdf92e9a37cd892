# What dev/torture does, once there is a server: see there.
#
# usage: torture.pl DIRECTORY SEED SECONDS CYCLES, with the server's programs in
# PATH; zero seconds or cycles: no limit.  The directory gets everything made.

use strict;
use warnings FATAL => 'all';

use Digest::MD5 qw(md5);
use PtrackCopy;
use PtrackImage;
use PtrackLoad;
use PtrackOracle;
use PtrackServer;
use Time::HiRes qw(sleep time);

my ($work, $seed, $seconds, $cycles) = @ARGV;
die "usage: torture.pl DIRECTORY SEED SECONDS CYCLES\n" if !defined $cycles;

# From here on a run is long: a table of more than a gigabyte takes part.
my $LONG_RUN = 600;
# More pages than that, besides that table's, and tables are emptied.
my $MANY_PAGES = 20000;
# Earlier moments that are remembered for each server.
my $POINTS = 6;

my $began = time;
my $cycle = 0;
my ($primary, $standby, $server_count) = (undef, undef, 0);
my $standby_planned = 0;    # there will be one again at once
my (%count, %kills);
my $many_pages = $MANY_PAGES;
my $spanning = 0;    # or a session of database one, whose transaction is open and has locks
my @base;    # data directory of the base copy, and the LSN that it is of

# Comes here from PGOPTIONS and the like only by accident.
delete @ENV{ grep { /^PG/ } keys %ENV };
# Nothing takes minutes but what hangs.
$ENV{PGOPTIONS} = '-c client_min_messages=error -c lock_timeout=60s -c statement_timeout=300s';
$ENV{PGCONNECT_TIMEOUT} = 30;
$| = 1;
$SIG{$_} = sub { exit 130 } for 'INT', 'TERM';
$SIG{PIPE} = 'IGNORE';

sub progress
{
	printf "[%4ds] %s\n", time - $began, $_[0];
	return;
}

sub chance
{
	return rand() < $_[0];
}

#
# Servers
#

# Settings for the next start.  Those that a standby needs do not vary while
# there is one.
sub configure
{
	my ($server, %more) = @_;
	my $alone = !$standby && !$standby_planned;
	my $level = $alone && chance(0.3) ? 'minimal' : pick('replica', 'logical');

	$server->configure(
		shared_preload_libraries => 'ptrack',
		listen_addresses => '',
		# Processes are killed, not the machine: what they wrote stays written.
		fsync => 'off',
		autovacuum => 'off',
		# Without full_page_writes, PostgreSQL 17.11 may find in a second replay that
		# a page of the visibility map was truncated away already, and give up.
		ignore_invalid_pages => 'on',
		wal_level => $level,
		max_files_per_process => 10000,
		max_wal_senders => $level eq 'minimal' ? 0 : 5,
		max_connections => 20,
		max_prepared_transactions => 5,
		max_locks_per_transaction => 256,
		allow_in_place_tablespaces => 'on',
		wal_log_hints => $alone ? pick('on', 'off') : 'on',
		shared_buffers => pick('1MB', '2MB', '8MB', '32MB'),
		'ptrack.map_size' => pick('1MB', '1MB', '16MB'),
		max_wal_size => pick('4MB', '16MB', '1GB'),
		min_wal_size => '2MB',
		wal_keep_size => $alone ? 0 : '4GB',
		checkpoint_timeout => '30s',
		checkpoint_completion_target => pick('0', '0.5'),
		synchronous_commit => pick('on', 'off'),
		wal_skip_threshold => pick('0', '64kB', '2MB'),
		wal_writer_delay => '10ms',
		bgwriter_delay => '10ms',
		bgwriter_lru_maxpages => '1000',
		wal_retrieve_retry_interval => '50ms',
		log_min_error_statement => 'panic',
		%more);
	return;
}

sub standby_settings
{
	return (primary_conninfo => "host=$work port=$primary->{port}");
}

sub reconfigure
{
	my ($server) = @_;

	configure($server, $standby && $server == $standby ? standby_settings() : ());
	age_summaries($server) if chance(0.2);
	return;
}

# What was merged is removed a day later.  That may be now: there are thousands.
sub age_summaries
{
	my ($server) = @_;
	my $past = time - 2 * 86400;

	utime $past, $past, glob "$server->{data}/ptrack/*.summary";
	return;
}

sub new_server
{
	return PtrackServer->new(name => 'server' . ++$server_count, dir => $work);
}

# Copies the data directory of a server that is down.  Tablespaces come along:
# the copy's are directories in place.
sub copy_data
{
	my ($from, $to) = @_;

	$primary->run('rm', '-rf', $to);
	$primary->run('cp', '-rL', '--preserve=mode,timestamps', '--sparse=always', $from, $to);
	return;
}

# Has tablespaces of the primary, which is down, be directories in place, as they
# will be in its standby: pg_rewind wants the same of both.
sub tablespaces_in_place
{
	for my $link (grep { -l } glob "$primary->{data}/pg_tblspc/*")
	{
		my $place = readlink $link;

		unlink $link or die "could not remove \"$link\": $!\n";
		rename $place, $link or die "could not rename \"$place\": $!\n";
	}
	return;
}

sub redo_of_stopped
{
	my ($server) = @_;

	open my $fh, '-|', 'pg_controldata', '-D', $server->{data} or die "could not run pg_controldata: $!\n";
	my ($redo) = join('', <$fh>) =~ /REDO location:\s+(\S+)/ or die "no redo location\n";
	return $redo;
}

#
# Load
#

sub start_load
{
	my (%options) = @_;
	my %common = (
		statements => 150,
		place => $standby || $standby_planned ? undef : "$work/places",
		%options);

	return map {
		my $database = pick('one', 'two');
		my $script = "$work/load$_.sql";

		open my $fh, '>', $script or die "could not write \"$script\": $!\n";
		print $fh load_script(%common, database => $database);
		close $fh;
		unlink "$work/load$_.log";
		PtrackServer::spawn("$work/load$_.log", $primary->psql($database), qw(-X -q -A -t -f), $script);
	} 1 .. 1 + int rand 4;
}

sub stop_load
{
	kill 'KILL', @_;
	waitpid $_, 0 for @_;
	return;
}

# Nobody else is connected.
sub end_sessions
{
	my ($session) = @_;
	my $others = q{FROM pg_stat_activity WHERE backend_type IN ('client backend', 'parallel worker') }
	  . 'AND pid <> pg_backend_pid()';

	for (my $end = time + 60; time < $end; sleep 0.01)
	{
		$session->("SELECT count(pg_terminate_backend(pid)) $others;");
		return if $session->("SELECT count(*) $others;") == 0;
	}
	die "sessions do not end\n";
}

# Runs a script in both databases that have tables.
sub run_in_both
{
	my ($sql) = @_;
	my $script = "$work/both.sql";

	open my $fh, '>', $script or die "could not write \"$script\": $!\n";
	print $fh $sql;
	close $fh;
	$primary->run($primary->psql($_), qw(-X -q -A -t -f), $script) for 'one', 'two';
	return;
}

#
# The oracle
#

# What is left of an image without the directories of databases that do not exist.
# A server that is killed while it copies or removes a database's files leaves
# some behind, or half of them, without WAL; no database is there.
sub of_databases
{
	my ($image, $exists) = @_;
	my (%keep, %kept);

	for my $path (keys %$image)
	{
		my ($dir) = $path =~ m{^(.*)/};
		my @database = $dir =~ m{^base/(\d+)} ? (1663, $1) : $dir =~ m{/(\d+)/[^/]+/(\d+)$};

		$keep{$dir} //= $dir eq 'global' || $exists->(@database) || 0;
		$kept{$path} = $image->{$path} if $keep{$dir};
	}
	return \%kept;
}

# Which directories belong to a database: a function of tablespace and database.
sub existing_databases
{
	my ($session) = @_;
	my %place;

	for my $row (split /\n/, $session->(
			q{SELECT oid, CASE WHEN datname IN ('one', 'two') THEN 0 ELSE dattablespace END }
			  . 'FROM pg_database WHERE datconnlimit <> -2;'))
	{
		my ($database, $tablespace) = split /\|/, $row;

		$place{$database} = $tablespace;
	}
	return sub {
		my ($tablespace, $database) = @_;

		return defined $place{$database} && ($place{$database} == 0 || $place{$database} == $tablespace);
	};
}

# Which of these files belong to no relation?  A server that is killed may leave
# files of one that it was about to create, before there was any WAL of it.
# Nothing refers to them, ever.  An index that was not completed may have pages
# that were never logged, and nobody reads them; the init fork of a bloom index
# never is logged, by a mistake in PostgreSQL 17.  Returns path => true.
sub find_orphans
{
	my ($server, @paths) = @_;
	my (%in_database, %orphan);

	for my $path (@paths)
	{
		my ($fork) = parse_path($path);
		my ($tablespace, $database, $relation) = split m{/}, $fork;

		push @{ $in_database{$database} }, "('$path', $tablespace, $relation)" if $database != 0;
	}
	for my $database (keys %in_database)
	{
		my $name = $server->query("SELECT datname FROM pg_database WHERE oid = $database");
		my $files = join ', ', @{ $in_database{$database} };
		# What an open transaction has made, it alone knows.
		my $ask = $spanning && $name eq 'one' ? sub { $spanning->("$_[0];") } : sub { $server->query($_[0], $name) };

		$orphan{$_} = 1 for split /\n/, $ask->(
			"SELECT path FROM (VALUES $files) v(path, space, relation), pg_filenode_relation(space, relation) r "
			  . 'WHERE r IS NULL OR EXISTS (SELECT FROM pg_index WHERE indexrelid = r AND NOT indisready) '
			  . q{OR path LIKE '%\_init' AND r IN (SELECT c.oid FROM pg_class c JOIN pg_am a ON a.oid = relam AND amname = 'bloom')});
	}
	return %orphan;
}

# A page's LSN and digest, or '' if there is no such page.
sub page_of
{
	my ($image, $path, $page) = @_;

	return '' if !$image->{$path} or $page >= count_pages($image, $path);
	return substr $image->{$path}{entries}, $page * 16, 16;
}

sub lsn_of_page
{
	my ($high, $low) = unpack 'LL', $_[0];

	return $high << 32 | $low;
}

# Was that page written and never logged?  Building an index and adding buckets to
# a hash index write new pages past the buffers, before their WAL is flushed.  If
# the server is killed then, the page has an LSN that WAL does not reach; it is past
# what the index knows of.  WAL will reach it later, so such pages are remembered;
# it may have done so by now if the server had to recover since the prior moment.
sub is_unlogged
{
	my ($server, $prior, $before, $now, $after, $lost) = @_;
	my $page = page_of($after, $lost->{path}, $lost->{page});
	my $key = "$lost->{path} $lost->{page}";

	return 0 if $page eq '' or page_of($before, $lost->{path}, $lost->{page}) =~ /[^\0]/;
	my $lsn = lsn_of_page($page);
	$server->{unlogged}{$key} = $page
	  if $lsn > $now->{end} or (grep { $_ < $lsn } recoveries_since($server, $prior))
	  && is_unused_bucket($server->{data}, $lost->{path}, $lost->{page});
	return ($server->{unlogged}{$key} // '') eq $page;
}

# A page's LSN as bytes, or '' if there is no such page.
sub label_of
{
	return substr page_of(@_), 0, 8;
}

# Does a page of the visibility map differ because the prior moment is another
# server's?  CREATE DATABASE logs such pages as if there were a hole in them, where
# their contents are: PostgreSQL 17 replays them empty, with the same LSN.  That
# errs on the safe side, for bits that are not set are not trusted.
sub is_replayed_empty
{
	my ($before, $after, $lost) = @_;
	my ($there, $here) = map { label_of($_, $lost->{path}, $lost->{page}) } $before, $after;

	return $lost->{path} =~ /_vm(?:\.\d+)?$/ && $here eq $there && $here =~ /[^\0]/;
}

# Does a page differ by its label because the prior moment is another server's?  It
# is the primary's page, which did not change there since.
sub is_relabelled
{
	my ($server, $before, $lost) = @_;
	my ($path, $page) = @$lost{qw(path page)};
	my $now = $primary->{points}[-1]{image};
	my $known = $primary->{foreign}{"$path $page"} // '-';

	return (grep { label_of($now, $path, $page) eq $_ } label_of($before, $path, $page), $known)
	  && differ_in_label($primary->{data}, $server->{data}, $path, $page);
}

# Does a page differ because a server was rewound, and earlier moments are another
# server's?  All such pages are found, and remembered with their LSNs, when it is
# looked at for the first time: any change from then on is its own.  Returns what
# that counts as, or ''.
sub is_foreign
{
	my ($server, $before, $after, $lost, $is_orphan) = @_;
	my $key = "$lost->{path} $lost->{page}";
	my $label = label_of($after, $lost->{path}, $lost->{page});

	return 'known' if ($server->{foreign}{$key} // '-') eq $label;
	return '' if !$server->{rewound};
	my $what =
		$is_orphan                                ? 'orphans'
	  : is_replayed_empty($before, $after, $lost) ? 'emptied'
	  : is_relabelled($server, $before, $lost)    ? 'relabelled'
	  :                                             return '';

	$server->{foreign}{$key} = $label;
	return $what;
}

# Where recoveries since that moment ended.
sub recoveries_since
{
	my ($server, $prior) = @_;
	my $since = lsn_number($prior->{lsn});

	return grep { $_ >= $since } @{ $server->{recoveries} };
}

sub end_of_wal
{
	my ($session) = @_;

	chomp(my $lsn = $session->('SELECT CASE WHEN pg_is_in_recovery() '
		  . 'THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END;'));
	return lsn_number($lsn);
}

# Everything that differs between those two moments must have been reported.
# until: an LSN; pages with later changes were changed after the report was made.
sub judge
{
	my ($server, $prior, $now, $exists, $reported, $until) = @_;
	my ($before, $after) = map { of_databases($_->{image}, $exists) } $prior, $now;
	my $kept = !$server->{rewound} && !recoveries_since($server, $prior);
	my $result = lost_changes($before, $after, $reported, $kept);
	my @files = map { $_->{path} } @{ $result->{lost} };
	# Of one that was just rewound, earlier moments are another server's.
	my %orphan = find_orphans($server, $server->{rewound} ? @files : grep { !$before->{$_} } @files);
	my @lost;

	$count{compared}++;
	$count{pages} += $result->{pages};
	$count{differing} += $result->{differing};
	$count{hints} += $result->{hints};
	$count{marks} += $reported->{marks};
	for my $lost (@{ $result->{lost} })
	{
		my $page = page_of($after, $lost->{path}, $lost->{page});
		my $foreign = is_foreign($server, $before, $after, $lost, $orphan{ $lost->{path} });

		if ($foreign ne '')
		{
			$count{$foreign}++;
		}
		elsif ($orphan{ $lost->{path} })
		{
			$count{orphans}++;
		}
		elsif (is_unlogged($server, $prior, $before, $now, $after, $lost))
		{
			$count{unlogged}++;
		}
		elsif (defined $until && $page ne '' && lsn_of_page($page) >= $until)
		{
			$count{later}++;
		}
		else
		{
			push @lost, "page $lost->{page} of $lost->{path} $lost->{why}\n";
		}
	}
	return if !@lost;
	die scalar(@lost) . " pages are lost on $server->{name}, of $result->{differing} that differ since ",
	  "$prior->{lsn} ($prior->{name}):\n", splice @lost, 0, 10;
}

# The moments that a server's present state is compared with: always the last.
sub priors
{
	my ($server) = @_;
	my @points = @{ $server->{points} };
	my @chosen = @points ? pop @points : ();

	push @chosen, $points[0] if @points && chance(0.3);
	push @chosen, pick(@points) if @points && chance(0.5);
	return @chosen;
}

sub remember
{
	my ($server, $now) = @_;
	my $points = $server->{points};

	push @$points, { %$now, name => "cycle $cycle" };
	splice @$points, 1 + int rand($POINTS - 2), 1 if @$points > $POINTS;
	return;
}

# Coverage begins where it did, or earlier; and nothing else is wrong.
sub check_state
{
	my ($server, $session) = @_;
	chomp(my $init = $session->('SELECT ptrack_init_lsn();'));
	my ($failures, $overflows) = split /\|/, $session->('SELECT flush_failures, overflows FROM pg_stat_ptrack;');
	my $log = $server->logged($server->{scanned} // 0);

	# A backend that waits in its commit when it notices the postmaster's death ends
	# as if the commit had failed, and one that waits in its rollback begins it anew,
	# without a transaction.  A process that ends since it notices that leaves its
	# latch asleep to one that was started with it, and is late.
	$log =~ s/PANIC:\ \ cannot\ abort\ transaction\ \d+,\ it\ was\ already\ committed
			|TRAP:\ failed\ Assert\("(?:TransactionIdIsValid\(proc->xid\)|latch->maybe_sleeping\ ==\ false)"\)//gx
	  if $server->{orphaned};
	push @{ $server->{recoveries} }, map { lsn_number($_) } $log =~ m{redo done at ([0-9A-F]+/[0-9A-F]+)}g;
	$server->{scanned} = $server->log_size;
	$server->{orphaned} = 0;
	$count{overflown}++ if $overflows > 0;
	die "coverage of $server->{name} begins at $init, and not at $server->{init}\n"
	  if lsn_number($init) > lsn_number($server->{init});
	die "checkpoints of $server->{name} could not write what changed\n" if $failures > 0;
	die "$server->{name} failed by itself: $1\n"
	  if $log =~ /^(.*(?:PANIC: |TRAP: |terminated by signal (?:4|6|7|8|11)).*)$/m;
	return;
}

# Has everything written, and returns the redo point before that and an image.
sub observe
{
	my ($server, $session) = @_;

	$session->('CHECKPOINT;');
	chomp(my $lsn = $session->('SELECT redo_lsn FROM pg_control_checkpoint();'));
	return { lsn => $lsn, image => take_image($server->{data}, last_image($server)) };
}

sub last_image
{
	my ($server) = @_;

	return $server->{points} && @{ $server->{points} } ? $server->{points}[-1]{image} : undef;
}

# Stops a server that is idle, looks at it, and starts it again.
sub observe_stopped
{
	my ($server) = @_;
	my $now;

	$server->query('CHECKPOINT');
	$server->stop('fast');
	$now = { lsn => redo_of_stopped($server), image => take_image($server->{data}, last_image($server)) };
	reconfigure($server);
	$server->start;
	return $now;
}

# Compares a server, which is idle, with some earlier moments of its own: asking
# after or before everything is written, or when it was stopped in between.
sub check_server
{
	my ($server, $when) = @_;

	$when //= pick('after', 'after', 'before', 'stopped');
	my $now = $when eq 'stopped' ? observe_stopped($server) : undef;
	my $session = $server->session;
	my $exists = existing_databases($session);
	my @priors = priors($server);
	my (%reported, $until);
	my $ask = sub {
		$reported{ $_->{lsn} } //= reported_changes(sub { $session->("$_[0];") }, $_->{lsn}) for @priors;
	};

	check_state($server, $session);
	if ($when eq 'before')
	{
		$until = end_of_wal($session);
		$ask->();
	}
	$now //= observe($server, $session);
	$now->{end} = end_of_wal($session);
	$ask->();
	judge($server, $_, $now, $exists, $reported{ $_->{lsn} }, $until) for @priors;
	remember($server, $now);
	$session->(undef);
	return if $server != $primary || $spanning;
	if (count_pages($now->{image}) > $many_pages) { run_in_both(trim_script()); }
	elsif (chance(0.15)) { run_in_both(drop_script()); }
	return;
}

# Makes the primary idle and has the standby replay all of it.
sub catch_up
{
	my $session = $standby->session;

	$primary->query('CHECKPOINT');
	my $lsn = $primary->query('SELECT pg_current_wal_flush_lsn()');
	for (my $end = time + 60; time < $end; sleep 0.01)
	{
		if ($session->("SELECT pg_last_wal_replay_lsn() >= '$lsn';") eq "t\n")
		{
			$session->(undef);
			return;
		}
	}
	die "the standby does not catch up\n";
}

sub check_all
{
	my $session = $primary->session;

	end_sessions($session);
	$session->(undef);
	check_server($primary);
	return if !$standby;
	catch_up();
	check_server($standby);
	return;
}

#
# Mistreatment
#

# Half of a page is written by a process that is killed meanwhile.  Full page writes
# mend that, which the load only switches off while there is one server.
sub gently
{
	return !$standby && !$standby_planned;
}

sub killed
{
	my ($what) = @_;

	$kills{$what}++;
	return 1;
}

# Has a server that is down, or on its way, come up; perhaps not undisturbed.
sub recover
{
	my ($server, $from) = @_;

	for (my $disturbed = my $starts = 0;;)
	{
		if ($server->is_down)
		{
			die "$server->{name} does not start\n" . $server->logged($from) if $starts++ > 5;
			$count{tombstones}++ if $server->drop_halves_of_states($from);
			reconfigure($server);
			$from = $server->log_size;
			$server->launch;
		}
		if ($disturbed < 3 && chance(0.25))
		{
			my $kind = pick('startup', 'startup', 'startup', 'checkpointer', 'postmaster');

			$disturbed++;
			sleep rand 0.15;
			if ($kind eq 'postmaster')
			{
				$server->kill_postmaster(chance(0.5), gently());
				killed('postmaster in recovery');
				next;
			}
			killed("$kind in recovery") if $server->kill_child($kind, gently());
		}
		return if $server->await_ready($from);
	}
}

# One kind of mistreatment of a server that is up, which is up again afterwards.
sub mistreat
{
	my ($server) = @_;
	my $kind = pick('none', 'fast', 'fast', 'immediate', 'immediate', ('postmaster') x 3, ('backend') x 3,
		('checkpointer') x 3, 'bgwriter', 'walwriter', 'ptrack', 'startup', 'walreceiver', 'walsender');
	my $from = $server->log_size;

	if ($kind eq 'fast' or $kind eq 'immediate')
	{
		$server->stop($kind);
		$count{$kind}++;
	}
	elsif ($kind eq 'postmaster')
	{
		$server->kill_postmaster(chance(0.5), gently());
		killed('postmaster');
	}
	elsif ($kind eq 'none' or !$server->kill_child($kind, gently()))
	{
		$count{undisturbed}++;
		return;
	}
	else
	{
		killed($kind);
	}
	recover($server, $from);
	return;
}

# Has a small map overflow within one checkpoint cycle.
sub flood
{
	$primary->stop('fast');
	configure($primary, 'ptrack.map_size' => '1MB', max_wal_size => '1GB', shared_buffers => '32MB');
	$primary->start;
	run_in_both(flood_script());
	$count{floods}++;
	load_and_mistreat();
	return;
}

# Looks at the primary in the midst of a transaction, which then goes on.  With
# wal_level = minimal, what it does to its own table is not logged.
sub span_transaction
{
	my ($session, $rows);

	if (!$standby && chance(0.6))
	{
		$primary->stop('fast');
		configure($primary, wal_level => 'minimal', max_wal_senders => 0);
		$primary->start;
	}
	$session = $primary->session('one');
	$session->($ROLLBACK_PREPARED);
	$rows = q{SELECT i, md5(i::text) FROM generate_series};
	$spanning = $session;
	$session->("BEGIN; DROP TABLE IF EXISTS spanning; CREATE TABLE spanning (i int, v text);"
		  . "CREATE INDEX ON spanning (i); INSERT INTO spanning $rows(1, 10) i; UPDATE t0 SET k = k + 1 WHERE id < 100;");
	check_server($primary, 'after');
	$session->("INSERT INTO spanning $rows(11, 5000) i; DELETE FROM t0 WHERE id < 50;");
	check_server($primary, 'after') if chance(0.5);
	$session->(pick('COMMIT;', 'ROLLBACK;', "PREPARE TRANSACTION 'spanning';"));
	$session->(undef);
	$spanning = 0;
	check_server($primary, 'after');
	$count{spans}++;
	load_and_mistreat();
	return;
}

sub load_and_mistreat
{
	my @load = start_load();

	sleep 0.1 + rand 0.7;
	mistreat($standby && chance(0.5) ? $standby : $primary);
	stop_load(@load);
	check_all();
	return;
}

#
# Standbys
#

# As pg_rewind wants it, and what compares the pages of two servers: without full
# pages, hint bits are logged in a way that gives their pages other LSNs.
sub write_full_pages
{
	$primary->query('ALTER SYSTEM SET full_page_writes = on');
	$primary->query('SELECT pg_reload_conf()');
	return;
}

sub make_standby
{
	my $session = $primary->session;

	end_sessions($session);
	$session->(undef);
	write_full_pages();
	check_server($primary);
	$primary->stop('fast');
	configure($primary, wal_level => 'replica', max_wal_senders => 5);
	$primary->start;
	$primary->stop('fast');
	tablespaces_in_place();
	$standby = new_server();
	copy_data($primary->{data}, $standby->{data});
	become_standby($primary->{points});
	reconfigure($primary);
	$primary->start;
	$standby->start;
	$count{standbys}++;
	return;
}

# The standby's data directory becomes that of a standby of the primary, which
# shares its history up to those moments.
sub become_standby
{
	my ($points) = @_;

	$standby->{points} = [@$points];
	$standby->{init} = $primary->{init};
	$standby->{unlogged} = $primary->{unlogged};
	$standby->{foreign} = { %{ $primary->{foreign} } };
	push @{ $standby->{recoveries} }, @{ $primary->{recoveries} };
	$standby->append('standby.signal', '');
	$standby->configure(%{ $primary->{settings} });
	reconfigure($standby);
	return;
}

sub drop_standby
{
	return if !$standby;
	$standby->stop(pick('fast', 'immediate'));
	$standby->run('rm', '-rf', $standby->{data});
	$standby = undef;
	return;
}

sub timeline_of
{
	my ($server) = @_;

	return substr $server->query('SELECT pg_walfile_name(pg_current_wal_lsn())'), 0, 8;
}

# A server that is killed in promotion may go on with the timeline that it had, and keep
# the history of the one that it was about to begin.  PostgreSQL would have its
# standbys look for that.
sub drop_unborn_timelines
{
	my ($server) = @_;
	my $timeline = timeline_of($server);

	for my $history (glob "$server->{data}/pg_wal/*.history")
	{
		next if $history !~ m{/([0-9A-F]{8})\.history$} || $1 le $timeline;
		unlink $history or die "could not remove \"$history\": $!\n";
		$count{unborn}++;
	}
	return;
}

# Promotes the standby, which may be disturbed in that and need it again.
sub promote
{
	for (my $disturbed = chance(0.5) ? 1 : 3;;)
	{
		my $from = $standby->log_size;

		$standby->query('SELECT pg_promote(false)') if $standby->query('SELECT pg_is_in_recovery()') eq 't';
		if ($disturbed++ < 3 && sleep(rand 0.1) && $standby->kill_child(pick('startup', 'checkpointer')))
		{
			killed('process in promotion');
			recover($standby, $from);
			next;
		}
		for (my $end = time + 60; time < $end; sleep 0.02)
		{
			next if $standby->query('SELECT pg_is_in_recovery()') ne 'f';
			drop_unborn_timelines($standby);
			return;
		}
		die "the standby is not promoted\n";
	}
}

# The standby takes over in the midst of load.
sub fail_over
{
	my @load = start_load();
	my $old = $primary;
	my $timeline = timeline_of($old);

	sleep 0.2 + rand 0.5;
	pick(sub { $old->stop('fast') }, sub { $old->stop('immediate') },
		sub { $old->kill_postmaster(1); killed('postmaster') })->();
	promote();
	stop_load(@load);
	$primary = $standby;
	$standby = undef;
	$count{promotions}++;
	# On one timeline there is nothing to rewind, says pg_rewind, even if both went on.
	$standby_planned = chance(0.5) && timeline_of($primary) ne $timeline;
	check_all();
	$standby_planned ? rewind_to_standby($old) : $old->run('rm', '-rf', $old->{data});
	$standby_planned = 0;
	return;
}

# Recovery of a server fails if an unlogged relation's creation was rolled back just
# before, and that is not in WAL: the creation is replayed, and the empty file that
# keeps its number until the next checkpoint is in the way.  It is removed, and what
# was tried is tried again.
sub past_tombstones
{
	my ($server, $try) = @_;
	my $error;

	for (1 .. 10)
	{
		return if eval { $try->(); 1 };
		$error = $@;
		my @files = map { "$server->{data}/$_" } $error =~ /FATAL:  could not create file "(\S+)": File exists/g;
		die $error if !@files || -s $files[-1] || !-e "$files[-1]_init" || !unlink $files[-1];
		$count{tombstones}++;
	}
	die $error;
}

# pg_rewind has the old primary recover first.
sub rewind
{
	my ($old) = @_;

	past_tombstones($old, sub {
		$old->run('pg_rewind', '-D', $old->{data}, '-N',
			'--source-server', "host=$work port=$primary->{port} dbname=postgres");
	});
	return;
}

# The old primary becomes a standby of the new one.
sub rewind_to_standby
{
	my ($old) = @_;

	rewind($old);
	$standby = $old;
	$standby->{rewound} = 1;
	become_standby($primary->{points});
	$primary->stop('fast');
	reconfigure($primary);
	$primary->start;
	$standby->start;
	$count{rewinds}++;
	forget_unknown($standby);
	check_all();
	$standby->{rewound} = 0;
	return;
}

# What pg_rewind leaves recovers from the last checkpoint before the histories
# parted.  If the new primary has no summary that ends just there, coverage
# begins there: no answer is possible for earlier moments.
sub forget_unknown
{
	my ($server) = @_;
	my $init = known_since($server);

	return if lsn_number($init) <= lsn_number($server->{init});
	$server->{init} = $init;
	$server->{points} = [ grep { lsn_number($_->{lsn}) >= lsn_number($init) } @{ $server->{points} } ];
	$count{forgotten}++;
	return;
}

#
# What makes a gap, and what must not
#

# A session without the library: what it did is read from WAL, if that is still
# there.
sub absent_session
{
	check_all();
	$primary->stop('fast');
	configure($primary, shared_preload_libraries => '', 'ptrack.map_size' => '16MB');
	$primary->start;
	run_in_both($ROLLBACK_PREPARED);
	$primary->query('UPDATE t0 SET k = -k', 'one');
	$primary->query('CHECKPOINT') if chance(0.5);
	$primary->stop(pick('fast', 'immediate'));
	return 'absent';
}

sub reset_wal
{
	check_all();
	$primary->stop('fast');
	$primary->run('pg_resetwal', '-f', '-D', $primary->{data});
	return 'reset';
}

# Where coverage ends, what was known is not known any more, and that is an error.
sub make_gap
{
	my ($why, $known);

	drop_standby();
	$why = chance(0.5) ? absent_session() : reset_wal();
	reconfigure($primary);
	$primary->start;
	$known = known_since($primary);
	if ($why eq 'absent' && lsn_number($known) <= lsn_number($primary->{init}))
	{
		$count{filled}++;
		return;
	}
	for my $point (@{ $primary->{points} })
	{
		die "after a gap, $point->{lsn} is not before $known\n" if lsn_number($point->{lsn}) >= lsn_number($known);
		expect_refusal($point->{lsn});
	}
	$primary->{init} = $known;
	$primary->{points} = [];
	take_base();
	$count{gaps}++;
	return;
}

# Where coverage begins, which takes a moment to be found.
sub known_since
{
	my ($server) = @_;
	my $known = '';

	for (my $waited = 0; $known eq ''; $waited += 0.1)
	{
		die "it does not get known what is known\n" if $waited > 60;
		$known = $server->query('SELECT known_since()');
		sleep 0.1 if $known eq '';
	}
	return $known;
}

sub expect_refusal
{
	my ($lsn) = @_;
	my $state = $primary->query(<<"SQL");
CREATE FUNCTION pg_temp.state() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM ptrack_get_pagemapset('$lsn'); RETURN 'an answer';
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END \$\$;
SELECT pg_temp.state();
SQL
	die "after a gap, $lsn gets $state\n" if $state ne '55000';
	return;
}

# A server that is killed while it writes a page may leave half of it at the end of a
# file.  PostgreSQL does not see it, but for pg_checksums, which gives up.
sub drop_halves
{
	my ($dir) = @_;

	for my $name (map { glob "$dir/$_" } 'global/*', 'base/*/*', 'pg_tblspc/*/*/*/*')
	{
		my $half = (-s $name || 0) % 8192 or next;

		next if $name !~ m{/\d+(?:_\w+)?(?:\.\d+)?$};
		truncate $name, (-s _) - $half or die "could not truncate \"$name\": $!\n";
		$count{halves}++;
	}
	return;
}

sub switch_checksums
{
	drop_standby();
	check_all();
	my $on = $primary->query('SHOW data_checksums') eq 'on';
	$primary->stop('fast');
	drop_halves($primary->{data});
	$primary->run('pg_checksums', '-N', $on ? '--disable' : '--enable', '-D', $primary->{data});
	$primary->start;
	$count{switches}++;
	check_all();
	return;
}

#
# From the base copy to the end
#

# A first moment, and a base copy as of it.
sub take_base
{
	my $copy = "$work/base";

	$primary->stop('fast');
	@base = ($copy, redo_of_stopped($primary));
	copy_data($primary->{data}, $copy);
	$primary->{points} = [ { lsn => $base[1], image => take_image($primary->{data}), name => 'base' } ];
	$primary->start;
	return;
}

sub make_primary
{
	my $long = $seconds >= $LONG_RUN || $cycles >= $LONG_RUN;

	mkdir "$work/places";
	$primary = new_server();
	@$primary{qw(unlogged foreign recoveries)} = ({}, {}, []);
	$primary->init(chance(0.5) ? '--data-checksums' : ());
	configure($primary, wal_level => 'replica', max_wal_senders => 5);
	$primary->start;
	$primary->query(<<'SQL');
CREATE EXTENSION ptrack;
CREATE FUNCTION known_since() RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN ptrack_init_lsn(); EXCEPTION WHEN object_not_in_prerequisite_state THEN RETURN ''; END $$
SQL
	$primary->query("CREATE DATABASE $_") for 'one', 'two', 'moving';
	$primary->query(setup_script(), $_) for 'one', 'two';
	$primary->query(q{CREATE TABLE huge (i int, v text);
		INSERT INTO huge SELECT i, 'x' FROM generate_series(1, 100) i}, 'moving');
	my $file = $primary->query(q{SELECT pg_relation_filepath('huge')}, 'moving');
	$primary->stop('fast');
	# Pages that were never used: rows go to the last one, and to the next segment.
	if ($long)
	{
		truncate "$primary->{data}/$file", 1024 * 1024 * 1024 or die "could not stretch \"$file\": $!\n";
		$many_pages += 140000;
	}
	$primary->start;
	$primary->{init} = $primary->query('SELECT ptrack_init_lsn()');
	take_base();
	return;
}

# A number for each table, in all databases, that depends on every row of it.
sub row_sums
{
	my ($server) = @_;
	my $sums = '';
	my $databases = $server->query(
		'SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY 1');

	for my $database (split /\n/, $databases)
	{
		$sums .= "$database:\n" . $server->query(<<'SQL', $database) . "\n";
SELECT format('SELECT %L, count(*), sum(hashtext(ROW(t.*)::text)::bigint) FROM %s t', oid::regclass, oid::regclass)
FROM pg_class WHERE relkind IN ('r', 'm', 'S') AND relpersistence = 'p' AND oid >= 16384 ORDER BY relname, oid \gexec
SQL
	}
	return $sums;
}

# Tables of the catalog alone decide which pages matter to the copy.
sub compare_copy
{
	my ($copy, $exists) = @_;
	my ($here, $there) = map { of_databases(take_image($_->{data}), $exists) } $primary, $copy;
	my $unlogged = $primary->{unlogged};
	my (@lost, %orphan);

	each_difference($here, $there, sub {
		my ($path, $page, $verdict) = @_;

		return if $verdict ne 'different' || page_of($here, $path, $page) eq ($unlogged->{"$path $page"} // '-');
		return $count{relabelled}++ if differ_in_label($primary->{data}, $copy->{data}, $path, $page);
		push @lost, [ $path, $page ];
	});
	$copy->start;
	%orphan = find_orphans($copy, map { $_->[0] } @lost);
	@lost = map { "page $_->[1] of $_->[0]\n" } grep { !$orphan{ $_->[0] } } @lost;
	die scalar(@lost) . " pages of the restored copy differ:\n", splice @lost, 0, 10 if @lost;
	return;
}

# Brings the base copy up to date while the primary goes on, and restores it.
sub restore_copy
{
	my $copy = new_server();
	my ($session, $exists, $sums, $copy_sums, %refreshed, @load);

	progress('bringing the base copy up to date');
	drop_standby();
	check_all();
	# The copy wants the same as a standby would: settings, and places of its own for
	# tablespaces.
	$standby_planned = 1;
	$primary->stop('fast');
	configure($primary);
	$primary->start;
	write_full_pages();
	rename $base[0], $copy->{data} or die "could not rename the base copy: $!\n";
	@load = start_load(statements => 500, backup => 1);
	sleep 0.5;
	%refreshed = refresh_copy(psql => [ $primary->psql ], source => $primary->{data}, target => $copy->{data},
		scratch => $work, since => $base[1]);
	stop_load(@load);
	$session = $primary->session;
	end_sessions($session);
	$exists = existing_databases($session);
	$session->(undef);
	# Locks of prepared transactions would have it wait.
	run_in_both($ROLLBACK_PREPARED);
	$sums = row_sums($primary);
	$primary->stop('fast');

	configure($copy);
	copy_wal($primary->{data}, $copy->{data});
	past_tombstones($copy, sub { $copy->start });
	$copy->stop('fast');
	compare_copy($copy, $exists);
	$copy_sums = row_sums($copy);
	die "row sums of the restored copy differ:\n$sums\nand in the copy:\n$copy_sums\n" if $sums ne $copy_sums;
	$count{sums} = () = $sums =~ /\|.*\|/g;
	$count{transferred} = $refreshed{transferred};
	return;
}

#
# Cycles
#

sub run_cycle
{
	# Each cycle by itself depends on the seed.  Numbers that are close to each other
	# would make rand begin alike.
	$cycle++;
	srand unpack 'L', md5("$seed $cycle");
	return make_gap() if chance(0.012);
	return switch_checksums() if chance(0.012);
	return make_standby() if !$standby && chance(0.06);
	return fail_over() if $standby && chance(0.12);
	return drop_standby() if $standby && chance(0.02);
	return flood() if chance(0.03);
	return span_transaction() if chance(0.05);
	return load_and_mistreat();
}

sub go_on
{
	return (!$seconds || time - $began < $seconds) && (!$cycles || $cycle < $cycles);
}

sub verdict
{
	my ($what) = @_;
	my $killed = 0;

	$killed += $_ for values %kills;
	print "\n";
	printf "  %-44s %12d\n", @$_ for (
		[ 'cycles', $cycle ], [ 'processes killed', $killed ], map({ [ "  $_", $kills{$_} ] } sort keys %kills),
		map { [ $_->[1], $count{ $_->[0] } // 0 ] } (
			[ fast => 'fast stops under load' ], [ immediate => 'immediate stops under load' ], [ promotions => 'promotions' ],
			[ rewinds => 'old primaries rewound' ], [ forgotten => '  without coverage of the past' ],
			[ standbys => 'standbys made' ], [ gaps => 'gaps made and refused' ],
			[ filled => 'sessions without the library known from WAL' ],
			[ switches => 'checksums switched' ], [ halves => '  halves of pages dropped before' ], [ spans => 'transactions looked at in the middle' ], [ floods => 'floods of relations' ],
			[ overflown => 'looks at a map that had overflown' ], [ compared => 'comparisons' ],
			[ pages => 'pages compared' ], [ differing => 'pages that differed' ], [ hints => 'pages that differed in hint bits' ],
			[ marks => 'marks reported' ], [ later => 'pages changed after the report' ], [ orphans => 'pages of orphaned files' ],
			[ unlogged => 'pages written and never logged' ],
			[ emptied => 'pages that are replayed empty' ],
			[ relabelled => 'pages that replay gave another LSN' ],
			[ known => '  of these, compared again' ],
			[ tombstones => 'recoveries that PostgreSQL failed' ], [ unborn => 'timelines that were not begun' ],
			[ transferred => 'pages brought onto the copy' ], [ sums => 'tables whose rows agree' ]));
	print "\nVERDICT: $what (seed $seed)\n";
	return;
}

progress("seed $seed");
srand $seed;
my $done = eval {
	make_primary();
	my $shown = time;
	while (go_on())
	{
		run_cycle();
		next if time - $shown < 30;
		$shown = time;
		progress("cycle $cycle");
	}
	restore_copy();
	1;
};
verdict($done ? "no changed page was lost in $cycle cycles" : "FAILED in cycle $cycle: $@");
exit($done ? 0 : 1);
