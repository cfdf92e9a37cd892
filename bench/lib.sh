# Shared by the programs of this directory; sourced after dev/lib.sh.

# One server at a time is measured, each on a copy of its own data directory.
bench_dir=$(scratch_dir bench)
cleanup() {
	stop_servers "$bench_dir"
	rm -rf "$bench_dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
cd "$bench_dir"

# median FILE, of a number a line
median() { sort -n "$1" | awk '{ t[NR] = $1 } END { print (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) / 2 }'; }

# start_pgbench NAME PREFIX LIBRARIES SCALE: a server with pgbench data, which listens in
# its data directory.
start_pgbench() {
	local data=$bench_dir/$1
	as_server_user "$2/bin/initdb" -D "$data" -A trust -N >/dev/null
	cat >>"$data/postgresql.conf" <<-CONF
	listen_addresses = ''
	unix_socket_directories = '$data'
	shared_preload_libraries = '$3'
	shared_buffers = 512MB
	max_wal_size = 20GB
	checkpoint_timeout = 1h
	autovacuum = off
	CONF
	as_server_user "$2/bin/pg_ctl" -D "$data" -l "$data/log" -w start >/dev/null
	as_server_user "$2/bin/pgbench" -h "$data" -i -q -s "$4" postgres 2>>"$data/stderr"
	as_server_user "$2/bin/psql" -h "$data" -q -X -c CHECKPOINT postgres
}

# build_bench NAME ARGUMENT...: bench/NAME.c against the server's headers, into $bench_dir
build_bench() {
	gcc -O2 -D_GNU_SOURCE -I "$top/src" -I "$("$server/bin/pg_config" --includedir-server)" \
		"$top/bench/$1.c" "$top/src/common/summary_format.c" -o "$bench_dir/$1" \
		"${@:2}" -L "$server/lib" -lpgport_shlib -lpgcommon_shlib
}
