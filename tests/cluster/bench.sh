#!/bin/bash
# SPDX-License-Identifier: MIT
# fsd bench net: both ends in one command, and each by itself; what is wrong is refused.  fsd bench:
# what it made is removed, also when there is no space for it, or it is told to end.
. "$(dirname "$0")/_lib.sh"

# Rows of the table that $W/rows has: rows OVER CASE
rows() { awk -v o="$1" -v c="$2" '$1 == o && $2 == c { n++ } END { print n + 0 }' "$W/rows"; }
status() { want=$1; shift; "$@" >"$W/rows" 2>&1; [ $? = "$want" ]; }

check "both ends here" status 0 "$FSD" bench net --time 1 tcp send read:65536:1
check "a bare echo and two kinds of sends" [ "$(rows bare send) $(rows tcp send)" = "1 2" ]
check "a bare stream and one of ours" [ "$(rows bare read) $(rows tcp read)" = "1 1" ]
check "nothing else" [ "$(rows bare write) $(rows tcp write) $(rows rdma send)" = "0 0 0" ]
check "bytes did move" awk '$2 == "read" && $5 <= 0 { exit 1 }' "$W/rows"
check "no such case" status 2 "$FSD" bench net --time 1 reed
check "no time" status 2 "$FSD" bench net --time 0
check "not an address" status 2 "$FSD" bench net serve --listen here

for k in a b; do
	"$FSD" key "$W/$k.key"
	printf '[cluster]\nkey_file = %s\n' "$W/$k.key" >"$W/$k.conf"
done
"$FSD" bench net serve --config "$W/a.conf" --listen 127.0.0.1:0 >"$W/serve" 2>"$W/serve.log" &
serve=$!
check "serves" until_true 20 grep -q 'serving at 127' "$W/serve"
addr=$(sed -n 's/.*serving at \([^;]*\);.*/\1/p' "$W/serve")
check "the other end" status 0 "$FSD" bench net --config "$W/a.conf" --time 1 "$addr" tcp write:65536:16
check "has its rows" [ "$(rows bare write) $(rows tcp write)" = "1 1" ]
check "again" status 0 "$FSD" bench net --config "$W/a.conf" --time 1 "$addr" tcp send:0:1
check "another key is refused" status 1 "$FSD" bench net --config "$W/b.conf" --time 1 "$addr" tcp send
kill $serve
check "ends when told to" wait $serve
check "then nobody answers" status 1 timeout 120 "$FSD" bench net --config "$W/a.conf" --time 1 "$addr" tcp send

# Without space for the files that are streamed.
bench() { timeout -s INT "${1:?}" "$FSD" bench --config "$CONF" --time "$2" "$3"; }
nothing_left() { ! ls "$W/a.mnt" | grep .; }
SIZE=512MiB dev a >"$W/start" 2>&1 || cat "$W/start"
check "measures" status 0 bench 100 1 create
check "and removes it" nothing_left
check "no space is an error" status 1 bench 100 1 write
check "which is told" grep -q "filling files: No space" "$W/rows"
check "and removes what there is" nothing_left
# Told once, or twice in a moment, as timeout(1) may do it.
told_to_end() {	# CASE PAUSE...
	"$FSD" bench --config "$CONF" --time 60 "$1" & p=$!
	shift
	for pause in "$@"; do
		sleep "$pause"
		kill -INT $p
	done
	wait $p
}
check "told to end amid create" status 1 told_to_end create 3
check "removes that, too" nothing_left
check "told to end amid stat, twice" status 1 told_to_end stat 3 0.05
check "removes that, too" nothing_left
check "told again after a second" status 1 told_to_end create 3 1.1
check "says what is left" grep -q "is left behind" "$W/rows"
finish
