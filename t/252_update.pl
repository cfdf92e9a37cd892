# ALTER EXTENSION ptrack UPDATE from the older extension of this name leaves what
# CREATE EXTENSION makes: the same objects, privileges and descriptions.
#
# The older one stands here as its functions, of the names, arguments and results that
# it has at 2.4; what is behind them does not matter.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PtrackTest;
use Test::More;

# A copy of the installation, for scripts that are not to be in the one that is tested.
chomp(my $bindir = `pg_config --bindir`);
chomp(my $sharedir = `pg_config --sharedir`);
my $prefix = dirname($bindir);
plan skip_all => "\"$sharedir\" is not below \"$prefix\": PostgreSQL cannot be copied" if index($sharedir, "$prefix/") != 0;
my $copy = PostgreSQL::Test::Utils::tempdir() . '/server';
system_or_bail('cp', '-a', $prefix, $copy);
my $extensions = $copy . substr($sharedir, length $prefix) . '/extension';
append_to_file("$extensions/ptrack--2.4.sql", <<'EOS');
CREATE FUNCTION ptrack_version() RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE;
CREATE FUNCTION ptrack_init_lsn() RETURNS pg_lsn AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE;
CREATE FUNCTION ptrack_get_pagemapset(start_lsn pg_lsn)
RETURNS TABLE (path text, pagecount bigint, pagemap bytea) AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE;
CREATE FUNCTION ptrack_get_change_stat(start_lsn pg_lsn)
RETURNS TABLE (files bigint, pages bigint, "size, MB" numeric)
AS 'SELECT 0::bigint, 0::bigint, 0::numeric' LANGUAGE sql;
-- of some edition that has more
CREATE FUNCTION ptrack_something_else(a int, b text DEFAULT 'x') RETURNS int AS 'SELECT 1' LANGUAGE sql;
EOS

my $node = PostgreSQL::Test::Cluster->new('primary', install_path => $copy);
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ptrack'\nptrack.map_size = 8");
$node->start;

# All that an extension consists of: its objects, who owns them and may use them, and
# what they are.
sub members
{
	my ($database) = @_;

	return $node->safe_psql($database, <<'EOS');
SELECT i.type, i.identity, obj_description(d.objid, d.classid::regclass::name),
	coalesce(p.proacl, c.relacl), coalesce(p.proowner, c.relowner)::regrole, n.initprivs,
	CASE WHEN p.oid IS NOT NULL THEN pg_get_functiondef(p.oid) END,
	CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END
FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	CROSS JOIN pg_identify_object(d.classid, d.objid, 0) i
	LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
	LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
	LEFT JOIN pg_init_privs n ON n.objoid = d.objid AND n.classoid = d.classid AND n.objsubid = 0
WHERE e.extname = 'ptrack' ORDER BY 1, 2
EOS
}

$node->safe_psql('postgres', $_) for 'CREATE DATABASE fresh', 'CREATE DATABASE old', 'CREATE DATABASE used', 'CREATE DATABASE fresh_s', 'CREATE ROLE backup';
$node->safe_psql('fresh', 'CREATE EXTENSION ptrack');
# What follows WAL has begun to.
ok(poll_until(sub { return ($node->psql('fresh', 'SELECT ptrack_init_lsn()'))[0] == 0 }), 'changes are known');
my $fresh = members('fresh');
my $count = () = $fresh =~ /^function\|/mg;
cmp_ok($count, '>', 15, "a new extension has $count functions");
like($fresh, qr/^view\|public\.pg_stat_ptrack\|/m, 'and a view');

# With grants of before, which go.
$node->safe_psql('old', "CREATE EXTENSION ptrack VERSION '2.4'; GRANT EXECUTE ON FUNCTION ptrack_get_pagemapset(pg_lsn) TO backup");
isnt(members('old'), $fresh, 'the older extension differs');
my $since = checkpoint($node);
$node->safe_psql('old', 'CREATE TABLE t0 AS SELECT 1 AS i');
is($node->safe_psql('old', "SELECT count(pagemap) > 0 FROM ptrack_get_pagemapset('$since')"), 't', 'its functions answer all the same');
$node->safe_psql('old', 'ALTER EXTENSION ptrack UPDATE');
is($node->safe_psql('old', q{SELECT extversion FROM pg_extension WHERE extname = 'ptrack'}), '3.0', 'it is updated');
is(members('old'), $fresh, 'the result is a new extension');
is($node->safe_psql('old', "SELECT pages > 0 FROM ptrack_get_change_stat('$since')"), 't', 'and it answers');

# In a schema of its own, which is not in the path.
$node->safe_psql('used', q{CREATE SCHEMA s; CREATE EXTENSION ptrack VERSION '2.4' SCHEMA s;
	CREATE VIEW mine AS SELECT path FROM s.ptrack_get_pagemapset('0/0')});
my $before = members('used');
my ($ret, undef, $err) = $node->psql('used', 'ALTER EXTENSION ptrack UPDATE');
isnt($ret, 0, 'a view uses a function: no update');
like($err, qr/ptrack_get_pagemapset.*view \S*mine /s, 'the error names both');
is(members('used'), $before, 'and nothing has changed');
$node->safe_psql('used', 'DROP VIEW mine; ALTER EXTENSION ptrack UPDATE');
$node->safe_psql('fresh_s', 'CREATE SCHEMA s; CREATE EXTENSION ptrack SCHEMA s');
is(members('used'), members('fresh_s'), 'another schema: the result is a new extension');
$node->stop;

done_testing();
