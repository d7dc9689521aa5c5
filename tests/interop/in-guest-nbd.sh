# shellcheck shell=bash
# The guest's half of guest-nbd.sh.
. /mnt/share/guest-lib.sh
server=/tmp/nbd-mem # not on the share: starting it is part of what is measured
cp /mnt/share/nbd-mem $server
mkdir -p /tmp/ram
mount -t tmpfs -o size=300m ram /tmp/ram
truncate -s 256M /tmp/ram/disk

to_ms() { echo $((10#${1/./} * 10)); } # of a time as /proc/uptime has it
attach() { # OPTION…
  : >/tmp/server.out
  "$server" /tmp/ram/disk --kernel --hang /tmp/hang "$@" >/tmp/server.out 2>>/tmp/server.log &
  pid=$!
  wait_for 120 "the server's \`ready\`" grep -qx ready /tmp/server.out
}
detach() {
  dmesg_is_clean
  udevadm settle --timeout=20
  "$server" --detach
  sleep 1
  kernel_is_sound
  dmesg -C
}
kill_server() { kill -9 "$pid"; wait "$pid" 2>/dev/null || true; }
attribute() { cat "/sys/block/${device#/dev/}/$1"; }

[ ! -d /sys/module/nbd ] || fail "the module is already there: nothing would be proven"
attach
# Not always the first: udev looks at new devices, and one that is open is not taken.
device=$(awk '/^new/ { print $2 }' /tmp/server.out)
[ -b "$device" ] || fail "attached as: $(cat /tmp/server.out)"
wait_for 60 "the device's size" test "$(blockdev --getsize64 "$device")" = $((256 << 20))
[ "$(attribute backend)" = corbel-test:nbd-mem ] || fail "the backend is $(attribute backend)"
[ "$(attribute queue/write_cache)" = "write back" ] || fail "the kernel will not flush"
[ "$(attribute queue/fua)" = 1 ] || fail "the kernel does not use FUA"
[ "$(attribute queue/discard_max_bytes)" -gt 0 ] || fail "the kernel does not discard"
pass "attached; the module was loaded; flush, FUA, discard; zeroes: $(attribute queue/write_zeroes_max_bytes)"

verified_load "$device" 8
file_system_round "$device"
head -c 1M /dev/urandom >/tmp/ram/r
dd if=/tmp/ram/r of="$device" bs=1M oflag=direct conv=fsync status=none
blkdiscard -o 0 -l 64K "$device"
blkdiscard -z -o 64K -l 64K "$device"
cmp -n 131072 /dev/zero <(dd if="$device" bs=128K count=1 iflag=direct status=none)
pass "random reads and writes verified; a file system; discard and zeroes"

detach
wait_for 60 "the end of the server" bash -c "! kill -0 $pid 2>/dev/null"
[ "$(attribute size)" = 0 ] || fail "detached, and still $(attribute size) sectors"
attach
device=$(awk '/^new/ { print $2 }' /tmp/server.out)
pass "detached and attached again: $device"

# --- killed under load, and back: nothing is lost, and the pause is short
load() { # SECONDS
  fio --eta=never --output-format=terse --terse-version=3 --output=/tmp/load.txt --name=load \
    --filename="$device" --rw=randrw --ioengine=libaio --direct=1 --bs=4k --iodepth=16 --offset=64M \
    --size=32M --verify=crc32c --verify_fatal=1 --verify_backlog=128 --serialize_overlap=1 \
    --time_based --runtime="$1"
}
longest_ms() { # of /tmp/load.txt: completion latency of the slowest read or write
  awk -F';' '/^3;/ { r = $15; w = $56; print int((r > w ? r : w) / 1000); exit }' /tmp/load.txt
}
requests_done() { awk '{ print $1 + $5 }' "/sys/block/${device#/dev/}/stat"; }
more_than() { [ "$(requests_done)" -gt "$1" ]; }
killed() { # AWAY-SECONDS LOAD-SECONDS ; sets pause_ms: from the new socket to the last old answer
  local away=$1 seconds=$2 down back before fio slowest
  before=$(requests_done)
  load "$seconds" &
  fio=$!
  wait_for 30 "the load" more_than $((before + 500))
  read -r down _ </proc/uptime
  kill_server
  sleep "$away"
  attach
  back=$(awk '/^at/ { print $2 }' /tmp/server.out)
  grep -qx "again $device" /tmp/server.out || fail "came back as: $(cat /tmp/server.out)"
  wait $fio || { cat /tmp/load.txt; fail "the load saw an error"; }
  slowest=$(longest_ms)
  pause_ms=$(($(to_ms "$down") + slowest - $(to_ms "$back")))
  echo "killed at $down s, back at $back s, slowest request $slowest ms"
  [ "$slowest" -gt $((away * 1000)) ] || fail "the load did not notice: $(cat /tmp/load.txt)"
}
# Three ticks, since an emulated guest on a busy machine is slow; half of what the kernel takes by itself.
asked_again_ms=15000
killed 0 40
pass "killed under load: nothing lost; all answered $pause_ms ms after the return"
[ "$pause_ms" -lt "$asked_again_ms" ] || fail "a tick of 5 s should have sent everything again by then"
killed 8 40
pass "8 s without a daemon: nothing lost; all answered $pause_ms ms after the return"
[ "$pause_ms" -lt "$asked_again_ms" ] || fail "a tick of 5 s should have sent everything again by then"
detach
attach --tick-ms 30000
device=$(awk '/^new/ { print $2 }' /tmp/server.out)
killed 0 50
pass "for comparison, with the kernel's own tick of 30 s: $pause_ms ms"
detach
attach
device=$(awk '/^new/ { print $2 }' /tmp/server.out)

# --- it does not answer for longer than any timeout of the kernel: slow, and alive
: >/tmp/hang
dd if=/dev/urandom of="$device" bs=4k count=1 oflag=direct status=none &
dd=$!
sleep 45
kill -0 $dd || fail "the write ended, although nobody answered"
[ "$(attribute pid)" != "" ] || fail "the device is dead"
echo "log lines of one request that hung for 45 s: $(dmesg | grep -c 'Possible stuck')"
rm /tmp/hang
wait $dd || fail "the write failed"
pass "45 s without an answer: the write waited and was done"

# --- in use, it is not taken away; then it is
mkfs.ext4 -q -F "$device"
mount "$device" /mnt/disk
! "$server" --detach 2>/tmp/detach.txt || fail "detached under a mounted file system"
grep -q 'in use' /tmp/detach.txt || fail "not told that it is in use: $(cat /tmp/detach.txt)"
umount /mnt/disk
detach
wait_for 60 "the end of the server" bash -c "! kill -0 $pid 2>/dev/null"
cat /tmp/server.log
pass "in use it stays; unused it goes"
