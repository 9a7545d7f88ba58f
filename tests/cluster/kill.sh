#!/bin/sh
# kill -9 of every process at once in the middle of fsync'ed writes, again and again: all that
# fsync acknowledged is there, and the cluster is healthy.  ROUNDS=n
. "$(dirname "$0")/_lib.sh"
rounds=${ROUNDS:-5}
[ -z "$LONG" ] || rounds=20
: >"$W/acked"
for r in $(seq 1 "$rounds"); do
	dev a >"$W/start" 2>&1 || { check "round $r: starts" not cat "$W/start"; break; }
	pid=$(dev_pid a)
	"$HERE/oracle.py" check "$W/a.mnt" "$W/acked" >"$W/checked" 2>&1
	rc=$?
	check "round $r: all that was acknowledged is there" sh -c "cat '$W/checked'; exit $rc"
	check "round $r: healthy" until_true 10 healthy
	"$HERE/oracle.py" write "$W/a.mnt" "$W/acked" "$r" >"$W/wrote" 2>&1 & writer=$!
	check "round $r: something is acknowledged" amid "$W/acked" "$r"
	kill -KILL "$pid"
	until_true 10 dev_gone a
	wait "$writer" 2>/dev/null
	"$FSD" umount --lazy "$W/a.mnt"
done
dev a >"$W/start" 2>&1
check "after all: everything is there" "$HERE/oracle.py" check "$W/a.mnt" "$W/acked"
check "after all: nothing was damaged" not grep -E ' error ' "$W/a/log"
finish
