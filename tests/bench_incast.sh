#!/bin/sh
# Storage nodes answer one client through a port that holds little, with and without the
# client's window; then many clients read from one storage node.  Real processes and TCP, each
# node in a network of its own; the port is a token bucket on the switch, in front of the client.
#	STORAGES=16 RATE=1gbit PORT=4mb WINDOW=4MiB SECONDS_=6 DEPTH=128
#	CLIENTS_N=64 MANY_SECONDS=15	long enough that chance is not seen: rounds of one second
#	CC=		congestion control, when not what this host has; EACH=1 ONLY_MANY=1
# What has to hold is checked: nothing is lost with the window, all nodes and all clients have
# the same within 20 %, no node takes more memory than its options allow.
DIR=$(cd "$(dirname "$0")" && pwd)
cd "$DIR/.." || exit 1
B=$(realpath "${B:-build}")
MANAGERS=1 METADATA=1 STORAGES=${STORAGES:-16} CLIENTS=1 SIZE=256MiB TMPDIR=${TMPDIR:-/dev/shm}
RATE=${RATE:-1gbit} PORT=${PORT:-4mb} WINDOW=${WINDOW:-4MiB} SECONDS_=${SECONDS_:-6} MANY_SECONDS=${MANY_SECONDS:-15}
DEPTH=${DEPTH:-128} CLIENTS_N=${CLIENTS_N:-64}
. "$DIR/cluster/_lib.sh"
. "$DIR/cluster/_net.sh"
CROWD=$B/tests/bench_crowd

end() {
	finish
	rc=$?
	net_down
	exit $rc
}
trap 'end' INT TERM
up() {	# OPTIONS on stdin
	if ! net_up 2>"$W/net"; then
		net_down
		echo "skipped: no network namespaces here ($(head -1 "$W/net"))"
		rm -rf "$W"
		exit 0
	fi
	net_conf || end
	if [ -n "$CC" ]; then
		for n in $(servers) c1; do
			in_net "$n" sysctl -qw "net.ipv4.tcp_congestion_control=$CC" || end
		done
	fi
	for n in $(servers); do
		node_start "$n"
	done
	was=$failed
	check "chains of $STORAGES nodes serve" until_true 60 net_healthy
	[ "$failed" = "$was" ] || end
}
down() {
	for n in $(servers); do
		node_kill TERM "$n"
	done
	net_down
	rm -rf "$W"/disk-* "$W"/s[0-9]* "$W"/m1 "$W"/d1 "$W"/key
}
port() {	# of the switch to the client: drops so far
	in_net sw tc -s qdisc show dev pc1 | sed -n 's/.*dropped \([0-9]*\),.*/\1/p' | head -1
}
sent() {	# by each storage node so far, bytes
	for n in $(numbered s "$STORAGES"); do
		in_net "$n" sed -n "s/^ *e$n:\(.*\)/\1/p" /proc/net/dev | awk '{ print $9 }'
	done
}
# Segments that were sent again, and why: of all storage nodes so far, NAME=NUMBER a line.
# Needless are those that the client says it had already (RFC 2883).  What lets them be sent:
# probes (RFC 8985), when no word has come for two round trips, as when a queue in front of the
# client fills, and packets that overtake others, for more than one processor handles them.
# What this host itself has lost between the networks is no packet of the port.
tcp() {
	for n in $(numbered s "$STORAGES"); do
		in_net "$n" nstat -asz 2>/dev/null
	done | awk '
		{ n[$1] += $2 }
		END { print "resent=" n["TcpRetransSegs"] + 0
		    print "probes=" n["TcpExtTCPLossProbes"] + 0
		    print "needless=" n["TcpExtTCPDSACKRecvSegs"] + 0
		    print "overtaken=" n["TcpExtTCPSACKReorder"] + n["TcpExtTCPTSReorder"] + 0
		    print "timeouts=" n["TcpExtTCPTimeouts"] + 0 }'
	lost=0
	while read -r _ n _; do
		lost=$((lost + 0x$n))
	done </proc/net/softnet_stat
	echo "lost_here=$lost"
}
since() {	# FILE: what tcp said then; prints what has come since
	tcp | paste -d= "$1" - | awk -F= '{ printf("%s%s=%d", (NR > 1 ? " " : ""), $1, $4 - $2) }'
}
crowd() {	# OUT CLIENTS DEPTH CHAINS OPTION...
	out=$1 n=$2 d=$3 chains=$4; shift 4
	in_net c1 timeout 120 "$CROWD" "$CONF" "$(address m1):7000" "$n" "$d" "$SECONDS_" \
	    "$chains" "$@" >"$out" 2>"$out.err" || { cat "$out.err"; return 1; }
}
value() {	# NAME FILE
	sed -n "s/.*$1=\([0-9.]*\).*/\1/p" "$2"
}
at_most() { [ "$(value "$1" "$3")" -le "$2" ] || { cat "$3"; return 1; }; }
run() {		# WINDOW
	d0=$(port)
	tcp >"$W/tcp.0"
	sent >"$W/sent.0"
	crowd "$W/got.$1" 1 "$DEPTH" "$STORAGES" "net.receive_window=$1" || return 1
	echo "dropped=$(($(port) - d0)) $(since "$W/tcp.0")" \
	    "$(sent | paste "$W/sent.0" - | awk '{ n[NR] = $2 - $1; s += n[NR] }
	    END { for (i in n) { d = n[i] * NR / s - 1; if (d < 0) d = -d; if (d > f) f = d }
	    printf "nodes_off=%.0f%%", f * 100 }')" >>"$W/got.$1"
	tr '\n' ' ' <"$W/got.$1" | sed 's/$/\n/' >"$W/line"
	mv "$W/line" "$W/got.$1"
	printf '%-8s ' "$1"; cat "$W/got.$1"
}
memory() {	# MAX KiB: no storage node ever had more
	pids=$(ours "node.name=s")
	[ -n "$pids" ] || return 1
	for p in $pids; do
		kb=$(awk '/^VmHWM/ { print $2 }' "/proc/$p/status")
		[ "$kb" -le "$1" ] || { echo "$p: $kb KiB"; return 1; }
		echo "$kb" >>"$W/hwm"
	done
}
# One chain a node, so that chains are nodes.  No hedges: a client that has its own port full would only ask twice.
options() {
	cat <<-EOT
	[cluster]
	replicas = 1
	stripe = $1
	[storage]
	memory = $2
	targets_per_disk = 1
	[client]
	memory = 512MiB
	call = 60s
	hedge = 0
	EOT
}

