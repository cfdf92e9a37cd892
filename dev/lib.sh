# Shared by the scripts of this directory; sourced, not run.
#
# Everything that is built or downloaded goes below $PTRACK_CACHE, never into
# the work tree.  Messages go to standard error, results to standard output.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly top

if [ "$(id -u)" -eq 0 ]; then
	: "${PTRACK_CACHE:=/var/cache/ptrack}"
else
	: "${PTRACK_CACHE:=${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/ptrack}"
fi
export PTRACK_CACHE

# The major that is used where one has to do: demo, benchmarks, torture.
main_major=17
readonly main_major

jobs=$(nproc)
started=$(date +%s)
readonly jobs started

say() {
	printf '[%4ds] %s\n' "$(($(date +%s) - started))" "$*" >&2
}

die() {
	printf '%s: error: %s\n' "$(basename "$0")" "$1" >&2
	shift
	for hint in "$@"; do
		printf '%s: hint: %s\n' "$(basename "$0")" "$hint" >&2
	done
	exit 1
}

# number_of OPTION [VALUE...]: that value, which has to be a number; $usage is the hint.
number_of() {
	[[ ${2:-} =~ ^[0-9]+$ ]] || die "$1 takes a number" "$usage"
	echo "$2"
}

# What pg_ptrack is built with.
client_packages=(libarchive-dev liblz4-dev libyajl-dev libzstd-dev)

# need_packages NAME...: makes sure that these Debian packages are installed.
need_packages() {
	local missing=() name
	for name in "$@"; do
		dpkg-query -W -f '${Status}' "$name" 2>/dev/null |
			grep -q 'install ok installed' || missing+=("$name")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" -eq 0 ] ||
		die "packages are missing: ${missing[*]}" \
			"As root: apt-get install ${missing[*]}"
	say "installing packages: ${missing[*]}"
	local log
	log=$(mktemp)
	# A machine that never ran "apt-get update" knows no packages yet.
	{
		DEBIAN_FRONTEND=noninteractive apt-get install -y \
			--no-install-recommends "${missing[@]}" ||
			{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get \
				install -y --no-install-recommends "${missing[@]}"; }
	} </dev/null >"$log" 2>&1 ||
		{ tail -n 20 "$log" >&2; die "could not install packages"; }
	rm -f "$log"
}

# PostgreSQL refuses to run as root: this is who runs servers then.
server_user() {
	if [ "$(id -u)" -ne 0 ]; then
		id -un
	elif id postgres >/dev/null 2>&1; then
		echo postgres
	else
		id ptrack >/dev/null 2>&1 ||
			useradd --system --home-dir /nonexistent --shell /bin/sh ptrack
		echo ptrack
	fi
}

# as_server_user COMMAND...: runs it as that user, in the current directory.
as_server_user() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u "$(server_user)" -- "$@"
	else
		"$@"
	fi
}

# scratch_dir NAME: a new directory that the server user owns.
scratch_dir() {
	local dir
	dir=$(mktemp -d "${TMPDIR:-/tmp}/ptrack-$1.XXXXXX")
	[ "$(id -u)" -ne 0 ] || chown "$(server_user)" "$dir"
	chmod 755 "$dir"
	echo "$dir"
}

# stop_servers DIR: at once, all servers whose data directories are below it.
stop_servers() {
	local file pid attempt
	while read -r file; do
		pid=$(head -n 1 "$file" 2>/dev/null) || continue
		# Another process may have got the number of one that is gone.
		[ "$(readlink "/proc/$pid/cwd")" = "$(readlink -f "$(dirname "$file")")" ] || continue
		kill -QUIT "$pid" 2>/dev/null || continue
		for attempt in {1..100}; do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.1
		done
	done < <(find "$1" -name postmaster.pid 2>/dev/null)
}

# Servers are made and removed by the hundred.  That takes much less time in memory,
# if there is plenty of it, and programs may be run from there.
has_room_in_memory() {
	local limit=/sys/fs/cgroup/memory.max needed=$((12 * 1024 * 1024))
	[[ $(findmnt -n -o FSTYPE,OPTIONS /dev/shm) =~ ^tmpfs ]] &&
		[[ ! $(findmnt -n -o OPTIONS /dev/shm) =~ noexec ]] && [ -w /dev/shm ] &&
		[ "$(df --output=avail -k /dev/shm | tail -n 1)" -ge $needed ] &&
		[ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -ge $needed ] &&
		{ ! grep -q '^[0-9]' $limit 2>/dev/null || [ "$(($(cat $limit) / 1024))" -ge $needed ]; }
}

# prefer_memory: scratch files go there, unless TMPDIR says where.
prefer_memory() {
	if [ -z "${TMPDIR:-}" ] && has_room_in_memory; then
		export TMPDIR=/dev/shm
	fi
}

# all_tests: their names, the longest first: what is begun last is waited for.
all_tests() {
	local longest=(t/170_operations.pl t/120_oracle.pl t/130_faults.pl t/238_backup_changing_files.pl t/190_pg_probackup.pl)
	printf '%s\n' "${longest[@]}"
	(cd "$top" && ls t/*.pl) | grep -vxF "$(printf '%s\n' "${longest[@]}")"
}

# test_tree DIR: all that is built and tested, copied to DIR, for the server user.
test_tree() {
	mkdir "$1"
	cp -a "$top"/{Makefile,ptrack.control,sql,expected,src,t,docs,monitoring} "$1"
	[ "$(id -u)" -ne 0 ] || chown -R "$(server_user)" "$1"
	chmod -R a+rX "$1"
}

# run_suite DIR PREFIX STOCK ENGINE TEST...: those tests, in a test_tree, on the
# server at PREFIX; STOCK is the same server without the patch.  ENGINE is "wal" if
# that is the one to test, or "".  Servers wait for each other more than they
# compute, so that there may be more tests at a time than cores.
run_suite() {
	(cd "$1" && as_server_user env LC_ALL=C PTRACK_STOCK="$3" PTRACK_ENGINE="$4" make -s installcheck \
		PG_CONFIG="$2/bin/pg_config" PROVE_FLAGS="-j $((jobs * 2)) --timer" PROVE_TESTS="${*:5}") 2>&1
}

# quietly LOG COMMAND...: output to LOG, of which the end is shown on failure.
quietly() {
	local log=$1
	shift
	"$@" >"$log" 2>&1 </dev/null ||
		{ tail -n 40 "$log" >&2; die "failed: $*" "All of its output: $log"; }
}

# install_stock DIR: Debian's PostgreSQL 15, and ptrack in it, as the README says;
# built in DIR.
install_stock() {
	[ "$(id -u)" -eq 0 ] || die "installing into Debian's PostgreSQL takes root"
	need_packages gcc make postgresql-15 postgresql-server-dev-15 libpq-dev "${client_packages[@]}"
	local config=/usr/lib/postgresql/15/bin/pg_config
	say "building ptrack for Debian's PostgreSQL 15, and installing it"
	mkdir "$1/ptrack"
	cp -a "$top"/{Makefile,ptrack.control,sql,src} "$1/ptrack"
	quietly "$1/build.log" make -C "$1/ptrack" -j "$jobs" PG_CONFIG="$config"
	quietly "$1/install.log" make -C "$1/ptrack" install PG_CONFIG="$config"
	quietly "$1/client.log" make -C "$1/ptrack/src/bin" install PG_CONFIG="$config"
}
