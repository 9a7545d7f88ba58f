#!/bin/sh
# A replica of 2 GiB is lost and brought back, alone and beside programs that write or read at
# full and at half speed: how fast, and what the programs lose by it.  Everything is measured
# in this run, on this machine: real processes, real disks, one mount.
#   MIB=n	bytes of a replica		LOADS="writes reads" SPEEDS="full half"
#   CASES="delta empty"	 it comes back with what it had, half of which was written anew
#			 meanwhile; or as an empty disk
#   TIME=s	programs are measured by themselves for so long, each time right after a
#		resync		SHARE=30%	storage.sync_share
# Floors are judged in words; what the closing line counts, and the exit status says, is whether
# each resync ran to its end with its progress shown right.
known() {	# VARIABLE WORDS KNOWN: each is a known one, and there is one
	# shellcheck disable=SC2086
	set -- "$1" "$3" $2
	name=$1 all=$2; shift 2
	[ $# != 0 ] || { echo "$name is empty, it takes: $all"; exit 1; }
	for word; do
		case " $all " in *" $word "*) ;; *) echo "$name: no such word: $word, it takes: $all"; exit 1 ;; esac
	done
}
LOADS=${LOADS:-writes reads} SPEEDS=${SPEEDS:-full half} CASES=${CASES:-delta empty}
known LOADS "$LOADS" "writes reads"
known SPEEDS "$SPEEDS" "full half"
known CASES "$CASES" "delta empty"
case ${B:=build} in /*) ;; *) B=$(realpath "$(dirname "$0")/../$B") ;; esac
. "$(dirname "$0")/cluster/_lib.sh"
MIB=${MIB:-2048} TIME=${TIME:-6} SHARE=${SHARE:-}
JOBS=4 DEPTH=4			# of the programs
CONF=$W/fsd.conf M=$W/mnt OUT=$W/watched
T=$HERE/bench_resync.py
port=$(( 20000 + $$ % 20000 )) disk=3 watch='' fio=''

stop() {
	[ -z "$fio" ] || kill -INT "$fio"
	[ -z "$watch" ] || kill "$watch"
	wait $watch $fio 2>/dev/null
	watch= fio=
	finish
}
die() {
	echo "$*"
	failed=$((failed + 1))
	tail -n 5 "$W"/*.log "$W"/*.out
	stop
	exit 1
}
trap 'stop; exit 1' INT TERM

# ---- the cluster ----

role() {	# NAME ROLE [SET...]
	n=$1 what=$2; shift 2
	"$FSD" --role="$what" --config "$CONF" --set node.directory="$W/$n" --set node.name="$n" \
	    "$@" 2>>"$W/$n.log" &
}
storage() { role "s$1" storage --set storage.disks="$W/disk$2"; }
new_disk() { "$FSD" disk init --size $(( MIB * 3 / 2 ))MiB "$W/disk$1" >/dev/null; }
disk_id() {
	admin --json show disks | sed -n "s|.*\"disk\": \"\\([^\"]*\\)\".*/disk$1\".*|\\1|p" |
	    grep .
}
cluster() {
	"$FSD" key "$W/key" || return 1
	cat >"$CONF" <<-EOT
	[cluster]
	name = bench
	key_file = $W/key
	[manager]
	addresses = 127.0.0.1:$port
	port = $port
	[metadata]
	port = 0
	[storage]
	port = 0
	EOT
	[ -z "$SHARE" ] || echo "sync_share = $SHARE" >>"$CONF"
	role m manager
	role md metadata
	for i in 1 2 3; do
		new_disk $i || return 1
		storage $i $i
	done
	mkdir "$M" && until_true 20 healthy && "$FSD" mount --config "$CONF" --log "$W/mnt.log" "$M"
}

# ---- programs ----

data() {	# DIR MIB: files of it are written
	mkdir -p "$M/$1"
	fio --name=f --directory="$M/$1" --rw=write --bs=1m --size=$(( $2 / JOBS ))m \
	    --numjobs=$JOBS --direct=1 --ioengine=libaio --iodepth=8 --group_reporting \
	    --end_fsync=1 --output="$W/data.out"
}
program() {	# LOAD MIB/S(0: all it can) SECONDS LOG: again and again over its own files
	rate=
	[ "$2" = 0 ] || rate=--rate=$(( $2 * 1024 / JOBS ))k
	rw=${1%s}
	# shellcheck disable=SC2086
	exec fio --name=f --directory="$M/$1" --rw="$rw" --bs=1m --size=$(( MIB / 8 / JOBS ))m \
	    --numjobs=$JOBS --direct=1 --ioengine=libaio --iodepth=$DEPTH --time_based \
	    --runtime="$3" $rate --overwrite=1 --group_reporting --write_bw_log="$4" \
	    --log_avg_msec=250 --log_unix_epoch=1 --output="$4.out"
}
alone() {	# LOAD: prints MiB/s at full speed, without the first two seconds
	log=$W/alone.$(ms)
	t0=$(ms)
	(program "$1" 0 $(( TIME + 2 )) "$log") &&
	    "$T" speed "$log" $(( t0 + 2000 )) $(( t0 + 2000 + TIME * 1000 ))
}

