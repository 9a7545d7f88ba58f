#!/bin/sh
# Run the test programs named, JOBS (2) at a time, and add up their results.  A program fails by
# its exit status; what it printed is shown when it does.  Closing line: N passed, N failed.
[ $# -gt 0 ] || { echo "nothing to run"; exit 1; }
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT TERM
export out
printf '%s\n' "$@" | xargs -P "${JOBS:-2}" -I{} sh -c '
	t={}; n=$(basename "$t")
	start=$(date +%s)
	if "$t" >"$out/$n.log" 2>&1; then r=ok; else r=FAILED; fi
	echo "$r" >"$out/$n.result"
	line=$(grep -E "^[0-9]+%: Checks|passed, |^skipped" "$out/$n.log" | tail -1)
	echo "$n: $r ($(( $(date +%s) - start )) s) $line"
	[ $r = ok ] || {
		echo "---- $n"
		head -n -60 "$out/$n.log" | grep -aE -A 5 "^FAILED|:[EF]:"
		tail -n 60 "$out/$n.log"
		echo "----"
	}'
passed=$(cat "$out"/*.result | grep -c '^ok$')
failed=$(( $# - passed ))
[ "$failed" = 0 ] || echo "failed: $(cd "$out" && grep -L '^ok$' *.result | sed 's/\.result$//' | xargs)"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
