#!/usr/bin/env bash
# Two sessions on different shards hammer COMPARE AND WRITE on one block: one wins each round.
# usage: compare-and-write.sh [ROUNDS]      (100000)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
contest=$(program compare-and-write)
make_net
DISK=mem:64M serve_disk
run_inside "$contest" --portal "$PORTAL" --target "$IQN" --lun "$LUN" --aoe 0.0@client0 \
  --socket "$WORK/target.sock" --rounds "${1:-100000}" || fail "see above"
end_target
pass "exactly one winner each round"
