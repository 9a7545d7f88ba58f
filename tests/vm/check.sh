#!/bin/sh
# SPDX-License-Identifier: MIT
# make check-rdma - what tests/vm/guest.sh checks, in one guest with soft-RoCE.
# Skipped, with the reason, only where no such guest can run.
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
said=$(mktemp) || exit 1
trap 'rm -f "$said"' EXIT

skip() {
	echo "skipped: no guest with RDMA can run here: $1"
	echo "0 passed, 0 failed"
	exit 0
}
[ "$(uname -m)" = x86_64 ] || skip "this is $(uname -m), the guest's kernel is for x86_64"
tests/vm/rdma-vm --prepare 2>"$said" || skip "$(tail -n 1 "$said")"
tests/vm/rdma-vm --host-root --ro --mem 2048 --disk 3072 --timeout 1200 . -- \
    env B="${B:-build}" CI=1 T="$T" tests/vm/guest.sh
