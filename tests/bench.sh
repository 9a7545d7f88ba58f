#!/bin/sh
# Measure a fresh development cluster: the client library and the mount, beside limits taken in
# the same run.  bench.sh BUILD
# Floors are judged in words; the exit status only says whether everything ran.
FSD=$PWD/${1:-build}/fsd
W=$(mktemp -d "${TMPDIR:-/var/tmp}/fsd-bench.XXXXXX") || exit 1
mkdir "$W/mnt"
pids= M=
finish() {
	"$FSD" umount "$W/mnt" 2>/dev/null || "$FSD" umount --lazy "$W/mnt" 2>/dev/null
	[ -z "$M" ] || "$FSD" umount "$M/mnt" 2>/dev/null
	[ -z "$pids" ] || kill $pids 2>/dev/null
	sleep 1
	rm -rf "$W" "$M"
}
trap finish EXIT
trap 'exit 130' INT TERM
ran() { "$@" || echo "$1 $2: status $?" >>"$W/failed"; }	# also in front of a pipe
verdict() { [ "$1" -le "$2" ] && echo ok || echo "above limit"; }
rss_mib() { awk '/VmRSS/ { print int($2 / 1024 + 0.999) }' "/proc/$1/status"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

start=$(date +%s%N)
"$FSD" dev --size 3GiB "$W/a" "$W/mnt" || exit 1
ms=$(( ($(date +%s%N) - start) / 1000000 ))
echo "start to usable mount: $ms ms  $(verdict $ms 2000)"
pid=$(pgrep -f "$FSD dev .*$W/a ")
sleep 1
before=$(ticks "$pid")
sleep 3
echo "idle processor time, all roles and the mount: $(( ($(ticks "$pid") - before) * 100 / \
    (3 * $(getconf CLK_TCK)) )) % of a core"
echo "idle memory, all roles and the mount: $(rss_mib "$pid") MiB"

# Each role in a process of its own, idle.
"$FSD" key "$W/key" && "$FSD" disk init --size 1GiB "$W/disk" || exit 1
base=$(( 20000 + $$ % 20000 ))
cat > "$W/fsd.conf" <<EOT
[cluster]
name = bench
key_file = $W/key
[manager]
addresses = 127.0.0.1:$base
port = $base
[metadata]
port = 0
[storage]
port = 0
EOT
for role in manager metadata storage; do
	set -- --role=$role --config "$W/fsd.conf" --set node.directory="$W/$role"
	[ $role != storage ] || set -- "$@" --set storage.disks="$W/disk"
	"$FSD" "$@" 2>"$W/$role.log" &
	pids="$pids $!"
done
sleep 2
for p in $pids; do
	role=$(tr '\0' '\n' <"/proc/$p/cmdline" | sed -n 's/^--role=//p')
	mib=$(rss_mib "$p") || { cat "$W"/*.log; exit 1; }
	echo "idle memory, $role alone: $mib MiB  $(verdict "$mib" 64)"
done
for p in $pids; do
	role=$(tr '\0' '\n' <"/proc/$p/cmdline" | sed -n 's/^--role=//p')
	start=$(date +%s%N)
	kill "$p"; wait "$p" 2>/dev/null
	ms=$(( ($(date +%s%N) - start) / 1000000 ))
	echo "SIGTERM to the end of $role: $ms ms  $(verdict $ms 500)"
done
pids=

ran "$FSD" bench --config "$W/a/fsd.conf" --raw "$W" | tee "$W/out"
for rw in write read; do
	mib=$(ran fio --name=f --directory="$W/mnt" --rw=$rw --bs=1m --size=512m --numjobs=2 --direct=1 \
	    --ioengine=libaio --iodepth=8 --group_reporting --output-format=terse |
	    awk -F';' -v f=$([ $rw = read ] && echo 7 || echo 48) '{ printf "%.1f", $f / 1024 }')
	awk -v fuse="$mib" -v rw=$rw '$1 == rw {
		printf "mount %-5s %8.1f MiB/s  %.2f of the client library\n", rw, fuse, fuse / $2 }' \
	    "$W/out"
done

# The network alone, and reads of what is in memory: there is no disk to wait for.
ran "$FSD" bench net 2>/dev/null
M=$(mktemp -d /dev/shm/fsd-bench.XXXXXX) || exit 1
mkdir "$M/mnt"
"$FSD" dev --size 256MiB "$M/a" "$M/mnt" >/dev/null || exit 1
pid=$(pgrep -f "$FSD dev .*$M/a ")
before=$(ticks "$pid")
ran "$FSD" bench --config "$M/a/fsd.conf" --time 5 cached 2>/dev/null | tee "$W/out"
awk -v t=$(( $(ticks "$pid") - before )) -v hz="$(getconf CLK_TCK)" '$1 == "cached" {
	printf "cached: all roles took %.3f CPU s/GiB, filling included\n", t / hz / ($2 * 5 / 1024) }' "$W/out"
"$FSD" umount "$M/mnt"
sleep 1
rm -rf "$M"
for b in "${1:-build}"/tests/bench_*; do
	case $b in *.[od]|*/bench_crowd) continue ;; esac	# that is for bench_incast.sh
	[ ! -x "$b" ] || ran "$b"
done
[ ! -e "$W/failed" ] || { cat "$W/failed"; exit 1; }
