# A copy that is brought up to date, again and again, through SQL is what the
# original is: page by page, after every kind of statement.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackCopy;
use PtrackTest;
use Test::More;

my $conf = <<'EOF';
wal_keep_size = 2GB
max_prepared_transactions = 5
allow_in_place_tablespaces = on
EOF

my @rounds = (
	<<'EOF',
UPDATE t SET v = 'u' WHERE id % 50 = 0;
DELETE FROM t WHERE id % 77 = 0;
VACUUM t;
CREATE TABLE fresh AS SELECT * FROM t WHERE id < 2000;
CREATE INDEX ON fresh USING gin (a);
EOF
	<<'EOF',
DROP TABLE fresh;
TRUNCATE other;
INSERT INTO other SELECT i FROM generate_series(1, 500) i;
CLUSTER t USING t_pkey;
DELETE FROM t WHERE id > 5000;
VACUUM (FREEZE) t;
INSERT INTO t SELECT i, 'back', ARRAY[i] FROM generate_series(5001, 6000) i;
EOF
	<<'EOF',
ALTER TABLE other SET TABLESPACE place;
CREATE UNLOGGED TABLE fleeting AS SELECT * FROM t;
BEGIN; UPDATE t SET v = 'prepared' WHERE id = 7; PREPARE TRANSACTION 'p';
VACUUM FULL pg_class;
REINDEX SYSTEM postgres;
EOF
	<<'EOF',
ALTER TABLE other SET TABLESPACE pg_default;
ALTER TABLE fleeting SET LOGGED;
ROLLBACK PREPARED 'p';
UPDATE other SET i = i + 1;
CREATE DATABASE copied STRATEGY file_copy;
CREATE DATABASE walled STRATEGY wal_log;
EOF
	<<'EOF',
DROP DATABASE copied;
ALTER DATABASE walled SET TABLESPACE place;
SELECT id FROM t WHERE id < 100 FOR UPDATE;
EOF
);

for my $checksums ([], ['--data-checksums'])
{
	my $name = @$checksums ? 'checksums' : 'plain';
	my $node = new_node($name, conf => $conf, initdb => $checksums);
	my $copy = PostgreSQL::Test::Cluster->new("${name}_copy");

	$node->safe_psql('postgres', <<'EOF');
CREATE TABLESPACE place LOCATION '';
CREATE TABLE t (id int PRIMARY KEY, v text, a int[]);
INSERT INTO t SELECT i, md5(i::text), ARRAY[i % 10] FROM generate_series(1, 20000) i;
CREATE TABLE other AS SELECT i FROM generate_series(1, 30000) i;
VACUUM;
EOF
	# In-place tablespaces are directories, which pg_basebackup leaves out of
	# the mapping: the copy is a copy of the stopped server.
	my $since = checkpoint($node);
	$node->stop;
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $copy->data_dir);
	$copy->append_conf('postgresql.conf', 'port = ' . $copy->port);
	chmod 0700, $copy->data_dir;
	$node->start;

	my ($pages, $transferred) = (0, 0);
	for my $round (0 .. $#rounds)
	{
		$node->safe_psql('postgres', "SET client_min_messages = error;\n$rounds[$round]");

		my %refreshed = refresh_node($node, $copy, $since);
		my ($label) = slurp_file($copy->data_dir . '/backup_label') =~ /^START WAL LOCATION: (\S+)/;
		my $rows = $node->safe_psql('postgres', 'SELECT count(*), sum(hashtext(t::text)) FROM t');

		# What is refreshed next is the copy as it is now, not as it is after
		# it ran; so a copy of it runs.
		$node->stop;
		my $running = PostgreSQL::Test::Cluster->new("${name}_running$round");
		PostgreSQL::Test::RecursiveCopy::copypath($copy->data_dir, $running->data_dir);
		chmod 0700, $running->data_dir;
		$running->append_conf('postgresql.conf', 'port = ' . $running->port);
		copy_wal($node->data_dir, $running->data_dir);
		$running->start;
		$running->stop;
		my ($compared, $hints, @different) = compare_clusters($node->data_dir, $running->data_dir);
		is("@different", '', "$name, round $round: $compared pages agree, $hints but for hint bits");
		$running->start;
		is($running->safe_psql('postgres', 'SELECT count(*), sum(hashtext(t::text)) FROM t'), $rows,
			"$name, round $round: the rows agree");
		$running->stop;
		$running->clean_node;
		$pages += $compared;
		$transferred += $refreshed{transferred};

		$node->start;
		$since = $label;

		# Two sessions without a summary could as well have been without checksums in
		# between, so that everything would have changed.
		checkpoint($node);
	}
	cmp_ok($transferred, '<', $pages / 2, "$name: $transferred blocks transferred, $pages compared");
	$node->stop;
}

done_testing();
