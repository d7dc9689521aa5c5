#!/usr/bin/env bash
# Persistent reservations: PREEMPT AND ABORT cuts a victim off in the middle of its writes, AoE clients
# are shut out, and the state under APTPL outlives SIGKILL at any instant.
# usage: fencing.sh [FENCES [KILLS]]      (50 25)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
fencing=$(program fencing)
make_net
mkdir -p "$WORK/state"
serve_disk
end_target # the program starts it itself, with the configuration that is there now
run_inside "$fencing" --portal "$PORTAL" --target "$IQN" --lun "$LUN" --aoe 0.0@client0 \
  --fences "${1:-50}" --kills "${2:-25}" --seed "${CORBEL_SEED:-1}" \
  -- "$CORBEL_TARGET" serve --config "$WORK/target.toml" 2>>"$WORK/target.log" || fail "see above"
pass "victims are fenced off, and reservations outlive the process"
