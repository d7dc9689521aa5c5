# shellcheck shell=bash
# The guest's half of guest-aoe.sh.
. /mnt/share/guest-lib.sh
device=/dev/etherd/e0.0
sys='/sys/block/etherd!e0.0'
size_mib() { echo $(($(cat "$sys/size") / 2048)); }
size_is() { [ "$(size_mib)" = "$1" ]; }

modprobe aoe aoe_iflist="eth0 eth1" aoe_deadsecs=600
aoe-discover
asked=$(date +%s%N)
wait_for 10 "$device" test -b "$device"
pass "$device is there $((($(date +%s%N) - asked) / 1000000)) ms after aoe-discover"
udevadm settle
size_is 192 || fail "the size is $(size_mib) MiB, not 192"
both_known() { [[ $(cat "$sys/netif") == *eth0*eth1* || $(cat "$sys/netif") == *eth1*eth0* ]]; }
wait_for 10 "both interfaces in aoe-stat" both_known
aoe-stat
aoe-stat | grep -qE 'e0\.0 .* up' || fail "aoe-stat does not say up"
pass "one device over both interfaces"

case $GUEST_MTU in 1500) payload=1024 ;; 9000) payload=8[0-9][0-9][0-9] ;; esac
[[ "$(cat "$sys/payload" 2>/dev/null || aoe-stat | awk '/e0.0/ { print $4 }')" == $payload ]] ||
  fail "payload: $(aoe-stat), wanted $payload"
pass "payload fits an MTU of $GUEST_MTU: $(aoe-stat)"
hdparm -I "$device" >/tmp/identify.txt 2>&1 || true
grep -E 'Model|Serial|Firmware' /tmp/identify.txt || true

verified_load "$device" 15
pass "random reads and writes, all verified"
file_system_round "$device"
pass "ext4: format, fill, check, compare"

# One interface goes silent under load, and comes back. The initiator must see nothing but delay.
# (Its retransmissions are dropped on the way: the carrier stays, as when a switch goes mad.)
(verified_load "$device" 30) &
load=$!
sleep 6
ask_host cut
sleep 10
ask_host restore
wait "$load" || fail "the load did not survive the loss of eth1"
pass "eth1 silent for 10 s under load: no error"
(verified_load "$device" 20) &
load=$!
sleep 4
ip link set eth0 down
sleep 6
ip link set eth0 up
wait "$load" || fail "the load did not survive eth0 down"
aoe-discover
wait_for 20 "both interfaces again" both_known
pass "eth0 down and up under load: no error"

lvm_round "$device"
pass "LVM on top"

ask_host grow
wait_for 20 "the new size after aoe-revalidate" sh -c "aoe-revalidate e0.0; sleep 1
  [ \$(cat '$sys/size') = $((256 * 2048)) ]"
grown_end_holds_data "$device"
last_write "$device"
dmesg_is_clean 'aoe: .*(error|fail)|too many'
