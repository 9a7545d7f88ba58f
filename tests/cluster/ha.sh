#!/bin/sh
# The README's highly available cluster on one machine: three boxes with a manager and a metadata
# node each, four with storage, two mounts.  Started in several orders; then boxes are killed at
# random under load, also two of different kinds at once; boxes and disks that have lost what
# they had are taken back.  At the end the oracles of what was acknowledged, and fsd check.
# KILLS=n (default 8, LONG=1: 200)  SEED=n (default: another one each time)
. "$(dirname "$0")/_lib.sh"
kills=${KILLS:-${LONG:+200}} kills=${kills:-8}
SEED=${SEED:-$$} SIZE=${SIZE:-512MiB}
CONF=$W/fsd.conf
NET=127.$((1 + $$ % 250)).$((1 + $$ / 250 % 250))
programs=
"$FSD" key "$W/key"

conf() {	# MANAGERS: written as if all of them were there
	list=
	for i in $(seq 1 "$1"); do
		list=$list${list:+, }$NET.$i:7700
	done
	cat >"$CONF.new" <<-EOT
	[cluster]
	name = ha
	key_file = $W/key
	[manager]
	addresses = $list
	EOT
	mv "$CONF.new" "$CONF"
}
box() {	# N: 1 to 3 manager and metadata, 4 to 7 storage
	case $1 in
	[123]) set -- "$1" --role=manager,metadata ;;
	*) set -- "$1" --role=storage --set storage.disks="$W/disk$1" ;;
	esac
	n=$1; shift
	"$FSD" "$@" --config "$CONF" --set node.address="$NET.$n" --set node.name="b$n" \
	    --set node.directory="$W/b$n" 2>>"$W/b$n.log" &
	eval "pid$n=$!"
}
runs() { eval "kill -0 \$pid$1" 2>/dev/null; }
kill_boxes() {	# SIGNAL N...: all at once, and waits until they are gone
	sig=$1; shift
	for n in "$@"; do
		eval "kill -$sig \$pid$n"
	done
	for n in "$@"; do
		eval "wait \$pid$n" 2>/dev/null
	done
}
start() {	# ORDER
	for n in $1; do
		box "$n"
		sleep 0.2
	done
}
members() {	# WHAT N: so many take part
	[ "$(admin show "$1" | grep -cE 'leads|follows')" = "$2" ]
}
whole() { healthy && members metadata 3; }
leader() {	# of the managers: its box
	admin show managers | awk '/leads/ { split($1, a, /[.:]/); print a[4]; exit }'
}
usable() { touch "$W/$1.mnt/usable" && rm "$W/$1.mnt/usable"; }
mount_one() { "$FSD" mount --config "$CONF" --log "$W/$1.log" "$W/$1.mnt"; }
random() {	# N OF WHAT: 0 to N-1, the same for a seed
	echo "$SEED $2" | cksum | awk -v n="$1" '{ print $1 % n }'
}
# What is worked on the mounts: data with their checksums, names, both with notes of what was
# acknowledged.
load() {
	for m in a b; do
		mkdir "$W/$m.mnt/oracle-$m" "$W/$m.mnt/fio-$m"
		"$HERE/oracle.py" write "$W/$m.mnt/oracle-$m" "$W/acked-$m" "$SEED" \
		    0.01 >"$W/oracle-$m" 2>&1 &
		programs="$programs $!"
		"$HERE/probe.py" run "$W/$m.mnt/probe-$m" "$W/probe-$m" "$W/names-$m" \
		    2>"$W/probe-$m.err" &
		programs="$programs $!"
		fio --name=v --directory="$W/$m.mnt/fio-$m" --rw=randwrite --bs=64k --size=16m \
		    --verify=crc32c --verify_backlog=64 --verify_fatal=1 --fsync=32 \
		    --time_based --runtime=100000 --rate=2m --aux-path="$W" \
		    >"$W/fio-$m" 2>&1 &
		programs="$programs $!"
	done
}
loaded() {	# all programs go on
	for p in $programs; do
		kill -0 "$p" || return 1
	done
}
unload() {
	for p in $programs; do
		kill "$p" 2>/dev/null
	done
	for p in $programs; do
		wait "$p" 2>/dev/null
	done
	programs=
}
worked() {	# FROM: programs on both mounts have done all they do since then
	"$HERE/probe.py" resumed "$W/probe-a" "$1" && "$HERE/probe.py" resumed "$W/probe-b" "$1"
}
no_errors() {	# FROM: no program saw one
	for m in a b; do
		"$HERE/probe.py" pause "$W/probe-$m" "$1" | tee -a "$W/pauses"
	done >"$W/errors"
	cat "$W/errors" "$W"/oracle-?
	[ "$(grep -c 'none$' "$W/errors")" = 2 ] && ! grep -q ends "$W"/oracle-?
}
kept() {	# MOUNT OF: all that was acknowledged on OF is there on MOUNT
	"$HERE/oracle.py" check "$W/$1.mnt/oracle-$2" "$W/acked-$2" &&
	    "$HERE/probe.py" check "$W/$1.mnt/probe-$2" "$W/names-$2"
}
# Kill number I: one box, or one of each kind at once; down for nothing, a moment, or longer
# than its lease.  One in three is followed by the next while the cluster is still mending.
one_kill() {
	case $(random 10 "$1a") in
	[012]) set -- "$1" $((1 + $(random 3 "$1b"))) $((4 + $(random 4 "$1c"))) ;;
	*) set -- "$1" $((1 + $(random 7 "$1b"))) ;;
	esac
	i=$1; shift
	case $(random 12 "${i}d") in
	[012]) down=0 ;;
	3) down=5 ;;
	*) down=$(random 20 "${i}e" | awk '{ print $1 / 10 }') ;;
	esac
	echo "$(date -u +%T.%3N) kill $i: $*, down for $down s"
	for n in "$@"; do
		runs "$n" || { echo "box $n has ended by itself"; return 1; }
	done
	kill_boxes KILL "$@"
	sleep "$down"
	for n in "$@"; do
		box "$n"
	done
	back=$(ms)
	if [ "$(random 3 "${i}f")" = 0 ] && [ "$i" -lt "$kills" ]; then
		sleep "$(random 10 "${i}g" | awk '{ print $1 / 10 }')"
		return 0
	fi
	until_true 60 whole || { echo "not whole"; admin show chains; admin show metadata; return 1; }
	until_true 60 worked "$back" || { echo "programs hang"; return 1; }
}

