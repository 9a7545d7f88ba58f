#!/bin/sh
# Run the test programs named, JOBS (2) at a time, and add up their results.  A program fails by
# its exit status; what it printed is shown when it does.  One whose last word is `skipped: why`
# is neither: those are named before the closing line, which is N passed, N failed.
[ $# -gt 0 ] || { echo "nothing to run"; exit 1; }
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT TERM
export out
printf '%s\n' "$@" | xargs -P "${JOBS:-2}" -I{} sh -c '
	t={}; n=$(basename "$t")
	start=$(date +%s)
	if "$t" >"$out/$n.log" 2>&1; then r=ok; else r=FAILED; fi
	line=$(grep -E "^[0-9]+%: Checks|passed, |^skipped" "$out/$n.log" | tail -1)
	case $r,$line in ok,skipped*) r=skipped ;; esac
	echo "$r" >"$out/$n.result"
	echo "$n: $r ($(( $(date +%s) - start )) s) $line"
	[ $r != FAILED ] || {
		echo "---- $n"
		head -n -60 "$out/$n.log" | grep -aE -A 5 "^FAILED|:[EF]:"
		tail -n 60 "$out/$n.log"
		echo "----"
	}'
# One without a result did not end.
passed=$(cat "$out"/*.result | grep -c '^ok$')
skipped=$(cat "$out"/*.result | grep -c '^skipped$')
failed=$(( $# - passed - skipped ))
named() { (cd "$out" && grep -lE "$1" *.result | sed 's/\.result$//' | xargs); }
[ "$skipped" = 0 ] || echo "$skipped skipped: $(named '^skipped$')"
[ "$failed" = 0 ] || echo "failed: $(named '^FAILED$')"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
