# dev/package.sh WORK DISTRIBUTION SOURCES OUTPUT: what dev/package does inside of its
# namespaces; not for any other caller.
#
# WORK is an empty directory, SOURCES the lines of a sources.list, OUTPUT the directory for
# what is made, or empty.

. "$(dirname "$0")/lib.sh"

readonly work=$1 distribution=$2 sources=$3 output=$4

# The first process of a namespace gets only the signals that it asks for.
trap 'exit 143' INT TERM

mount -t tmpfs -o mode=755 ptrack-package "$work"
readonly logs=$work/logs result=$work/result
mkdir "$logs" "$result"

# run STEP COMMAND...: of its output, which will be gone, the end is shown on failure.
run() {
	local log=$logs/$1
	shift
	"$@" >"$log" 2>&1 </dev/null || { tail -n 60 "$log" >&2; die "failed: $*"; }
}

# in_root ROOT COMMAND...: as root there, with nothing of this machine's environment.
in_root() {
	local root=$work/$1
	shift
	chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C \
		DEBIAN_FRONTEND=noninteractive "$@"
}

# make_base: Debian as it is before anything is installed, and where packages come from.
make_base() {
	local include=() file
	say "making a bare Debian, $distribution"
	echo "$sources" >"$work/sources.list"
	{
		echo 'Acquire::Retries "3";'
		apt-config dump Acquire | grep -E '^Acquire::(https?::|ftp::|Check-|Retries )' || true
	} >"$work/acquire"
	[[ $sources != *" https:"* ]] || include=(--include=ca-certificates)
	run base env TMPDIR="$work" mmdebstrap --mode=root --variant=minbase \
		--skip=cleanup/apt/lists \
		--aptopt="$work/acquire" "${include[@]}" "$distribution" "$work/base" "$work/sources.list"
	for file in hosts resolv.conf; do
		[ ! -e "/etc/$file" ] || cp -L "/etc/$file" "$work/base/etc/"
	done
	# Nobody starts services there but we.
	printf '#!/bin/sh\nexit 101\n' >"$work/base/usr/sbin/policy-rc.d"
	chmod 755 "$work/base/usr/sbin/policy-rc.d"
}

# new_root NAME: a copy of it, to be used.
new_root() {
	cp -a "$work/base" "$work/$1"
	mount -t proc proc "$work/$1/proc"
	mkdir -p "$work/$1/dev/shm"
	mount -t tmpfs -o mode=1777 shm "$work/$1/dev/shm"
}

remove_root() {
	umount "$work/$1/proc" "$work/$1/dev/shm"
	rm -r "${work:?}/$1"
}

# make_archives: what "make dist" makes of what is committed.
make_archives() {
	say "making the archives"
	git clone -q --no-hardlinks "$top" "$work/clone"
	run dist make -C "$work/clone" dist
	mv "$work"/clone/ptrack-*.{tar.gz,zip} "$result"
	archive=$(basename "$result"/ptrack-*.tar.gz .tar.gz)
}

# build_packages: by an ordinary user, from one archive; the other has the same files.
build_packages() {
	local src=$work/build/src
	new_root build
	mkdir "$src"
	cp "$result/$archive.tar.gz" "$src/${archive/-/_}.orig.tar.gz"
	cp "$result/$archive.zip" "$src"
	tar -C "$src" -xzf "$result/$archive.tar.gz"
	cp -a "$src/$archive" "$work/unpacked"
	cp -a "$work/clone/debian" "$src/$archive"
	say "installing what they are built with"
	run build-dep in_root build apt-get build-dep -y --no-install-recommends "/src/$archive"
	run tools in_root build apt-get install -y --no-install-recommends lintian unzip
	run unzip in_root build unzip -q "/src/$archive.zip" -d /src/zip
	run diff diff -r "$src/zip/$archive" "$work/unpacked"
	in_root build useradd --home-dir /src --shell /bin/sh builder
	in_root build chown -R builder /src
	say "building the packages"
	run build in_root build runuser -u builder -- env --chdir="/src/$archive" \
		DEB_BUILD_OPTIONS="parallel=$jobs" dpkg-buildpackage -us -uc
	say "checking them with lintian"
	# What lintian expects only of an upload to Debian.
	run lintian in_root build runuser -u builder -- sh -c "lintian \
		--fail-on error,warning --suppress-tags unreleased-changes,initial-upload-closes-no-bugs /src/*.changes"
	find "$src" -maxdepth 1 -type f -name '*_*' -exec cp -t "$result" {} +
	remove_root build
}

# install_packages: with the command of the README, in a Debian that has nothing of ours.
install_packages() {
	local command
	say "installing the packages"
	new_root test
	cp -a "$work/unpacked" "$work/test/tmp/$archive"
	cp -a "$work/clone/debian" "$work/test/tmp/$archive"
	mkdir "$work/test/tmp/ptrack"
	cp "$result"/*.deb "$work/test/tmp/ptrack"
	command=$(sed -n 's/^    \(apt-get install .*\.deb\)$/\1/p' "$work/test/tmp/$archive/README.md")
	[ -n "$command" ] || die "README.md does not say how packages are installed"
	run install in_root test sh -ec "$command"
}

# remove_packages: nothing of theirs may be left but directories that others have, too,
# and the server goes on without.
remove_packages() {
	local packages=(postgresql-15-ptrack ptrack-client) package path left=()
	say "removing the packages"
	in_root test dpkg -L "${packages[@]}" | grep ^/. | grep -v "^/\.\$" | sort -u >"$work/files"
	grep -q '/ptrack\.so$' "$work/files" && grep -q '/pg_ptrack$' "$work/files" ||
		die "the packages lack the library or pg_ptrack"
	run remove in_root test dpkg -r "${packages[@]}"
	for package in "${packages[@]}"; do
		! in_root test dpkg -s "$package" >"$logs/status" 2>/dev/null ||
			die "removed, $package is still $(grep ^Status: "$logs/status")"
	done
	while read -r path; do
		if [ -e "$work/test$path" ] || [ -L "$work/test$path" ]; then
			in_root test dpkg -S "$path" >/dev/null 2>&1 </dev/null || left+=("$path")
		fi
	done <"$work/files"
	[ ${#left[@]} -eq 0 ] || die "removed packages leave: ${left[*]}"
	run restart in_root test pg_ctlcluster 15 main restart
	echo "ok: removed, the packages leave nothing of their own, and the server goes on"
}

make_base
make_archives
build_packages
echo "ok: $archive.tar.gz and $archive.zip have the same files, and packages are built from them"
echo "ok: lintian finds neither errors nor warnings in $(cd "$result" && echo *.deb)"
install_packages
say "doing what the README says"
run readme in_root test env --chdir="/tmp/$archive" debian/tests/readme
grep '^ok: ' "$logs/readme"
remove_packages
[ -z "$output" ] || cp "$result"/* "$output"
say "packages: all is well"
