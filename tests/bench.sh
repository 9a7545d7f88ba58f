#!/bin/sh
# Measure a fresh development cluster: the client library and the mount, beside limits taken in
# the same run.  bench.sh BUILD
FSD=$PWD/${1:-build}/fsd
W=$(mktemp -d "${TMPDIR:-/var/tmp}/fsd-bench.XXXXXX") || exit 1
mkdir "$W/mnt"
trap '"$FSD" umount "$W/mnt" 2>/dev/null || "$FSD" umount --lazy "$W/mnt" 2>/dev/null; sleep 1; rm -rf "$W"' EXIT
start=$(date +%s%N)
"$FSD" dev --size 6GiB "$W/a" "$W/mnt" || exit 1
echo "start to usable mount: $(( ($(date +%s%N) - start) / 1000000 )) ms"
pid=$(pgrep -f "$FSD dev .*$W/a ")
sleep 1
echo "idle memory, all five roles and the mount: $(( $(awk '/VmRSS/ { print $2 }' /proc/$pid/status) / 1024 )) MiB"
"$FSD" bench --config "$W/a/fsd.conf" --raw "$W" | tee "$W/out"
for rw in write read; do
	mib=$(fio --name=f --directory="$W/mnt" --rw=$rw --bs=1m --size=512m --numjobs=2 --direct=1 \
	    --ioengine=libaio --iodepth=8 --group_reporting --output-format=terse |
	    awk -F';' -v f=$([ $rw = read ] && echo 7 || echo 48) '{ printf "%.1f", $f / 1024 }')
	awk -v fuse="$mib" -v rw=$rw '$1 == rw { printf "mount %-5s %9.1f MiB/s  %.2f of the client library\n",
	    rw, fuse, fuse / $2 }' "$W/out"
done
for b in "${1:-build}"/tests/bench_*; do
	case $b in *.[od]) ;; *) [ -x "$b" ] && "$b" ;; esac
done
