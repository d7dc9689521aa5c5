# shellcheck shell=bash
# Both guests' halves of guest-fencing.sh: `survivor` or `victim`. They meet by files in the shared
# folder; none of it goes over the disk.
. /mnt/share/guest-lib.sh
role=$1
survivor_key=5eed0001 victim_key=5eed0002
rounds=5
area=$((512 << 10)) # what one guest's counters take; the victim's are the second
tell() { : >"$HERE/$1"; }
await() { wait_for 600 "the other guest's $1" test -e "$HERE/$1"; }

iscsid
modprobe -a iscsi_tcp sd_mod sg
log_in 1
disk=$(echo /dev/sd?)
fence() { # ACTION KEY
  fence_scsi --action="$1" --key="$2" --devices="$disk" >/tmp/fence.txt 2>&1
}
keys() { sg_persist -n -i -k -d "$disk"; }
write_counters() { # OFFSET FIRST REPORT
  python3 "$HERE/counters.py" write "$disk" "$1" "$2" "$3" /tmp/enough
}

victim() {
  local round rc
  await survivor-registered
  for round in $(seq $rounds); do
    fence on $victim_key || { cat /tmp/fence.txt; fail "unfencing ended with an error"; }
    write_counters $area $((round * 1000000)) "$HERE/victim.$round"
    # All of them ended, and by a conflict or what became of it.
    tell "victim-ended.$round"
    rc=0
    sg_raw -s 512 -i "$HERE/counters.py" "$disk" 2a 00 00 00 00 00 00 00 01 00 >/tmp/out 2>&1 || rc=$?
    [ $rc = 24 ] || { cat /tmp/out; fail "a write after it was fenced off ended with $rc"; }
    dd if="$disk" of=/dev/null bs=4k count=1 iflag=direct status=none || fail "it may read"
    await "judged.$round"
  done
  pass "cut off $rounds times, each time by a reservation conflict"
}

preempt_as() { # WAY
  if [ "$1" = fence_scsi ]; then
    fence off $victim_key || { cat /tmp/fence.txt; fail "fencing ended with an error"; }
  else
    # What fence_scsi calls, but without what it does around it: the copy below is made at once.
    sg_persist -n -o -A -T 5 -K $survivor_key -S $victim_key -d "$disk" >/tmp/fence.txt 2>&1 ||
      { cat /tmp/fence.txt; fail "PREEMPT AND ABORT ended with an error"; }
  fi
}
victims_area() {
  dd if="$disk" bs=$area skip=1 count=1 iflag=direct status=none
}
changes() {
  victims_area >/tmp/before
  sleep 0.5
  ! cmp -s /tmp/before <(victims_area)
}
own() { cat /tmp/own.now; }

survivor() {
  local round way own_before
  fence on $survivor_key || { cat /tmp/fence.txt; fail "registering ended with an error"; }
  sg_persist -n -i -r -d "$disk" >/tmp/out
  grep -q 'Write Exclusive, registrants only' /tmp/out || { cat /tmp/out; fail "not type 5"; }
  tell survivor-registered
  write_counters 0 1000000 /tmp/own &
  for round in $(seq $rounds); do
    way=sg_persist
    [ "$round" != 1 ] || way=fence_scsi
    await "victim.$round.started"
    keys | grep -q $victim_key || fail "the victim is not registered: $(keys)"
    sleep "0.$((RANDOM % 10))"
    # What is compared below would show a write: until now it changes.
    wait_for 60 "a write of the victim" changes
    [ ! -e "$HERE/victim.$round" ] || fail "the victim had ended before"
    preempt_as $way
    victims_area >/tmp/at-once
    own_before=$(own)
    ! keys | grep -q $victim_key || fail "the victim is still registered: $(keys)"
    sleep 10
    cmp /tmp/at-once <(victims_area) || fail "a write of the victim landed after it was fenced"
    [ "$(own)" -gt "$own_before" ] || fail "the survivor does not go on writing"
    await "victim-ended.$round"
    cmp /tmp/at-once <(victims_area) || fail "a write of the victim landed after its end"
    python3 "$HERE/counters.py" judge /tmp/at-once "$HERE/victim.$round" ||
      fail "what the victim was told is written is not there"
    pass "round $round, $way: nothing of the victim landed after it, all acknowledged is there"
    tell "judged.$round"
  done
  : >/tmp/enough
  wait
  dd if="$disk" of=/tmp/mine bs=$area count=1 iflag=direct status=none
  python3 "$HERE/counters.py" judge /tmp/mine /tmp/own || fail "the survivor lost a write"
  python3 -c 'import json, sys; sys.exit(any(json.load(open("/tmp/own"))["error"]))' ||
    fail "the survivor met an error"
  pass "the survivor wrote all the time, without an error"
}

$role
log_out
kernel_is_sound
