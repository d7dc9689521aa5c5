# shellcheck shell=bash
# What the scripts around corbel-initiator share; sourced after lib.sh.
#
# env: CORBEL_INITIATOR    the program (default beside corbel-target)
CORBEL_INITIATOR=${CORBEL_INITIATOR:-$(dirname "$CORBEL_TARGET")/corbel-initiator}
INITIATOR_PID=''
[ -x "$CORBEL_INITIATOR" ] || fail "no program at $CORBEL_INITIATOR"

inside_run() { (inside "$@"); }

attached_or_dead() { grep -qx ready "$WORK/initiator.out" || ! kill -0 "$INITIATOR_PID"; }

# The device is called disk; its control socket is $WORK/initiator.sock.
attach() { # PRESENTER OPTION…
  local presenter=$1
  shift
  : >"$WORK/initiator.out"
  inside "$CORBEL_INITIATOR" attach --name disk --as "$presenter" \
    --admin-socket "$WORK/initiator.sock" "$@" \
    >"$WORK/initiator.out" 2>>"$WORK/initiator.log" &
  INITIATOR_PID=$!
  PIDS+=("$INITIATOR_PID")
  wait_for 20 "the initiator's \`ready\`" attached_or_dead
  kill -0 "$INITIATOR_PID" 2>/dev/null || fail "the initiator ended at once"
}

control() { (inside "$CORBEL_INITIATOR" "$@" --socket "$WORK/initiator.sock"); }
paths_ready() { control status disk --json | jq '.devices[0].paths_ready'; }
paths_are() { [ "$(paths_ready)" = "$1" ]; }

end_initiator() { # SIGTERM must end it with exit code 0
  local rc=0
  end_child "$INITIATOR_PID" TERM initiator || rc=$?
  INITIATOR_PID=''
  [ $rc = 0 ] || fail "the initiator's exit code after SIGTERM was $rc"
}
