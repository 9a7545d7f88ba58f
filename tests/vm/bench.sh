#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench-rdma - what calls, payload and chunk reads over verbs cost beside what ib_send_lat,
# ib_read_bw and ib_write_bw make of the same device, in turn, in one guest with soft-RoCE.
# Judged in words; the exit status says whether everything ran.  ROUNDS=5: more of them.
# T=calls or T=chunks: only that part.
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
tests/vm/rdma-vm --host-root --ro --mem 2048 --timeout "${TIMEOUT:-900}" . -- \
    env B="${B:-build}" ROUNDS="${ROUNDS:-3}" T="$T" tests/vm/bench_guest.sh
