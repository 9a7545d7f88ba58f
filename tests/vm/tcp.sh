#!/bin/sh
# A guest without an RDMA device: a development cluster serves over TCP, and says so once.
. "$(dirname "$0")/../cluster/_lib.sh"
SIZE=${SIZE:-256MiB}
check "there is no device" not ls /sys/class/infiniband/*
check "a development cluster" dev a
check "chains serve" until_true 60 healthy
said_once() { grep -c 'no RDMA device, over TCP' "$W/a/log" | grep -qx 1; }
check "it says once that there is no device" said_once
tcp_only() { admin show rdma | grep -q '^manager .*TCP only$'; }
check "and shows it" tcp_only
mkdir "$W/b.mnt"
check "a second mount" "$FSD" mount --config "$CONF" "$W/b.mnt"
dd if=/dev/urandom of="$W/data" bs=1M count=16 status=none
check "data are written" dd if="$W/data" of="$W/a.mnt/data" bs=1M conv=fsync status=none
check "and read" cmp "$W/data" "$W/b.mnt/data"
check "nothing was logged as an error" not grep -E ' error ' "$W/a/log"
finish
