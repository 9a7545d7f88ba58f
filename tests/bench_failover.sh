#!/bin/sh
# What programs notice when parts of the cluster fail: a table of pauses, errors and losses.
TABLE=1 exec "$(dirname "$0")/cluster/failover.sh"
