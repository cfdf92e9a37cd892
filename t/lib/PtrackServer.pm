# A throw-away server that is started, stopped and mistreated: its processes are
# killed one by one or all at once.  For dev/torture, which wants the postmaster
# as its own child, and many restarts a minute.
package PtrackServer;

use strict;
use warnings FATAL => 'all';

use POSIX qw(WNOHANG);
use PtrackCopy;
use Time::HiRes qw(sleep time);

# Titles of the processes that can be killed.  A server has no "startup" but
# while it recovers, and no "ptrack" if the library runs no worker.
our %titles = (
	backend => qr/^postgres: \S+ \S+ \[local\]/,
	checkpointer => qr/^postgres: checkpointer/,
	bgwriter => qr/^postgres: background writer/,
	walwriter => qr/^postgres: walwriter/,
	startup => qr/^postgres: startup/,
	walreceiver => qr/^postgres: walreceiver/,
	walsender => qr/^postgres: walsender/,
	ptrack => qr/^postgres: ptrack/,
);

my @all;
my $next_port = 6000;

# dir: where data directory, log and socket of the server go.
sub new
{
	my ($class, %args) = @_;
	my $port = $next_port++;
	my $self = bless {
		name => $args{name},
		dir => $args{dir},
		data => "$args{dir}/$args{name}",
		log => "$args{dir}/$args{name}.log",
		port => $port,
		pid => 0,
	}, $class;

	push @all, $self;
	return $self;
}

# Runs a program to its end; what it printed is shown if it fails.
sub run
{
	my ($self, @command) = @_;
	my $output = "$self->{dir}/output.log";
	my $pid = spawn($output, @command);

	waitpid $pid, 0;
	return if $? == 0;
	open my $fh, '<', $output or die;
	die "failed: @command\n", <$fh>;
}

# Starts a program, without input, whose output goes to the end of that file.
sub spawn
{
	my ($output, @command) = @_;
	my $pid = fork // die "could not fork: $!\n";

	return $pid if $pid;
	# What ends this process must not stop the servers of its parent.
	open(STDIN, '<', '/dev/null') && open(STDOUT, '>>', $output) && open(STDERR, '>&', \*STDOUT)
	  && exec @command;
	POSIX::_exit(127);
}

sub init
{
	my ($self, @options) = @_;

	$self->run('initdb', '-D', $self->{data}, '-A', 'trust', '-N', '--wal-segsize=1', @options);
	return $self->append('postgresql.conf', "include 'torture.conf'\n");
}

sub append
{
	my ($self, $file, $lines) = @_;

	open my $fh, '>>', "$self->{data}/$file" or die "could not open \"$file\": $!\n";
	print $fh $lines;
	close $fh;
	return;
}

# Sets all settings for the next start.
sub configure
{
	my ($self, %settings) = @_;

	unlink "$self->{data}/torture.conf";
	$settings{port} = $self->{port};
	$settings{unix_socket_directories} = $self->{dir};
	$self->append('torture.conf', join '', map { "$_ = '$settings{$_}'\n" } sort keys %settings);
	$self->{settings} = \%settings;
	return;
}

