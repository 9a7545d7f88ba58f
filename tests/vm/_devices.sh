# Nodes with an RDMA device each, in a guest that has as many (rdma-vm --devices): sourced by
# tests/cluster/_net.sh in place of its network namespaces, where soft-RoCE does not work.
# What a node sends, by TCP too, leaves by its own device: a rule by user id does that, so each
# node runs as a user of its own, with all that root may.  Beside what _net.sh has:
#
#   device NAME			that node's rxeN is this number; its cable ends in portN
#   unplug NAME, plug NAME	the cable: the device and the switch both notice
#   lose NAME			all packets to it and from it vanish, and nobody is told
#   remove NAME, add NAME	the device itself
NETP=rxe
_users=7000

_at=0
for n in $(nodes); do
	eval "_device_$n=$_at"
	_at=$((_at + 1))
done
device() { eval "echo \$_device_$1"; }
# shellcheck disable=SC2086
address() { at=$(device "$1"); set -- $RDMA_VM_ADDRS; shift "$at"; echo "$1"; }
in_net() {
	user=$((_users + $(device "$1"))); shift
	setpriv --reuid="$user" --clear-groups --inh-caps=+all --ambient-caps=+all "$@"
}
net_up() {
	for n in $(nodes); do
		d=$(device "$n")
		ip rule add pref 30 uidrange $((_users + d))-$((_users + d)) \
		    lookup $((200 + d)) || return 1
	done
}
net_down() {
	while ip rule del pref 30 2>/dev/null; do :; done
}
# For admin and the like TCP will do: each would register memory first.
node_more() { [ "$1" = admin ] && echo "--set rdma.devices=none" || echo "--set rdma.devices=rxe$(device "$1")"; }
cut() {
	# Dropped where it arrives, before the rules that know whose it is.
	ip rule add pref 5 iif "eth$(device "$2")" from "$(address "$1")" blackhole
	[ "${3:-}" = oneway ] ||
	    ip rule add pref 5 iif "eth$(device "$1")" from "$(address "$2")" blackhole
}
unplug() { ip link set "port$(device "$1")" down; }
plug() { ip link set "port$(device "$1")" up; }
lose() {
	for _link in "eth$(device "$1")" "port$(device "$1")"; do
		tc qdisc replace dev "$_link" root netem loss 100%
	done
}
remove() { rdma link delete "rxe$(device "$1")"; }
add() { rdma link add "rxe$(device "$1")" type rxe netdev "eth$(device "$1")"; }
heal() {
	while ip rule del pref 5 2>/dev/null; do :; done
	for n in $(nodes); do
		plug "$n"
		for _link in "eth$(device "$n")" "port$(device "$n")"; do
			tc qdisc del dev "$_link" root 2>/dev/null
		done
	done
}
