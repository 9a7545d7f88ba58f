#!/bin/sh
# Processes on a network of their own are killed, stopped, cut off and brought back, while
# programs work on two mounts: how long each thing is noticed, whether a program saw an error,
# whether anything acknowledged was lost.  PAUSE=s is the most that is allowed; the limits that
# are promised are measured by bench_failover.sh.  MANAGERS, METADATA, STORAGES, CLIENTS: see
# _net.sh.
[ -n "$LONG" ] || : "${OPAUSE:=0.05}" "${PPAUSE:=0.05}"	# others run beside us
export PPAUSE
. "$(dirname "$0")/_lib.sh"
. "$HERE/_net.sh"
. "$HERE/_event.sh"

cluster_up <<EOT
[log]
level = info
EOT
s_kill() { node_kill KILL s1; }
s_back() { node_start s1; until_true "$SETTLE" net_healthy; }
s_stop() { node_kill TERM s2; }
s_start() { node_start s2; until_true "$SETTLE" net_healthy; }
s_freeze() { node_kill STOP s3; sleep 6; }
s_thaw() { node_kill CONT s3; until_true "$SETTLE" net_healthy; }
s_cut() { isolate "s$STORAGES"; sleep 6; }
s_heal() { heal; until_true "$SETTLE" net_healthy; }
d_kill() { node_kill KILL d1; [ "$METADATA" -gt 1 ] || { sleep 1; node_start d1; }; }
d_back() { [ "$METADATA" = 1 ] || node_start d1; sleep 2; }
d_cut() { isolate "d$METADATA"; [ "$METADATA" -gt 1 ] || { sleep 1; heal; }; }
m_kill() { node_kill KILL m1; [ "$MANAGERS" -gt 1 ] || { sleep 1; node_start m1; }; }
m_back() { [ "$MANAGERS" = 1 ] || node_start m1; sleep 2; }
m_freeze() { node_kill STOP m1; [ "$MANAGERS" -gt 1 ] || { sleep 1; node_kill CONT m1; }; }
m_thaw() { node_kill CONT m1; sleep 2; }
c_cut() { isolate c2; sleep 3; heal; }
m_all() { for n in $(numbered m "$MANAGERS"); do cut s1 "$n"; done; sleep 6; }
# Two neighbours that hear everybody but each other both keep their leases: writes to their
# chains wait until it ends.
s_apart() { cut s1 s2; sleep 6; heal; }
one_way() { for n in $(numbered m "$MANAGERS"); do cut s2 "$n" oneway; done; sleep 6; }
power() {
	power_cut
	for n in $(servers); do
		node_start "$n"
	done
	until_true "$SETTLE" net_healthy
}

event "storage, kill -9" s_kill
event "storage, back" s_back
whole "storage"
event "storage, clean stop" s_stop
event "storage, started" s_start
event "storage, stopped for 6 s" s_freeze
event "storage, goes on" s_thaw
event "storage, cut off" s_cut
event "storage, heard again" s_heal
event "storage, cut from managers" m_all
event "storage, managers again" s_heal
event "storage, managers do not hear it" one_way
event "storage, heard once more" s_heal
event "two storages, apart for 6 s" s_apart
whole "links"
event "metadata, kill -9" d_kill
event "metadata, back" d_back
event "metadata, cut off" d_cut
event "metadata, heard again" s_heal
event "manager, kill -9" m_kill
event "manager, back" m_back
event "manager, stopped" m_freeze
event "manager, goes on" m_thaw
[ "$CLIENTS" -lt 2 ] || event "client, cut off for 3 s" c_cut
event "power cut of all servers" power
whole "power cut"

check "programs have gone on all the time" programs_live
stop_programs
check "no bytes were wrong" not wrong_bytes
check "something was acknowledged" [ "$(cat "$W"/acked-* | wc -l)" -gt 100 ]
check "nothing that was acknowledged is lost" lost "$W/lost"
[ "$failed" = 0 ] || cat "$W/lost" "$W"/oracle-c* 2>/dev/null | tail -20
done_here
