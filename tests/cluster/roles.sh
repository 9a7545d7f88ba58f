#!/bin/sh
# The same roles as separate processes over TCP, from one fsd.conf.
. "$(dirname "$0")/_lib.sh"
CONF=$W/fsd.conf
base=$(( 20000 + $$ % 20000 ))
"$FSD" key "$W/key"
cat >"$CONF" <<EOT
[cluster]
name = test
key_file = $W/key
[manager]
addresses = 127.0.0.1:$base
port = $base
[metadata]
port = 0
[storage]
port = 0
EOT
role() {	# NAME ROLE [SET...]
	n=$1 r=$2; shift 2
	"$FSD" --role="$r" --config "$CONF" --set node.directory="$W/$n" --set node.name="$n" \
	    "$@" 2>>"$W/$n.log" &
}
check "key is private" sh -c "stat -c %a '$W/key' | grep -qx 600"
role m manager
role md metadata
for i in 1 2 3; do
	check "disk init $i" "$FSD" disk init --size 2GiB "$W/disk$i"
	role s$i storage --set storage.disks="$W/disk$i"
done
check "disk init again is refused" sh -c "! '$FSD' disk init --size 1GiB '$W/disk1'"
check "chains serve" until_true 20 healthy
mkdir "$W/a.mnt" "$W/b.mnt"
check "mount" "$FSD" mount --config "$CONF" "$W/a.mnt"
check "mount again elsewhere" "$FSD" mount --config "$CONF" "$W/b.mnt"
check "programs" env FSD="$FSD" "$HERE/_work.sh" "$W/a.mnt" "$W/b.mnt"
grep -E '^(ok|FAILED)' "$W/out"
# A killed storage process that comes back resumes; whoever writes meanwhile waits.
pkill -KILL -f "node.name=s2 "
dd if=/dev/urandom of="$W/data" bs=1M count=8 status=none
cp "$W/data" "$W/a.mnt/data" & cp=$!
sleep 1
role s2 storage --set storage.disks="$W/disk2"
check "a write outlives a killed storage process" wait $cp
check "and is right" cmp "$W/data" "$W/b.mnt/data"
check "chains serve again" until_true 20 healthy
pkill -KILL -f "node.name=md "
role md metadata
check "names outlive a killed metadata process" cmp "$W/data" "$W/a.mnt/data"
pkill -KILL -f "node.name=m "
role m manager
check "a killed manager comes back" until_true 20 healthy
check "and files can be made" sh -c "echo x >'$W/a.mnt/x' && grep -qx x '$W/b.mnt/x'"
finish
