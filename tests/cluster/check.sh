#!/bin/sh
# fsd check: a healthy cluster has no faults, in use or not; chunks that metadata does not know
# are found, and removed on request; damaged metadata is mended while it is used, and no data is lost.
. "$(dirname "$0")/_lib.sh"
fsck() { timeout 120 "$FSD" check --config "$CONF" "$@"; }
files() { for i in $(seq 1 30); do head -c $((i * 50000)) /dev/urandom >"$1/$2.$i" || return 1; done; }
faulty() { fsck "$@" >"$W/faults"; [ $? = 1 ]; }	# and not: it could not be ended
stop() { "$FSD" umount "$W/a.mnt"; until_true 20 dev_gone a; }
load() { ( i=0; while [ ! -e "$W/enough" ]; do
	i=$((i + 1)); head -c 3000000 /dev/zero >"$W/a.mnt/$1/w.$((i % 7))"; rm -f "$W/a.mnt/$1/w.$(((i + 3) % 7))"
	mv "$W/a.mnt/$1/w.$((i % 7))" "$W/a.mnt/$1/w.$(((i + 1) % 7))"
done ) & load=$!; }
unload() { touch "$W/enough"; wait $load; rm "$W/enough"; }

dev a >"$W/start" 2>&1 || cat "$W/start"
mkdir "$W/a.mnt/d" && files "$W/a.mnt/d" x
ln "$W/a.mnt/d/x.1" "$W/a.mnt/y"; ln -s y "$W/a.mnt/z"; sync -f "$W/a.mnt"
check "a quiet cluster has no faults" fsck
load d
check "one in use has none" fsck
check "and says so as JSON" sh -c "'$FSD' check --config '$CONF' --json | grep -q '\"faults\": 0'"
unload

# Metadata of yesterday, chunks of today.
sync -f "$W/a.mnt"; sleep 1
stop
cp -a "$W/a/state/metadata" "$W/meta.old"
dev a >"$W/start" 2>&1
mkdir "$W/a.mnt/e" && files "$W/a.mnt/e" n; sync -f "$W/a.mnt"
stop
rm -rf "$W/a/state/metadata"; mv "$W/meta.old" "$W/a/state/metadata"
dev a >"$W/start" 2>&1
for i in $(seq 1 40); do mkdir "$W/a.mnt/p.$i"; done
sleep 2
check "orphans are found" sh -c "'$FSD' check --config '$CONF' >'$W/faults'; [ \$? = 1 ] && grep -q 'no such inode' '$W/faults'"
check "and kept: they were written by somebody" faulty --repair
check "and removed when that is wanted" fsck --repair --discard
check "then there are none" fsck

# Rows that do not fit together, planted while nothing runs.
m=$W/a.mnt/m
mkdir "$m" "$m/dir" "$m/up" "$m/up/down" "$m/use"
for f in lost twice gone dir/in; do head -c 500000 /dev/urandom >"$m/$f"; done
cp "$m/lost" "$W/lost"; cp "$m/dir/in" "$W/in"; : >"$m/empty"; sync -f "$m"; sleep 1
stop
table=$(find "$W/a/state/metadata" -name table); plant() { "$HERE/plant.py" "$table" "$@"; }
for f in lost twice gone empty dir up up/down; do
	eval "$(echo $f | tr / _)=$(plant inode m/$f)"; done
ino=$(plant inode m)
plant lose-entry $ino lost; plant nlink $twice 5; plant lose-inode $gone; plant lose-inode $empty
plant lose-inode $dir; plant size $ino 99; plant lose-entry $ino up; plant entry $up_down up $up
dev a >"$W/start" 2>&1
load m/use
check "damage is found" faulty
cp "$W/faults" "$W/found"
check "all of it" sh -c "for f in 'no name for $lost' 'nlink of $twice' 'leads to $gone' 'leads to $empty' \
    'directory $dir has entries' 'size of directory $ino'; do grep -q \"\$f\" '$W/found' || { echo \"\$f\"; cat '$W/found'; exit 1; }; done"
check "who runs into it is told so" sh -c "stat '$m/gone' 2>&1 | grep -q 'needs cleaning'"
check "it is mended, but for what has data" faulty --repair
check "that is told" sh -c "grep -q 'still: .*leads to $gone' '$W/faults' && ! grep -q 'still: .*$empty' '$W/faults'"
unload
check "what was lost is found" cmp "$W/lost" "$W/a.mnt/lost+found/#$lost"
check "a directory without inode has what was in it" cmp "$W/in" "$m/dir/in"
check "a cycle is open" test -d "$W/a.mnt/lost+found/#$up/down"
check "the rest goes when that is wanted" fsck --repair --discard
check "the tree is whole" fsck
check "and works" sh -c "rm -r '$m' '$W/a.mnt/lost+found'"
check "wrong use is told" sh -c "'$FSD' check nonsense 2>&1 | grep -q nonsense"
check_verbs
finish
