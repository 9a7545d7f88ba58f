#!/bin/sh
# Wrong use and wrong options: file, line and reason, exit status 2; keys and disks.
. "$(dirname "$0")/_lib.sh"
says() {	# STATUS PATTERN COMMAND...
	want=$1 pat=$2; shift 2
	timeout 20 "$@" >"$W/said" 2>&1
	rc=$?
	cat "$W/said"
	[ $rc = "$want" ] || { echo "status $rc, wanted $want"; return 1; }
	grep -qE -- "$pat" "$W/said"
}
"$FSD" key "$W/key"
conf() { printf '%s\n' "[cluster]" "key_file = $W/key" "$@" >"$W/c"; }
conf "name = x" "nmae = y"
check "unknown option" says 2 "$W/c:4.*nmae" "$FSD" --print-config --config "$W/c"
conf "[storag]"
check "unknown section" says 2 "$W/c:3.*storag" "$FSD" --role=manager --config "$W/c"
conf "replicas = many"
check "not a number" says 2 "$W/c:3.*replicas" "$FSD" mount --config "$W/c" "$W"
conf "replicas = 99"
check "out of range" says 2 "$W/c:3.*replicas" "$FSD" admin --config "$W/c" show nodes
conf "chunk_size = 1000000"
check "not a power of two" says 2 "chunk_size" "$FSD" --role=manager --config "$W/c"
check "no such file" says 2 "$W/none" "$FSD" --role=manager --config "$W/none"
conf
check "unknown role" says 2 "mangaer" "$FSD" --role=mangaer --config "$W/c"
check "wrong --set" says 2 "manager.prot" "$FSD" --role=manager --config "$W/c" --set manager.prot=1
check "storage without disks" says 2 "storage.disks" "$FSD" --role=storage --config "$W/c"
check "unknown command" says 2 "frobnicate" "$FSD" frobnicate
check "unknown option of the command line" says 2 "usage" "$FSD" --frobnicate
check "no arguments" says 2 "usage" "$FSD"
check "unknown mount option" says 2 "noatme" "$FSD" mount -o noatme --config "$W/c" "$W"
check "no key" says 2 "nokey" "$FSD" --role=manager --config "$W/c" --set cluster.key_file="$W/nokey"
cp "$W/key" "$W/key2"; chmod 644 "$W/key2"
check "a key that others can read" says 2 "key2" "$FSD" --role=manager --config "$W/c" \
    --set cluster.key_file="$W/key2"
check "key is private" sh -c "stat -c %a '$W/key' | grep -qx 600"
check "a key is never overwritten" says 1 "key" "$FSD" key "$W/key"
check "too small a disk" says 1 "64|67108864|too few" "$FSD" disk init --size 1MiB "$W/d1"
check "not a size" says 1 "not a size" "$FSD" disk init --size big "$W/d2"
check "a mount point that is not there" says 1 "nowhere" "$FSD" mount --config "$W/c" "$W/nowhere"
check "unmounting what is none" says 1 "no fsd file system" "$FSD" umount "$W"
check "help" says 0 "usage" "$FSD" help
for t in options proto admin errors; do
	check "help $t" says 0 "." "$FSD" help $t
done
check "version" says 0 "^fsd [0-9]" "$FSD" --version
check "printed options are options" sh -c "'$FSD' --print-config --config '$W/c' >'$W/p' &&
    '$FSD' --print-config --config '$W/p' | cmp - '$W/p'"
finish
