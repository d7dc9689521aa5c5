#!/usr/bin/env bash
# One export over AoE and iSCSI at once: the same identity, and overlapping reads and writes of
# several blocks from several clients of both, judged by a checker.
# usage: cross-protocol.sh [EPOCHS [MTU [PERCENT-OF-AOE-FRAMES-SENT-TWICE]]]      (200 1500 0)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
cross=$(program cross-protocol)
make_net "${2:-1500}"
serve_disk
run_inside "$cross" --portal "$PORTAL" --target "$IQN" --lun "$LUN" --aoe 0.0@client0 \
  --epochs "${1:-200}" --duplicates "${3:-0}" --seed "${CORBEL_SEED:-1}" || fail "see above"
pass "one device over both protocols"
kill -0 "$TARGET_PID" || fail "the target died"
end_target
pass "SIGTERM ended the target with 0"
