# pgBackRest on a server that pg_ptrack backs up as well: neither disturbs the
# other, and a server that pgBackRest restored still knows what changed.

pgbackrest_config() {
	cat <<-EOF
		[global]
		repo1-path=$work/repo
		repo1-retention-full=2
		lock-path=$work/lock
		log-path=$work/log_pgbackrest
		spool-path=$work/spool
		log-level-console=warn
		start-fast=y

		[main]
		pg1-path=$work/pgbackrest_source
		pg1-port=5531
		pg1-socket-path=$work
		pg1-user=pgbackrest
	EOF
}

rest() {
	run pgbackrest --config="$work/pgbackrest.conf" --stanza=main "$@"
}

# client_backup PORT NAME [PRIOR [OPTION]...]
client_backup() {
	pg_ptrack_backup "$@" >"$work/$2.log" 2>&1 || { cat "$work/$2.log" >&2; failed "pgBackRest: no backup $2 by pg_ptrack"; }
	run pg_ptrack verify --no-parse-wal "$work/$2"
	say "pgBackRest: $2 by pg_ptrack: $(kilobytes "$work/$2") kB"
}

pg_ptrack_backup() {
	as_server_user pg_ptrack backup -p "$1" -U backup -D "$work/$2" -c fast -j 2 \
		${3:+-i "$work/$3/backup_manifest"} "${@:4}"
}

# nothing_else_held PORT: of slots there is ptrack's own, and no other.
nothing_else_held() {
	[ "$(sql "$1" "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots")" = ptrack ]
}

archive_everything() {
	local last
	last=$(sql 5531 "SELECT pg_walfile_name(pg_switch_wal())")
	eventually 60 sql 5531 "SELECT 1 / (last_archived_wal >= '$last')::int FROM pg_stat_archiver"
}

# What of ptrack's files the latest backup has.
summaries_in_repo() {
	as_server_user pgbackrest --config="$work/pgbackrest.conf" --stanza=main repo-ls \
		--recurse --filter='pg_data/ptrack/.*summary.*' backup/main/latest | wc -l
}

try_pgbackrest() {
	need_packages pgbackrest
	local known sums ours
	say "$(pgbackrest version)"
	pgbackrest_config >"$work/pgbackrest.conf"
	run mkdir "$work/repo" "$work/lock" "$work/log_pgbackrest" "$work/spool"
	new_server pgbackrest_source 5531 <<-EOF
		archive_mode = on
		archive_command = 'pgbackrest --config=$work/pgbackrest.conf --stanza=main archive-push %p'
	EOF
	start_server pgbackrest_source
	run psql -p 5531 -v ON_ERROR_STOP=1 -f integrations/pgbackrest/roles.sql
	sql 5531 "CREATE ROLE backup LOGIN REPLICATION"
	backup_role 5531 backup
	known=$(sql 5531 "SELECT ptrack_init_lsn()")
	rest stanza-create
	rest check
	fill 5531

	# By turns, with and without WAL in ours; and both at once.
	rest backup --type=full
	client_backup 5531 ours_full
	change 5531
	rest backup --type=incr
	client_backup 5531 ours_first ours_full -X none
	change 5531
	pg_ptrack_backup 5531 ours_second ours_first -r 1M >"$work/ours_second.log" 2>&1 &
	ours=$!
	eventually 60 sql 5531 "SELECT 1 / count(*) FROM pg_stat_progress_ptrack_backup WHERE phase = 'streaming database files'"
	rest backup --type=diff
	sql 5531 "SELECT 1 / count(*) FROM pg_stat_progress_ptrack_backup" >/dev/null ||
		failed "pgBackRest: the backups were not made at once"
	wait "$ours" || { cat "$work/ours_second.log" >&2; failed "pgBackRest: no backup by pg_ptrack at the same time"; }
	run pg_ptrack verify "$work/ours_second"
	nothing_else_held 5531 || failed "pgBackRest: slots are left"
	[ "$(sql 5531 "SELECT ptrack_init_lsn()")" = "$known" ] || failed "pgBackRest: changes are not known any more from $known on"
	say "pgBackRest: its latest backup has $(summaries_in_repo) change summaries of $(sql 5531 "SELECT summaries FROM pg_stat_ptrack")"

	change 5531
	sums=$(rows 5531)
	archive_everything
	stop_server pgbackrest_source
	rest --pg1-path="$work/pgbackrest_restored" restore
	check_restored pgbackrest_source pgbackrest_restored 5532 "$sums"
	[ "$(sql 5532 "SELECT ptrack_init_lsn()")" = "$known" ] ||
		failed "pgBackRest: on the restored server, changes are not known from $known on, but from $(sql 5532 "SELECT ptrack_init_lsn()") on"

	# The chain of the server that was lost goes on with the one that was restored.
	change 5532
	client_backup 5532 ours_restored ours_second
	change 5532
	sums=$(rows 5532)
	stop_server pgbackrest_restored
	run pg_ptrack combine -o "$work/pgbackrest_combined" "$work"/ours_{full,first,second,restored}
	as_server_user perl -I "$work/lib" -MPtrackCopy -e 'copy_wal(@ARGV)' "$work/pgbackrest_restored" "$work/pgbackrest_combined"
	check_restored pgbackrest_restored pgbackrest_combined 5533 "$sums"
	stop_server pgbackrest_combined
	echo "VERDICT: pgBackRest: what it restored is the original, and so is what was combined of backups before and after"
}
