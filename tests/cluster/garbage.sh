#!/bin/sh
# Garbage on every port while fio verifies: fio does not notice, memory does not grow.
. "$(dirname "$0")/_lib.sh"
seconds=${SECONDS_OF_GARBAGE:-15} warm=${WARM:-2}	# s until fio uses all the memory it will
[ -z "$LONG" ] || seconds=60
check "fsd dev starts" dev a
pid=$(dev_pid a)
ports=$("$FSD" admin --config "$CONF" --json show nodes | grep -o '127.0.0.1:[0-9]*' |
    cut -d: -f2 | sort -u)
ports="$ports $(sed -n 's/^port *= *\([1-9][0-9]*\)$/\1/p' "$CONF" | sort -u)"
fio --name=g --directory="$W/a.mnt" --rw=randrw --bs=64k --size=32m --numjobs=2 --verify=crc32c \
    --verify_fatal=1 --time_based --runtime=$((seconds + warm)) --verify_state_save=0 --group_reporting \
    --minimal >"$W/fio" 2>&1 & fio=$!
sleep "$warm"
before=$(rss "$pid")
check "ports of five roles are known: $(echo $ports)" [ "$(echo $ports | wc -w)" -ge 5 ]
check "garbage was sent" "$HERE/garbage.py" "$seconds" $ports
check "fio did not notice" wait $fio
after=$(rss "$pid")
check "memory did not grow ($before -> $after KiB)" [ "$after" -le $(( before + 65536 )) ]
files_of() { ls "/proc/$pid/fd" | wc -l; }
few() { [ "$(files_of)" -le 200 ]; }
check "silent connections were closed ($(files_of) left)" until_true 30 few
# A wrong key gets a clear answer.
"$FSD" key "$W/other"
check "a wrong key is refused" sh -c "! timeout 30 '$FSD' admin --config '$CONF' --set \
    cluster.key_file='$W/other' show nodes"
check_verbs
check "the cluster is healthy" until_true 30 healthy
finish
