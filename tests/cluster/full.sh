#!/bin/sh
# A small cluster runs full: the writer is told, removing frees the space, nothing else is hurt.
# ROUNDS=n
. "$(dirname "$0")/_lib.sh"
SIZE=${SIZE:-256MiB}
m=$W/a.mnt
check "starts" dev a
check "chains serve" until_true 30 healthy
echo before >"$m/before"
told() { ! "$@" >"$W/said" 2>&1 && grep -q 'No space left' "$W/said"; }
free_mib() { df -m --output=avail "$m" | tail -1; }
start=$(free_mib)
for r in $(seq "${ROUNDS:-3}"); do
	check "round $r: a buffered writer is told" told timeout 100 sh -c "dd if=/dev/urandom \
	    of='$m/big' bs=1M count=600 conv=fsync"
	check "round $r: a direct writer is told" told timeout 100 dd if=/dev/urandom \
	    of="$m/big2" bs=1M count=600 oflag=direct
	check "round $r: a writer of small files is told" told timeout 100 sh -c "for i in \$(seq 9000)
	    do head -c 65536 /dev/zero >'$m/s'\$i || { rm -f '$m/s'*; exit 1; }; done"
	full() { [ "$(free_mib)" -le 32 ]; }
	check "round $r: df shows it" until_true 30 full
	check "round $r: names can still be made" mkdir "$m/d$r"
	check "round $r: what was there is there" grep -qx before "$m/before"
	check "round $r: removing works" rm -f "$m/big" "$m/big2"
	# Chunks are collected behind the removal; nodes say twice a second what is free.
	check "round $r: the space can be written again" until_true 30 dd if=/dev/zero \
	    of="$m/again" bs=1M count=$((start * 3 / 5)) conv=fsync
	rm "$m/again"
	freed() { [ "$(free_mib)" -ge $((start - 8)) ]; }
	check "round $r: and is shown as free" until_true 30 freed
done
check_verbs
check "the cluster is healthy" until_true 30 healthy
finish
