#!/bin/sh
# SPDX-License-Identifier: MIT
# make check-rdma - calls, clusters and mounts over soft-RoCE in guests, and over TCP in one that
# has no such device.  Skipped, with the reason, only where no such guest can run.
#   T=name   that part:
#     calls calls-grant calls-fail calls-revoke    units: all of these
#     dev          a development cluster and its mounts: bulk goes one-sided
#     roles        roles of their own, one is killed, some may lock little memory
#     tcp          no device: all goes over TCP
#     failover     a device for each node: a storage node and a leader are killed, a cable is
#                  pulled; EVENTS="head tail freeze cable vanish gone" names what happens
#     iwarp        calls over soft-iWARP, and calls-strangers: whom its port refuses
#     iwarp-dev    a development cluster over it; not one of all: the siw of Linux 6.1 may break
#                  its own list of listeners when a process ends, and the guest with it
#     cluster-X    tests/cluster/X.sh over verbs: cluster-garbage, cluster-full and so on
#   LONG=1   all of them, and these in full; otherwise all up to failover, shortened
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
said=$(mktemp) || exit 1
units="calls calls-grant calls-fail calls-revoke" iwarp="calls calls-strangers"
one= many= devices=11 room=3072 most=1200 none= long= siw= beside=
out=$(mktemp -d) || exit 1
# What runs in the background hears no ^C: the guest ends when its rdma-vm is told to.
trap '[ -z "$beside" ] || pkill -P "$beside"; wait; rm -rf "$said" "$out"' EXIT
trap 'exit 130' INT TERM

skip() {
	echo "skipped: no guest with RDMA can run here: $1"
	echo "0 passed, 0 failed"
	exit 0
}
[ "$(uname -m)" = x86_64 ] || skip "this is $(uname -m), the guest's kernel is for x86_64"
tests/vm/rdma-vm --prepare 2>"$said" || skip "$(tail -n 1 "$said")"

case $T in	# one: calls and data paths on one device, many: nodes with a device each
"")	one="$units dev roles" none=tcp many=failover
	[ -z "$LONG" ] || siw=$iwarp \
	    long="cluster-dev cluster-roles cluster-kill cluster-check cluster-garbage cluster-full" ;;
calls|calls-[fgr]*|dev|roles) one=$T ;;
units)	one=$units ;;
failover) many=$T ;;
cluster-failover) many=$T devices=12 room=20480 most=3600 ;;
tcp)	none=tcp ;;
iwarp)	siw=$iwarp ;;
calls-strangers) siw=$T ;;
iwarp-dev) siw=dev ;;
cluster-*) long=$T
	[ -x "tests/cluster/${T#cluster-}.sh" ] || { echo "no such part: $T"; exit 2; } ;;
*)	echo "no such part: $T"; exit 2 ;;
esac
guest() {	# OUT SECONDS PARTS OPTION...: these parts in a guest of their own
	log=$out/$1 seconds=$2 parts=$3; shift 3
	# shellcheck disable=SC2086
	tests/vm/rdma-vm --host-root --ro --timeout "$seconds" "$@" . -- \
	    env B="${B:-build}" CI=1 LONG="$LONG" EVENTS="$EVENTS" tests/vm/guest.sh $parts >"$log" 2>&1
	rc=$?
	cat "$log"
	# Its last word counts: what failed in it has said how often, too.
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
	case $rc,$line in
	0,?*|1,*" passed, "[!0]*) ;;
	*)	echo "FAILED  $parts: the guest ended with status $rc"
		line="0 passed, 1 failed" ;;
	esac
	echo "$line" >"$log"
}
[ -z "$none" ] || guest 0 300 "$none" --no-rdma --mem 1024 --disk 2048 & beside=$!
[ -z "$one" ] || guest 1 1200 "$one" --mem 3072 --disk 4096
wait $beside
beside=
[ -z "$many" ] || guest 2 $most "$many" --devices $devices --mem 3072 --disk $room
# Where librdmacm connects.  Debian's kernel has no siw; it is built once.
if [ -z "$siw" ]; then
	:
elif tests/vm/rdma-vm --siw --prepare 2>"$said"; then
	guest 3 600 "$siw" --siw --mem 3072 --disk 4096
else
	echo "skipped: no guest with iWARP can run here: $(tail -n 1 "$said")"
	echo "0 passed, 0 failed" >"$out/3"
fi
for p in $long; do
	guest "$p" 7200 "$p" --mem 4096 --disk 20480
done
awk '{ p += $1; f += $3 } END { print p + 0 " passed, " f + 0 " failed"; exit f > 0 || NR == 0 }' \
    "$out"/*
