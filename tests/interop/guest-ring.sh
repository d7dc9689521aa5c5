#!/usr/bin/env bash
# The ring's own tests in a guest: io_uring is not the same on every kernel that is promised.
# usage: guest-ring.sh [KERNEL]      (6.12)
# env:   CORBEL_RING_TESTS   the test program (cargo test -p corbel-ring --no-run)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12}
NAME=guest-ring-$kernel
[ -x "${CORBEL_RING_TESTS:-}" ] || fail "CORBEL_RING_TESTS names no program"
mkdir -p "$WORK/share"
cp "$TESTS/interop/guest-lib.sh" "$WORK/share/"
cp "$CORBEL_RING_TESTS" "$WORK/share/ring-tests"
run_guest 0 1500 "$kernel" 500 "$TESTS/interop/in-guest-ring.sh" ||
  fail "the guest says so above (exit code $?)"
pass "kernel $kernel: the ring's tests"
