# shellcheck shell=bash
# The guest's half of guest-target.sh.
. /mnt/share/guest-lib.sh
target=/mnt/share/corbel-target
iqn=iqn.2026-11.org.example:disk

modprobe veth
ip link add vt0 type veth peer name vt1
ip link set vt0 up
ip link set vt1 up
"$target" export /dev/vdb --aoe 0.0@vt0 --iscsi "$iqn@127.0.0.1:3260" --admin-socket /run/corbel.sock \
  >/tmp/target.out 2>/tmp/target.log &
pid=$!
wait_for 15 "the target's \`ready\`" grep -qx ready /tmp/target.out
pass "serves /dev/vdb: $(tr '\n' ';' </tmp/target.out)"
"$target" status --socket /run/corbel.sock
"$target" status --socket /run/corbel.sock | grep -q 'volatile' || fail "the write cache is not seen"
! "$target" export /dev/vdb --iscsi "$iqn@127.0.0.1:3261" 2>/tmp/busy.txt || fail "served twice"
grep -q busy /tmp/busy.txt || fail "not told that it is busy: $(cat /tmp/busy.txt)"
pass "a second target is refused: $(tail -n 1 /tmp/busy.txt)"

modprobe aoe aoe_iflist=vt1
aoe-discover
wait_for 10 /dev/etherd/e0.0 test -b /dev/etherd/e0.0
udevadm settle
verified_load /dev/etherd/e0.0 10
pass "AoE: random reads and writes, all verified"

iscsid
iscsiadm -m discovery -t sendtargets -p 127.0.0.1 >/dev/null
iscsiadm -m node -T "$iqn" -p 127.0.0.1 --login >/dev/null
disk() { lsblk -ndo PATH,TRAN | awk '$2 == "iscsi" { print $1 }'; }
disk_there() { [ -b "$(disk)" ]; }
wait_for 20 "the iSCSI disk" disk_there
udevadm settle
verified_load "$(disk)" 10
pass "iSCSI: random reads and writes, all verified"
dd if=/dev/urandom of=/tmp/r bs=1M count=8 status=none
dd if=/tmp/r of="$(disk)" bs=1M oflag=direct conv=fsync status=none
cmp <(dd if=/dev/etherd/e0.0 bs=1M count=8 iflag=direct status=none) /tmp/r
pass "what iSCSI wrote, AoE reads"
blkdiscard -z -o 0 -l 4M "$(disk)"
cmp -n $((4 << 20)) /dev/zero <(dd if=/dev/etherd/e0.0 bs=1M count=4 iflag=direct status=none)
pass "zeroed through iSCSI, zeros through AoE"
iscsiadm -m node -T "$iqn" --logout >/dev/null
rmmod aoe
kill "$pid"
rc=0
wait "$pid" || rc=$?
[ $rc = 0 ] || fail "exit code $rc after SIGTERM"
cmp -n $((4 << 20)) /dev/vdb /dev/zero
pass "SIGTERM ended the target with 0"
dmesg_is_clean
