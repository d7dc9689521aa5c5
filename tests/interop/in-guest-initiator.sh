# shellcheck shell=bash
# The guest's half of guest-initiator.sh.
. /mnt/share/guest-lib.sh

for nic in eth0 eth1; do ip link set "$nic" up; done
. /mnt/share/guest-corbel.sh

start_initiator --path aoe:0.0@eth0,eth1 --path "iscsi:$IQN/$LUN@10.77.0.1:3260" \
  --path "iscsi:$IQN/$LUN@10.77.1.1:3260"
wait_for 30 "four paths" ready_paths 4
device=$(readlink -f /dev/corbel/disk)
[ -b "$device" ] || fail "no block device: $device"
corbel status disk
pass "one device from four paths: $device"

verified_load "$device" 8
pass "random reads and writes, all verified"
file_system_round "$device"
pass "ext4: format, fill, check, compare"

cut_each() {
  ask_host cut0; sleep 4; ask_host restore0; sleep 2
  ask_host cut1; sleep 4; ask_host restore1
}
pull_each() {
  ip link set eth0 down; sleep 2; ip link set eth0 up; sleep 2
  ip link set eth1 down; sleep 2; ip link set eth1 up
}
block_one_way() { ask_host block; sleep 4; ask_host unblock; }
fail_by_hand() {
  corbel fail disk "iscsi:$IQN/$LUN@10.77.0.1:3260"; sleep 1
  corbel reinstate disk "iscsi:$IQN/$LUN@10.77.0.1:3260"
}
under_load 16 "each path silent in turn" cut_each
under_load 12 "each interface pulled in turn" pull_each
under_load 10 "a portal that hears nothing" block_one_way
under_load 6 "a path failed and reinstated by hand" fail_by_hand
under_load 12 "the target restarted" ask_host restart
under_load 12 "the target killed" ask_host crash
kill_initiator() {
  kill -9 "$initiator"
  wait "$initiator" 2>/dev/null || true
  start_initiator
}
before=$(readlink -f /dev/corbel/disk)
under_load 14 "the initiator killed and started again" kill_initiator
restart_initiator() {
  exec 9<"$device" # in use, whether the load has begun or not
  kill -TERM "$initiator"
  wait_for 20 "the initiator's end" gone
  start_initiator
  exec 9<&-
}
under_load 14 "the initiator told to end while its device is in use, and started again" restart_initiator
[ "$(readlink -f /dev/corbel/disk)" = "$before" ] || fail "another device after the restart"
wait_for 120 "four paths again, some of which may be damped" ready_paths 4

# All paths gone: waiting, then failing on demand, which the kernel's log rightly tells.
dmesg_is_clean
ask_host cut-all
(dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none) &
waiting=$!
sleep 4
kill -0 $waiting || fail "a read did not wait for a path"
corbel set disk no-path-retry fail
began=$SECONDS
if wait $waiting; then fail "a read went well without a path"; fi
[ $((SECONDS - began)) -le 7 ] || fail "the read took too long to fail: $((SECONDS - began)) s"
corbel set disk no-path-retry queue
dmesg -C
(dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none) &
waiting=$!
sleep 3
ask_host restore-all
wait $waiting || fail "a read that waited failed although the paths came back"
pass "all paths gone: queue waits, fail fails what waits, queue waits again and resumes"
wait_for 120 "four paths again, some of which may be damped" ready_paths 4

dd if=/dev/urandom of=/tmp/last bs=1M count=16 status=none
dd if=/tmp/last of="$device" bs=1M oflag=direct conv=fsync status=none
sha256sum </tmp/last | cut -d' ' -f1 >"$HERE/written.sum"
dmesg_is_clean
end_initiator
kernel_is_sound
