#!/bin/sh
# What programs notice when a part of the cluster fails: 3 managers, 3 metadata nodes, 4 storage
# nodes and 2 mounts, each on a network of its own, under constant load.  One row for each
# thing that happens, which the cluster is left with for a while (hold): the longest time that
# programs of one mount stood still from then on, and again when it is over (back); errors that
# they saw; whether anything acknowledged was lost, looked up on the other mount; the limit and
# the verdict.  One chain, so that a storage node is its head, its middle or its tail.
# ROWS="kill freeze stop cut off power" picks kinds of rows, LIMIT= and CLEAN= are in seconds.
cluster=$(cd "$(dirname "$0")/cluster" && pwd) || exit 1
case ${B:=build} in /*) ;; *) B=$cluster/../../$B ;; esac
. "$cluster/_lib.sh"
HERE=$cluster
. "$HERE/_net.sh"
. "$HERE/_event.sh"
ROWS=${ROWS:-kill freeze stop cut off power}
LIMIT=${LIMIT:-5} CLEAN=${CLEAN:-0.5}
FREEZE=${FREEZE:-30}		# s of SIGSTOP
HOLD=${HOLD:-7}			# s of all else: longer than any lease
OPAUSE=0.01
rows=0 over=0

cluster_up <<EOT
[log]
level = info
[storage]
targets_per_disk = 1
EOT

# ---- a row ----
all_there() {	# whole, everybody leads or follows, and the order of the chain is the usual one
	net_healthy && find_all &&
	    [ "$(net_admin show metadata | grep -cE 'leads|follows')" = "$METADATA" ]
}

le() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }
ended() {	# WHAT LIMIT: the row, from pause, gaps, back, wrong and gone
	rows=$((rows + 1)) verdict=ok
	le "$pause" "$2" && le "$back" "$LIMIT" || verdict="over the limit"
	[ "$wrong" = none ] || verdict="errors"
	[ "$gone" = none ] || verdict="LOST"
	[ "$verdict" = ok ] || over=$((over + 1))
	printf '%-37s %7s %7s  %-37s %-8s %-5s %5s  %s\n' "$1" "$pause" "$back" "$gaps" \
	    "$wrong" "$gone" "$2" "$verdict"
}
# WHAT, the most that it may take, for how long it stays, how it is done and undone
row() {	# WHAT LIMIT HOLD DO UNDO
	what=$1 limit=$2 hold=$3 do=$4 undo=$5
	until_true "$SETTLE" all_there || { echo "$what: not whole before it"; over=$((over + 1)); return; }
	until_true "$SETTLE" work_on "$(ms)" || { echo "$what: no work before it"; over=$((over + 1)); return; }
	t0=$(ms)
	$do
	until_true $((hold + 4)) work_on "$(ms)"
	left=$(( t0 + hold * 1000 - $(ms) ))
	[ $left -le 0 ] || sleep "$(awk -v l=$left 'BEGIN { print l / 1000 }')"
	t1=$(ms) back=0 later=none
	if [ "$undo" != : ]; then
		$undo
		until_true "$SETTLE" net_healthy
		until_true "$SETTLE" work_on "$(ms)"
		pause_between "$t1" "$(ms)"
		back=$worst later=$errors
	fi
	# Only now: what had not gone on by then counts to its end.
	pause_between "$t0" "$t1"
	pause=$worst gaps=$kinds wrong=$errors
	[ "$wrong" != none ] || wrong=$later
	gone=none
	lost "$W/lost" || gone=$(grep -cE '^(lost|came back|wrong)' "$W/lost")
	ended "$what" "$limit"
	[ "$gone" = none ] || grep -E '^(lost|came back|wrong)' "$W/lost" | head -5
}
find_box() {	# KIND: sets box
	find_all
	case $1 in
	"manager leader") box=$ml ;;
	"metadata leader") box=$dl ;;
	"head storage") box=$head ;;
	"middle storage") box=$middle ;;
	"tail storage") box=$tail ;;
	esac
}
BOXES="manager leader,metadata leader,head storage,middle storage,tail storage"
each() {	# FUNCTION: of every box in BOXES
	old=$IFS IFS=,
	# shellcheck disable=SC2086
	set -- "$1" $BOXES
	IFS=$old
	with=$1; shift
	for kind in "$@"; do
		"$with" "$kind"
	done
}
do_kill() { find_box "$kind"; t0=$(ms); node_kill KILL "$box"; }
do_stop() { find_box "$kind"; t0=$(ms); node_kill TERM "$box"; }
do_freeze() { find_box "$kind"; t0=$(ms); node_kill STOP "$box"; }
do_off() { find_box "$kind"; t0=$(ms); isolate "$box"; }
do_client_off() {
	t0=$(ms)
	isolate c2
	sleep "$HOLD"
	heal
	until_true "$SETTLE" work_on "$(ms)"
}
undo_start() { node_start "$box"; }
undo_thaw() { node_kill CONT "$box"; }
do_cut() {
	find_all
	for pair in "client c1" "manager $ml" "metadata $dl" "head $head" "middle $middle" \
	    "tail $tail" "manager2 $mf" "metadata2 $df"; do
		[ "${pair% *}" = "$from" ] && a=${pair#* }
		[ "${pair% *}" = "$to" ] && b=${pair#* }
	done
	t0=$(ms)
	cut "$a" "$b"
}
do_power() {
	power_cut
	for n in $(servers); do
		node_start "$n"
	done
	until_true "$SETTLE" work_on "$(ms)"
}
kill_row() { row "$1, kill -9" "$LIMIT" "$HOLD" do_kill undo_start; }
freeze_row() { row "$1, SIGSTOP for $FREEZE s" "$LIMIT" "$FREEZE" do_freeze undo_thaw; }
stop_row() { row "$1, clean stop" "$CLEAN" "$HOLD" do_stop undo_start; }
off_row() { row "$1, cut from all" "$LIMIT" "$HOLD" do_off heal; }
cut_row() {	# FROM TO WHAT
	from=$1 to=$2
	row "$3, cut" "$LIMIT" "$HOLD" do_cut heal
}

printf '%-37s %7s %7s  %-37s %-8s %-5s %5s  %s\n' "what happens" "pause s" "back s" \
    "by kind of work, worst mount" errors lost limit verdict
for r in $ROWS; do
	case $r in
	kill)	each kill_row ;;
	freeze)	each freeze_row ;;
	stop)	each stop_row ;;
	cut)	cut_row client head "client and head storage"
		cut_row client middle "client and middle storage"
		cut_row client tail "client and tail storage"
		cut_row client metadata "client and metadata leader"
		cut_row client metadata2 "client and metadata follower"
		cut_row client manager "client and manager leader"
		cut_row head middle "head and middle storage"
		cut_row middle tail "middle and tail storage"
		cut_row head manager "head and manager leader"
		cut_row tail manager "tail and manager leader"
		cut_row head metadata "head and metadata leader"
		cut_row metadata metadata2 "metadata leader and follower"
		cut_row metadata manager "metadata and manager leader"
		cut_row manager manager2 "manager leader and follower" ;;
	off)	each off_row
		row "client, cut from all for $HOLD s" $((HOLD + LIMIT)) 0 do_client_off : ;;
	power)	row "all servers, power cut" "$LIMIT" 0 do_power : ;;
	*)	echo "no such rows: $r"; done_here ;;
	esac
done
check "programs have gone on all the time" programs_live
stop_programs
check "no bytes were wrong" not wrong_bytes
check "something was acknowledged" [ "$(cat "$W"/acked-* | wc -l)" -gt 100 ]
check "nothing that was acknowledged is lost" lost "$W/lost"
check "fsd check finds no fault" in_net c1 timeout 300 "$FSD" check --config "$CONF"
echo "$rows rows, $over of them not ok"
[ "$over" = 0 ] || failed=$((failed + 1))
done_here
