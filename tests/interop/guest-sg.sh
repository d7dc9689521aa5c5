#!/usr/bin/env bash
# sg3-utils in a guest, over the kernel's own initiator: what each tool's manual says, happens.
# usage: guest-sg.sh [KERNEL]      (6.12)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12}
NAME=guest-sg-$kernel

"$TESTS/guest/net.sh" up "$NS" 2 1500
truncate -s 64M "$WORK/disk.img"
truncate -s 16M "$WORK/spare.img"
config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$WORK/disk.img"
thin = true
alua = "explicit"
port_groups = [{ group = 1, preferred = true }]
iscsi = [{ target = "$IQN", lun = $LUN }]

[[export]]
name = "spare" # to be copied to and to be erased; slowly enough to be watched at it
path = "$WORK/spare.img"
thin = true
sanitize_rate = "1 MiB"
iscsi = [{ target = "$IQN", lun = $((LUN + 1)) }]

[[target]]
name = "$IQN"
portals = ["10.77.0.1:3260", { address = "10.77.1.1:3260", group = 2 }]
TOML
start_target

host_action() {
  case $1 in
    restart)
      end_target KILL
      start_target
      "$CORBEL_TARGET" status --socket "$WORK/target.sock" | grep -q 'disk .* 2  *standby' ||
        fail "the standby did not outlive the restart"
      ;;
    *) fail "the guest asked for an unknown $1" ;;
  esac
}

share
guest_in_steps 2 1500 "$kernel" 1500 "$TESTS/interop/in-guest-sg.sh"
end_target
pass "kernel $kernel: everything above"
