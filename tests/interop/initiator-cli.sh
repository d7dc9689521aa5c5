#!/usr/bin/env bash
# Every verb of the initiator's command line against a running daemon: two portals of the target on
# this machine, the device offered as an NBD server on a Unix socket.
# usage: initiator-cli.sh      env: CORBEL_INITIATOR (default .build/release/corbel-initiator)
. "$(dirname "$0")/lib.sh"
CORBEL_INITIATOR=${CORBEL_INITIATOR:-$TESTS/../.build/release/corbel-initiator}
[ -x "$CORBEL_INITIATOR" ] ||
  fail "no program at $CORBEL_INITIATOR; cargo build --release -p corbel-initiator builds it"
ip netns add "$NS"
ip -n "$NS" link set lo up
cd "$WORK"
one=iscsi:$IQN/0@127.0.0.1:3260 two=iscsi:$IQN/0@127.0.0.2:3260

{
  daemon_section
  cat <<TOML
[[export]]
name = "disk"
path = "mem:64M"
iscsi = [{ target = "$IQN", lun = 0 }]
[[target]]
name = "$IQN"
portals = ["127.0.0.1:3260", "127.0.0.2:3260"]
[[export]]
name = "locked"
path = "mem:64M"
iscsi = [{ target = "$IQN-locked", lun = 3 }]
[[target]]
name = "$IQN-locked"
portals = ["127.0.0.1:3260", "127.0.0.2:3260"]
chap = { user = "dom0", secret_file = "$WORK/secret" }
TOML
} | config
(umask 077; echo "a secret of dom0" >secret)
start_target

cat >event.sh <<'HOOK'
#!/bin/sh
echo "$CORBEL_EVENT $CORBEL_DEVICE $CORBEL_PATH" >>"$(dirname "$0")/events"
HOOK
chmod +x event.sh
: >events
settings() { # TOML… ; lines for the device
  cat >initiator.toml <<TOML
[daemon]
admin_socket = "$WORK/initiator.sock"
state_dir = "$WORK/istate"
metrics = "127.0.0.1:9631"
event_hook = "event.sh"
[[device]]
name = "vm-$$"
paths = ["iscsi:$IQN@127.0.0.1,127.0.0.2"]
present = "nbd:unix:$WORK/vm.nbd"
$*
TOML
}
device=vm-$$
settings 'no_path_retry = 30'
tool() { nsenter --net="/run/netns/$NS" -- timeout 60 "$@"; }
# By its socket: with --config a wrong file would be told by the client itself.
ours() { tool "$CORBEL_INITIATOR" "$@" --socket initiator.sock; }
refused() { # CODE WORDS COMMAND… ; it ends with this exit code and says these words
  local rc=0 code=$1 words=$2
  shift 2
  ours "$@" >said 2>&1 || rc=$?
  [ "$rc" = "$code" ] || fail "$*: exit code $rc, not $code: $(cat said)"
  grep -qF -- "$words" said || fail "$* does not say \`$words\`: $(cat said)"
}
# A target that wants CHAP for its disks gives the list of targets to anybody, and knows no CHAP there.
(tool "$CORBEL_INITIATOR" discover iscsi 127.0.0.1) >said || fail "discover: $(cat said)"
grep -A1 -- "^$IQN " said | grep -q 'lun 0' || fail "no LUN: $(cat said)"
grep -A1 -- "^$IQN-locked" said | grep -q 'does not accept our CHAP' || fail "no reason: $(cat said)"
(tool "$CORBEL_INITIATOR" discover iscsi 127.0.0.1 --chap-user dom0 --chap-secret-file secret) >said ||
  fail "discover with CHAP: $(cat said)"
grep -A1 -- "^$IQN-locked" said | grep -q 'lun 3' || fail "no LUN with CHAP: $(cat said)"
pass "discover, with CHAP and without"

says() { # WORDS ; the status does
  ours status >said && grep -qF -- "$1" said
}
expect() { wait_for 15 "\`$1\` in the status" says "$1"; }
event() { wait_for 15 "the event \`$1\`" grep -qxF -- "$1" events; }
start_initiator() {
  : >initiator.out
  inside "$CORBEL_INITIATOR" run --config initiator.toml >initiator.out 2>>initiator.log &
  PIDS=($!)
  wait_for 20 "the initiator's \`ready\`" grep -qx ready initiator.out
}
ended() { ! kill -0 "${PIDS[0]}" 2>/dev/null; }
read_all() { tool nbdcopy "$uri" back.raw && cmp -n $((4 << 20)) back.raw there.raw; }

