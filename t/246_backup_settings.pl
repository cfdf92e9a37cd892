# Settings of a database that backups are made through: they change neither what is
# in a backup, nor how long it may take.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackClient;
use PtrackTest;
use Test::More;

my $node = new_node('primary', conf => 'wal_keep_size = 1GB');
$node->safe_psql('postgres', "CREATE TABLE t AS SELECT i, repeat('x', 400) AS filler FROM generate_series(1, 18000) i");
$node->safe_psql('postgres', 'VACUUM FREEZE');

# The map of what has changed then has only bytes that are characters, too.
my $full = client_backup($node, 'full');
$node->safe_psql('postgres', 'DELETE FROM t WHERE (ctid::text::point)[0]::int % 8 = 0 AND (ctid::text::point)[1] = 1');

my @settings = (
	'standard_conforming_strings = off', 'backslash_quote = off', 'bytea_output = escape', "DateStyle = 'German'",
	'transform_null_equals = on', 'array_nulls = off', 'row_security = off', 'quote_all_identifiers = on',
	'default_transaction_isolation = serializable', "search_path = 'nowhere'", 'client_min_messages = error',
	"statement_timeout = '1s'", "idle_session_timeout = '1s'");
push @settings, "transaction_timeout = '1s'" if $node->pg_version >= 17;
$node->safe_psql('template1', "ALTER DATABASE postgres SET $_") for @settings;
my $increment = client_backup($node, 'increment', prior => $full);
my $slow = client_backup($node, 'slow', args => [ '-r', '4M' ]);
$node->safe_psql('template1', 'ALTER DATABASE postgres RESET ALL');

verify_backup($increment, 'with settings');
check_chain($node, 'with settings', $full, $increment);
verify_backup($slow, 'with limits of time');

done_testing();
