#!/usr/bin/env bash
# corbel-initiator in a guest: two AoE and two iSCSI paths to one export become one block device (ublk on
# kernel 6.12, the kernel's nbd on 6.1). Verified load while paths are cut, pulled and taken away, the
# target is stopped, killed and started again, and the initiator itself is killed.
# usage: guest-initiator.sh [KERNEL [PRESENTER [ORDER]]]      (6.12 ublk listed)
#   ORDER of the faults: listed, reversed, or a number that shuffles them
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12} presenter=${2:-} order=${3:-listed}
[ -n "$presenter" ] || { [ "$kernel" = 6.1 ] && presenter=nbd || presenter=ublk; }
NAME=guest-initiator-$kernel-$presenter-$order
CORBEL_INITIATOR=${CORBEL_INITIATOR:-$(dirname "$CORBEL_TARGET")/corbel-initiator}

"$TESTS/guest/net.sh" up "$NS" 2 1500
truncate -s 192M "$WORK/disk.img"
mkdir -p "$WORK/share"
config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$WORK/disk.img"
aoe = [{ shelf = 0, slot = 0, interfaces = ["br0", "br1"] }]
iscsi = [{ target = "$IQN", lun = $LUN }]

[[target]]
name = "$IQN"
portals = ["10.77.0.1:3260", "10.77.1.1:3260"]
TOML
start_target

net() { "$TESTS/guest/net.sh" "$@"; }
host_action() {
  case $1 in
    cut0) net cut "$NS" 1 0 ;;
    restore0) net restore "$NS" 1 0 ;;
    cut1) net cut "$NS" 1 1 ;;
    restore1) net restore "$NS" 1 1 ;;
    cut-all) net cut "$NS" 1 0; net cut "$NS" 1 1 ;;
    restore-all) net restore "$NS" 1 0; net restore "$NS" 1 1 ;;
    block) # one portal hears nothing more; what it says still gets through
      (inside nft -f - <<'NFT'
table inet corbel { chain in { type filter hook input priority 0; ip daddr 10.77.0.1 tcp dport 3260 drop; }; }
NFT
      ) ;;
    unblock) (inside nft delete table inet corbel) ;;
    restart) end_target TERM; sleep 3; start_target ;;
    crash) end_target KILL; sleep 3; start_target ;;
    grow) grow_disk ;;
    *) fail "the guest asked for an unknown $1" ;;
  esac
}

share "$TESTS/interop/guest-corbel.sh" "$CORBEL_INITIATOR"
guest_failed() { tail -n 60 "$WORK/share/initiator.log" 2>/dev/null || true; }
guest_in_steps 2 1500 "$kernel" 800 --env "PRESENTER=$presenter" --env "ORDER=$order" "$TESTS/interop/in-guest-initiator.sh"
disk_holds_last_write
end_target
