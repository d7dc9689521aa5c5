#!/usr/bin/env bash
# open-iscsi and dm-multipath in a guest against the target: two portals, both digests, mutual CHAP,
# verified load, file system, a portal cut off and returned, the target stopped, killed and started
# again under load, LVM, clean logout.
# usage: guest-iscsi.sh [KERNEL [MTU]]      (6.12 1500)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12} mtu=${2:-1500}
NAME=guest-iscsi-$kernel-$mtu

"$TESTS/guest/net.sh" up "$NS" 2 "$mtu"
truncate -s 192M "$WORK/disk.img"
mkdir -p "$WORK/share"
umask 077
echo one-way-secret-1 >"$WORK/share/user.secret"
echo other-way-secret >"$WORK/share/target.secret"
umask 022
config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$WORK/disk.img"
iscsi = [{ target = "$IQN", lun = $LUN }]

[[target]]
name = "$IQN"
portals = ["10.77.0.1:3260", "10.77.1.1:3260"]
chap = { user = "dom0", secret_file = "$WORK/share/user.secret" }
mutual_chap = { user = "shelf", secret_file = "$WORK/share/target.secret" }
TOML
start_target

host_action() {
  case $1 in
    cut) "$TESTS/guest/net.sh" cut "$NS" 1 1 ;;
    restore) "$TESTS/guest/net.sh" restore "$NS" 1 1 ;;
    restart) end_target TERM; sleep 3; start_target ;;
    crash) end_target KILL; sleep 3; start_target ;;
    grow) grow_disk ;;
    *) fail "the guest asked for an unknown $1" ;;
  esac
}

share
case $CORBEL_TARGET in */peers.py) peers=1 ;; *) peers=0 ;; esac # tgt falls short of two things
guest_in_steps 2 "$mtu" "$kernel" 700 --env "PEERS=$peers" "$TESTS/interop/in-guest-iscsi.sh"
disk_holds_last_write
if grep -rqE 'one-way-secret|other-way-secret' "$WORK/target.log" "$WORK/target.out"; then
  fail "a CHAP secret stands in the target's log"
fi
pass "no secret in the target's log"
end_target
pass "SIGTERM ended the target with 0"
