#!/bin/bash
# SPDX-License-Identifier: MIT
# bulk.sh dev|roles - a development cluster, or roles of their own with one killed and some that
# may lock little memory, in a guest with one device.  Counters tell that payloads went one-sided.
. "$(dirname "$0")/../cluster/_lib.sh"
HERE=$HERE/../cluster
MIB=1048576 SIZE=${SIZE:-512MiB}
DEV=$(ls /sys/class/infiniband | head -n 1)

# The sum of a counter of RDMA over all that tell it: count NAME
count() {
	admin show counters | awk -v n="fsd_net_rdma_$1{" 'index($1, n) == 1 { s += $NF }
		END { printf "%d", s }'
}
remember() {
	for n in read_bytes write_bytes copied_bytes errors; do
		eval "was_$n=$(count "${n}_total")"
	done
}
# The payload is at least so many bytes more than it was: went NAME BYTES
went() {
	eval "was=\$was_$1"
	now=$(count "${1}_total")
	echo "$1: $was, now $now, wanted $2 more"
	[ $((now - was)) -ge "$2" ]
}
nothing_more() {
	eval "was=\$was_$1"
	now=$(count "${1}_total")
	echo "$1: $was, now $now"
	[ "$now" = "$was" ]
}
shown() { admin show rdma | tee "$W/shown"; grep -q " $DEV .* up\$" "$W/shown"; }
# Write 32 MiB through one mount, read it through another, which has it not in its cache.
moved() {	# MOUNT OTHER
	remember
	check "32 MiB are written" dd if="$W/data" of="$1/data" bs=1M conv=fsync status=none
	check "and are READ by three replicas" went read_bytes $((3 * 32 * MIB))
	check "another mount reads the same" cmp "$W/data" "$2/data"
	check "out of WRITEs" went write_bytes $((32 * MIB))
	check "no byte of them was copied" nothing_more copied_bytes
	check "no queue pair broke" nothing_more errors
	check "all of it is shown" shown
}

dd if=/dev/urandom of="$W/data" bs=1M count=32 status=none

if [ "$1" = dev ]; then
	check "a development cluster" dev a
	check "chains serve" until_true 60 healthy
	check "goes over queue pairs" [ "$(count connections)" -gt 0 ]
	check "all of it" [ "$(count refusals_total)" = 0 ]
	mkdir "$W/b.mnt"
	check "a second mount" "$FSD" mount --config "$CONF" "$W/b.mnt"
	moved "$W/a.mnt" "$W/b.mnt"
	check "nothing was logged as an error" not grep -E ' error ' "$W/a/log"
	check "unmount the second" "$FSD" umount "$W/b.mnt"
	check "unmounting ends the cluster" "$FSD" umount "$W/a.mnt"
	check "process ends" until_true 20 dev_gone a
	rm -rf "$W/a"
fi

if [ "$1" = roles ]; then
	CONF=$W/fsd.conf
	"$FSD" key "$W/key"
	cat >"$CONF" <<-EOT
	[cluster]
	name = test
	key_file = $W/key
	[manager]
	addresses = 127.0.0.1:7710
	port = 7710
	[metadata]
	port = 0
	[storage]
	port = 0
	EOT
	# As who may lock KIB of memory: little KIB COMMAND...
	little() {
		setpriv --inh-caps=-ipc_lock --bounding-set=-ipc_lock \
		    sh -c 'ulimit -l "$1"; shift; exec "$@"' sh "$@"
	}
	role() {	# NAME ROLE [SET...]
		n=$1 what=$2; shift 2
		$by "$FSD" --role="$what" --config "$CONF" --set node.directory="$W/$n" \
		    --set node.name="$n" "$@" 2>>"$W/$n.log" &
	}
	again() {	# NAME
		kill_ours TERM "node.name=$1( |$)"
		until_true 20 none "node.name=$1( |$)"
		role "$1" storage --set storage.disks="$W/disk${1#s}"
	}
	says_limit() {	# LOG KIB
		grep "cannot lock memory for RDMA: raise ulimit -l (LimitMEMLOCK).*RLIMIT_MEMLOCK is $2 KiB" "$1"
	}
	by=
	for i in 1 2 3; do
		check "disk init $i" "$FSD" disk init --size "$SIZE" "$W/disk$i"
	done
	role m manager
	role md metadata
	for i in 1 2 3; do
		role s$i storage --set storage.disks="$W/disk$i"
	done
	mkdir "$W/a.mnt" "$W/b.mnt"
	check "chains serve" until_true 60 healthy
	check "mount" "$FSD" mount --config "$CONF" "$W/a.mnt"
	check "mount again elsewhere" "$FSD" mount --config "$CONF" "$W/b.mnt"
	moved "$W/a.mnt" "$W/b.mnt"
	"$HERE/oracle.py" write "$W/a.mnt" "$W/acked" 1 0.05 >"$W/wrote" 2>&1 & writer=$!
	sleep 3
	cp "$W/data" "$W/b.mnt/more" & cp=$!
	sleep 0.3
	kill_ours KILL "node.name=s2( |$)"
	check "a write outlives a killed storage node" wait $cp
	check "and is right" cmp "$W/data" "$W/a.mnt/more"
	sleep 3
	kill -KILL $writer
	wait $writer 2>/dev/null
	role s2 storage --set storage.disks="$W/disk2"
	check "chains serve again" until_true 180 healthy
	[ "$failed" = 0 ] || { admin show chains; admin show nodes; tail -n 30 "$W"/*.log; }
	check "something was acknowledged" [ -s "$W/acked" ]
	check "all of it is there" timeout 300 "$HERE/oracle.py" check "$W/b.mnt" "$W/acked"
	check "what was there is right" cmp "$W/data" "$W/b.mnt/data"

	# Little memory may be locked: of one node not its buffers, of the other not even messages.
	by="little 1024"; again s2
	by="little 64"; again s3; by=
	check "chains serve when little memory may be locked" until_true 60 healthy
	mkdir "$W/c.mnt"
	check "mount, with little too" little 1024 "$FSD" mount --config "$CONF" --log "$W/c.log" "$W/c.mnt"
	head -c 4194304 "$W/data" >"$W/some"
	check "4 MiB are written" dd if="$W/some" of="$W/c.mnt/some" bs=1M conv=fsync status=none
	check "and right" cmp "$W/some" "$W/b.mnt/some"
	check "what was there is right" cmp -n 4194304 "$W/data" "$W/c.mnt/data"
	check "who may not lock its buffers says so" says_limit "$W/s2.log" 1024
	check "and who has no room for messages" says_limit "$W/s3.log" 64
	check "and the mount" says_limit "$W/c.log" 1024
	again s2
	again s3
	check "chains serve without limits" until_true 60 healthy
	moved "$W/a.mnt" "$W/b.mnt"
	check "nothing was logged as an error" not grep -hE ' error ' "$W"/*.log
fi
finish
