#!/usr/bin/env bash
# Start-up time, memory, and the effect on a busy unit of many exports and idle sessions.
# usage: idle-sessions.sh [EXPORTS [SESSIONS]]      (1000 1000)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
idle=$(program idle-sessions)
exports=${1:-1000} sessions=${2:-1000}
ulimit -n "$(ulimit -Hn)"
make_net
mkdir -p "$WORK/state"
{
  daemon_section
  for ((i = 0; i < exports; i++)); do
    truncate -s 16M "$WORK/disk-$i.img"
    printf '\n[[export]]\nname = "disk-%d"\npath = "%s"\n' "$i" "$WORK/disk-$i.img"
    printf 'iscsi = [{ target = "%s-%d", lun = 0 }]\n' "$IQN" "$i"
    printf '\n[[target]]\nname = "%s-%d"\nportals = ["%s"]\n' "$IQN" "$i" "$PORTAL"
  done
} | config
run_inside "$idle" --portal "$PORTAL" --target "$IQN-{}" --exports "$exports" \
  --sessions "$sessions" -- "$CORBEL_TARGET" serve --config "$WORK/target.toml" \
  2>>"$WORK/target.log" || fail "see above"
pass "$exports exports, $sessions idle sessions"
