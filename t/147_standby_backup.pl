# Backups made on a standby, while its primary is at work: each brings a copy up
# to date, with a prior backup from the primary or from the standby, and the
# other way round.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

my $primary = new_node('primary', initdb => ['--data-checksums'], conf => 'wal_keep_size = 2GB');
$primary->safe_psql('postgres', <<'EOS');
CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, repeat('x', 100) FROM generate_series(1, 30000) i;
CREATE TABLE sparse AS SELECT i AS id, 0 AS n FROM generate_series(1, 100000) i;
CREATE TABLE log (i int, v text);
CREATE TABLE made AS SELECT * FROM t WHERE false;
CREATE TABLE enough (a int);
-- Works until it is told that this is enough.
CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 1000000 LOOP
		UPDATE t SET n = n + 1 WHERE id IN (i, i * 97 % 30000, i * 331 % 30000);
		INSERT INTO log SELECT i, repeat('y', 500) FROM generate_series(1, 10);
		IF i % 300 = 0 THEN
			DELETE FROM log; DROP TABLE made; CREATE TABLE made AS SELECT * FROM t LIMIT 3000;
		END IF;
		EXIT WHEN EXISTS (SELECT FROM enough);
		COMMIT;
	END LOOP;
END $$;
EOS
my ($copy, $since) = base_copy('copy', $primary);
my $init = $primary->safe_psql('postgres', 'SELECT ptrack_init_lsn()');
# What it replays waits for what reads there, and does not cancel it.
my $standby = new_standby('standby', $primary, conf => 'max_standby_streaming_delay = -1');
my $session;

sub begin_work
{
	$session = $primary->background_psql('postgres');
	$session->query_until(qr/begun/, "\\echo begun\nCALL work();\n");
	return;
}

sub end_work
{
	$primary->safe_psql('postgres', 'INSERT INTO enough VALUES (1)');
	is($session->query_safe("SELECT 'at work till then'"), 'at work till then', 'the primary was at work');
	$session->quit;
	$primary->safe_psql('postgres', 'TRUNCATE enough');
	return;
}

# Refreshes the copy from a node, while the primary is at work.  What the backup
# does not get from WAL are the changes from before it: there are some blocks
# among these that one record changed, and no other.
my ($turn, $transferred) = (0, 0);
sub refresh_under_load
{
	my ($node) = @_;

	$turn++;
	$primary->safe_psql('postgres', "UPDATE sparse SET n = $turn WHERE id % 2000 = 100 * $turn");
	restartpoint($standby, $primary);
	begin_work();
	my %refreshed = refresh_node($node, $copy, $since);
	end_work();
	($since) = slurp_file($copy->data_dir . '/backup_label') =~ /^START WAL LOCATION: (\S+)/;
	$transferred += $refreshed{transferred};
	return;
}

# What the standby has replayed is on its disk when it has made a restartpoint.
sub compare_with_standby
{
	my ($name) = @_;

	restartpoint($standby, $primary);
	my $compared = compare_copy($standby, $copy, $name);
	is($standby->safe_psql('postgres', 'SELECT ptrack_init_lsn()'), $init, "$name: coverage begins where it did");
	return $compared;
}

refresh_under_load($standby);
like(slurp_file($copy->data_dir . '/backup_label'), qr/^BACKUP FROM: standby$/m, 'this is a backup made on a standby');
compare_with_standby('from the standby, after one from the primary');
refresh_under_load($standby);
compare_with_standby('from the standby, after one from the standby');
refresh_under_load($primary);
compare_copy($primary, $copy, 'from the primary, after one from the standby');
catch_up($standby, $primary);

# After a crash of the standby, in the midst of the load.
begin_work();
catch_up($standby, $primary);
$standby->stop('immediate');
$standby->start;
catch_up($standby, $primary);
end_work();
refresh_under_load($standby);
my $pages = compare_with_standby('from the standby, after it crashed');
cmp_ok($transferred, '<', 4 * $pages, "$transferred blocks transferred in four turns, of $pages each");

# A backup on a standby needs full-page images, and the server says so; what
# changed is known without them, too.
my $known_since = restartpoint($standby, $primary);
$primary->append_conf('postgresql.conf', 'full_page_writes = off');
$primary->reload;
$primary->poll_query_until('postgres', "SELECT NOT current_setting('full_page_writes')::bool") or die;
$primary->safe_psql('postgres', 'UPDATE t SET n = n - 1 WHERE id % 100 = 0');
my $known = changed_blocks($primary, $known_since);
restartpoint($standby, $primary);
fails_like($standby, "SELECT pg_backup_start('no', true)", '55000', 'full_page_writes=off', 'without full-page images');
$primary->safe_psql('postgres', 'UPDATE t SET n = n - 1 WHERE id % 99 = 0');
$known .= "\n" . changed_blocks($primary, $known_since);
catch_up($standby, $primary);
$standby->stop('immediate');
$standby->start;
catch_up($standby, $primary);
is(lines_missing($known, changed_blocks($standby, $known_since)), '', 'all changes are known without full-page images');

$_->stop for $standby, $primary;
done_testing();
