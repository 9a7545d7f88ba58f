#!/bin/sh
# fsd check: a healthy cluster has no faults, in use or not; chunks that metadata does not know
# are found, and removed on request.
. "$(dirname "$0")/_lib.sh"
fsck() { timeout 120 "$FSD" check --config "$CONF" "$@"; }
files() { for i in $(seq 1 30); do head -c $((i * 50000)) /dev/urandom >"$1/$2.$i" || return 1; done; }
count() { "$FSD" check --config "$CONF" "$@" | grep -c "^fault.*$WHAT"; }

dev a >"$W/start" 2>&1 || cat "$W/start"
mkdir "$W/a.mnt/d" && files "$W/a.mnt/d" x
ln "$W/a.mnt/d/x.1" "$W/a.mnt/y"; ln -s y "$W/a.mnt/z"; sync -f "$W/a.mnt"
check "a quiet cluster has no faults" fsck
( i=0; while [ ! -e "$W/enough" ]; do
	i=$((i + 1)); head -c 3000000 /dev/zero >"$W/a.mnt/d/w.$((i % 7))"; rm -f "$W/a.mnt/d/w.$(((i + 3) % 7))"
done ) & load=$!
check "one in use has none" fsck
check "and says so as JSON" sh -c "'$FSD' check --config '$CONF' --json | grep -q '\"faults\": 0'"
touch "$W/enough"; wait $load

# Metadata of yesterday, chunks of today.
sync -f "$W/a.mnt"; sleep 1
"$FSD" umount "$W/a.mnt"; until_true 20 dev_gone a
cp -a "$W/a/state/metadata" "$W/meta.old"
dev a >"$W/start" 2>&1
mkdir "$W/a.mnt/e" && files "$W/a.mnt/e" n; sync -f "$W/a.mnt"
"$FSD" umount "$W/a.mnt"; until_true 20 dev_gone a
rm -rf "$W/a/state/metadata"; mv "$W/meta.old" "$W/a/state/metadata"
dev a >"$W/start" 2>&1
for i in $(seq 1 40); do mkdir "$W/a.mnt/p.$i"; done
sleep 2
check "orphans are found" sh -c "'$FSD' check --config '$CONF' >'$W/faults'; [ \$? = 1 ] && grep -q 'no such inode' '$W/faults'"
check "and removed" fsck --repair
check "then there are none" fsck
check "wrong use is told" sh -c "'$FSD' check nonsense 2>&1 | grep -q nonsense"
finish
