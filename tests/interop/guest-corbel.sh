# shellcheck shell=bash
# What guests do with corbel-initiator; sourced after guest-lib.sh, with PRESENTER set.
corbel() { /tmp/corbel-initiator "$@" --socket /run/corbel.sock; }
cp "$HERE/corbel-initiator" /tmp/
modprobe ublk_drv 2>/dev/null || true
modprobe nbd nbds_max=4 2>/dev/null || true

start_initiator() { # OPTION… ; the device is called disk
  [ $# = 0 ] || options=("$@")
  : >/tmp/initiator.out
  # A session of its own: its end by a signal is part of the tests.
  setsid /tmp/corbel-initiator attach --name disk --as "$PRESENTER" \
    --admin-socket /run/corbel.sock "${options[@]}" \
    >/tmp/initiator.out 2>>"$HERE/initiator.log" &
  initiator=$!
  wait_for 30 "the initiator's ready" grep -qx ready /tmp/initiator.out
}
status_number() { # KEY ; of the device
  corbel status disk --json | grep -oE "\"$1\": *[0-9]+" | head -n 1 | grep -oE '[0-9]+$'
}
ready_paths() { [ "$(status_number paths_ready)" = "$1" ]; }
gone() { ! kill -0 "$initiator" 2>/dev/null; }
end_initiator() {
  kill -TERM "$initiator"
  wait_for 20 "the initiator's end" gone
  wait "$initiator" || fail "the initiator's exit code was $?"
  [ ! -e /dev/corbel/disk ] || fail "the name outlived the device"
  pass "detached"
}

under_load() { # SECONDS WHAT COMMAND… ; nothing of it may reach the load
  local seconds=$1 what=$2
  shift 2
  (verified_load "$device" "$seconds") &
  local load=$!
  sleep 2
  "$@"
  local deadline=$((SECONDS + seconds + 60))
  while kill -0 "$load" 2>/dev/null; do
    sleep 1
    [ $SECONDS -lt $deadline ] || { corbel status disk; corbel status disk --json; fail "$what: the load hangs"; }
  done
  wait "$load" || fail "the load did not survive: $what"
  pass "$what: no error, data verified"
}
