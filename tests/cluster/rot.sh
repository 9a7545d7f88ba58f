#!/bin/sh
# Rows that rot on one of three metadata nodes, while a mount is used: fsd check names the node, it
# takes the table of the others, and programs notice nothing; also when nobody looks.
. "$(dirname "$0")/_lib.sh"
CONF=$W/fsd.conf
NET=127.$((1 + $$ % 250)).$((1 + $$ / 250 % 250))
"$FSD" key "$W/key"
cat >"$CONF" <<EOT
[cluster]
name = rot
key_file = $W/key
[manager]
addresses = $NET.1:7700, $NET.2:7700, $NET.3:7700
EOT
box() {	# N: 1 to 3 manager and metadata, 4 to 6 storage
	case $1 in
	[123]) set -- "$1" --role=manager,metadata ;;
	*) set -- "$1" --role=storage --set storage.disks="$W/disk$1" ;;
	esac
	n=$1; shift
	"$FSD" "$@" --config "$CONF" --set node.address="$NET.$n" --set node.name="b$n" \
	    --set node.directory="$W/b$n" 2>>"$W/b$n.log" &
	eval "pid$n=$!"
}
down() { eval "kill -KILL \$pid$1; wait \$pid$1" 2>/dev/null; }
members() { [ "$(admin show metadata | grep -cE 'leads|follows')" = 3 ]; }
whole() { healthy && members; }
fsck() { timeout 120 "$FSD" check --config "$CONF" "$@" >"$W/faults"; }
plant() {	# N WHAT...: while that box is down
	down "$1"
	"$HERE/plant.py" "$(find "$W/b$1" -path '*metadata*' -name table)" $2
	rc=$?
	box "$1"
	return $rc
}
found() {	# N: by a check, and then mended
	fsck
	[ $? = 1 ] && grep -q "metadata node .* (b$1-metadata) holds other rows" "$W/faults" &&
	    fsck --repair && grep -q "repair 1: done" "$W/faults" && fsck && return 0
	cat "$W/faults"
	return 1
}
clean() { fsck || { cat "$W/faults"; return 1; }; }
resumed() { "$HERE/probe.py" resumed "$W/probe" "$1"; }

for n in 4 5 6; do
	"$FSD" disk init --size "${SIZE:-512MiB}" "$W/disk$n" || exit 1
done
mkdir "$W/a.mnt"
for n in 1 2 3 4 5 6; do
	box $n
done
check "three boxes, three with storage: whole" until_true 30 whole
check "mount" "$FSD" mount --config "$CONF" --log "$W/a.log" "$W/a.mnt"
mkdir "$W/a.mnt/d" && touch "$W/a.mnt/d/f" "$W/a.mnt/d/g" && sync -f "$W/a.mnt"
"$HERE/probe.py" run "$W/a.mnt/probe" "$W/probe" "$W/names" 2>"$W/probe.err" & probe=$!
from=$(ms)
check "programs work" until_true 20 resumed "$from"
sleep 2
down 1
table=$(find "$W/b1" -path '*metadata*' -name table)
d=$("$HERE/plant.py" "$table" inode d) f=$("$HERE/plant.py" "$table" inode d/f)
box 1
check "whole" until_true 30 whole
n=0
for rot in "size $d 7" "rot $f" "lose-entry $d g"; do
	n=$((n + 1))
	check "box $n: $rot" plant $n "$rot"
	check "whole" until_true 30 whole
	check "is found, and healed" found $n
	check "whole" until_true 30 whole
done
check "box 2: rot 1" plant 2 "rot 1"
check "programs run into it" until_true 30 resumed "$(($(ms) + 1000))"
down 1; box 1
check "whoever leads" until_true 30 resumed "$(($(ms) + 1000))"
down 3; box 3
check "whole" until_true 60 whole
check "that, too, is mended" fsck --repair
check "then nothing is wrong" clean
check_verbs
check "programs have gone on" kill -0 $probe
kill $probe; wait $probe 2>/dev/null
check "no program saw an error" sh -c "'$HERE/probe.py' pause '$W/probe' $from | grep 'none$'"
check "names are there" "$HERE/probe.py" check "$W/a.mnt/probe" "$W/names"
finish
