#!/usr/bin/env bash
# dm-multipath in a guest groups two portals by their ALUA priority, and follows what the operator
# says of them under verified load: I/O moves to the other portal, and no error is seen.
# usage: guest-multipath.sh [KERNEL [MTU]]      (6.12 1500)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12} mtu=${2:-1500}
NAME=guest-multipath-$kernel-$mtu

"$TESTS/guest/net.sh" up "$NS" 2 "$mtu"
truncate -s 192M "$WORK/disk.img"
config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$WORK/disk.img"
port_groups = [{ group = 2, state = "non-optimized" }]
iscsi = [{ target = "$IQN", lun = $LUN }]

[[target]]
name = "$IQN"
portals = ["10.77.0.1:3260", { address = "10.77.1.1:3260", group = 2 }]
TOML
start_target

state() { # GROUP STATE [GROUP STATE]
  while [ $# -gt 0 ]; do
    "$CORBEL_TARGET" set access disk --group "$1" --state "$2" --socket "$WORK/target.sock"
    shift 2
  done
}
host_action() {
  case $1 in
    swap) state 2 optimized 1 non-optimized ;;
    first-standby) state 1 standby ;;
    first-best) state 1 optimized 2 non-optimized ;;
    first-transitioning) state 1 transitioning ;;
    first-optimized) state 1 optimized ;;
    first-unavailable) state 1 unavailable ;;
    restart) end_target KILL; start_target ;;
    *) fail "the guest asked for an unknown $1" ;;
  esac
}

share
guest_in_steps 2 "$mtu" "$kernel" 1500 "$TESTS/interop/in-guest-multipath.sh"
end_target
pass "kernel $kernel: everything above"
