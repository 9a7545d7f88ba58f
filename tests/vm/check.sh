#!/bin/sh
# SPDX-License-Identifier: MIT
# make check-rdma - what tests/vm/guest.sh checks, in one guest with soft-RoCE; with T=iwarp its
# calls in one with soft-iWARP.
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
rc=0
if [ "$T" != iwarp ]; then
	tests/vm/rdma-vm --host-root --ro --mem 2048 --disk 3072 --timeout 1200 . -- \
	    env B="${B:-build}" CI=1 T="$T" tests/vm/guest.sh || rc=$?
fi
# The same calls where librdmacm connects.  Debian's kernel has no siw; it is built once.
if [ "$T" = iwarp ]; then
	if tests/vm/rdma-vm --siw --prepare 2>"$said"; then
		tests/vm/rdma-vm --siw --host-root --ro --mem 1024 --disk 256 --timeout 300 \
		    . -- env B="${B:-build}" CI=1 T=calls tests/vm/guest.sh || rc=$?
	else
		echo "skipped: iWARP: $(tail -n 1 "$said")"
	fi
fi
exit $rc
