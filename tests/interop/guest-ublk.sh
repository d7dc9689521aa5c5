#!/usr/bin/env bash
# The ublk presenter against a real kernel: a RAM-backed device in a guest, its users, a server that
# is killed and comes back. Everything is in the guest; nothing of it needs a network.
# usage: guest-ublk.sh [KERNEL]      (6.12; 6.1 of Debian has no ublk)
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/programs-lib.sh
. "$TESTS/interop/programs-lib.sh"
kernel=${1:-6.12}
NAME=guest-ublk-$kernel

share "$(program ublk-mem)"
run_guest 0 1500 "$kernel" 600 --mem 1536 "$TESTS/interop/in-guest-ublk.sh" ||
  fail "the guest says so above (exit code $?)"
pass "kernel $kernel: everything above"
