#!/bin/sh
# The models: each as it is, exhaustively, has to be clean; each with one guard taken away
# has to be caught.  run.sh [word]: only the rows that have it.  JOBS (2) at a time, 2 GiB of
# memory each.  Closing line: N passed, N failed.
set -u
here=$(cd "$(dirname "$0")" && pwd)

rows() {
	cat <<-END
	chain clean -DFAILS=2 -DWRITERS=1
	chain clean -DFAILS=1 -DWRITERS=2
	chain clean -DFAILS=1 -DWRITERS=1 -DPOWER=1 -DGIVEUPS=0
	chain clean -DFAILS=0 -DWRITERS=2 -DPOWER=1 -DGIVEUPS=0
	chain clean -DFAILS=1 -DWRITERS=1 -DROTATE=1 -DGIVEUPS=0
	raft clean -DTERMS=3 -DCHANGES=2 -DCRASHES=0
	raft clean -DTERMS=2 -DCHANGES=1 -DCRASHES=1
	raft clean -DTERMS=5 -DCHANGES=0 -DCRASHES=0
	lease clean
	credit clean
	credit clean -DREVOKES -DSENDS=1
	chain NO_TAILMOST -DFAILS=0 -DWRITERS=1 -DPOWER=1 -DGIVEUPS=0
	chain NO_BATCH -DFAILS=0 -DWRITERS=1 -DPOWER=1 -DGIVEUPS=0
	chain NO_DEAD_FIRST -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_SELF_FENCING -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_FRESH_VIEW -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_COMMIT_PENDING -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_STALE_WAIT -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_CHAIN_VERSION -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_FENCE -DFAILS=1 -DWRITERS=2
	chain NO_SYNC_FENCE -DFAILS=1 -DWRITERS=2
	chain NO_TURN -DFAILS=1 -DWRITERS=2 -DGIVEUPS=0
	chain NO_WRITE_SYNCING -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_SETTLE_FIRST -DFAILS=1 -DWRITERS=2 -DGIVEUPS=0
	chain NO_DEDUPE -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_ASK_TAIL -DFAILS=0 -DWRITERS=1 -DGIVEUPS=0
	chain NO_TAIL_FIRST -DFAILS=0 -DWRITERS=1 -DGIVEUPS=0
	chain NO_RESYNC -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_SYNCED_HOLD -DFAILS=1 -DWRITERS=1 -DGIVEUPS=0
	chain NO_SYNCED_VERSION -DFAILS=2 -DWRITERS=1 -DGIVEUPS=0
	chain NO_LEAVE_FIRST -DFAILS=0 -DWRITERS=1 -DROTATE=1 -DGIVEUPS=0
	lease NO_LONGER_WAIT
	lease NO_SENDING_TIME
	lease NO_SELF_FENCE
	lease NO_GROUP_LEASE
	lease NO_VOTE_WAIT
	lease NO_WAIT_ANEW
	lease NO_HOLD_DYING
	lease NO_FRESH_VIEW
	lease NO_BARRIER
	credit NO_WAIT
	credit NO_LAST
	credit NO_TELL
	credit NO_TOLD
	credit NO_FREED
	credit NO_DONE
	credit NO_LINGER
	credit NO_AWAIT -DREVOKES -DSENDS=1
	credit NO_STOP -DREVOKES -DSENDS=1
	credit NO_READS -DREVOKES -DSENDS=1
	credit NO_SILENT -DREVOKES -DSENDS=1
	credit NO_EARLY -DREVOKES -DSENDS=1
	credit NO_QPEND -DREVOKES -DSENDS=1
	raft NO_PROMISE -DTERMS=2 -DCHANGES=0 -DCRASHES=0
	raft NO_RESTART_WAIT -DTERMS=2 -DCHANGES=0 -DCRASHES=1
	raft NO_DURABLE_VOTE -DTERMS=2 -DCHANGES=0 -DCRASHES=1
	raft NO_LOG_CHECK -DTERMS=3 -DCHANGES=0 -DCRASHES=0
	raft NO_OWN_TERM -DTERMS=5 -DCHANGES=0 -DCRASHES=0
	raft NO_ONE_AT_A_TIME -DTERMS=2 -DCHANGES=2 -DCRASHES=0
	raft NO_SINGLE -DTERMS=2 -DCHANGES=1 -DCRASHES=0
	END
}

# One row: model, "clean" or the guard to take away, bounds.
one() {
	model=$1 guard=$2
	shift 2
	what="$model $guard${*:+ $*}"
	opt=-O1
	[ "$guard" = clean ] && opt=-O2
	dir=$(mktemp -d) || return 1
	trap 'rm -rf "$dir"' EXIT
	cd "$dir" || return 1
	# HC4: a state is kept as 32 bits of where and 32 of what it hashes to.
	spin -a "-D$guard" "$@" "$here/$model.pml" >out 2>&1 &&
	    cc $opt -w -DSAFETY -DHC4 -DNOFAIR -DMEMLIM=2000 -o pan pan.c >out 2>&1 ||
	    { echo "FAIL  $what: $(head -1 out)"; return 1; }
	./pan -m200000 >out 2>&1
	errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' out)
	states=$(awk '/states, stored/ { print $1 }' out)
	depth=$(sed -n 's/.*depth reached \([0-9]*\),.*/\1/p' out)
	memory=$(awk '/total actual memory usage/ { print int($1) }' out)
	seen="$states states, depth $depth, $memory MiB"
	if grep -q 'not completed\|max search depth too small' out && [ "$guard" = clean ]; then
		if [ "$errors" = 0 ]; then
			echo "FAIL  $what: memory or depth did not suffice ($seen)"
		else
			echo "FAIL  $what: $(sed -n 's/^pan:[0-9]*: //p' out | head -1)"
		fi
		return 1
	fi
	case $guard,$errors in
	clean,0)	echo "ok    $what: $seen" ;;
	clean,*)	echo "FAIL  $what: $(sed -n 's/^pan:[0-9]*: //p' out | head -1)"
			return 1 ;;
	*,[1-9]*)	echo "ok    $what: caught after $states states" ;;
	*)		echo "FAIL  $what: nobody missed it ($seen)"
			return 1 ;;
	esac
}

case ${1:-} in
--one)
	shift
	# shellcheck disable=SC2086
	one $1
	exit
	;;
esac
all=$(rows | grep -c -e "${1:-}")
[ "$all" != 0 ] || { echo "no model and no guard is called so: $1"; exit 1; }
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
rows | grep -e "${1:-}" | tr '\n' '\0' | xargs -0 -P "${JOBS:-2}" -I '{}' "$0" --one '{}' |
    tee "$log"
passed=$(grep -c '^ok ' "$log")
failed=$((all - passed))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
