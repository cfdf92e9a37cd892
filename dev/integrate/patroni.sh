# Patroni, with etcd: replicas made by pg_ptrack; a full backup of the first leader,
# increments of those that follow by switchover and failover, and of a replica.

readonly scope=ptrack etcd_port=23790

# member_config NUMBER
member_config() {
	cat <<-EOF
		scope: $scope
		name: m$1
		restapi:
		  listen: 127.0.0.1:580$1
		  connect_address: 127.0.0.1:580$1
		etcd3:
		  host: 127.0.0.1:$etcd_port
		bootstrap:
		  dcs:
		    ttl: 20
		    loop_wait: 2
		    retry_timeout: 5
		    ignore_slots:
		      - name: ptrack
		        type: physical
		    postgresql:
		      use_pg_rewind: true
		      parameters:
		        shared_preload_libraries: ptrack
		        wal_keep_size: 1GB
		        autovacuum: 'off'
		        fsync: 'off'
		  initdb:
		    - data-checksums
		    - no-sync
		  post_init: $work/integrations/patroni/post_init
		postgresql:
		  listen: 127.0.0.1:551$1
		  connect_address: 127.0.0.1:551$1
		  data_dir: $work/m$1
		  bin_dir: $prefix/bin
		  pgpass: $work/pgpass$1
		  pg_hba:
		    - local all all trust
		    - host all all 127.0.0.1/32 trust
		    - host replication all 127.0.0.1/32 trust
		  authentication:
		    superuser: {username: postgres, password: p}
		    replication: {username: replicator, password: r}
		  parameters:
		    unix_socket_directories: $work
		  create_replica_methods: [pg_ptrack]
		  pg_ptrack:
		    command: $work/integrations/patroni/create_replica
		    program: $prefix/bin/pg_ptrack
		    jobs: 2
	EOF
}

# member NUMBER: starts it; $process in members[NUMBER].
member() {
	member_config "$1" >"$work/m$1.yml"
	start_process "patroni$1" env -u PGHOST -u PGUSER -u PGDATABASE -u PGOPTIONS patroni "$work/m$1.yml"
	members[$1]=$process
}

# has_role NUMBER master|replica: and it is running.
has_role() {
	curl -sf "http://127.0.0.1:580$1/patroni" >"$work/patroni.json" &&
		grep -q '"state": "running"' "$work/patroni.json" && grep -q "\"role\": \"$2\"" "$work/patroni.json"
}

# caught_up LEADER REPLICA
caught_up() {
	local lsn
	lsn=$(sql "551$1" "SELECT pg_current_wal_lsn()")
	sql "551$2" "SELECT 1 / (pg_last_wal_replay_lsn() >= '$lsn')::int"
}

# knows_no_lag: Patroni does, of its replica.
knows_no_lag() {
	env -u PGHOST -u PGOPTIONS patronictl -c "$work/m1.yml" list -f json | grep '"Lag in MB": 0'
}

# member_backup NUMBER NAME [PRIOR]
member_backup() {
	run pg_ptrack backup -d "host=127.0.0.1 port=551$1 user=replicator dbname=postgres" -D "$work/$2" -c fast -j 2 \
		${3:+-i "$work/$3/backup_manifest"}
	run pg_ptrack verify "$work/$2"
	say "Patroni: $2, of m$1 on timeline $(sql "551$1" "SELECT timeline_id FROM pg_control_checkpoint()"): $(kilobytes "$work/$2") kB"
}

made_by_pg_ptrack() {
	grep -q 'replica has been created using pg_ptrack' "$work/patroni$1.log"
}

try_patroni() {
	need_packages patroni etcd-server curl
	local members=() sums
	say "$(patroni --version), $(etcd --version | head -n 1)"
	start_process etcd etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$etcd_port" \
		--advertise-client-urls "http://127.0.0.1:$etcd_port" --listen-peer-urls http://127.0.0.1:23800 \
		--initial-advertise-peer-urls http://127.0.0.1:23800 --initial-cluster default=http://127.0.0.1:23800
	eventually 60 curl -sf "http://127.0.0.1:$etcd_port/health"

	member 1
	eventually 120 has_role 1 master
	member 2
	eventually 120 has_role 2 replica
	made_by_pg_ptrack 2 || failed "Patroni: the replica was not made by pg_ptrack"
	fill 5511
	member_backup 1 patroni_full

	change 5511
	eventually 60 caught_up 1 2
	eventually 60 knows_no_lag
	run env -u PGHOST -u PGOPTIONS patronictl -c "$work/m1.yml" switchover "$scope" --master m1 --candidate m2 --force
	eventually 120 has_role 2 master
	eventually 120 has_role 1 replica
	change 5512
	member_backup 2 patroni_switched patroni_full

	# The leader is gone, without a word; what it was, m1 is to become.
	change 5512
	eventually 60 caught_up 2 1
	kill -KILL "${members[2]}"
	run pg_ctl -D "$work/m2" -m immediate stop
	stop_process "${members[2]}"
	eventually 120 has_role 1 master
	change 5511
	member_backup 1 patroni_failed_over patroni_switched

	# It comes back, and a third one is made.
	member 2
	member 3
	eventually 120 has_role 2 replica
	eventually 120 has_role 3 replica
	made_by_pg_ptrack 3 || failed "Patroni: the third member was not made by pg_ptrack"
	change 5511
	sql 5511 "CHECKPOINT"
	eventually 60 caught_up 1 2
	sql 5512 "CHECKPOINT"
	member_backup 2 patroni_of_replica patroni_failed_over
	change 5511
	sums=$(rows 5511)
	eventually 60 caught_up 1 3
	[ "$(rows 5513)" = "$sums" ] || failed "Patroni: the third member has other rows"

	run env -u PGHOST -u PGOPTIONS patronictl -c "$work/m1.yml" pause --wait "$scope"
	stop_server m1
	stop_process "${members[1]}"
	stop_process "${members[2]}"
	stop_process "${members[3]}"
	run pg_ptrack combine -o "$work/patroni_restored" "$work"/patroni_{full,switched,failed_over,of_replica}
	run rm -f "$work/patroni_restored/standby.signal"
	as_server_user perl -I "$work/lib" -MPtrackCopy -e 'copy_wal(@ARGV)' "$work/m1" "$work/patroni_restored"
	check_restored m1 patroni_restored 5514 "$sums"
	stop_server patroni_restored
	echo "VERDICT: Patroni: what was combined of backups of three leaders and a replica is the original"
}
