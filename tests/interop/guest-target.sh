#!/usr/bin/env bash
# The target itself in a guest: on the oldest kernel it promises to run on, and on a real block
# device (virtio, with a write cache). Its clients are the same kernel's initiators.
# usage: guest-target.sh [KERNEL]      (6.1)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.1}
NAME=guest-target-$kernel

share "$CORBEL_TARGET"
run_guest 0 1500 "$kernel" 500 --disk 192M "$TESTS/interop/in-guest-target.sh" ||
  fail "the guest says so above (exit code $?)"
pass "kernel $kernel: everything above"
