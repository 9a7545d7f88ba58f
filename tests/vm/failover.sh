#!/bin/sh
# Nodes with an RDMA device each, and an Ethernet between them, under load: a storage node and a
# leader are killed at once, one is stopped, a cable is pulled, packets vanish, a device is taken
# out and put back.  No program sees an error, nothing acknowledged is lost; in the end all goes
# over queue pairs again, without a copy, and devices hold what they held.  LONG=1: all of that;
# otherwise the EVENTS named, or those that cost least.
. "$(dirname "$0")/../cluster/_lib.sh"
HERE=$HERE/../cluster
if [ -z "$LONG" ]; then
	METADATA=${METADATA:-1} EVENTS=${EVENTS:-head cable}
fi
EVENTS=${EVENTS:-head tail freeze cable vanish gone}
STORAGES=${STORAGES:-3} LOADED=${LOADED:-1} SIZE=${SIZE:-512MiB} OPAUSE=${OPAUSE:-0.2}
RATE=${RATE:-250k} PPAUSE=${PPAUSE:-0.05}
export PPAUSE
. "$HERE/_net.sh"
. "$HERE/_event.sh"
HOLD=${HOLD:-5}		# s: longer than a lease, and than devices try
MIB=1048576
[ "$NETP" = rxe ] || { echo "not $(nodes | wc -l) devices, one for each node"; rm -rf "$W"; exit 1; }

# ---- what is held, and what went how ----
# Forks are slow in a guest: a question is one awk.
data_nodes() { numbered s "$STORAGES"; numbered c "$CLIENTS"; }
places() { for n in "$@"; do echo "$n rxe$(device "$n") $(address "$n")"; done >"$W/places"; }
# Counters of nodes are at the manager, those of mounts are asked for: device, name, sum of all
# loops.  tell FILE
tell() {
	for n in $(numbered c "$CLIENTS"); do
		kill_ours USR1 "$(node_words "$n")"
	done
	{ net_admin show counters; sleep 0.5; cat "$W"/c?.log; } | awk '
		{ for (i = 1; i < NF; i++) if ($i ~ /^fsd_net_rdma_.*{.*device="/) v[$i] = $(i + 1) }
		END { for (h in v) {
			name = d = h
			sub(/{.*/, "", name); sub(/^fsd_net_rdma_/, "", name)
			sub(/.*device="/, "", d); sub(/".*/, "", d)
			s[d " " name] += v[h] }
		  for (k in s) print k, s[k] }' >"$1"
}
# All nodes that move data have told, and say 0
not_copied() {
	tell "$W/now"
	awk 'NR == FNR { if ($2 == "copied_bytes_total") v[$1] = $3; next }
		/^[sc]/ { print $1 ": copied", v[$2]; if (v[$2] != "0") bad = 1 }
		END { exit bad }' "$W/now" "$W/places"
}
# Storage nodes have moved so many bytes that way since $W/was: one_sided NAME BYTES
one_sided() {
	tell "$W/now"
	awk -v name="$1" -v want="$2" 'FNR == 1 { f++ }
		f < 3 { if ($2 == name) v[f, $1] = $3; next }
		/^s/ { n += v[2, $2] - v[1, $2] }
		END { print name ":", n + 0 ", wanted", want; exit n < want }' \
		"$W/was" "$W/now" "$W/places"
}
# Every connection has a queue pair beside its socket, and there is none without.
paired() {
	{ rdma resource show qp; ss -Htn state established; } | tee "$W/links" | awk '
		NR == FNR { node[$2 "/1"] = node[$3] = $1; order[++n] = $1; next }
		$1 == "link" { if (/ type RC /) qps[node[$2]]++; next }
		{ at = $3; sub(/:[0-9]*$/, "", at); tcp[node[at]]++ }
		END { for (i = 1; i <= n; i++) { k = order[i]
			print k ":", tcp[k] + 0, "connections,", qps[k] + 0, "queue pairs"
			if (tcp[k] == 0 || tcp[k] != qps[k]) bad = 1 }
		  exit bad }' "$W/places" - >"$W/paired"
}
# What devices hold; a device that comes back has another number.
holds() { rdma resource show | sed 's/^[0-9]*: //' | sort; }
# But for what goes with the number of connections.
fixed() { holds | sed 's/ qp [0-9]*//; s/ mr [0-9]*//'; }
as_before() { fixed >"$W/fixed.now"; diff "$W/fixed" "$W/fixed.now"; }
as_empty() { holds >"$W/holds.now"; diff "$W/holds" "$W/holds.now"; }

holds >"$W/holds"
cluster_up <<EOT
[log]
level = info
[storage]
targets_per_disk = 1
memory = 64MiB
[client]
memory = 64MiB
[net]
idle = 20s
[rdma]
spin_us = 0
EOT

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
head_and_manager() { kill_both "$head" "$ml"; }
tail_and_metadata() { kill_both "$tail" "$dl"; }
freeze() { node_kill STOP "$middle"; sleep "$HOLD"; node_kill CONT "$middle"; }
cable() { unplug "$head"; sleep "$HOLD"; plug "$head"; }
vanish() { lose "$tail"; sleep "$HOLD"; heal; }
find_for() {
	case $1 in head) ml=$(leading_manager) && [ -n "$ml" ] || return 1 ;; esac
	case $1 in tail) dl=$(leading_metadata) && [ -n "$dl" ] || return 1 ;; esac
	# shellcheck disable=SC2046
	set -- $(replicas)
	head=$1 middle=$2 tail=$3
	[ -n "$tail" ]
}
gone() {
	a=$(date +%s)
	remove "$middle"
	echo "-- removed after $(($(date +%s) - a)) s"
	sleep "$HOLD"
	add "$middle"
}
has_come() { [ "$(grep -c "RDMA device has come.*rxe$(device "$middle")$" "$W/$middle.log")" -gt "$come" ]; }

# shellcheck disable=SC2046
places $(numbered d "$METADATA") $(data_nodes)
check "all goes over queue pairs" until_true 30 paired
cat "$W/paired"
fixed >"$W/fixed"
began=$(date +%s)
for e in $EVENTS; do
	echo "-- $e, after $(($(date +%s) - began)) s"
	check "$e: who is who" until_true "$SETTLE" find_for "$e"
	case $e in
	head)	event "head and leading manager, kill -9" head_and_manager ;;
	tail)	event "tail and leading metadata node, kill -9" tail_and_metadata ;;
	freeze)	event "middle, stopped for $HOLD s" freeze ;;
	cable)	event "cable of the head out for $HOLD s" cable ;;
	vanish)	event "packets of the tail vanish for $HOLD s" vanish ;;
	gone)	come=$(grep -c "RDMA device has come" "$W/$middle.log")
		event "device of the middle, in use, gone for $HOLD s" gone
		check "gone: the device is used again" until_true 30 has_come ;;
	esac
	whole "$e"
