# shellcheck shell=bash
# The guest's half of guest-iscsi.sh.
. /mnt/share/guest-lib.sh

multipath_config <<'CONF'
    path_grouping_policy multibus
    path_selector "round-robin 0"
CONF
iscsid
modprobe -a iscsi_tcp dm-multipath dm-round-robin sd_mod
multipathd

for portal in 10.77.0.1 10.77.1.1; do
  iscsiadm -m discovery -t sendtargets -p "$portal"
done
setting node.session.timeo.replacement_timeout 2
setting 'node.conn[0].timeo.noop_out_interval' 1
setting 'node.conn[0].timeo.noop_out_timeout' 2
setting 'node.conn[0].iscsi.HeaderDigest' CRC32C
setting 'node.conn[0].iscsi.DataDigest' CRC32C
setting node.session.auth.authmethod CHAP
# tgt takes SHA-256's number for SHA-1 and then refuses everybody.
[ "$PEERS" = 0 ] || setting node.session.auth.chap_algs MD5
setting node.session.auth.username dom0
setting node.session.auth.password one-way-secret-X
setting node.session.auth.username_in shelf
setting node.session.auth.password_in other-way-secret
setting node.session.initial_login_retry_max 1
if iscsiadm -m node -T "$IQN" -p 10.77.0.1 --login >/tmp/refused.txt 2>&1; then
  fail "a wrong secret was let in"
fi
pass "a wrong CHAP secret is refused: $(grep -oE 'authorization failure|error [0-9 -]+[^)]*' /tmp/refused.txt | head -1)"
setting node.session.auth.password "$(cat "$HERE/user.secret")"
setting node.session.initial_login_retry_max 8
iscsiadm -m node -T "$IQN" --login
paths() { multipathd show paths raw format '%i %d %t %o %T'; }
active() { [ "$(paths | grep -c ' active ')" = "$1" ]; }
more_words() { paths; ps axo pid,stat,time,wchan:24,args --sort=-time | head -n 12; }
failed() { paths | grep -q ' failed '; }
wait_for 120 "two paths" active 2 # an emulated guest beside others took 40 s
udevadm settle
device=$(echo /dev/mapper/mpath*)
[ -b "$device" ] || fail "no multipath device: $device"
multipath -ll
iscsiadm -m session -P 2 >/tmp/session.txt
[ "$(grep -cE '(Header|Data)Digest: CRC32C' /tmp/session.txt)" = 4 ] ||
  { cat /tmp/session.txt; fail "both digests on both sessions were asked for"; }
pass "two sessions, mutual CHAP, both digests, one device: $device"

verified_load "$device" 15
pass "random reads and writes, all verified"
file_system_round "$device"
pass "ext4: format, fill, check, compare"

(verified_load "$device" 35) &
load=$!
sleep 4
ask_host cut
wait_for 30 "the path to be called failed" failed
sleep 4
ask_host restore
wait_for 60 "both paths again" active 2
wait "$load" || fail "the load did not survive the loss of a portal"
pass "a portal silent under load and back: no error"

for way in restart crash; do
  (verified_load "$device" 25) &
  load=$!
  sleep 5
  ask_host $way
  wait "$load" || fail "the load did not survive the target's $way"
  wait_for 60 "both paths after the $way" active 2
  pass "the target's $way under load: the initiator waited, no error, data verified"
done

lvm_round "$device"
pass "LVM on top"

if [ "$PEERS" = 0 ]; then
  ask_host grow
  grown() {
    iscsiadm -m session --rescan
    multipathd resize map "${device##*/}"
    [ "$(blockdev --getsize64 "$device")" = $((256 << 20)) ]
  }
  wait_for 30 "the new size after a rescan" grown
  grown_end_holds_data "$device"
fi
last_write "$device"

let_go
log_out
[ -z "$(ls /sys/class/iscsi_session 2>/dev/null)" ] || fail "a session outlived its logout"
pass "clean logout"
dmesg_is_clean