sub psql
{
	my ($self, $database) = @_;

	return ('psql', '-h', $self->{dir}, '-p', $self->{port}, '-d', $database // 'postgres');
}

sub session
{
	my ($self, $database) = @_;

	return open_session($self->psql($database));
}

sub query
{
	my ($self, $sql, $database) = @_;
	my $session = $self->session($database);
	my $answer = $session->("$sql;");

	$session->(undef) == 0 or die "failed: $sql\n";
	chomp $answer;
	return $answer;
}

# What was logged since that offset.
sub logged
{
	my ($self, $from) = @_;

	open my $fh, '<', $self->{log} or return '';
	seek $fh, $from, 0;
	return do { local $/; <$fh> } // '';
}

sub log_size
{
	my ($self) = @_;

	return -s $self->{log} // 0;
}

# Starts the postmaster, and returns at once.
sub launch
{
	my ($self) = @_;

	$self->{pid} = spawn($self->{log}, 'postgres', '-D', $self->{data});
	return;
}

# Has the postmaster ended?
sub is_down
{
	my ($self) = @_;

	$self->{pid} = 0 if $self->{pid} && waitpid($self->{pid}, WNOHANG) == $self->{pid};
	return !$self->{pid};
}

# What does a log say of a server in the end?  "ready": it takes connections; after a
# process was killed it must have started anew, for it may say so while it goes down.
# "unaware": it does without having started anew.  Its startup process had finished
# before it was told that the checkpointer was killed.
sub said
{
	my ($log) = @_;
	my $killed = $log =~ s/.*was terminated by signal//s;

	return '' if $log !~ /ready to accept/;
	return !$killed || $log =~ /reinitializing.*ready to accept/s ? 'ready' : 'unaware';
}

# Waits until what was logged since that offset says that the server takes
# connections.  Returns false if it went down instead.
sub await_ready
{
	my ($self, $from) = @_;

	# What has not ended five seconds after it was told to is killed.
	for (my $end = time + 120; time < $end; sleep 0.01)
	{
		my $said = said($self->logged($from));

		return 1 if $said eq 'ready';
		# What the killed one held in shared memory, a page that it was writing, say, it
		# holds forever: the next checkpoint would wait for that.
		$self->stop('immediate') if $said eq 'unaware';
		return 0 if $self->is_down;
	}
	die "$self->{name} does not come up\n";
}

sub start
{
	my ($self) = @_;
	my $from = $self->log_size;

	$self->launch;
	$self->await_ready($from) or die "$self->{name} does not start\n" . $self->logged($from);
	return;
}

# Removes the state files of prepared transactions because of which recovery failed.
# A checkpointer that is killed leaves one that it was writing.  Of a transaction that
# is newer than the last checkpoint it is to be removed, and that fails an assertion
# of PostgreSQL 17's; any other cannot be read.  Replay writes it again, from where
# that checkpoint began.  Returns how many there were.
sub drop_halves_of_states
{
	my ($self, $from) = @_;
	my $log = $self->logged($from);
	my @names = $log =~ /incorrect size of file "pg_twophase\/(\w+)"/g;

	push @names, map { sprintf '*%08X', $_ } $log =~ /removing future two-phase state file for transaction (\d+)/g
	  if $log =~ /TRAP: failed Assert\("TransactionIdPrecedesOrEquals\(xid, /;
	return unlink map { glob "$self->{data}/pg_twophase/$_" } @names;
}

# Stops the server: fast or immediate.
sub stop
{
	my ($self, $mode) = @_;

	return if $self->is_down;
	kill $mode eq 'fast' ? 'INT' : 'QUIT', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

# The postmaster's children: process id => title.
sub children
{
	my ($self) = @_;
	my %children;

	open my $fh, '<', "/proc/$self->{pid}/task/$self->{pid}/children" or return;
	for my $pid (split ' ', do { local $/; <$fh> } // '')
	{
		open my $title, '<', "/proc/$pid/cmdline" or next;
		$children{$pid} = do { local $/; <$title> } // '';
	}
	return %children;
}

# A process's state, as /proc has it; '' if there is no such process.
sub state_of
{
	my ($pid) = @_;

	open my $fh, '<', "/proc/$pid/stat" or return '';
	return (<$fh> // '') =~ /.*\) (\S)/ ? $1 : '';
}

sub has_ended
{
	return state_of($_[0]) =~ /^[ZX]?$/;
}

# Stops processes.  They are in no system call then: what they write is written to
# its end, or not at all.
sub hold
{
	my (@pids) = @_;

	kill 'STOP', @pids;
	for my $pid (@pids)
	{
		sleep 0.001 until has_ended($pid) || state_of($pid) eq 'T';
	}
	return;
}

# Kills one child of that kind, and waits until the postmaster has noticed; gently:
# not while it writes.  Returns false if there was none, or it had ended by itself.
sub kill_child
{
	my ($self, $kind, $gently) = @_;
	my $from = $self->log_size;
	my %children = $self->children;
	my @found = grep { $children{$_} =~ $titles{$kind} } sort keys %children;
	my $pid = @found ? $found[ rand @found ] : return 0;

	hold($pid) if $gently;
	return 0 if !kill 'KILL', $pid;
	# Nothing is said of one that had ended, or was going to because of another one.
	for (my $end = time + 5; time < $end; sleep 0.005)
	{
		return 1 if $self->is_down || $self->logged($from) =~ /\(PID $pid\) was terminated by signal 9/;
	}
	return 0;
}

# Kills the postmaster; its children notice, or are killed as well; gently: not while
# they write.
sub kill_postmaster
{
	my ($self, $children_too, $gently) = @_;

	# It must not start another one, which nobody would kill or wait for.
	hold($self->{pid});
	my %children = $self->children;
	hold(keys %children) if $children_too && $gently;
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	$self->{orphaned} = 1;
	kill 'KILL', keys %children if $children_too;
	for (my $end = time + 60; time < $end; sleep 0.01)
	{
		next if grep { !has_ended($_) } keys %children;
		# Killed while it was writing them, it does not start any more.
		unlink grep { -e $_ && !-s _ } "$self->{data}/postmaster.pid", glob "$self->{dir}/.s.PGSQL.$self->{port}.lock";
		return;
	}
	die "children of $self->{name}'s postmaster go on without it\n";
}

END
{
	my $status = $?;

	$_->stop('immediate') for @all;
	$? = $status;
}

1;
