#!/bin/sh
# Nodes with an RDMA device each, and an Ethernet between them, under load: a storage node and a
# leader are killed at once, one is stopped, a cable is pulled, packets vanish.  No program sees
# an error, nothing acknowledged is lost; in the end all goes over queue pairs again, without a
# copy.
. "$(dirname "$0")/../cluster/_lib.sh"
HERE=$HERE/../cluster
STORAGES=${STORAGES:-3} LOADED=${LOADED:-1} SIZE=${SIZE:-512MiB} OPAUSE=${OPAUSE:-0.05}
PAUSE=${PAUSE:-30}
. "$HERE/_net.sh"
. "$HERE/_event.sh"
HOLD=${HOLD:-5}		# s: longer than a lease, and than devices try
[ "$NETP" = rxe ] || { echo "skipped: no device for each node"; rm -rf "$W"; exit 0; }
cluster_up <<EOT
[log]
level = info
[storage]
targets_per_disk = 1
memory = 64MiB
[client]
memory = 64MiB
[rdma]
spin_us = 0
EOT

# ---- what is held, and what went how ----
# Counters of nodes are at the manager, those of mounts are asked for: how much of COUNTER for
# each of all: sums COUNTER
sums() {
	for n in $(numbered c "$CLIENTS"); do
		kill_ours USR1 "$(node_words "$n")"
	done
	{ net_admin show counters; sleep 1; cat "$W"/c?.log; } |
	    awk -v n="fsd_net_rdma_$1{" -v all="$(data_nodes)" '
		{ for (i = 1; i < NF; i++) if (index($i, n) == 1) v[$i] = $(i + 1) }
		END { for (h in v) if (match(h, /device="[^"]*/))
			s[substr(h, RSTART + 8, RLENGTH - 8)] += v[h]
			for (d in s) print d, s[d] }' >"$W/sums"
	for n in $(data_nodes); do
		awk -v d="rxe$(device "$n")" -v n="$n" '$1 == d { print n, $2 }' "$W/sums"
	done
}
data_nodes() { numbered s "$STORAGES"; numbered c "$CLIENTS"; }
# Every connection has a queue pair beside its socket, and there is none without.
paired() {
	rdma resource show qp >"$W/qps"
	ss -Htnp state established >"$W/tcp"
	for n in $(numbered d "$METADATA") $(data_nodes); do
		p=$(ours "$(node_words "$n")" | head -1)
		tcp=$(grep -c "pid=$p," "$W/tcp") qps=$(grep -c "^link rxe$(device "$n")/.* type RC " "$W/qps")
		echo "$n: $tcp connections, $qps queue pairs"
		[ "$tcp" -gt 0 ] && [ "$tcp" = "$qps" ] || return 1
	done >"$W/paired"
}
not_copied() {
	sums copied_bytes_total | tee "$W/copied"
	[ "$(grep -c ' 0$' "$W/copied")" = $((STORAGES + CLIENTS)) ]
}

# ---- what happens ----
both_back() {
	for n in $down; do
		node_start "$n"
	done
	until_true "$SETTLE" net_healthy
}
kill_both() {
	down="$*"
	for n in "$@"; do
		kill_ours KILL "$(node_words "$n")"
	done
	sleep "$HOLD"
	both_back
}
head_and_manager() { find_all; kill_both "$head" "$ml"; }
tail_and_metadata() { find_all; kill_both "$tail" "$dl"; }
freeze() { find_all; node_kill STOP "$middle"; sleep "$HOLD"; node_kill CONT "$middle"; }
cable() { find_all; unplug "$head"; sleep "$HOLD"; plug "$head"; }
vanish() { find_all; lose "$tail"; sleep "$HOLD"; heal; }

check "all goes over queue pairs" until_true 20 paired
check "without a copy" not_copied
cat "$W/paired"
for e in ${EVENTS:-head tail freeze cable vanish}; do
	case $e in
	head)	event "head and leading manager, kill -9" head_and_manager ;;
	tail)	event "tail and leading metadata node, kill -9" tail_and_metadata ;;
	freeze)	event "middle, stopped for $HOLD s" freeze ;;
	cable)	event "cable of the head out for $HOLD s" cable ;;
	vanish)	event "packets of the tail vanish for $HOLD s" vanish ;;
	esac
	whole "$e"
done
check "all goes over queue pairs again" until_true 30 paired
cat "$W/paired"
check "without a copy" not_copied

check "programs have gone on all the time" programs_live
stop_programs
check "no bytes were wrong" not wrong_bytes
check "something was acknowledged" [ "$(cat "$W"/acked-* | wc -l)" -gt 100 ]
check "nothing that was acknowledged is lost" lost "$W/lost"
check "nothing was logged as an error" not grep -hE ' error ' "$W"/*.log
[ "$failed" = 0 ] || { tail -n 40 "$W"/[sdmc]?.log; cat "$W/lost" "$W"/oracle-c*; }
done_here
