#!/usr/bin/env bash
# The kernel's NBD client on one end of a socket pair, the machine on the other, in a guest: what
# becomes of the device when the daemon is killed and comes back, and when it does not answer.
# usage: guest-nbd.sh [KERNEL]      (6.1)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
kernel=${1:-6.1}
NAME=guest-nbd-$kernel

share "$(program nbd-mem)"
run_guest 0 1500 "$kernel" 600 "$TESTS/interop/in-guest-nbd.sh" || fail "the guest says so above (exit code $?)"
pass "kernel $kernel: everything above"
