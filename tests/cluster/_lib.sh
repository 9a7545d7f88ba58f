# Shared by the cluster tests: a scratch place, clusters started and ended in it, checks that
# are counted.  Source it first.  TMPDIR says where, LONG=1 runs the full sizes.
HERE=$(cd "$(dirname "$0")" && pwd)
case ${B:=build} in /*) ;; *) B=$HERE/../../$B ;; esac
FSD=$(realpath "${FSD:-$B/fsd}") || exit 1
W=$(mktemp -d "${TMPDIR:-/var/tmp}/fsd-test.XXXXXX") || exit 1
CONF=$W/a/fsd.conf
LONG=${LONG:-}
chmod 755 "$W"	# other users pass through it to the mounts
passed=0 failed=0

# Wait for a condition, generously: until_true SECONDS COMMAND...
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
	t0=$(date +%s)
	if "$@" >"$W/out" 2>&1; then
		passed=$((passed + 1)); echo "ok      $what ($(( $(date +%s) - t0 )) s)"
	else
		failed=$((failed + 1)); echo "FAILED  $what"; tail -n 30 "$W/out"
	fi
}
# Checks of a script of its own are counted here: sub WHAT SECONDS COMMAND...
sub() {
	what=$1 most=$2; shift 2
	timeout -k 5 "$most" "$@" >"$W/sub" 2>&1
	rc=$?
	grep -E '^(ok|FAILED)' "$W/sub"
	ok=$(grep -c '^ok' "$W/sub") f=$(grep -c '^FAILED' "$W/sub")
	passed=$((passed + ok)) failed=$((failed + f))
	if [ $rc != 0 ] || [ "$ok" = 0 ]; then
		[ "$f" != 0 ] || { failed=$((failed + 1)); echo "FAILED  $what: status $rc, $ok checks ok"; }
		tail -n 40 "$W/sub"
	fi
}
not() { ! "$@"; }
ms() { date +%s%3N; }
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
mounted() { grep -q " $1 fuse.fsd " /proc/self/mounts; }
# Start a development cluster: dev NAME [OPTION...], mounted at $W/NAME.mnt
dev() {
	name=$1; shift
	mkdir -p "$W/$name.mnt"
	"$FSD" dev --size "${SIZE:-512MiB}" "$@" "$W/$name" "$W/$name.mnt"
}
# Processes of ours, of which the words have PATTERN: the scratch place is in all of them.
ours() { pgrep -f "^$FSD .*$W/.*$1"; }
dev_pid() { pgrep -f "^$FSD dev .*$W/$1 "; }
none() { ! ours "$1"; }
dev_gone() { ! dev_pid "$1"; }
kill_ours() { p=$(ours "$2") && kill "-$1" $p 2>/dev/null; }
mounts() { awk '$3 == "fuse.fsd" { print $2 }' /proc/self/mounts | grep "^$W/"; }
admin() { timeout 30 "$FSD" admin --config "$CONF" "$@"; }
all_serve() {	# of the chains in a file: all replicas, and there are some
	grep -q serving "$1" &&
	    ! grep -qE 'recovering|waits|degraded|syncing|waiting|lastsrv|offline|apart' "$1"
}
healthy() { admin show chains >"$W/chains" 2>/dev/null && all_serve "$W/chains"; }
# In a guest that is to have RDMA devices (tests/vm): what storage nodes moved went one-sided,
# and they copied none of it.  Their counters since they were started; their names are nodeN, sN
# or bN.
over_verbs() {
	admin show counters >"$W/counters" || return 1
	awk '/^fsd_net_rdma_[a-z]*_bytes_total{role="(node|s|b)[0-9]/ {
			sub(/.*fsd_net_rdma_/, ""); sub(/_bytes_total.*role="[^"]*/, " &")
			v[$1] += $NF }
		END { print "READ", v["read"] + 0, "WRITE", v["write"] + 0, "copied", v["copied"] + 0
			exit !(v["read"] > 0 && v["write"] > 0 && v["copied"] == 0) }' "$W/counters"
}
check_verbs() {
	[ "$FSD_TEST_RDMA" = only ] || return 0
	check "all bulk went one-sided, without a copy" over_verbs
	tail -n 1 "$W/out"
}
finish() {
	for m in $(mounts); do
		timeout 20 "$FSD" umount "$m" || "$FSD" umount --lazy "$m"
	done
	kill_ours TERM ""; until_true 10 none "" || kill_ours KILL ""
	for m in $(mounts); do
		"$FSD" umount --lazy "$m"
	done
	pkill -P $$	# programs that an interrupt has left
	if [ "$failed" = 0 ] || [ -n "$CI" ]; then rm -rf "$W"; else echo "kept: $W"; fi
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}
# In the middle of a writer's work: when lines have come to the file of what it was acknowledged, and
# a moment later, another one in each round.  amid FILE ROUND
amid() {
	lines=$(wc -l 2>/dev/null <"$1" || echo 0)
	more() { [ "$(wc -l <"$1")" -gt "$lines" ]; }
	until_true 60 more "$1" &&
	    sleep "$(awk -v s="$2" 'BEGIN { srand(s); print 0.2 + rand() }')"
}
trap 'finish; exit 1' INT TERM
