# Shared by the programs of this directory; sourced after dev/lib.sh.

# One server at a time is measured, each on a copy of its own data directory.
bench_dir=$(scratch_dir bench)
cleanup() {
	as_server_user pkill -9 -f "$bench_dir" 2>/dev/null || true
	rm -rf "$bench_dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
cd "$bench_dir"