# ---- losing a replica, and having it back ----

degraded() { admin show chains | grep -q degraded; }
whole() { sleep 1; until_true 300 healthy || die "$1: the chains do not heal"; }
lose() {	# CASE
	kill_ours KILL "node.name=s3( |$)"
	until_true 20 degraded || die "nobody noticed that a replica is lost"
	if [ "$1" = delta ]; then
		data new $(( MIB / 2 )) || die "writing without it"
		return
	fi
	old=$(disk_id $disk) && rm -rf "$W/disk$disk" || die "no old disk"
	disk=$((disk + 1))
	new_disk $disk && storage 3 $disk && until_true 20 disk_id $disk || die "no new disk"
}
back() {	# CASE
	if [ "$1" = delta ]; then
		storage 3 $disk
	else
		admin disk replace "$old" "$(disk_id $disk)" >/dev/null || die "no replacement"
	fi
}
# CASE [LOAD MIB/S]: sets from, to (ms), mib, rate; with and alone, what the program did
# meanwhile, and right after it
resync() {
	lose "$1"
	log=$W/with.$(ms)
	if [ -n "${2:-}" ]; then
		program "$2" "$3" 600 "$log" & fio=$!
		sleep 3
	fi
	t0=$(ms)
	back "$1"
	whole "$1 ${2:-}"
	t1=$(( $(ms) + 1000 ))
	[ -z "$fio" ] || { sleep $(( TIME + 1 )); kill -INT "$fio"; wait "$fio"; fio=; }
	# shellcheck disable=SC2046
	set -- $("$T" span "$W/s*.log" "$t0")
	[ $# = 6 ] || die "no replica was brought up to date"
	from=$1 to=$2 mib=$6
	with=$("$T" speed "$log" "$from" "$to")
	alone=$("$T" speed "$log" $t1 $(( t1 + TIME * 1000 )))
	rate=$(echo "$mib $from $to" | awk '{ printf "%.1f", $1 * 1000 / ($3 - $2) }')
	if "$T" progress "$OUT" "$from" "$to" >"$W/progress"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1)); echo "progress was shown wrong:"; cat "$W/progress"
	fi
	used=$("$T" cpu "$OUT" "$from" "$to")
}

cluster || die "no cluster"
for d in "old $(( MIB / 4 ))" "new $(( MIB / 2 ))" "writes $(( MIB / 8 ))" "reads $(( MIB / 8 ))"; do
	# shellcheck disable=SC2086
	data $d || die "writing ${d% *}"
done
share=$("$FSD" --print-config --config "$CONF" | sed -n "s|^ *sync_share *= *\([0-9]*\).*|\1|p")
"$T" watch "$OUT" "$FSD" "$CONF" & watch=$!

head -c $(( MIB / 2 * 1048576 )) /dev/urandom >"$W/plain" || die "no space"
plain=$("$T" copy "$W/plain" "$W/plain2" $(( MIB / 2 ))); rm -f "$W"/plain*
echo "limit: a plain copy (direct reads, loopback TCP, direct writes, fdatasync): $plain MiB/s"
limit=$plain
for c in $CASES; do
	resync "$c"
	echo "resync alone, $c: $mib MiB, $rate MiB/s; processor: $used"
	limit=$(echo "$rate $limit" | awk '{ print ($1 > $2) ? $1 : $2 }')
done
cat <<EOT
limit of this run: $limit MiB/s, the highest of these
alone: what the programs do right after it, with all replicas
fair: no more than they do alone, and no more than $((100 - share)) % of their full speed, as
      storage.sync_share is $share %
left: of the limit, the part of their full speed that the programs do not use meanwhile
                             MiB/s of the programs                      MiB/s of copies
case                    alone    fair    with  beyond fair        left    copied reached
EOT
for load in $LOADS; do
	full=$(alone "$load") || die "$load alone"
	for speed in full half; do
		[ "${SPEEDS#*$speed}" != "$SPEEDS" ] || continue
		want=0
		[ $speed = full ] || want=$(echo "$full" | awk '{ print int($1 / 2) }')
		for c in $CASES; do
			resync "$c" "$load" "$want"
			[ $speed = half ] || full=$alone
			printf '%-21s %s\n' "$load $speed, $c" \
			    "$("$T" judge "$limit" "$share" "$full" "$alone" "$with" "$rate")"
			echo "	processor: $used; $(head -1 "$W/progress")"
		done
	done
done
stop
