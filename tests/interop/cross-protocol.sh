#!/usr/bin/env bash
# One export over AoE and iSCSI at once: the same identity, and overlapping reads and writes of
# several blocks from several clients of both, judged by a checker; then the same, encrypted.
# usage: cross-protocol.sh [EPOCHS [MTU [PERCENT-OF-AOE-FRAMES-SENT-TWICE]]]      (200 1500 0)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
cross=$(program cross-protocol)
make_net "${2:-1500}"
od -An -vtx1 -N32 /dev/urandom | tr -d ' \n' >"$WORK/key"
chmod 600 "$WORK/key"

judge() { # EPOCHS DUPLICATES
  serve_disk
  run_inside "$cross" --portal "$PORTAL" --target "$IQN" --lun "$LUN" --aoe 0.0@client0 \
    --epochs "$1" --duplicates "$2" --seed "${CORBEL_SEED:-1}" || fail "see above"
  kill -0 "$TARGET_PID" || fail "the target died"
  end_target
}

judge "${1:-200}" "${3:-0}"
pass "one device over both protocols"
rm "$WORK/disk.img"
OPTION="encryption = { key_file = \"$WORK/key\" }" judge "${1:-200}" "${3:-0}"
pass "and encrypted"
