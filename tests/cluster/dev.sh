#!/bin/sh
# A development cluster: start, real programs on it and on a second mount, restart, stop.
. "$(dirname "$0")/_lib.sh"
CONF=$W/a/fsd.conf
check "fsd dev starts" dev a
check "chains serve" until_true 10 healthy
mkdir "$W/b.mnt"
check "a second mount" "$FSD" mount --config "$CONF" "$W/b.mnt"
check "two clients are shown" sh -c "'$FSD' admin --config '$CONF' show clients | grep -c mnt | grep -qx 2"
check "programs" env FSD="$FSD" "$HERE/_work.sh" "$W/a.mnt" "$W/b.mnt"
grep -E '^(ok|FAILED)' "$W/out"
check "writes are counted" sh -c "'$FSD' admin --config '$CONF' show counters | grep -q '^fsd_storage_write_bytes_total.* [1-9]'"
check "unmount the second" "$FSD" umount "$W/b.mnt"
echo kept >"$W/a.mnt/kept"
check "unmounting ends the cluster" "$FSD" umount "$W/a.mnt"
check "process ends" until_true 10 dev_gone a
check "starts again" dev a
check "file is there" grep -qx kept "$W/a.mnt/kept"
finish
