#!/bin/sh
# The manual pages and the README name what the program has, and all of it: commands, options
# of the command line and of fsd.conf, errors, counters, other pages.  (The tables of fsd.conf(5)
# and fsd-proto(7) are made from the rows of the program: tests/test_conf.c, tests/test_msg.c.)
cd "$(dirname "$0")/.." || exit 1
fsd=${B:-build}/fsd
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
failed=0

# same WHAT: the lines of $dir/a (the program) are those of $dir/b (the pages).
same() {
	sort -u "$dir/a" >"$dir/as"
	sort -u "$dir/b" >"$dir/bs"
	[ -s "$dir/as" ] || echo "nothing found" >"$dir/as"
	if ! diff "$dir/as" "$dir/bs" >"$dir/diff"; then
		echo "$1: < only the program has it, > only the manual page"
		grep '^[<>]' "$dir/diff"
		failed=1
	fi
}
# known WHAT: all lines of $dir/b are in $dir/a, and there are some.
known() {
	sort -u "$dir/a" >"$dir/as"
	[ -s "$dir/b" ] || echo "nothing found" >"$dir/b"
	sort -u "$dir/b" | comm -13 "$dir/as" - >"$dir/diff"
	if [ -s "$dir/diff" ]; then
		echo "$1: named in the manual, and there is none"
		cat "$dir/diff"
		failed=1
	fi
}
pages="man/*.[1-8] README.md"

"$fsd" help admin | sed 's/^ *fsd admin //; s/   *.*//' >"$dir/a"
sed -n 's/^\.It Cm \([^A-Z]*\).*/\1/p' man/fsd-admin.8 | sed 's/ *$//' >"$dir/b"
same "fsd-admin(8), commands"

"$fsd" help | sed -n 's/^\(usage:\)* *fsd \([a-z].*\)/\2/p' |
    sed 's/ *[^a-z ].*//; s/ show nodes.*//; s/ [A-Z].*//' >"$dir/a"
sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESC/s/^\.Cm \([^.]*\)/\1/p' man/fsd.1 |
    sed 's/ command$//' >"$dir/b"
same "fsd(1), commands"

sed -n 's/^.*{ "\([a-z-]*\)", [a-z]*_argument.*/\1/p' fsd.c >"$dir/a"
grep -ohE '(Fl|[|]) -[a-z-]+' man/fsd.1 | sed 's/.* -//' >"$dir/b"
same "fsd(1), options"
"$fsd" help | grep -oE -- '--[a-z-]+' | sed 's/^--//' >"$dir/b"
same "fsd help, options"

"$fsd" help options | awk '
	/^\[/ { s = substr($1, 2, length($1) - 2) }
	/^  [a-z]/ { print s "." $1 }' >"$dir/a"
sections=$(sed 's/\..*//' "$dir/a" | sort -u | paste -sd'|')
# shellcheck disable=SC2086
grep -ohE "(^|[^A-Za-z/_.-])($sections)\.[a-z_]+" $pages | sed 's/^[^a-z]//' >"$dir/b"
known "options of fsd.conf"

"$fsd" help errors | awk '{ print $1 }' >"$dir/a"
# shellcheck disable=SC2086
grep -ohE '\bERR_[A-Z_]+' $pages >"$dir/b"
known "errors"

grep -ohE '(prefix = |stat_attach\(.*)"fsd_[a-z_]+"' ./*/*.c | sed 's/.*"\(fsd_[a-z]*\).*"/\1_/' >"$dir/a"
# shellcheck disable=SC2086
grep -ohE '\bfsd_[a-z]+_' $pages >"$dir/b"
known "counters"

ls man | sed 's/\.\([1-8]\)$/ \1/' >"$dir/a"
grep -ohE '^\.Xr fsd[^ ]* [1-8]' man/* | sed 's/^\.Xr //' >"$dir/b"
grep -ohE 'fsd[a-z.-]*\([1-8]\)' README.md | sed 's/(\(.\))/ \1/' >>"$dir/b"
known "pages"

exit $failed
