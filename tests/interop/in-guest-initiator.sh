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
kill_initiator() {
  kill -9 "$initiator"
  wait "$initiator" 2>/dev/null || true
  start_initiator
}
restart_initiator() {
  exec 9<"$device" # in use, whether the load has begun or not
  kill -TERM "$initiator"
  wait_for 20 "the initiator's end" gone
  start_initiator
  exec 9<&-
}
restart_target() { ask_host restart; }
kill_target() { ask_host crash; }
# Each under a load of so many seconds; ORDER is listed, reversed, or a number that shuffles them.
faults=(
  "16 cut_each each path silent in turn"
  "12 pull_each each interface pulled in turn"
  "10 block_one_way a portal that hears nothing"
  "6 fail_by_hand a path failed and reinstated by hand"
  "12 restart_target the target restarted"
  "12 kill_target the target killed"
  "14 kill_initiator the initiator killed and started again"
  "14 restart_initiator the initiator told to end while its device is in use, and started again"
)
in_order() {
  case $ORDER in
    listed) cat ;;
    reversed) tac ;;
    *) shuf --random-source=<(yes "$ORDER") ;;
  esac
}
before=$(readlink -f /dev/corbel/disk)
mapfile -t faults < <(printf '%s\n' "${faults[@]}" | in_order)
for fault in "${faults[@]}"; do
  read -r seconds act words <<<"$fault"
  under_load "$seconds" "$words" "$act"
done
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

last_write "$device"
dmesg_is_clean
end_initiator
kernel_is_sound
