# Shared by the cluster tests: a scratch place, clusters started and ended in it, checks that
# are counted.  Source it first.
FSD=${FSD:-$(cd "$(dirname "$0")/../.." && pwd)/${B:-build}/fsd}
HERE=$(cd "$(dirname "$0")" && pwd)
W=$(mktemp -d "${TMPDIR:-/var/tmp}/fsd-test.XXXXXX") || exit 1
passed=0 failed=0 pids=

# Wait for a condition, generously: until SECONDS COMMAND...
until_true() {
	deadline=$(( $(date +%s) + $1 )); shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt "$deadline" ] || return 1
		sleep 0.1
	done
}
# check WHAT COMMAND...: counts, shows the output of a failure
check() {
	what=$1; shift
	if "$@" >"$W/out" 2>&1; then
		passed=$((passed + 1)); echo "ok      $what"
	else
		failed=$((failed + 1)); echo "FAILED  $what"; tail -n 30 "$W/out"
	fi
}
mounted() { grep -q " $1 fuse.fsd " /proc/self/mounts; }
# Start a development cluster: dev NAME, mounted at $W/NAME.mnt
dev() {
	mkdir -p "$W/$1.mnt"
	"$FSD" dev --size "${SIZE:-2GiB}" "$W/$1" "$W/$1.mnt"
}
dev_pid() { pgrep -f "$FSD dev .*$W/$1 "; }
dev_gone() { ! dev_pid "$1"; }
all_gone() { ! pgrep -f "$FSD .*$W/"; }
admin() { "$FSD" admin --config "$CONF" "$@"; }
healthy() {	# all chains serve, there are some
	admin show chains >"$W/chains" 2>/dev/null && grep -q serving "$W/chains" &&
	    ! grep -q recovering "$W/chains"
}
finish() {
	for m in $(awk '$3 == "fuse.fsd" { print $2 }' /proc/self/mounts | grep "^$W/"); do
		"$FSD" umount "$m" || "$FSD" umount --lazy "$m"
	done
	pkill -TERM -f "$W/" ; until_true 10 all_gone ||
	    pkill -KILL -f "$FSD.*$W/"
	for m in $(awk '$3 == "fuse.fsd" { print $2 }' /proc/self/mounts | grep "^$W/"); do
		"$FSD" umount --lazy "$m"
	done
	if [ "$failed" = 0 ] || [ -n "$CI" ]; then rm -rf "$W"; else echo "kept: $W"; fi
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}
trap 'finish; exit $?' INT TERM
