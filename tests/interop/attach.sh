#!/usr/bin/env bash
# `corbel-initiator attach` with a socket for NBD clients: two AoE and two iSCSI paths to one export of
# ours, two AoE paths to vblade, two iSCSI paths to tgt. What libnbd's and QEMU's tools see must be what
# is in the file.
# usage: attach.sh
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/initiator-lib.sh"

ip netns add "$NS"
ip -n "$NS" link set lo up
for number in 0 1; do
  ip -n "$NS" link add "shelf$number" mtu 9000 type veth peer name "client$number" mtu 9000
  for end in shelf client; do ip -n "$NS" link set "$end$number" up; done
done

fill_disk() { # half of it holes, half of it random
  rm -f "$WORK/disk.img"
  truncate -s 64M "$WORK/disk.img"
  dd if=/dev/urandom of="$WORK/disk.img" bs=1M seek=16 count=32 conv=notrunc status=none
  # The servers' own page cache and direct I/O must see the same.
  sync "$WORK/disk.img"
}

round() { # WHO ; with a device attached: read all, write all, compare
  local who=$1
  inside_run nbdinfo "$URI" >"$WORK/info.txt"
  grep -q 'export-size: 67108864' "$WORK/info.txt" || { cat "$WORK/info.txt"; fail "$who: the size"; }
  inside_run nbdcopy "$URI" "$WORK/copy.img"
  cmp "$WORK/copy.img" "$WORK/disk.img"
  pass "$who: nbdinfo, nbdcopy: $(paths_ready) paths, every byte"
  dd if=/dev/urandom of="$WORK/new.img" bs=1M count=64 status=none
  inside_run nbdcopy --flush "$WORK/new.img" "$URI"
  inside_run qemu-img compare -f raw -F raw "$WORK/new.img" "$URI" >"$WORK/compare.txt" ||
    { cat "$WORK/compare.txt"; fail "$who: qemu-img compare"; }
}

fill_disk
config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$WORK/disk.img"
aoe = [{ shelf = 0, slot = 0, interfaces = ["shelf0", "shelf1"] }]
iscsi = [{ target = "$IQN", lun = $LUN }]

[[target]]
name = "$IQN"
portals = ["127.0.0.1:3260", "127.0.0.2:3260"]
TOML
start_target
attach nbd:unix:"$WORK/nbd.sock" --path aoe:0.0@client0 --path aoe:0.0@client1 \
  --path "iscsi:$IQN/$LUN@127.0.0.1:3260" --path "iscsi:$IQN/$LUN@127.0.0.2:3260"
URI=nbd+unix:///disk?socket=$WORK/nbd.sock
wait_for 10 "four paths" paths_are 4
round ours
end_initiator
end_target
cmp "$WORK/new.img" "$WORK/disk.img"
pass "ours: the file holds what was written"

fill_disk
for number in 0 1; do
  inside vblade 3 1 "shelf$number" "$WORK/disk.img" >>"$WORK/vblade.log" 2>&1 &
  PIDS+=($!)
done
attach nbd:unix:"$WORK/nbd.sock" --path aoe:3.1@client0,client1
wait_for 10 "two paths" paths_are 2
round vblade
end_initiator
cmp "$WORK/new.img" "$WORK/disk.img"
pass "vblade: the file holds what was written"

fill_disk
inside tgtd -f -C 7 --iscsi portal=127.0.0.1:3262,portal=127.0.0.2:3262 >>"$WORK/tgtd.log" 2>&1 &
PIDS+=($!)
tgt() { (inside tgtadm -C 7 "$@"); }
wait_for 10 tgtd tgt --mode sys --op show
tgt --lld iscsi --mode target --op new --tid 1 --targetname "$IQN"
tgt --lld iscsi --mode logicalunit --op new --tid 1 --lun 1 --backing-store "$WORK/disk.img"
tgt --lld iscsi --mode target --op bind --tid 1 --initiator-address ALL
attach nbd:127.0.0.1:10809 --path "iscsi:$IQN/1@127.0.0.1:3262" --path "iscsi:$IQN/1@127.0.0.2:3262"
URI=nbd://127.0.0.1:10809/disk
wait_for 10 "two paths" paths_are 2
round tgt
end_initiator
cmp "$WORK/new.img" "$WORK/disk.img"
pass "tgt: the file holds what was written"
