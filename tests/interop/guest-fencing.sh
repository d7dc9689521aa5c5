#!/usr/bin/env bash
# Two guests share a disk: one is fenced off while it writes flat out, by fence_scsi and then by the
# very calls of sg_persist that it makes. Not one write of the victim lands afterwards, what it was
# told had been written is there, and the other guest goes on writing.
# usage: guest-fencing.sh [KERNEL [VICTIM'S-KERNEL]]      (6.12 6.1)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12} victims=${2:-6.1}
NAME=guest-fencing-$kernel-$victims

"$TESTS/guest/net.sh" up "$NS" 1 1500
truncate -s 64M "$WORK/disk.img"
config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$WORK/disk.img"
iscsi = [{ target = "$IQN", lun = $LUN }]

[[target]]
name = "$IQN"
portals = ["10.77.0.1:3260"]
TOML
start_target

share "$TESTS/interop/counters.py"
for role in survivor:1:$kernel victim:2:$victims; do
  IFS=: read -r role id with <<<"$role"
  run_guest 1 1500 "$with" 1500 --id "$id" "$TESTS/interop/in-guest-fencing.sh" "$role" \
    > >(exec sed -u "s/^/$role: /") 2>&1 &
  PIDS+=($!)
done
for guest in "${PIDS[@]}"; do
  wait "$guest" || fail "a guest says so above (exit code $?)"
done
PIDS=()
end_target
pass "kernels $kernel and $victims: everything above"
