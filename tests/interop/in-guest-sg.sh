# shellcheck shell=bash
# The guest's half of guest-sg.sh.
. /mnt/share/guest-lib.sh

iscsid
modprobe -a iscsi_tcp sd_mod sg scsi_dh_alua
iscsiadm -m discovery -t sendtargets -p 10.77.0.1 >/dev/null
iscsiadm -m node -T "$IQN" -o update -n node.session.timeo.replacement_timeout -v 2
iscsiadm -m node -T "$IQN" --login >/dev/null
both() { [ "$(ls -d /sys/block/sd? | wc -l)" = 2 ]; }
wait_for 60 "the unit over both portals" both
udevadm settle

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
declare -A disk # by port group
for sd in /sys/block/sd?; do
  group=$(sg_vpd -p di "/dev/${sd##*/}" | sed -n 's/.*Target port group: 0x//p')
  disk[$group]=/dev/${sd##*/}
done
first=${disk[1]} second=${disk[2]}
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
says '1 lun entry' sg_luns "$first"
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
says 'CORBEL' sg_logs "$first"
pass "sg_opcodes, sg_modes, sg_logs"

# --- blocks
head -c 1M /dev/urandom >/tmp/random
sgp_dd if=/tmp/random of="$generic" bs=512 seek=1024 count=2048 bpt=64 thr=4 2>/dev/null
sgp_dd if="$generic" of=/tmp/read bs=512 skip=1024 count=2048 bpt=64 thr=4 2>/dev/null
cmp /tmp/random /tmp/read
cmp -n 1048576 /tmp/random <(dd if="$second" bs=512 skip=1024 iflag=direct status=none count=2048)
sg_verify --lba=1024 --count=2048 "$first"
sg_sync "$first"
pass "sgp_dd wrote and read 1 MiB with four threads; the other port has the same; sg_verify, sg_sync"

head -c 512 /dev/zero >/tmp/zero
head -c 512 /dev/urandom >/tmp/new
cat /tmp/zero /tmp/new >/tmp/swap
sg_compare_and_write --in=/tmp/swap --lba=8 --xferlen=1024 "$first"
cmp -n 512 /tmp/new <(dd if="$second" bs=512 skip=8 count=1 iflag=direct status=none)
head -c 300 /tmp/new >/tmp/almost
head -c 212 /dev/zero >>/tmp/almost
at=$(cmp /tmp/almost /tmp/new | sed 's/.*byte \([0-9]*\),.*/\1/' || true)
cat /tmp/almost /tmp/zero >/tmp/swap
refused 14 "byte offset: $((at - 1)) " sg_compare_and_write --in=/tmp/swap --lba=8 --xferlen=1024 "$first"
cmp -n 512 /tmp/new <(dd if="$second" bs=512 skip=8 count=1 iflag=direct status=none)
pass "sg_compare_and_write: one wins, one is told the byte ($((at - 1))), which is what differs"

says 'LBA: 0x400 +blocks: +2048 +mapped' sg_get_lba_status --lba=1024 "$first"
sg_unmap --lba=1024 --num=1024 --force "$first"
says 'LBA: 0x400 +blocks: +1024 +deallocated' sg_get_lba_status --lba=1024 "$first"
cmp -n 524288 /dev/zero <(dd if="$second" bs=512 skip=1024 count=1024 iflag=direct status=none)
cmp -n 524288 <(tail -c 512k /tmp/random) <(dd if="$second" bs=512 skip=2048 count=1024 iflag=direct status=none)
sg_write_same --lba=1024 --num=1024 --in=/tmp/new --xferlen=512 "$first"
cmp -n 512 /tmp/new <(dd if="$second" bs=512 skip=2047 count=1 iflag=direct status=none)
sg_write_same --16 --unmap --lba=1024 --num=1024 --in=/tmp/zero --xferlen=512 "$first"
says 'LBA: 0x400 +blocks: +1024 +deallocated' sg_get_lba_status --lba=1024 "$first"
pass "sg_unmap, sg_write_same and sg_get_lba_status agree with what is read"

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
iscsiadm -m node --logoutall=all >/dev/null
kernel_is_sound
