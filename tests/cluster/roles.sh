#!/bin/sh
# The same roles as separate processes over TCP, from one fsd.conf: programs on two mounts, a
# process killed, all of them killed at once.
. "$(dirname "$0")/_lib.sh"
CONF=$W/fsd.conf
rounds=${ROUNDS:-2}
SRC=${SRC:-$(echo /usr/include/*-linux-gnu/bits)}
if [ -n "$LONG" ]; then
	rounds=20 SIZE=${SIZE:-2GiB} FIO_SIZE=256m MANY=20000 SRC=/usr/include
	export FIO_SIZE
fi
: "${SIZE:=512MiB}"
[ -z "$FIO_SIZE" ] || export FIO_SIZE
export SRC
port=$(( 20000 + $$ % 20000 ))
"$FSD" key "$W/key"
cat >"$CONF" <<EOT
[cluster]
name = test
key_file = $W/key
[manager]
addresses = 127.0.0.1:$port
port = $port
[metadata]
port = 0
[storage]
port = 0
EOT
role() {	# NAME ROLE [SET...]
	n=$1 what=$2; shift 2
	"$FSD" --role="$what" --config "$CONF" --set node.directory="$W/$n" --set node.name="$n" \
	    "$@" 2>>"$W/$n.log" &
}
all_roles() {
	role m manager
	role md metadata
	for i in 1 2 3; do
		role s$i storage --set storage.disks="$W/disk$i"
	done
}
kill_role() {	# SIGNAL NAME
	kill_ours "$1" "node.name=$2( |$)"
	until_true 10 none "node.name=$2( |$)"
}
for i in 1 2 3; do
	check "disk init $i" "$FSD" disk init --size "$SIZE" "$W/disk$i"
done
check "disk init again is refused" not "$FSD" disk init --size 1GiB "$W/disk1"
all_roles
check "chains serve" until_true 20 healthy
second() {	# ROLE NAME [SET...]: refused, and told who is there
	as=$1 n=$2; shift 2
	not timeout 20 "$FSD" --role="$as" --config "$CONF" --set node.directory="$W/$n" \
	    --set node.name=second "$@" 2>"$W/second" && cat "$W/second" &&
	    grep -q "$W/$n/$as: in use by process $(ours "node.name=$n( |$)" | head -1)\"" \
	    "$W/second"
}
check "a second process on a directory is refused" second metadata md
check "also with another disk" second storage s1 --set storage.disks="$W/disk9"
for n in m md s1 s2 s3; do
	kib=$(rss "$(ours "node.name=$n( |$)" | head -1)")
	check "idle memory of $n ($kib KiB)" [ "$kib" -le 65536 ]
done
mkdir "$W/a.mnt" "$W/b.mnt"
check "mount" "$FSD" mount --config "$CONF" "$W/a.mnt"
check "mount again elsewhere" "$FSD" mount --config "$CONF" "$W/b.mnt"
kib=$(rss "$(ours "/b.mnt" | head -1)")
check "idle memory of a mount ($kib KiB)" [ "$kib" -le 65536 ]
sub programs "${WORK_SECONDS:-1800}" env FSD="$FSD" "$HERE/_work.sh" "$W/a.mnt" "$W/b.mnt"
sub POSIX "${POSIX_SECONDS:-600}" "$HERE/_posix.py" "$W/a.mnt" "${MANY:-300}"
check_verbs
check "nothing was logged as an error" not grep -hE ' error ' "$W"/*.log
# A killed storage process that comes back resumes; whoever writes meanwhile waits.
kill_role KILL s2
dd if=/dev/urandom of="$W/data" bs=1M count=8 status=none
cp "$W/data" "$W/a.mnt/data" & cp=$!
sleep 1
role s2 storage --set storage.disks="$W/disk2"
check "a write outlives a killed storage process" wait $cp
check "and is right" cmp "$W/data" "$W/b.mnt/data"
check "chains serve again" until_true 20 healthy
# Gone for longer than its lease: chains wait for their replica (fsd-design(7)), and so do
# writers; then all of it ends well.
kill_role KILL s2
dd if=/dev/urandom of="$W/data" bs=1M count=8 status=none
cp "$W/data" "$W/a.mnt/data" & cp=$!
down() { grep -q 'node down.*name=s2' "$W/m.log"; }
check "a lost node is called down" until_true 20 down
role s2 storage --set storage.disks="$W/disk2"
check "a write outlives a lost node that comes back" wait $cp
check "and is right" cmp "$W/data" "$W/b.mnt/data"
check "chains serve again" until_true 20 healthy
kill_role KILL md
role md metadata
check "names outlive a killed metadata process" timeout 60 cmp "$W/data" "$W/a.mnt/data"
kill_role KILL m
role m manager
check "a killed manager comes back" until_true 20 healthy
check "and files can be made" sh -c "echo x >'$W/a.mnt/x' && grep -qx x '$W/b.mnt/x'"
# A stop that was asked for disturbs nobody.
for n in s3 md m; do
	check "SIGTERM stops $n" kill_role TERM $n
done
role m manager
role md metadata
role s3 storage --set storage.disks="$W/disk3"
check "chains serve again" until_true 20 healthy
check "a file is read" timeout 60 cmp "$W/data" "$W/b.mnt/data"
check "unmount the second" timeout 20 "$FSD" umount "$W/b.mnt"
# Every process at once, in the middle of fsync'ed writes.
for r in $(seq 1 "$rounds"); do
	timeout 60 "$HERE/oracle.py" write "$W/a.mnt" "$W/acked" "$r" >"$W/wrote" 2>&1 & writer=$!
	check "round $r: something is acknowledged" amid "$W/acked" "$r"
	kill_ours KILL ""
	until_true 10 none ""
	wait "$writer" 2>/dev/null
	"$FSD" umount --lazy "$W/a.mnt"
	all_roles
	check "round $r: mount" timeout 30 "$FSD" mount --config "$CONF" "$W/a.mnt"
	check "round $r: all that was acknowledged is there" timeout 120 "$HERE/oracle.py" check \
	    "$W/a.mnt" "$W/acked"
	check "round $r: healthy" until_true 20 healthy
done
check "nothing was damaged" not grep -hE ' error ' "$W"/*.log
finish