done
echo "-- the end, after $(($(date +%s) - began)) s"
# Who had to stay on TCP tries again when it calls, and is closed when it does not.
check "all goes over queue pairs again" until_true 60 paired
cat "$W/paired"
[ "$failed" = 0 ] || cat "$W/links"
check "programs have gone on all the time" programs_live
stop_programs
check "devices hold what they held before" until_true 20 as_before
tell "$W/was"
dd if=/dev/urandom of="$W/data" bs=1M count=8 status=none
check "8 MiB are written" dd if="$W/data" of="$W/c1.mnt/data" bs=1M conv=fsync status=none
check "and are READ by three replicas" until_true 10 one_sided read_bytes_total $((3 * 8 * MIB))
check "another mount reads the same" cmp "$W/data" "$W/c2.mnt/data"
check "out of WRITEs" until_true 10 one_sided write_bytes_total $((8 * MIB))
check "nobody has ever copied a byte" not_copied

check "no bytes were wrong" not wrong_bytes
check "something was acknowledged" [ "$(cat "$W"/acked-* | wc -l)" -gt 100 ]
check "nothing that was acknowledged is lost" lost "$W/lost"
tail -n 2 "$W/lost"
# A device that goes is an error, but in the log only.
errors() { grep -hE ' error ' "$W"/*.log | grep -v "RDMA device is out of use"; }
check "nothing else was logged as an error" not errors
[ "$failed" = 0 ] || { tail -n 40 "$W"/[sdmc]?.log; cat "$W/lost" "$W"/oracle-c*; }
# All ends, and the devices are as if nothing had been.
for m in $(mounts); do
	check "unmount ${m##*/}" "$FSD" umount "$m"
done
kill_ours TERM ""
check "all processes end" until_true 20 none ""
check "and devices hold nothing" until_true 10 as_empty
done_here
