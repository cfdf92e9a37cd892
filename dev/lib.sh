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

# quietly LOG COMMAND...: output to LOG, of which the end is shown on failure.
quietly() {
	local log=$1
	shift
	"$@" >"$log" 2>&1 </dev/null ||
		{ tail -n 40 "$log" >&2; die "failed: $*" "All of its output: $log"; }
}
