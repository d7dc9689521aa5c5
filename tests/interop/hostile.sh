#!/usr/bin/env bash
# Malformed frames and PDUs against the target while good clients of both protocols go on.
# usage: hostile.sh [COUNT-OF-EACH]      (500000)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
hostile=$(program hostile)
ulimit -n "$(ulimit -Hn)"
make_net
serve_disk
run_inside "$hostile" --portal "$PORTAL" --target "$IQN" --lun "$LUN" --aoe 0.0@client0 \
  --opposite shelf0 --pid "$TARGET_PID" --admin-socket "$WORK/target.sock" \
  --count "${1:-500000}" --seed "${CORBEL_SEED:-1}" ||
  fail "see above"
pass "good clients were served throughout, memory stayed flat"
kill -0 "$TARGET_PID" || fail "the target died"
end_target
pass "SIGTERM ended the target with 0"
