# shellcheck shell=bash
# The guest's half of guest-ublk.sh.
. /mnt/share/guest-lib.sh
cp /mnt/share/ublk-mem /tmp/ublk-mem
server=/tmp/ublk-mem
disk=/tmp/disk.img fifo=/tmp/commands out=/tmp/ublk.out log=/tmp/ublk.log
size=$((192 << 20))
device=/dev/ublkb3
truncate -s $size $disk
mkfifo $fifo

serve() { # OPTION… ; returns once users may come
  : >$out
  "$server" --file $disk --id 3 --mark 7 --commands $fifo "$@" >$out 2>>$log &
  pid=$!
  for ((n = 0; n < 300; n++)); do grep -q . $out && break; sleep 0.1; done
  grep -q '^started' $out && return
  cat $out $log /proc/$pid/task/*/stack || true
  fail "the device has not started; above is where its server is"
}
tell() { echo "$1" >$fifo; }
said() { grep -q "$1" $out; }
ask() { # COMMAND ANSWER ; ANSWER begins a line within seconds
  tell "$1"
  wait_for 30 "\`$2\` after \`$1\`" said "^$2"
}
ends() { # the server, by itself and with code 0
  local rc=0
  wait "$pid" || rc=$?
  [ $rc = 0 ] || fail "the server's exit code was $rc: $(tail -n 3 $out $log)"
}

# Why there can be no device, in words that help.
! "$server" --probe >/tmp/probe || fail "a probe without the module: $(cat /tmp/probe)"
grep -q 'modprobe ublk_drv' /tmp/probe || fail "not told what to do: $(cat /tmp/probe)"
modprobe ublk_drv
"$server" --probe >/tmp/probe
pass "$(cat /tmp/probe)"

# What users see.
serve --hold 8 --elsewhere 5
said "^started $device $size false" || fail "$(cat $out)"
[ "$(readlink -f /dev/corbel/test)" = $device ] || fail "/dev/corbel/test leads elsewhere"
[ "$(blockdev --getsize64 $device)" = $size ] || fail "another size"
queue=/sys/block/ublkb3/queue
settle_queue() { grep -q '\[none\]' $queue/scheduler && [ "$(cat $queue/read_ahead_kb)" = 512 ]; }
wait_for 30 "queue settings" settle_queue
for pair in nr_requests:32 logical_block_size:512 physical_block_size:4096 optimal_io_size:65536 fua:1 rotational:0 \
  max_hw_sectors_kb:256 discard_max_bytes:$((1 << 30)) write_zeroes_max_bytes:$((32 << 20)); do
  [ "$(cat "$queue/${pair%:*}")" = "${pair#*:}" ] ||
    fail "${pair%:*} is $(cat "$queue/${pair%:*}")"
done
grep -q 'write back' $queue/write_cache || fail "no volatile cache"
pass "the device is as it was wanted"

file_system_round /dev/corbel/test
pass "ext4: filled, unmounted, checked, compared"
dd if=/dev/urandom of=/tmp/r bs=1M count=8 status=none
dd if=/tmp/r of=$device bs=1M oflag=direct conv=fsync status=none
dd if=/tmp/r of=$device bs=64k seek=1 count=2 oflag=direct,dsync status=none
cmp -n 65536 /tmp/r $disk
blkdiscard -o 2M -l 2M $device
blkdiscard -z -o 4M -l 2M $device
cmp -n $((4 << 20)) -i $((2 << 20)) $disk /dev/zero
! dd if=/tmp/r of=$device bs=1M seek=$((size >> 20)) count=1 2>/tmp/dd.txt ||
  fail "a write beyond the end"
grep -q 'No space left' /tmp/dd.txt || fail "beyond the end: $(cat /tmp/dd.txt)"
ask counts Counts
for what in fua flushes discards zeroes; do
  said "$what: [1-9]" || fail "no $what: $(cat $out)"
done
pass "flush, FUA, discard, zeroes: $(tail -n 1 $out)"

# Nobody else's device, and nobody's at all.
! "$server" --file $disk --id 3 --mark 8 >/tmp/other || fail "another's device was taken over"
grep -q 'belongs to somebody else' /tmp/other || fail "$(cat /tmp/other)"
! "$server" --file $disk --id 3 --mark 7 --recovery-wait 1 >/tmp/other || fail "served twice"
grep -q "served by process $pid" /tmp/other || fail "$(cat /tmp/other)"
pass "a second server is refused: $(tail -n 1 /tmp/other)"

# Stop: refused while it is used, clean when it is not.
mkfs.ext4 -q -F $device
mount $device /mnt/disk
ask stop 'not stopped: it is mounted'
umount /mnt/disk
exec 5<$device
ask stop 'not stopped: process'
exec 5<&-
dd if=/tmp/r of=$device bs=1M seek=100 status=none # stays in the page cache
ask resize\ $((size * 2)) 'not resized'
tell stop
ends
said ^stopped || fail "$(cat $out)"
[ ! -e $device ] && [ ! -e /dev/ublkc3 ] && [ ! -L /dev/corbel/test ] || fail "something is left"
cmp -n $((8 << 20)) -i 0:$((100 << 20)) /tmp/r $disk
pass "stopped: nothing is left, nothing was lost"

# A medium that fails in one place.
serve --bad-byte $((32 << 20))
! dd if=$device of=/tmp/x bs=4k skip=$((32 << 8)) count=1 iflag=direct 2>/tmp/dd.txt || fail "no error"
grep -q 'No data available' /tmp/dd.txt || fail "a medium error: $(cat /tmp/dd.txt)"
dd if=$device of=/tmp/x bs=4k skip=$(((32 << 8) + 1)) count=1 iflag=direct status=none
pass "a medium error is told as one"
tell stop
ends

# Killed under load, twice, with requests under way; its successor is given them again.
# First with every request under way that there can be, and so little memory that tags wait for
# it; the next servers take that depth over.
serve --delay-us 2000 --depth 8 --spare 0 --hold 8
number=$(cat /sys/block/ublkb3/dev)
verified_load $device 8 >/tmp/fio.out 2>&1 &
fio=$!
for _ in 1 2; do
  sleep 2
  kill -9 $pid
  wait $pid 2>/dev/null || true
  [ -b $device ] || fail "the device went with its server"
  serve --delay-us 3000 --hold 8 --elsewhere 3
  said "^started $device $size true" || fail "not recovered: $(cat $out)"
done
wait $fio || { cat /tmp/fio.out; fail "users saw the server die"; }
[ "$(cat /sys/block/ublkb3/dev)" = "$number" ] || fail "another device number"
cat /tmp/fio.out
pass "killed twice under load: same device, no error, every byte verified"
dmesg_is_clean

# By force, under load: users see errors, and it ends.
fio --eta=never --output=/tmp/fio.out --filename=$device --name=forced --rw=randrw --ioengine=libaio \
  --direct=1 --bs=4k --iodepth=16 --time_based --runtime=20 &
fio=$!
sleep 1
tell force
ends
! wait $fio || fail "users did not notice the end of the device"
[ ! -e $device ] || fail "the device is still there"
pass "stopped by force under load"
if dmesg | grep -E 'BUG:|WARNING:|Oops|refcount_t|blocked for more'; then
  fail "the kernel log has the lines above"
fi
