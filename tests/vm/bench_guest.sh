#!/bin/bash
# SPDX-License-Identifier: MIT
# bench_guest.sh - run by bench.sh in the guest.  Rounds of: a limit, then ours; the best of the
# rounds counts, for either, since what a guest gets of its host's processors comes and goes.
export TMPDIR=/tmp
FSD=$PWD/${B:-build}/fsd
W=$(mktemp -d) || exit 1
pids=
trap 'kill $pids 2>/dev/null; wait' EXIT
failed=0
want() { [ -z "$T" ] || [ "$T" = "$1" ]; }
for p in ib_send_lat ib_read_bw ib_write_bw; do
	command -v $p >/dev/null || { echo "no $p here: install perftest"; exit 1; }
done

# verbs PROGRAM COLUMN ARGS...: both ends, the column of the line of figures
verbs() {
	p=$1 col=$2; shift 2
	$p -d rxe0 "$@" >/dev/null 2>"$W/said" &
	for try in 1 2 3 4 5; do
		sleep 0.5
		$p -d rxe0 "$@" 127.0.0.1 2>>"$W/said" | awk -v c="$col" '/^ *[0-9]/ { print $c }' >"$W/v"
		[ -s "$W/v" ] && break
	done
	kill $! 2>/dev/null		# it has ended, or nobody ever came
	wait $! 2>/dev/null
	[ -s "$W/v" ] || { cat "$W/said" >&2; failed=1; }
	cat "$W/v"
}
# serving NAME OPTION...: an end that answers, see ours()
serving() {
	name=$1; shift
	"$FSD" bench net serve --config "$W/fsd.conf" "$@" >"$W/serve.$name" 2>"$W/serve.log" &
	pids="$pids $!"
	until grep -q 'serving at' "$W/serve.$name"; do
		kill -0 $! || { cat "$W/serve.log" >&2; exit 1; }
		sleep 0.1
	done
}
# ours NAME COLUMN CASE OPTION...
ours() {
	addr=$(sed -n 's/.*serving at \([^;]*\);.*/\1/p' "$W/serve.$1") col=$2 case=$3; shift 3
	"$FSD" bench net --config "$W/fsd.conf" "$@" --time 1 "$addr" rdma "$case" 2>"$W/said" |
	    awk -v c="$col" '$1 == "rdma" { print $c }' >"$W/v"
	[ -s "$W/v" ] || { cat "$W/said" >&2; failed=1; }
	cat "$W/v"
}
best() { sort -n $([ "$2" = most ] || echo -r) "$1" | head -n 1; }
# verdict WHAT LIMIT OURS HOW BOUND UNIT
verdict() {
	awk -v what="$1" -v l="$(best "$2" "$4")" -v o="$(best "$3" "$4")" -v how="$4" -v bound="$5" -v unit="$6" 'BEGIN {
		r = l > 0 ? o / l : 0
		said = (how == "most" ? r <= bound : r >= bound) ? "ok" : "misses " bound
		printf "%-34s %9.1f %s, limit %9.1f: %.2f  %s\n", what, o, unit, l, r,
		    (r > 0 ? said : "not measured") }'
}

"$FSD" key "$W/key" || exit 1
mkdir "$W/node" && mount -t tmpfs -o size=100m none "$W/node" || exit 1
disk=/scratch/disk
# ib_send_lat never sleeps; neither do we within this time, where processors are disturbed.
awake=--set=rdma.spin_us=100000
cat >"$W/fsd.conf" <<EOT
[cluster]
name = bench
key_file = $W/key
replicas = 1
[manager]
addresses = 127.0.0.1:7700
log_size = 8MiB
[metadata]
port = 0
log_size = 16MiB
[storage]
port = 0
disks = $disk
[node]
directory = $W/node
EOT
if want calls; then
	serving calls $awake
	serving bulk
	for round in $(seq "${ROUNDS:-5}"); do
		verbs ib_send_lat 5 -s 64 -n 2000 >>"$W/lat.limit"
		ours calls 6 send:0:1 $awake >>"$W/lat.ours"
		for size in 65536 1048576; do
			n=$((size == 65536 ? 1000 : 100))
			verbs ib_read_bw 4 -s $size -n $n -t 16 >>"$W/read$size.limit"
			ours bulk 5 read:$size:16 >>"$W/read$size.ours"
			verbs ib_write_bw 4 -s $size -n $n -t 16 >>"$W/write$size.limit"
			ours bulk 5 write:$size:16 >>"$W/write$size.ours"
		done
		echo "round $round:" $(cd "$W" && for f in *.limit *.ours; do echo "$f $(tail -n 1 $f)"; done)
	done
	verdict "a call's message, to ib_send_lat" "$W/lat.limit" "$W/lat.ours" most 1.5 us
	for size in 65536 1048576; do
		verdict "READ of $size, to ib_read_bw" "$W/read$size.limit" "$W/read$size.ours" least 0.8 MiB/s
		verdict "WRITE of $size, to ib_write_bw" "$W/write$size.limit" "$W/write$size.ours" least 0.8 MiB/s
	done
	kill $pids; wait $pids 2>/dev/null; pids=
fi

if want chunks; then
	# Chunks that are read through the client library, from a disk in the host's memory.
	mkdir -p $disk && "$FSD" disk init --size 300MiB $disk || exit 1
	"$FSD" --role=manager,metadata,storage --config "$W/fsd.conf" 2>"$W/roles.log" &
	pids=$!
	for round in $(seq "${ROUNDS:-5}"); do
		verbs ib_write_bw 4 -s 1048576 -n 100 -t 16 >>"$W/chunk.limit"
		timeout 60 "$FSD" bench --config "$W/fsd.conf" --time 2 cached 2>"$W/said" >"$W/out" || {
			cat "$W/said" "$W/roles.log" >&2; failed=1; }
		cat "$W/out"
		awk '$1 == "cached" { print $2 }' "$W/out" >>"$W/chunk.ours"
	done
	verdict "chunk reads, to ib_write_bw" "$W/chunk.limit" "$W/chunk.ours" least 0.6 MiB/s
	"$FSD" admin --config "$W/fsd.conf" show rdma
fi
exit $failed
