#!/bin/sh
# The whole test command: lint, unit tests and simulations, the same under sanitizers, the
# models, then real processes and mounts, these over RDMA too.  What each says is cut here, and
# whole in log/ of the build; what was skipped and what failed is named once more before the
# closing line, which is N passed, N failed.
B=${1:-build}
mkdir -p "$B/log" || exit 1
# What clusters need: without it they would fail twenty minutes later.
place=${TMPDIR:-/var/tmp} three=13 one=6 clusters=3
free=$(df -Pk "$place" | awk 'NR == 2 { n = int($4 / 1048576) } END { print n + 0 }')
if [ "$free" -lt $one ]; then
	echo "make test: $place has $free GiB free, $one are needed; TMPDIR= chooses another place" >&2
	exit 1
elif [ "$free" -lt $three ]; then
	echo "make test: $place has $free GiB free, less than $three: one cluster at a time"
	clusters=1
fi
failed=0 passed=0 begun=$(date +%s)
: >"$B/log/failed"
: >"$B/log/skipped"
step() {
	what=$1; shift
	log=$B/log/${what#make }
	echo "== $what"
	t0=$(date +%s)
	"$@" >"$log" 2>&1
	rc=$?
	echo "-- $what: status $rc after $(($(date +%s) - t0)) s"
	# What failed may stand far above.
	[ $rc = 0 ] || head -n -40 "$log" | grep -aE -A 30 'FAILED|:[EF]:|Error [0-9]' | tail -n 200
	tail -n 40 "$log"
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -1)
	if [ -n "$line" ]; then
		passed=$((passed + ${line%% *}))
		f=${line#*passed, }; f=${f%% *}
		failed=$((failed + f))
		[ $rc = 0 ] || [ "$f" != 0 ] || failed=$((failed + 1))
	elif [ $rc = 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
	grep -aE '^([0-9]+ )?skipped: ' "$log" | sed "s|^|$what: |" >>"$B/log/skipped"
	[ $rc = 0 ] || {
		echo "$what: status $rc"
		grep -aE '^(FAILED|failed:)|:[EF]:|Error [0-9]|warning:' "$log" | sort -u | head -n 12
	} | cut -c 1-160 >>"$B/log/failed"
}
step "make lint" make -s lint
# More than two at a time: some mostly wait.
step "make check" env JOBS=3 make -s -j2 check B="$B"
step "make asan" env JOBS=3 make -s -j2 asan N=8
step "make planted" make -s planted B="$B" N=300
step "make model" make -s model
step "make cluster" env JOBS=$clusters make -s cluster B="$B"
step "make check-rdma" make -s check-rdma B="$B"
echo "== all, $(($(date +%s) - begun)) s"
cat "$B/log/skipped" "$B/log/failed"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
