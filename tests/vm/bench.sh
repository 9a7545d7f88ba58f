#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench-rdma - what calls, payload and chunk reads over verbs cost beside what ib_send_lat,
# ib_read_bw and ib_write_bw make of the same device, in turn, in one guest with soft-RoCE.
# Judged in words; the exit status says whether everything ran.  ROUNDS=9: more of them.
# T=calls or T=chunks: only that part.
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
# The guest's disk lies in our memory, and the device moves its bytes, as that of a box would.
mem=/dev/shm
[ -d $mem ] && [ -w $mem ] || mem=${TMPDIR:-/tmp}
TMPDIR=$mem tests/vm/rdma-vm --host-root --ro --mem 2048 --disk 400 \
    --timeout "${TIMEOUT:-900}" . -- \
    env B="${B:-build}" ROUNDS="${ROUNDS:-5}" T="$T" tests/vm/bench_guest.sh
