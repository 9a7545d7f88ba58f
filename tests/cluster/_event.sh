# A cluster with a network of its own (_net.sh) under constant load on all mounts, and things
# that happen to it.  Source _lib.sh and _net.sh first, then this.
#
#   LOADED			mounts that programs work on, of CLIENTS
#   cluster_up			the cluster, its mounts and the programs; options from stdin
#   done_here			ends the script
#   event WHAT FUNCTION		checks what programs notice while the function does it; at most PAUSE s
#   whole WHAT			checks that all chains are, in time
#   work_on FROM [S]		status 0: all programs have done all they do since then (ms); waits
#				for that until S seconds after it
#   pause_between FROM TO	sets worst, kinds, errors: of the mount that waited longest
#   lost FILE			status 0: nothing acknowledged is, by the other mount
#   leading_manager, leading_metadata, replicas	who is it now
#   find_all			sets ml dl head middle tail, mf and df: followers
SETTLE=${SETTLE:-60}		# s until a thing has to be whole again
PAUSE=${PAUSE:-$SETTLE}	# as generous: promises are measured by bench_failover.sh
LOADED=${LOADED:-$CLIENTS}
probes= writers= fios=

stop_programs() {
	for p in $probes $writers $fios; do
		kill "$p" 2>/dev/null
	done
	for p in $probes $writers $fios; do
		wait "$p" 2>/dev/null
	done
	probes= writers= fios=
}
done_here() {
	stop_programs
	heal 2>/dev/null
	finish
	rc=$?
	net_down
	exit $rc
}
cluster_up() {
	trap 'done_here' INT TERM
	if ! net_up 2>"$W/net"; then
		net_down
		echo "skipped: no network namespaces here ($(head -1 "$W/net"))"
		rm -rf "$W"
		exit 0
	fi
	net_conf || { check "configure" false; done_here; }
	for n in $(servers); do
		node_start "$n"
	done
	check "chains serve" until_true 30 net_healthy
	for n in $(numbered c "$CLIENTS"); do
		check "mount $n" node_start "$n"
	done
	[ "$failed" = 0 ] || done_here
	for n in $(numbered c "$LOADED"); do
		: >"$W/probe-$n"	# looked at before it has begun
		"$HERE/probe.py" run "$W/$n.mnt/probe-$n" "$W/probe-$n" "$W/names-$n" \
		    2>"$W/probe-$n.err" &
		probes="$probes $!"
		mkdir -p "$W/$n.mnt/oracle-$n" "$W/$n.mnt/fio-$n"
		"$HERE/oracle.py" write "$W/$n.mnt/oracle-$n" "$W/acked-$n" 1 "${OPAUSE:-0}" \
		    >"$W/oracle-$n" 2>&1 &
		writers="$writers $!"
		fio --name=v --directory="$W/$n.mnt/fio-$n" --rw=randwrite --bs=64k --size=16m \
		    --verify=crc32c --verify_backlog=64 --verify_fatal=1 --fsync=32 \
		    --time_based --runtime=100000 --rate="${RATE:-2m}" --aux-path="$W" \
		    >"$W/fio-$n" 2>&1 &
		fios="$fios $!"
	done
}
work_on() {
	for c in $(numbered c "$LOADED"); do
		"$HERE/probe.py" resumed "$W/probe-$c" "$1" "${2:-0}" || return 1
	done
}
programs_live() {
	for p in $probes $writers $fios; do
		kill -0 "$p" 2>/dev/null || return 1
	done
}
pause_between() {
	worst=0 kinds=- errors=none
	for c in $(numbered c "$LOADED"); do
		# shellcheck disable=SC2046
		set -- "$1" "$2" $("$HERE/probe.py" pause "$W/probe-$c" "$1" "$2")
		if [ "$(echo "$3 $worst" | awk '{ print ($1 >= $2) }')" = 1 ]; then
			worst=$3 kinds=$4
		fi
		[ "$5" = none ] || errors=$5
	done
}
other() { echo c$(( ${1#c} % CLIENTS + 1 )); }	# mount
lost() {
	n=0
	for c in $(numbered c "$LOADED"); do
		"$HERE/probe.py" check "$W/$(other "$c").mnt/probe-$c" "$W/names-$c" || n=1
		[ -n "$probes" ] || "$HERE/oracle.py" check "$W/$(other "$c").mnt/oracle-$c" \
		    "$W/acked-$c" || n=1
	done >"$1" 2>&1
	[ "$n" = 0 ]
}
wrong_bytes() { grep -qE 'verify.*(bad|failed)|err= *[1-9]' "$W"/fio-c?; }
event() {
	check "$1: before it, all works" work_on "$(ms)" "$SETTLE"
	t0=$(ms)
	"$2"
	work_on "$(ms)" "$SETTLE"
	rc=$? t1=$(ms)
	pause_between "$t0" "$t1"
	check "$1: all works again, $(((t1 - t0) / 1000)) s after it began" [ $rc = 0 ]
	check "$1: a pause of $worst s ($kinds)" \
	    [ "$(echo "$worst $PAUSE" | awk '{ print ($1 <= $2) }')" = 1 ]
	check "$1: no program saw an error" [ "$errors" = none ]
}
whole() { check "$1: all chains are whole again" until_true "$SETTLE" net_healthy; }

# ---- who is who now ----
leading_manager() {
	at=$(net_admin show managers | awk '/leads/ { sub(/:.*/, "", $1); print $1; exit }')
	for n in $(numbered m "$MANAGERS"); do
		[ "$(address "$n")" != "$at" ] || echo "$n"
	done
}
leading_metadata() {
	net_admin show metadata | awk '/leads/ { sub(/-metadata/, "", $2); print $2; exit }'
}
replicas() {	# of chain 1, head first
	for what in targets nodes chains; do
		net_admin show $what
	done | awk '
		$1 ~ /^(target|node|chain)$/ { table = $1; next }
		table == "target" { on[$1] = $4 }
		table == "node" { name[$1] = $2 }
		table == "chain" && $1 == 1 {
			for (i = 4; i <= NF; i++) { split($i, a, "="); print name[on[a[1]]] }
		}'
}
# One that is not: another PREFIX THAN NUMBER-OF-THEM
another() {
	for o in $(numbered "$1" "$3"); do
		[ "$o" = "$2" ] || { echo "$o"; return; }
	done
}
find_all() {
	ml=$(leading_manager) dl=$(leading_metadata)
	# shellcheck disable=SC2046
	set -- $(replicas)
	head=$1 middle=$2 tail=$3
	mf=$(another m "$ml" 3) df=$(another d "$dl" 3)
	for n in "$ml" "$dl" "$head" "$middle" "$tail" "$mf" "$df"; do
		[ -n "$n" ] || return 1
	done
}