if [ -z "$ONLY_MANY" ]; then
echo "$STORAGES storage nodes, one client with $DEPTH reads of 1 MiB in flight, $RATE, port of $PORT:"
options "$STORAGES" 64MiB >"$W/options"
up <"$W/options"
in_net sw tc qdisc add dev pc1 root tbf rate "$RATE" burst 64kb limit "$PORT" ||
    { echo "skipped: no token bucket here"; end; }
check "without a window" run 0
cat "$W/out"
check "with a window of $WINDOW" run "$WINDOW"
cat "$W/out"
check "nothing is lost with it" at_most dropped 0 "$W/got.$WINDOW"
check "no read fails" at_most failed 0 "$W/got.$WINDOW"
check "all nodes send as much, within 20 %" at_most nodes_off 20 "$W/got.$WINDOW"
check "memory of storage nodes is bounded" memory $((64 * 1024 + 48 * 1024))
down
fi

STORAGES=1
echo "$CLIENTS_N clients with 16 reads of 1 MiB in flight each, one storage node with 256 MiB:"
options 1 256MiB >"$W/options"
up <"$W/options"
: >"$W/hwm"
tcp >"$W/tcp.0"
SECONDS_=$MANY_SECONDS
check "read" crowd "$W/many" "$CLIENTS_N" 16 1
echo "$(since "$W/tcp.0")" >>"$W/many"
cat "$W/many"; [ -z "$EACH" ] || paste -sd" " "$W/many.err"
net_admin show counters >"$W/counters" 2>/dev/null
sed -n "s/^fsd_net_server_\(busy_total\|parked\){role=\"s1\"}/storage node: \1/p" "$W/counters"
check "no read fails" at_most failed 0 "$W/many"
check "all clients get as much, within 20 %" at_most clients_off 20 "$W/many"
check "memory of the storage node is bounded" memory $((256 * 1024 + 64 * 1024))
echo "storage node: $(tail -1 "$W/hwm") KiB at most"
end
