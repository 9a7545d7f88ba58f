#!/bin/bash
# SPDX-License-Identifier: MIT
# guest.sh PART... - run by check.sh in a guest: first the calls, some of which must not be late,
# then all other parts at once, for most of them wait most of the time.  What each said is shown
# when it has ended, and counted.  One alone is shown as it goes, for it may take an hour.
here=$(cd "$(dirname "$0")" && pwd)
case ${B:=build} in /*) ;; *) B=$here/../../$B ;; esac
export B TMPDIR=/scratch FSD_TEST_RDMA=only CK_TIMEOUT_MULTIPLIER=4
out=$(mktemp -d) || exit 1

part() {	# NAME: its program
	case $1 in
	calls) "$B/tests/test_call" ;;
	calls-fail) "$B/tests/test_call_fail" ;;
	calls-revoke) "$B/tests/test_call_revoke" ;;
	calls-strangers) "$B/tests/test_rdma_iw" ;;
	calls-grant) "$B/tests/test_call_grant" ;;
	dev|roles) "$here/bulk.sh" "$1" ;;
	failover|tcp) "$here/$1.sh" ;;
	cluster-*)	# a processor that is emulated takes its time, and fills small disks only
		export WORK_SECONDS="${WORK_SECONDS:-5400}" POSIX_SECONDS="${POSIX_SECONDS:-3600}"
		case $1$LONG in
		cluster-full) SIZE=${SIZE:-96MiB} ROUNDS=${ROUNDS:-1} ;;
		cluster-garbage) SIZE=${SIZE:-512MiB} WARM=${WARM:-20} ;;
		esac
		export SIZE ROUNDS WARM
		"$here/../cluster/${1#cluster-}.sh" ;;
	*) echo "no such part"; return 2 ;;
	esac
}
# What is known of a part that does not end, before the guest's time is up: where everything waits.
stuck() {	# NAME
	sleep "${PART_SECONDS:-600}"
	{	flock 9
		echo "== $1 has not ended after ${PART_SECONDS:-600} s"
		tail -n 50 "$out/$1.log"
		ps axo pid,ppid,stat,etimes,wchan:24,args | grep -v ' \['
		tail -n 30 "$TMPDIR"/fsd-test.*/a/log "$TMPDIR"/fsd-test.*/*.log
	} 9>"$out/lock" 2>&1
}
run() {	# NAME: its result is the last file
	t0=$(date +%s)
	case $1 in cluster-*) ;; *) stuck "$1" & watch=$! ;; esac
	: >"$out/$1.log"
	if [ "$parts" = 1 ]; then
		tail -f "$out/$1.log" & shown=$!
	fi
	part "$1" >"$out/$1.log" 2>&1
	rc=$?
	[ -z "$watch" ] || { pkill -P "$watch"; kill "$watch"; } 2>/dev/null
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$out/$1.log" | tail -n 1)
	if grep -q '^skipped' "$out/$1.log"; then	# there is all that it needs here
		line="0 passed, 1 failed"
	elif [ -z "$line" ]; then
		line="1 passed, 0 failed"
		[ $rc = 0 ] || line="0 passed, 1 failed"
	elif [ $rc != 0 ] && [ "${line#*, }" = "0 failed" ]; then
		line="${line%,*}, 1 failed"
	fi
	{	flock 9
		echo "== $1 ($(($(date +%s) - t0)) s)"
		if [ "$parts" = 1 ]; then
			sleep 2; kill "$shown"
		elif [ "${line#*, }" = "0 failed" ]; then
			grep -E '^(ok|[0-9]+%: )' "$out/$1.log"
		else
			tail -n 300 "$out/$1.log"
		fi
		echo "$line" >>"$out/all"
	} 9>"$out/lock"
}
parts=$#
for p in "$@"; do
	case $p in
	calls|calls-strangers|calls-grant) run "$p" ;;
	*) run "$p" & ;;
	esac
done
wait
awk -v parts=$parts '{ p += $1; f += $3 }
	END { f += parts - NR; print p + 0 " passed, " f + 0 " failed"; exit f > 0 || NR == 0 }' \
    "$out/all"
