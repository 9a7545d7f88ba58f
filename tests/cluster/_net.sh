# A cluster of processes with addresses of their own: every node is a network namespace with a
# link to one bridge, so that links can be cut.  Source _lib.sh first, then this.
#
#   MANAGERS METADATA STORAGES CLIENTS	how many of each; nodes are m1.. d1.. s1.. c1..
#   net_up, net_down			namespaces and links; net_up fails where there are none
#   node_start NAME			a process, or a mount at $W/NAME.mnt
#   node_kill SIGNAL NAME		TERM and KILL wait until it is gone
#   cut A B [oneway]			nothing from A reaches B, and back unless oneway
#   isolate A				cut from all others, both ways
#   heal				no link is cut any more
#   power_cut				kill -9 of everything but the mounts
MANAGERS=${MANAGERS:-3} METADATA=${METADATA:-3} STORAGES=${STORAGES:-4} CLIENTS=${CLIENTS:-2}
NETP=fsd$$
NET=10.$(( $$ / 250 % 250 )).$(( $$ % 250 ))
CONF=$W/fsd.conf

numbered() {	# PREFIX N
	[ "$2" -lt 1 ] || seq -f "$1%g" 1 "$2"
}
servers() { numbered m "$MANAGERS"; numbered d "$METADATA"; numbered s "$STORAGES"; }
nodes() { servers; numbered c "$CLIENTS"; }
address() {	# NAME
	case $1 in
	m*) echo "$NET.$((10 + ${1#m}))" ;;
	d*) echo "$NET.$((30 + ${1#d}))" ;;
	s*) echo "$NET.$((50 + ${1#s}))" ;;
	c*) echo "$NET.$((150 + ${1#c}))" ;;
	esac
}
in_net() {	# NAME COMMAND...: in its network, in our mounts
	net_of=/run/netns/$NETP-$1; shift
	nsenter --net="$net_of" "$@"
}
net_up() {
	command -v ip nsenter >/dev/null || return 1
	ip netns add "$NETP-sw" 2>/dev/null || return 1
	in_net sw ip link set lo up
	in_net sw ip link add br0 type bridge || return 1
	in_net sw ip link set br0 up
	for n in $(nodes); do
		ip netns add "$NETP-$n" || return 1
		in_net "$n" ip link set lo up
		ip link add "e$n" netns "$NETP-$n" type veth \
		    peer name "p$n" netns "$NETP-sw" || return 1
		in_net sw ip link set "p$n" master br0 up
		in_net "$n" ip link set "e$n" up
		in_net "$n" ip address add "$(address "$n")/24" dev "e$n" || return 1
		# The rules of cut() have to come before the one for our own address.
		in_net "$n" ip rule add pref 100 lookup local || return 1
		in_net "$n" ip rule del pref 0
	done
}
net_down() {
	for n in sw $(nodes); do
		ip netns delete "$NETP-$n" 2>/dev/null
	done
}
net_conf() {	# options for all, and more from stdin
	list=
	for n in $(numbered m "$MANAGERS"); do
		list=$list${list:+, }$(address "$n"):7000
	done
	"$FSD" key "$W/key"
	cat >"$CONF" <<-EOT
	[cluster]
	name = test
	key_file = $W/key
	[manager]
	addresses = $list
	port = 7000
	[metadata]
	port = 7001
	[storage]
	port = 7002
	EOT
	cat >>"$CONF"
	for n in $(numbered s "$STORAGES"); do
		"$FSD" disk init --size "${SIZE:-512MiB}" "$W/disk-$n" || return 1
	done
}
node_start() {	# NAME
	case $1 in
	c*)	mkdir -p "$W/$1.mnt"
		# shellcheck disable=SC2046
		in_net "$1" "$FSD" mount -o allow_other --config "$CONF" \
		    --log "$W/$1.log" $(node_more "$1") "$W/$1.mnt"
		return ;;
	m*)	role=manager more= ;;
	d*)	role=metadata more= ;;
	s*)	role=storage more="--set storage.disks=$W/disk-$1" ;;
	esac
	# shellcheck disable=SC2046,SC2086
	in_net "$1" "$FSD" --role=$role --config "$CONF" --set node.directory="$W/$1" \
	    --set node.name="$1" --set node.address="$(address "$1")" $more \
	    $(node_more "$1") 2>>"$W/$1.log" &
}
node_more() { :; }	# NAME or admin: more words for its process
node_words() {	# NAME: what is in the words of its process only
	case $1 in
	c*) echo "/$1.mnt( |$)" ;;
	*) echo "node.name=$1( |$)" ;;
	esac
}
node_kill() {	# SIGNAL NAME
	kill_ours "$1" "$(node_words "$2")"
	case $1 in
	TERM|KILL) until_true 20 none "$(node_words "$2")" ;;
	esac
}
cut() {	# A B [oneway]
	# Dropped where it arrives: a sender is told of routes that lead nowhere.
	in_net "$2" ip rule add pref 10 from "$(address "$1")" blackhole
	[ "${3:-}" = oneway ] || in_net "$1" ip rule add pref 10 from "$(address "$2")" blackhole
}
isolate() {	# A
	for other in $(nodes); do
		[ "$other" = "$1" ] || cut "$1" "$other"
	done
}
heal() {
	for n in $(nodes); do
		while in_net "$n" ip rule del pref 10 2>/dev/null; do :; done
	done
}
power_cut() {
	for n in $(servers); do
		kill_ours KILL "$(node_words "$n")"
	done
	for n in $(servers); do
		until_true 20 none "$(node_words "$n")"
	done
}
net_admin() {
	# shellcheck disable=SC2046
	in_net c1 timeout 30 "$FSD" admin --config "$CONF" $(node_more admin) "$@"
}
# In a guest with a device for each node (tests/vm) it is these, and not namespaces.
_n=$(echo "$RDMA_VM_ADDRS" | wc -w)
if [ "$_n" -gt 1 ]; then
	[ "$_n" -ge "$(nodes | wc -l)" ] || { echo "$_n devices, and $(nodes | wc -l) nodes"; rm -rf "$W"; exit 1; }
	. "$HERE/../vm/_devices.sh"
fi
net_healthy() { net_admin show chains >"$W/chains" 2>/dev/null && all_serve "$W/chains"; }
