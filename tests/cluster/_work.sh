#!/bin/sh
# Real programs on a mount: copy, git, SQLite, fio, tar.  work.sh MOUNT [MOUNT2 of the same]
. "$(dirname "$0")/_lib.sh"
m=$1 m2=$2
# The full size is trees of tens of thousands of files: dev.sh, LONG=1.
src=${SRC:-/usr/include/linux} fio_size=${FIO_SIZE:-16m}
cd "$W" || exit 1

copy_tree() {
	mkdir "$m/tree" && for s in $src; do
		cp -a "$s" "$m/tree/" && "$HERE/compare.py" "$s" "$m/tree/${s##*/}" || return 1
	done
}
second_sees_tree() {
	for s in $src; do
		"$HERE/compare.py" "$s" "$m2/tree/${s##*/}" || return 1
	done
}
tar_in_out() {
	s=${src%% *}
	tar --format=posix -C "$s" -cf "$m/t.tar" . && mkdir -p "$m/untar" &&
	    tar -C "$m/untar" -xpf "$m/t.tar" && "$HERE/compare.py" "$s" "$m/untar" &&
	    tar -C "$m/untar" -cf - . | tar -tf - >/dev/null
}
git_clone() {
	rm -rf "$W/repo" && mkdir "$W/repo" && cd "$W/repo" && git init -q . &&
	    cp -r "$HERE/../../net" "$HERE/../../conf" . && git add -A &&
	    git -c user.name=t -c user.email=t@t commit -qm one &&
	    cd / && git clone -q "$W/repo" "$m/clone" && cd "$m/clone" && git fsck --full &&
	    git -c user.name=t -c user.email=t@t commit -q --allow-empty -m two &&
	    git gc -q && git status --porcelain | wc -l | grep -qx 0 && cd /
}
sqlite_mode() {
	db="$m/$1.db"
	sqlite3 "$db" "PRAGMA journal_mode=$1; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);" &&
	    for i in 1 2 3 4 5; do
		sqlite3 "$db" "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c \
		    WHERE x<500) INSERT INTO t(b) SELECT randomblob(500) FROM c;
		    UPDATE t SET b=randomblob(300) WHERE a%7=$i; DELETE FROM t WHERE a%11=$i;" ||
		    return 1
	    done
	[ "$(sqlite3 "$db" 'PRAGMA integrity_check')" = ok ]
}
fio_verify() {	# rw direct
	fio --name="v$1$2" --directory="$m" --rw="$1" --bs=64k --size="$fio_size" \
	    --numjobs=4 --direct="$2" --ioengine="${3:-psync}" --iodepth="${4:-1}" \
	    --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 \
	    --group_reporting --minimal && rm -f "$m/v$1$2".*
}
truncates() {
	printf 'hello world' >"$m/tr" && truncate -s 5 "$m/tr" && truncate -s 11 "$m/tr" &&
	    printf 'hello\0\0\0\0\0\0' | cmp - "$m/tr" && : >"$m/tr" && [ ! -s "$m/tr" ]
}
unlinked() {	# an open file outlives its name
	exec 7<>"$m/gone" && echo data >&7 && rm "$m/gone" && [ ! -e "$m/gone" ] &&
	    [ "$(cat /proc/$$/fd/7)" = data ] && exec 7>&-
}
two_mounts() {
	echo one >"$m/seen" && [ "$(cat "$m2/seen")" = one ] &&
	    echo "two longer" >"$m2/seen" && [ "$(cat "$m/seen")" = "two longer" ] &&
	    stat -c %s "$m/seen" | grep -qx 11 && mkdir "$m2/d" && [ -d "$m/d" ] &&
	    mv "$m/seen" "$m/d/moved" && [ "$(cat "$m2/d/moved")" = "two longer" ] &&
	    [ ! -e "$m2/seen" ] && rm -r "$m2/d" && [ ! -e "$m/d" ] &&
	    dd if=/dev/urandom of="$m/big" bs=1M count=20 status=none && cmp "$m/big" "$m2/big" &&
	    for i in 1 2 3 4 5 6 7 8 9 10; do
		echo $i >"$m/n" && [ "$(cat "$m2/n")" = $i ] || return 1
	    done
}
check "copy of $src is equal" copy_tree
check "tar in and out" tar_in_out
check "git clone, fsck, commit, gc" git_clone
check "SQLite, WAL" sqlite_mode wal
check "SQLite, rollback journal" sqlite_mode delete
check "fio verify, sequential buffered" fio_verify write 0
check "fio verify, sequential direct" fio_verify write 1
check "fio verify, random buffered" fio_verify randwrite 0
check "fio verify, random direct" fio_verify randwrite 1
check "fio verify, random direct, deep queue" fio_verify randwrite 1 libaio 16
check "truncate" truncates
check "open file outlives its name" unlinked
[ -z "$m2" ] || check "the second mount has the same tree" second_sees_tree
[ -z "$m2" ] || check "two mounts see each other's closed files" two_mounts
check "recursive remove" rm -rf "$m/tree" "$m/untar" "$m/clone"
cd / && rm -rf "$W"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
