# Increments as tar, compressed and encrypted on their way to an uploader, and what
# comes back combined.

uploader() {
	as_server_user env RCLONE_CONFIG="$work/rclone.conf" rclone "$@"
}

# The remote is another program that speaks HTTP, as storage elsewhere would.
remote_config() {
	cat <<-EOF
		[store]
		type = webdav
		url = http://127.0.0.1:5890
		vendor = owncloud
	EOF
}

# upload NAME [PRIOR [OPTION]...]
upload() {
	as_server_user env RCLONE_CONFIG="$work/rclone.conf" PTRACK_REMOTE=store:backups \
		PTRACK_RECIPIENT="$recipient" PTRACK_MANIFESTS="$work/manifests" \
		integrations/upload/upload "$1" "${2:-}" -p 5521 -U uploader -c fast -j 2 "${@:3}" >"$work/output" 2>&1
}

must_upload() {
	upload "$@" || { cat "$work/output" >&2; failed "upload: $1"; }
	say "upload: $1, $(uploader size --json "store:backups/$1.tar.zst.age" | sed 's/.*"bytes":\([0-9]*\).*/\1/') bytes in the store"
}

# What could not be uploaded has no name, here or there.
must_not_upload() {
	! upload "$@" || failed "upload: $1 counts as stored"
	! uploader lsf store:backups | grep -qx "$1.tar.zst.age" || failed "upload: $1 is in the store"
	! compgen -G "$work/manifests/$1.*" >/dev/null || failed "upload: $1 has a manifest"
}

download() {
	run mkdir "$work/down/$1"
	uploader cat "store:backups/$1.tar.zst.age" | age -d -i "$work/key" | zstd -q -d |
		as_server_user tar -xf - -C "$work/down/$1" || failed "upload: $1 cannot be fetched"
	run pg_ptrack verify "$work/down/$1"
}

try_upload() {
	need_packages rclone zstd age
	local sums name recipient store
	say "$(rclone version | head -n 1), age $(age --version)"
	remote_config >"$work/rclone.conf"
	age-keygen -o "$work/key" 2>/dev/null
	recipient=$(age-keygen -y "$work/key")
	run mkdir -p "$work/store" "$work/manifests" "$work/down"
	start_process webdav env RCLONE_CONFIG="$work/rclone.conf" rclone serve webdav --addr 127.0.0.1:5890 "$work/store"
	store=$process
	eventually 60 uploader mkdir store:backups

	new_server upload_source 5521 </dev/null
	start_server upload_source
	sql 5521 "CREATE ROLE uploader LOGIN REPLICATION"
	backup_role 5521 uploader
	fill 5521
	must_upload full
	change 5521
	must_upload first full
	change 5521
	must_upload second first

	# The server, or the store, says no.
	change 5521
	must_not_upload no_database second -d nowhere
	stop_process "$store"
	must_not_upload no_store second --max-rate=1M 2>/dev/null
	start_process webdav env RCLONE_CONFIG="$work/rclone.conf" rclone serve webdav --addr 127.0.0.1:5890 "$work/store"
	eventually 60 uploader lsf store:backups
	must_upload third second
	change 5521
	sums=$(rows 5521)
	stop_server upload_source

	for name in full first second third; do
		download "$name"
	done
	run pg_ptrack combine -o "$work/upload_restored" "$work"/down/{full,first,second,third}
	as_server_user perl -I "$work/lib" -MPtrackCopy -e 'copy_wal(@ARGV)' "$work/upload_source" "$work/upload_restored"
	check_restored upload_source upload_restored 5522 "$sums"
	stop_server upload_restored
	echo "VERDICT: upload: what came back and was combined is the original"
}
