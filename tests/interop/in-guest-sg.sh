# shellcheck shell=bash
# The guest's half of guest-sg.sh.
. /mnt/share/guest-lib.sh

iscsid
modprobe -a iscsi_tcp sd_mod sg scsi_dh_alua
log_in 4 node.session.timeo.replacement_timeout 2 # both units over both portals

said=''
says() { # PATTERN COMMAND… ; it succeeds, and prints what fits
  local pattern=$1
  shift
  said=$("$@" </dev/null 2>&1) || fail "$* ended with $?: $said"
  grep -qiE -- "$pattern" <<<"$said" || { echo "$said"; fail "$* does not say: $pattern"; }
}
refused() { # EXIT-CODE PATTERN COMMAND…
  local code=$1 pattern=$2 rc=0
  shift 2
  said=$("$@" </dev/null 2>&1) || rc=$?
  [ $rc = "$code" ] || { echo "$said"; fail "$* ended with $rc, not $code"; }
  grep -qiE -- "$pattern" <<<"$said" || { echo "$said"; fail "$* does not say: $pattern"; }
}
declare -A disk # by LUN and port group
for sd in /sys/block/sd?; do
  at=$(readlink -f "$sd/device")
  disk[${at##*:}.$(port_group "${sd##*/}")]=/dev/${sd##*/}
done
first=${disk[$LUN.1]} second=${disk[$LUN.2]}
spare=${disk[$((LUN + 1)).1]} other=${disk[$((LUN + 1)).2]} # one small unit, by both ports
blocks() { # DISK FIRST COUNT
  dd if="$1" bs=256K iflag=direct,skip_bytes,count_bytes skip=$(($2 * 512)) count=$(($3 * 512)) \
    status=none
}
write_at() { # DISK FIRST FILE
  dd if="$3" of="$1" bs=256K oflag=direct,seek_bytes seek=$(($2 * 512)) status=none
}
sg_of() { echo "/dev/$(ls "/sys/block/${1##*/}/device/scsi_generic")"; }
generic=$(sg_of "$first")
[ -c "$generic" ] || fail "no generic device for $first"

# --- what it is
says 'MultiP=1' sg_inq "$first"
grep -q 'TPGS=3' <<<"$said" && grep -q 'CORBEL' <<<"$said" || fail "$said"
says 'SAM-5' sg_inq -d "$first"
for known in iSCSI SPC-4 SBC-3; do grep -q "$known" <<<"$said" || fail "no $known in: $said"; done
for page in 0 sn di ei mpp sp bl bdc lbpv; do says 'VPD page' sg_vpd -p $page "$first"; done
says 'Relative target port: 0x2' sg_vpd -p di "$second"
grep -q "$IQN,t,0x0002" <<<"$said" || fail "page 83 does not name the port: $said"
says 'Relative port=2' sg_vpd -p sp "$first"
says 'Maximum compare and write length: 0xff' sg_vpd -p bl "$first"
says 'LBPU=1' sg_vpd -p lbpv "$first"
says 'lbpme=1, lbprz=1' sg_readcap -l "$first"
says '2 lun entries' sg_luns "$first"
# Each port calls the unit the same, and itself something else; no two units share a name.
unit_names() { sg_vpd -p di --quiet "$1" | grep -i '^ *0x'; }
[ -n "$(unit_names "$first")" ] && [ "$(unit_names "$first")" = "$(unit_names "$second")" ] ||
  fail "one unit with two names: $(unit_names "$first") $(unit_names "$second")"
[ "$(unit_names "$first")" != "$(unit_names "$spare")" ] || fail "two units of one name"
says 'descriptor number 5' sg_inq -i "$first"
for known in 'NAA 3' 'vendor id: CORBEL' 'Relative target port: 0x1' 'Target port group: 0x1' \
  "$IQN,t,0x0001"; do
  grep -q "$known" <<<"$said" || fail "no $known in: $said"
done
pass "sg_inq, sg_vpd, sg_readcap, sg_luns"

says 'Compare and write' sg_opcodes "$first"
grep -q 'Set target port groups' <<<"$said" || fail "no SET TARGET PORT GROUPS: $said"
says 'cdb usage: 89 f8 ff' sg_opcodes -m "$first"
says 'Command is supported' sg_opcodes -o 0xa3,0xa "$first"
says 'not supported' sg_opcodes -o 0xa5 "$first"
says 'Logical unit reset: *supported|LURS.*1|Logical unit reset' sg_opcodes --tmf "$first"
says 'Caching' sg_modes -a "$first"
grep -q 'Control' <<<"$said" || fail "no control mode page: $said"
says 'WP=0' sg_modes -p 8 "$first"
says 'CORBEL' sg_logs -a "$first"
says 'Supported log pages' sg_logs -p 0 "$first"
pass "sg_opcodes, sg_modes, sg_logs"

# --- blocks
head -c 1M /dev/urandom >/tmp/random
sgp_dd if=/tmp/random of="$generic" bs=512 seek=1024 count=2048 bpt=64 thr=4 2>/dev/null
sgp_dd if="$generic" of=/tmp/read bs=512 skip=1024 count=2048 bpt=64 thr=4 2>/dev/null
cmp /tmp/random /tmp/read
cmp /tmp/random <(blocks "$second" 1024 2048)
sg_verify --lba=1024 --count=2048 "$first"
sg_sync "$first"
pass "sgp_dd wrote and read 1 MiB with four threads; the other port has the same; sg_verify, sg_sync"

head -c 512 /dev/zero >/tmp/zero
head -c 512 /dev/urandom >/tmp/new
cat /tmp/zero /tmp/new >/tmp/swap
sg_compare_and_write --in=/tmp/swap --lba=8 --xferlen=1024 "$first"
cmp -n 512 /tmp/new <(blocks "$second" 8 1)
head -c 300 /tmp/new >/tmp/almost
head -c 212 /dev/zero >>/tmp/almost
at=$(cmp /tmp/almost /tmp/new | sed 's/.*byte \([0-9]*\),.*/\1/' || true)
cat /tmp/almost /tmp/zero >/tmp/swap
refused 14 "byte offset: $((at - 1)) " sg_compare_and_write --in=/tmp/swap --lba=8 --xferlen=1024 "$first"
cmp -n 512 /tmp/new <(blocks "$second" 8 1)
pass "sg_compare_and_write: one wins, one is told the byte ($((at - 1))), which is what differs"

says 'LBA: 0x400 +blocks: +2048 +mapped' sg_get_lba_status --lba=1024 "$first"
sg_unmap --lba=1024 --num=1024 --force "$first"
says 'LBA: 0x400 +blocks: +1024 +deallocated' sg_get_lba_status --lba=1024 "$first"
cmp -n 524288 /dev/zero <(blocks "$second" 1024 1024)
cmp -n 524288 <(tail -c 512k /tmp/random) <(blocks "$second" 2048 1024)
sg_write_same --lba=1024 --num=1024 --in=/tmp/new --xferlen=512 "$first"
cmp -n 512 /tmp/new <(blocks "$second" 2047 1)
sg_write_same --16 --unmap --lba=1024 --num=1024 --in=/tmp/zero --xferlen=512 "$first"
says 'LBA: 0x400 +blocks: +1024 +deallocated' sg_get_lba_status --lba=1024 "$first"
pass "sg_unmap, sg_write_same and sg_get_lba_status agree with what is read"

# --- the target copies by itself
says '3PC=1' sg_inq "$first"
says 'Copy from block device to block device' sg_copy_results --params "$spare"
head -c 1M /dev/urandom >/tmp/random
write_at "$first" 4096 /tmp/random
sg_xcopy if="$first" of="$spare" bs=512 skip=4096 seek=64 count=2048 2>/dev/null
cmp /tmp/random <(blocks "$other" 64 2048)
cmp -n 32768 /dev/zero <(blocks "$other" 0 64)
cmp -n 32768 /dev/zero <(blocks "$other" 2112 64)
sg_xcopy if="$second" of="$other" skip=4096 seek=8192 count=2048 dc=1 --on_src list_id=7 \
  id_usage=hold 2>/dev/null
cmp /tmp/random <(blocks "$spare" 8192 2048)
says 'completed without errors' sg_copy_results --status --list_id=7 "$second"
grep -q 'Transfer count: 1048576' <<<"$said" || fail "not what was copied: $said"
refused 5 'Illegal request' sg_copy_results --status --list_id=8 "$second"
sg_xcopy if="$spare" of="$spare" bs=512 skip=64 seek=80 count=2048 2>/dev/null
cmp /tmp/random <(blocks "$other" 80 2048)
refused 10 'Copy aborted' sg_xcopy if="$first" of="$spare" bs=512 skip=4096 seek=32000 count=2048
cmp -n 393216 /dev/zero <(blocks "$other" 32000 768)
pass "sg_xcopy, sg_copy_results: between units, within one, by either port; nothing beyond the end"

# --- the whole unit erased: an overwrite by a pattern, by zeros, block erase
pattern_of() { python3 -c 'import sys; b = open(sys.argv[1], "rb").read()[:17]
one = (b * 31)[:512]; sys.stdout.buffer.write(one * 32768)' "$1"; }
sanitize() { sg_sanitize --quick --timeout=600 "$@" "$spare" >/tmp/out.txt 2>&1; }
progress=0
runs() { # and tells how far it is
  said=$(sg_requests "$spare" 2>&1) || fail "$said"
  grep -q 'sanitize in progress' <<<"$said" || return 1
  progress=$(sed -n 's/.*Progress indication: *\([0-9]*\).*/\1/p' <<<"$said")
}
over() { ! runs; }
# A kernel that asks for the size meanwhile is refused like everybody, and takes the unit for empty
# until it asks again.
asked_again() {
  local unit
  for unit in "$spare" "$other"; do
    echo 1 >"/sys/block/${unit##*/}/device/rescan"
    [ "$(blockdev --getsz "$unit")" = 32768 ] || return 1
  done
}
sanitize --overwrite --pattern=/tmp/new --ipl=17 --wait
wait_for 60 "the size of what was sanitized" asked_again
cmp <(pattern_of /tmp/new) <(blocks "$other" 0 32768)
pass "sg_sanitize --overwrite --pattern --ipl: the pattern begins anew in each block, to the last"
sanitize --overwrite --zero --early
runs || fail "it does not run after --early: $said"
refused 2 'sanitize in progress' sg_raw -r 512 "$other" 28 00 00 00 00 00 00 00 01 00
refused 2 'sanitize in progress' sg_raw -s 512 -i /tmp/new "$other" 2a 00 00 00 00 00 00 00 01 00
rc=0
sanitize --block --wait || rc=$?
[ $rc = 2 ] || { cat /tmp/out.txt; fail "a second one at the same time ended with $rc"; }
further() { runs && [ "$progress" -ge 10 ]; }
wait_for 200 "progress" further
wait_for 400 "the end of it" over
wait_for 60 "the size of what was sanitized" asked_again
cmp -n 16777216 /dev/zero <(blocks "$other" 0 32768)
pass "sg_sanitize --early: nobody reads or writes meanwhile, sg_requests tells the progress"
write_at "$other" 64 /tmp/random
says 'mapped' sg_get_lba_status --lba=64 "$spare"
sanitize --block --wait
wait_for 60 "the size of what was given back" asked_again
says 'LBA: 0x0 +blocks: +32768 +deallocated' sg_get_lba_status --lba=0 "$spare"
cmp -n 16777216 /dev/zero <(blocks "$other" 0 32768)
refused 5 'Illegal request' sg_sanitize --crypto --quick --wait "$spare"
cmp /tmp/random <(blocks "$first" 4096 2048)
pass "sg_sanitize --block: all given back; --crypto is refused; the other unit is as it was"

# --- reservations
conflict=24
out() { sg_persist --out "$@" >/tmp/out.txt 2>&1; }
out --register-ignore --param-sark=0xabc "$first"
out --register-ignore --param-sark=0xdef "$second"
says '0xabc' sg_persist --read-keys "$first"
grep -q 0xdef <<<"$said" || fail "no second key: $said"
out --reserve --param-rk=0xabc --prout-type=1 "$first"
says 'Write Exclusive$' sg_persist --read-reservation "$second"
rc=0
sg_raw -s 512 -i /tmp/new "$second" 2a 00 00 00 00 00 00 00 01 00 >/tmp/out.txt 2>&1 || rc=$?
[ $rc = $conflict ] || { cat /tmp/out.txt; fail "a write against a reservation ended with $rc"; }
rc=0
out --release --param-rk=0xdef --prout-type=1 "$second" || rc=$?
[ $rc = 0 ] || fail "releasing what one does not hold is no error, but ended with $rc"
out --preempt-abort --param-rk=0xdef --param-sark=0xabc --prout-type=5 "$second"
sg_requests "$first" >/dev/null # it is told that its registration was preempted
says 'Write Exclusive, registrants only' sg_persist --read-reservation "$second"
says 'guest1,i,0x' sg_persist --read-full-status "$second"
grep -q 'Relative port address: 0x2' <<<"$said" || fail "not the port: $said"
says 'Persist Through Power Loss Capable\(PTPL_C\): 1' sg_persist --report-capabilities "$first"
out --clear --param-rk=0xdef "$second"
says 'there are NO registered' sg_persist --read-keys "$first"
pass "sg_persist: register, reserve, conflict, preempt and abort, full status, clear"

# --- ports
says 'Pref=1' sg_rtpg -d "$first"
[ "$(grep -c 'active/optimized' <<<"$said")" = 2 ] || fail "not both optimized: $said"
says 'Implicit transition time' sg_rtpg -d -e "$first"
sg_stpg --tp=2 --state=s "$first"
says '0x02 \(standby\)' sg_rtpg -d "$first"
grep -q 'status code : 0x01' <<<"$said" || fail "not by SET TARGET PORT GROUPS: $said"
# The unit attention is the kernel's to take: it asks for the states, and repeats the command.
refused 12 'standby' sg_raw "$second" 00 00 00 00 00 00
noticed() { dmesg | grep -q 'alua: port group 02 state S'; }
wait_for 10 "the kernel to see the standby" noticed
says 'standby' sg_requests "$second"
says '0x02 \(standby\)' sg_rtpg -d "$second"
sg_raw "$first" 00 00 00 00 00 00 2>/dev/null
says 'nvalid field in parameter list' sg_stpg --tp=2 --state=o "$first"
pass "sg_rtpg, sg_stpg: standby set by an initiator, told once to the other nexus, refused there"

# --- what was set outlives the target
ask_host restart
wait_for 60 "the port in standby again" sg_rtpg -d "$second"
says '0x02 \(standby\)' sg_rtpg -d "$second"
pass "the standby that an initiator set outlived SIGKILL"
log_out
kernel_is_sound
