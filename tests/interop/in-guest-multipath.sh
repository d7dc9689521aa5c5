# shellcheck shell=bash
# The guest's half of guest-multipath.sh.
. /mnt/share/guest-lib.sh

multipath_config <<'CONF'
    path_grouping_policy group_by_prio
    prio alua
    failback immediate
CONF
iscsid
modprobe -a iscsi_tcp sd_mod scsi_dh_alua dm-multipath dm-service-time
multipathd
log_in 2 node.session.timeo.replacement_timeout 2
declare -A disk # by port group
for sd in /sys/block/sd?; do
  disk[$(port_group "${sd##*/}")]=${sd##*/}
done
one=${disk[1]} two=${disk[2]}

paths() { multipathd show paths raw format '%d %p %t %o %T'; }
more_words() { multipath -ll; paths; dmesg | grep -i alua | tail -n 5; cat /tmp/loads; }
of() { paths | awk -v d="$1" -v column="$2" '$1 == d { print $column }'; }
prios() { [ "$(of "$one" 2) $(of "$two" 2)" = "$1 $2" ]; }
states() { [ "$(of "$one" 5) $(of "$two" 5)" = "$1 $2" ]; }
wait_for 120 "priorities 50 and 10" prios 50 10
udevadm settle
map=$(echo /dev/mapper/mpath?)
[ -b "$map" ] || fail "no map: $map"
multipath -ll >/tmp/map.txt
[ "$(grep -c 'policy=' /tmp/map.txt)" = 2 ] && grep -q "hwhandler='1 alua'" /tmp/map.txt ||
  { cat /tmp/map.txt; fail "not two groups, or not the kernel's ALUA handler"; }
pass "two path groups by priority, $one 50 and $two 10, with the kernel's ALUA handler"

# The load goes on until it is told that it is enough: how slow we are is nobody's fault.
(until [ -e /tmp/enough ]; do verified_load "$map" 10 >>/tmp/loads; done) &
load=$!
writes() { awk '{ print $5 }' "/sys/block/$1/stat"; }
only() { # DISK THE-OTHER ; where the writes go
  local before other
  before=$(writes "$1") other=$(writes "$2")
  sleep 1
  [ "$(writes "$1")" -gt $((before + 10)) ] && [ "$(writes "$2")" = "$other" ]
}
kernel_saw() { dmesg | grep -q 'alua: port group 01 state N'; }

wait_for 60 "writes to $one alone" only "$one" "$two"
ask_host swap
wait_for 120 "writes to $two alone after the swap" only "$two" "$one"
wait_for 60 "priorities 10 and 50" prios 10 50
wait_for 60 "the kernel's handler to see the swap" kernel_saw
pass "the states swapped: it writes to $two alone"
ask_host first-standby
wait_for 60 "a ghost" states ghost ready
only "$two" "$one" || wait_for 60 "writes to $two" only "$two" "$one"
ask_host first-best
wait_for 120 "writes to $one alone" only "$one" "$two"
pass "standby is a ghost that nothing is sent to; the first made best again has the writes back"
ask_host first-unavailable
wait_for 120 "writes to $two while the first is unavailable" only "$two" "$one"
wait_for 60 "a path that is not ready" states faulty ready
ask_host restart
wait_for 120 "writes to $two after the restart" only "$two" "$one"
wait_for 60 "the first still not ready" states faulty ready
ask_host first-optimized
wait_for 120 "writes to $one alone" only "$one" "$two"
pass "unavailable under load, also over a crash of the target: the other one had the writes"
ask_host first-transitioning
sleep 3
ask_host first-optimized
wait_for 120 "priorities 50 and 10" prios 50 10
wait_for 120 "writes to $one after the transition" only "$one" "$two"
: >/tmp/enough
wait "$load" || fail "the load did not survive the changes"
pass "transitioning for a while; in all, $(grep -c "err= 0" /tmp/loads) jobs, no error"

let_go
log_out
dmesg_is_clean
