# Shared by the programs of this directory; sourced after dev/lib.sh.

# One server at a time is measured, each on a copy of its own data directory.
bench_dir=$(scratch_dir bench)
cleanup() {
	local pid_file
	for pid_file in "$bench_dir"/*/postmaster.pid; do
		[ ! -f "$pid_file" ] ||
			as_server_user "$server/bin/pg_ctl" -D "$(dirname "$pid_file")" \
				-m immediate stop >/dev/null 2>&1 || true
	done
	rm -rf "$bench_dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
cd "$bench_dir"

# median FILE, of a number a line
median() { sort -n "$1" | awk '{ t[NR] = $1 } END { print (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) / 2 }'; }