tool "$CORBEL_INITIATOR" check --config initiator.toml | grep -q 'good: 1 device, 2 paths' || fail "check does not count two paths"
refused 1 "no corbel-initiator answers at initiator.sock" status
start_initiator
uri=$(head -n 1 initiator.out)
grep -qF "socket=$WORK/vm.nbd" <<<"$uri" || fail "the first line is no NBD URI: $uri"
expect 'paths=2/2 no_path_retry=30s'
tool "$CORBEL_INITIATOR" status "$device" --config initiator.toml | grep -qF 'time limits' ||
  fail "one device's status, by the socket that the file names"
[ "$(ours status --json | python3 -c 'import json, sys
d = json.load(sys.stdin)["devices"][0]
print(d["state"], d["size_bytes"], d["paths_ready"], len(d["groups"]))')" = 'active 67108864 2 2' ] ||
  fail "the status as JSON"
head -c 4M /dev/urandom >there.raw
tool nbdcopy there.raw "$uri" || fail "writing"
pass "run, check, status, JSON, the URI is written to"

ours fail "$device" "$one"
expect 'paths=1/2'
event "path-down $device $one"
read_all || fail "reading over the other path"
ours reinstate "$device" "iscsi:$IQN@127.0.0.1"
expect 'paths=2/2'
event "path-up $device $one"
ours remove-path "$device" "$two"
expect 'paths=1/1'
refused 1 '' remove-path "$device" "$two"
ours add-path "$device" "$two" --weight 70
expect 'paths=2/2'
pass "fail, reinstate, remove-path, add-path, with their events"

ours set "$device" selector round-robin
ours set "$device" no-path-retry queue
expect "policy='round-robin'"
expect 'no_path_retry=queue'
refused 2 'did you mean `selector`?' set "$device" slector round-robin
refused 2 'is no time' set "$device" no-path-retry soon
refused 1 'there is no device `other`' status other
refused 1 '' fail other "$one"
refused 2 'is no path' fail "$device" eth1
ours fence "$device"
expect state=fenced
read_all 2>/dev/null && fail "a fenced device is read"
ours unfence "$device"
expect state=active
read_all || fail "reading after unfence"
pass "set, fence, unfence; what is wrong is exit code 2, what fails is 1"

settings 'no_path_retry = "later"'
refused 2 'initiator.toml:10:17: `later` is no time' reload
expect state=active
settings 'no_path_retry = "fail"'
ours reload | grep -qx "device \`$device\`: policy changed" || fail "the reload tells no change"
expect 'no_path_retry=fail after 5s'
kill -HUP "${PIDS[0]}"
ours detach "$device"
says 'no devices' || fail "the device is still there"
ours reload | grep -q "device \`$device\` attached: nbd" || fail "a reload does not bring it back"
expect paths=2/2
read_all || fail "reading after a detach and a reload"
grep -q '^all-paths-down' events && fail "leaving is told as a loss"
pass "reload, a wrong file, detach"

: >events
end_target TERM
event "all-paths-down $device "
start_target
event "recovered $device "
expect paths=2/2
tool python3 - >figures <<'PY'
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9631/metrics", timeout=10).read().decode())
PY
grep -qxF "corbel_initiator_device_paths_ready{device=\"$device\"} 2" figures || fail "the figures"
pass "all-paths-down and recovered reach the hook; figures for Prometheus"

ours stop
wait_for 10 "the daemon's end" ended
wait "${PIDS[0]}" || fail "the daemon's exit code after stop was $?"
[ ! -e initiator.sock ] || fail "the socket is left behind"
start_initiator
end_target KILL
begun=$SECONDS
kill -TERM "${PIDS[0]}"
wait_for 30 "the end while no path works" ended
[ $((SECONDS - begun)) -lt 25 ] || fail "SIGTERM without a path took $((SECONDS - begun)) s"
PIDS=()
pass "stop, and SIGTERM while no path works"
