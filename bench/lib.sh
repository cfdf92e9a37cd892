# Shared by the programs of this directory; sourced after dev/lib.sh.

# One server at a time is measured, each on a copy of its own data directory.
bench_dir=$(scratch_dir bench)
cleanup() {
	[ ! -f "$bench_dir/data/postmaster.pid" ] ||
		as_server_user "$patched/bin/pg_ctl" -D "$bench_dir/data" -m immediate stop >/dev/null 2>&1 || true
	rm -rf "$bench_dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
cd "$bench_dir"
