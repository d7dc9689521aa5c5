#!/usr/bin/env bash
# The kernel's own AoE initiator (aoe.ko in a guest) against the target, over two interfaces: device,
# payload, verified load, file system, an interface lost and returned under load, LVM, resize.
# usage: guest-aoe.sh [KERNEL [MTU]]      (6.12 1500)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12} mtu=${2:-1500}
NAME=guest-aoe-$kernel-$mtu

"$TESTS/guest/net.sh" up "$NS" 2 "$mtu"
truncate -s 192M "$WORK/disk.img"
config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$WORK/disk.img"
aoe = [{ shelf = 0, slot = 0, interfaces = ["br0", "br1"] }]
TOML
start_target

host_action() {
  case $1 in
    cut) "$TESTS/guest/net.sh" cut "$NS" 1 1 ;;
    restore) "$TESTS/guest/net.sh" restore "$NS" 1 1 ;;
    grow) grow_disk ;;
    *) fail "the guest asked for an unknown $1" ;;
  esac
}

share
guest_in_steps 2 "$mtu" "$kernel" 700 "$TESTS/interop/in-guest-aoe.sh"
disk_holds_last_write
kill -0 "$TARGET_PID" || fail "the target died"
end_target
pass "SIGTERM ended the target with 0"
