#!/bin/sh
# A development cluster: start, programs and POSIX on it and on a second mount, restart, stop.
. "$(dirname "$0")/_lib.sh"
if [ -n "$LONG" ]; then
	SIZE=${SIZE:-5GiB} SRC=${SRC:-/usr/share /usr/include}
	FIO_SIZE=256m MANY=20000
	export SRC FIO_SIZE
fi
check "fsd dev starts" dev a
check "and is mounted" mounted "$W/a.mnt"
check "chains serve" until_true 30 healthy
pid=$(dev_pid a)
check "idle memory ($(rss "$pid") KiB, six roles)" [ "$(rss "$pid")" -le $((6 * 65536)) ]
mkdir "$W/b.mnt"
check "a second mount" "$FSD" mount --config "$CONF" "$W/b.mnt"
clients() { admin show clients | grep -c mnt | grep -qx "$1"; }
check "two clients are shown" clients 2
check "df" sh -c "df '$W/a.mnt' | grep -q '$W/a.mnt'"
sub programs "${WORK_SECONDS:-1800}" env FSD="$FSD" "$HERE/_work.sh" "$W/a.mnt" "$W/b.mnt"
sub POSIX "${POSIX_SECONDS:-600}" "$HERE/_posix.py" "$W/a.mnt" "${MANY:-1000}"
counted() { admin show counters | grep -q '^fsd_storage_write_bytes_total.* [1-9]'; }
check "writes are counted" counted
check_verbs
check "nothing was logged as an error" not grep -E ' error ' "$W/a/log"
check "unmount the second" "$FSD" umount "$W/b.mnt"
check "it is a client no more" until_true 30 clients 1
echo kept >"$W/a.mnt/kept"
exec 8<"$W/a.mnt/kept"
check "unmounting what is in use is refused" not "$FSD" umount "$W/a.mnt"
exec 8<&-
check "unmounting ends the cluster" "$FSD" umount "$W/a.mnt"
check "process ends" until_true 10 dev_gone a
check "unmounting twice says so" not "$FSD" umount "$W/a.mnt"
# All of them would like the same port, and one has it.
at_once() {
	pids=
	for n in "$@"; do
		dev "$n" & pids="$pids $!"
	done
	for p in $pids; do
		wait "$p" || return 1
	done
}
SIZE=256MiB
check "clusters that start at once share a machine" at_once t1 t2 t3
port=$(sed -n '/^\[manager\]/,/^$/s/^port = //p' "$W/t1/fsd.conf")
check "a port that was asked for is not replaced" not dev t4 --set manager.port="$port"
check "and the reason is told" grep -q "another process listens there manager.port=$port" "$W/t4/log"
for n in t1 t2 t3; do
	check "unmount $n" "$FSD" umount "$W/$n.mnt"
done
unset SIZE
check "starts again" dev a
check "file is there" grep -qx kept "$W/a.mnt/kept"
sleep 1
kill -TERM "$(dev_pid a)"
check "SIGTERM stops it" until_true 10 dev_gone a
check "and unmounts" not mounted "$W/a.mnt"
finish
