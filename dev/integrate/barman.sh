# Barman, with pg_ptrack as the pg_basebackup that it calls: a full backup, three
# that are made by increments, restores, and what it does about errors.

barman() {
	as_server_user env HOME="$work" "${barman_env[@]}" barman -c "$work/barman.conf" "$@"
}

barman_config() {
	cat <<-EOF
		[barman]
		barman_user = $(server_user)
		barman_home = $work/barman
		log_file = $work/barman.log
		configuration_files_directory = $work/none

		[main]
		description = server with ptrack
		conninfo = host=$work port=5501 user=barman dbname=postgres
		streaming_conninfo = host=$work port=5501 user=streaming_barman
		backup_method = postgres
		streaming_archiver = on
		slot_name = barman
		create_slot = auto
		immediate_checkpoint = true
		path_prefix = "$work/integrations/barman:$prefix/bin"
		retention_policy = REDUNDANCY 3
	EOF
}

# barman_backup NAME: its identifier is in $id.
barman_backup() {
	local before received
	before=$(wc -l <"$work/barman.log")
	barman backup --wait --wait-timeout 120 main >"$work/$1.out" 2>&1 ||
		{ cat "$work/$1.out" >&2; tail -n 40 "$work/barman.log" >&2; failed "Barman: no backup $1"; }
	id=$(sed -n 's/.*(backup: \(\S*\)).*/\1/p;s/.*copy via pg_basebackup for \(\S*\)$/\1/p' "$work/$1.out" | tail -n 1)
	barman check-backup main "$id" >>"$work/log" 2>&1
	[ "$(barman show-backup main "$id" | sed -n 's/^ *Status *: //p')" = DONE ] ||
		failed "Barman: backup $1 is not DONE"
	barman verify-backup main "$id" >>"$work/log" 2>&1 || failed "Barman: backup $1 does not verify"
	received=$(tail -n +"$before" "$work/barman.log" | sed -n "s/.*the increment has \([0-9]* kB\); combining.*/\1/p")
	say "Barman: backup $1, $id: $(kilobytes "$work/barman/main/base/$id") kB, $(own_kilobytes "$id") kB of them its own;" \
		"received: ${received:-all}"
}

# own_kilobytes ID: in files that no other backup has.
own_kilobytes() {
	find "$work/barman/main/base/$1" -type f -links 1 -printf '%k\n' | awk '{ n += $1 } END { print n + 0 }'
}

# interrupted: an increment that Barman is told to stop leaves nothing.
interrupted() {
	start_process backup env HOME="$work" barman -c "$work/barman.conf" backup --bwlimit 500 main
	eventually 60 compgen -G "$work/barman/main/base/*/increment/data/base"
	kill "$process"
	! wait "$process" || failed "Barman: a backup that was stopped is a success"
	stop_process "$process"
	# Barman does not wait for it.
	nothing_left() {
		! compgen -G "$work/barman/main/base/*/increment"
	}
	eventually 60 nothing_left
	eventually 60 sql 5501 "SELECT 1 / (count(*) = 0)::int FROM pg_stat_progress_ptrack_backup"
	barman delete main "$(ls "$work/barman/main/base" | tail -n 1)" >>"$work/log" 2>&1 ||
		failed "Barman: the backup that was stopped cannot be deleted"
}

# by_increment ID: a backup was made by one relative to that. backup was made by one.
by_increment() {
	grep -q "the increment has .* combining it with .*/$1/data" "$work/barman.log"
}

# archive_all: until Barman has all WAL there is by now.
archive_all() {
	local last
	last=$(sql 5501 "SELECT pg_walfile_name(pg_switch_wal())")
	sql 5501 "CHECKPOINT"
	archived() {
		barman archive-wal main && ls "$work"/barman/main/wals/*/"$last"
	}
	eventually 60 archived
}

# receive_wal: as Barman's cron starts it, until the server stops; its number is in
# $receiver.
receive_wal() {
	start_process receive-wal env HOME="$work" barman -c "$work/barman.conf" receive-wal main
	receiver=$process
	eventually 60 sql 5501 "SELECT 1 / active::int FROM pg_replication_slots WHERE slot_name = 'barman'"
	archive_all
	eventually 60 barman check main
}

try_barman() {
	need_packages barman
	local id full first receiver sums barman_env=()
	say "Barman $(barman -v | head -n 1)"
	barman_config >"$work/barman.conf"
	run mkdir "$work/barman" "$work/none" "$work/place"
	new_server barman_source 5501 </dev/null
	start_server barman_source
	sql 5501 "CREATE TABLESPACE place LOCATION '$work/place'"
	sql 5501 "CREATE TABLE placed TABLESPACE place AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i"
	run psql -p 5501 -v ON_ERROR_STOP=1 -f integrations/barman/roles.sql
	backup_role 5501 streaming_barman
	fill 5501

	run env HOME="$work" barman -c "$work/barman.conf" receive-wal --create-slot main
	receive_wal

	barman_backup full
	full=$id
	change 5501
	barman_backup first
	first=$id
	by_increment "$full" || failed "Barman: the first backup after the full one is no increment"
	change 5501
	sql 5501 "UPDATE placed SET md5 = md5(md5) WHERE i % 1000 = 0"
	barman_backup second
	by_increment "$first" || failed "Barman: the second backup is not relative to the first"

	interrupted

	# What it is not relative to any more may go.
	barman delete main "$full" >>"$work/log" 2>&1 || failed "Barman: the full backup cannot be deleted"
	barman verify-backup main "$id" >>"$work/log" 2>&1 || failed "Barman: a backup needs what was deleted"

	# Without what changed since the prior backup, it is a full one.
	change 5501
	stop_server barman_source
	run rm -r "$work/barman_source/ptrack"
	run mkdir "$work/barman_source/ptrack"
	start_server barman_source
	stop_process "$receiver"
	receive_wal
	local lost=$id
	barman_backup lost
	! by_increment "$lost" || failed "Barman: an increment from before what the server knows"
	grep -q "so this will be a full backup" "$work/barman.log" || failed "Barman: it is not said why there is no increment"

	# The last one, WAL that came after it, and all of it elsewhere.
	change 5501
	barman_backup last
	change 5501
	sums=$(rows 5501)
	archive_all
	stop_server barman_source
	stop_process "$receiver"
	barman recover --tablespace "place:$work/place_restored" main "$id" "$work/barman_restored" >>"$work/log" 2>&1 ||
		failed "Barman: it cannot be restored"
	check_restored barman_source barman_restored 5502 "$sums"
	stop_server barman_restored
	echo "VERDICT: Barman: the restored server is the original"
}