for n in 4 5 6 7; do
	"$FSD" disk init --size "$SIZE" "$W/disk$n" || exit 1
done
mkdir "$W/a.mnt" "$W/b.mnt"

# From one manager to three, online.
conf 1
start "1 4 5 6 7"
check "one manager: chains serve" until_true 30 healthy
check "mount" mount_one a
conf 3
start "2 3"
for n in 2 3; do
	check "manager $n is added" until_true 10 admin manager add "$NET.$n:7700"
done
check "three managers" until_true 20 members managers 3
check "and three metadata nodes" until_true 20 members metadata 3
kill_boxes KILL 1
check "they go on without the first" usable a
box 1
check "unmount" "$FSD" umount "$W/a.mnt"
kill_boxes TERM 1 2 3 4 5 6 7
rm -rf "$W"/b? "$W"/b?.log "$W"/disk?
for n in 4 5 6 7; do
	"$FSD" disk init --size "$SIZE" "$W/disk$n" || exit 1
done

# Three from the beginning, started in several orders.
for order in "1 2 3 4 5 6 7" "7 3 5 2 6 1 4" "4 2 6 7 3 5 1"; do
	start "$order"
	check "started as $order: whole" until_true 30 whole
	check "three managers" until_true 20 members managers 3
	check "mount" mount_one a
	check "is usable" usable a
	[ "$order" = "4 2 6 7 3 5 1" ] && break
	check "unmount" "$FSD" umount "$W/a.mnt"
	kill_boxes TERM $order
done
check "nobody was said to have lost data" not grep -h "no data" "$W"/b?.log
check "mount again elsewhere" mount_one b

load
check "programs work" until_true 20 worked "$(ms)"
from=$(ms) k=0
while [ "$k" -lt "$kills" ]; do
	k=$((k + 1))
	one_kill "$k" >"$W/killed" 2>&1
	rc=$?
	cat "$W/killed" >>"$W/kills"
	[ $rc = 0 ] && continue
	check "after kill $k of seed $SEED: whole, and programs work" not cat "$W/killed"
	break
done
check "$k kills: programs have gone on all the time" loaded
check "no program saw an error" no_errors "$from"

# A box that has lost what it had comes back as somebody else.
b=$(leader)
kill_boxes KILL "$b"
rm -rf "$W/b$b/manager"
box "$b"
check "a manager that has lost its data says so" until_true 20 grep -q "no data, but" "$W/b$b.log"
check "without it files are usable" usable b
check "it is taken back" until_true 20 admin manager replace "$NET.$b:7700" "$NET.$b:7700"
check "three managers again" until_true 20 members managers 3
b=$((b % 3 + 1))
old=$(admin show metadata | awk -v n="b$b-metadata" '$2 == n { print $1 }')
kill_boxes KILL "$b"
rm -rf "$W/b$b/metadata"
box "$b"
new_node() {
	admin show nodes >"$W/nodes"
	new=$(awk -v n="b$b-metadata" -v o="$old" '$2 == n && $1 != o { print $1 }' \
	    "$W/nodes") && [ -n "$new" ]
}
check "a metadata node that has lost its data comes as another" until_true 20 new_node
check "it is taken back" admin metadata replace "$old" "$new"
check "three metadata nodes again" until_true 30 whole
old=$(admin show disks | awk '/disk4/ { print $1 }')
kill_boxes KILL 4
rm -rf "$W/disk4"; "$FSD" disk init --size "$SIZE" "$W/disk4"
box 4
new_disk() {
	admin show disks >"$W/disks"
	new=$(awk -v o="$old" '/disk4/ && $1 != o { print $1 }' "$W/disks") && [ -n "$new" ]
}
check "a disk that was lost comes as another" until_true 20 new_disk
check "it takes the place of the old one" admin disk replace "$old" "$new"
check "and gets all that was there" until_true 60 whole
check "programs work" until_true 20 worked "$(ms)"
check_verbs
check "they have gone on all the time" loaded
check "no program saw an error" no_errors "$from"

unload
check "no bytes were wrong" not grep -qE 'verify.*(bad|failed)|err= *[1-9]' "$W"/fio-?
check "all that was acknowledged on one mount is on the other" kept b a
check "and the other way round" kept a b
check "something was acknowledged" [ "$(cat "$W"/acked-? | wc -l)" -gt 100 ]
check "fsd check finds no fault" timeout 300 "$FSD" check --config "$CONF"
check "no process has broken" not grep -hE 'Assertion|role broke|cannot start' "$W"/b?.log
awk '{ if ($1 > w) w = $1 } END { print "longest pause:", w, "s" }' "$W/pauses"
finish
