#!/bin/sh
# Do the simulations notice?  Every *.patch here plants one bug: it takes one guard away.
# Each is applied to a copy of the tree, built, and run: first the seed that its head names,
# which has found it among the seeds 1 to 1000 of an ordinary run; when the tree has changed
# since and that seed takes another course, seeds SEED (1) and on, N (1000) at most, until
# one fails.  That seed must pass without the bug.  The head may name more:
#	# plot: name	of tests/sim/plot.c, which those further seeds are given (ALL=1: not)
#	# at: n		the first of them to try
#	# test: name	of another simulation than test_sim
# Arguments: names, or parts of them; otherwise all.  A bug that no seed finds is a hole in
# what the simulation checks or lets happen: mend that.  Those of hard/ have not been caught
# so far: they run when they are named, or HARD=1.
cd "$(dirname "$0")/../../.." || exit 1
N=${N:-1000} SEED=${SEED:-1} JOBS=${JOBS:-2} B=${B:-build}
here=tests/sim/planted
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
start=$(date +%s)

list() {
	for p in "$here"/*.patch "$here"/hard/*.patch; do
		n=${p#"$here"/} n=${n%.patch}
		case $#${HARD:-0}$n in 00hard/*) continue ;; 0*) echo "$n" ;; esac
		for want in "$@"; do
			case $n in *"$want"*) echo "$n"; break ;; esac
		done
	done
}
names=$(list "$@")
[ -n "$names" ] || { echo "no planted bug is called so: $*"; exit 1; }

# The tree without bugs, and what was compiled of it before.
mkdir "$work/tree"
git ls-files -co --exclude-standard | while read -r f; do
	[ -e "$f" ] && echo "$f"
done | xargs cp -p --parents -t "$work/tree" || exit 1
if [ -d "$B" ]; then
	mkdir "$work/tree/build"
	(cd "$B" && find . \( -name '*.[oda]' -o -name 'test_*sim' \) -print0 |
	    xargs -0 -r cp -p --parents -t "$work/tree/build")
fi
head() {
	sed -n "s/^# $1: \([a-z0-9_]*\)$/\1/p" "$2"
}
tests=$(for n in $names; do head test "$here/$n.patch"; done | sort -u)
for t in test_sim $tests; do
	make -s -C "$work/tree" -j"$JOBS" B=build "build/tests/$t" || exit 1
done
for i in $(seq "$JOBS"); do
	cp -a "$work/tree" "$work/tree.$i"
done

cat >"$work/one" <<'END'
#!/bin/sh
# One bug in the first tree that is free; prints its line.
n=${1#hard/} p=$PWD/$here/$1.patch begin=$(date +%s)
for i in $(seq "$JOBS"); do
	mkdir "$work/busy.$i" 2>/dev/null && break
done
tree=$work/tree.$i
test=$(sed -n 's/^# test: \([a-z0-9_]*\)$/\1/p' "$p")
test=${test:-test_sim}
say() {
	echo "$1" >"$work/$n.result"
	printf '%s %s %s\n' "$1" "$n" "$2"
}
head() {
	sed -n "s/^# $1: \([a-z0-9_]*\)$/\1/p" "$p"
}
# Ends badly: the simulation failed, or never ended.
fails() {
	SEED=$2 SIM_PLOT=$3 timeout 90 "$1/build/tests/$test" >"$work/$n.log" 2>&1 && return 1
	return 0
}
search() {
	tried=0 anyway= plot=
	for s in $(head seed) plotted $(head at) $(seq "$SEED" $((SEED + N - 1))); do
		if [ "$s" = plotted ]; then
			plot=$([ "${ALL:-0}" = 1 ] || head plot)
			continue
		fi
		tried=$((tried + 1))
		fails "$tree" "$s" "$plot" || continue
		why=$(grep -m1 -E 'failed at|Assertion|signal' "$work/$n.log" |
		    sed 's/^seed [0-9]* failed at [0-9.]* s: //; s/^[^ ]*test_sim: //' | cut -c1-110)
		if fails "$work/tree" "$s" "$plot"; then
			anyway="$anyway $s"
			continue
		fi
		say ok "caught by seed $s${plot:+ of plot $plot} ($tried seeds, $(($(date +%s) - begin)) s): $why"
		return
	done
	say FAILED "not caught in $tried seeds ($(($(date +%s) - begin)) s)${anyway:+, without it fail$anyway}"
}
touch "$tree/mark"
if ! (cd "$tree" && git apply --whitespace=nowarn "$p") 2>"$work/$n.log"; then
	say FAILED "does not apply: $(head -1 "$work/$n.log")"
elif ! make -s -C "$tree" B=build "build/tests/$test" >"$work/$n.log" 2>&1; then
	say FAILED "does not build: $(grep -m1 error "$work/$n.log")"
else
	search
fi
# Take it back, and what was compiled with it.
sed -n 's,^+++ b/,,p' "$p" | while read -r f; do
	cp -p "$work/tree/$f" "$tree/$f"
done
(cd "$tree/build" && find . -name '*.o' -newer ../mark) | while read -r f; do
	cp -p "$work/tree/build/$f" "$tree/build/$f"
done
rm -f "$tree"/build/*.a		# made of what was older than they are now
rmdir "$work/busy.$i"
END
chmod +x "$work/one"
export here work N SEED JOBS
unset SIM_TRACE SIM_PLOT
printf '%s\n' "$names" | xargs -P "$JOBS" -I{} "$work/one" {}
passed=$(cat "$work"/*.result | grep -c '^ok$')
failed=$(($(printf '%s\n' "$names" | wc -l) - passed))
echo "planted bugs: $(($(date +%s) - start)) s, at most $N seeds each"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
