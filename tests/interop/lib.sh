# shellcheck shell=bash
# What the interop scripts share; sourced, never run. A script gets its own temporary folder ($WORK)
# and network namespace ($NS), starts the target in it, and leaves nothing behind.
#
# env: CORBEL_TARGET       the program under test (default .build/release/corbel-target)
#      CORBEL_TEST_LUN     LUN the disk is served as (default 0)
#      CORBEL_TEST_KEEP=1  keep $WORK after a failure
set -euo pipefail
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CORBEL_TARGET=${CORBEL_TARGET:-$TESTS/../.build/release/corbel-target}
LUN=${CORBEL_TEST_LUN:-0}
IQN=iqn.2026-11.org.example:disk
NAME=$(basename "$0" .sh)
NS=corbel-$$
WORK=$(mktemp -d "${TMPDIR:-/tmp}/corbel-$NAME.XXXXXX")
TARGET_PID='' PIDS=()

fail() { echo "FAIL $NAME: $*"; exit 1; }
pass() { echo "PASS $NAME: $*"; }

any_lives() { # PID…
  local pid
  for pid in "$@"; do ! kill -0 "$pid" 2>/dev/null || return 0; done
  return 1
}

# Runs to the end of every script, whatever ended it.
cleanup() {
  local rc=${1:-$?} pid
  trap '' INT TERM
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done # a guest's runner ends its guest
  for _ in $(seq 50); do
    any_lives "${PIDS[@]}" || break
    sleep 0.1
  done
  for pid in "${PIDS[@]}" $TARGET_PID; do
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  # What the script's own helpers left: in this namespace there is nothing else.
  for pid in $(ip netns pids "$NS" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
  if [ $rc != 0 ]; then
    for log in "$WORK"/*.log; do
      [ -s "$log" ] || continue
      echo "--- the last lines of ${log##*/}"
      tail -n 40 "$log"
    done
  fi
  ip netns del "$NS" 2>/dev/null || true
  if [ $rc != 0 ] && [ "${CORBEL_TEST_KEEP:-0}" = 1 ]; then
    echo "kept: $WORK"
  else
    rm -rf "$WORK"
  fi
  exit $rc
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(id -u)" = 0 ] || fail "network namespaces need root; run it with sudo"
[ -x "$CORBEL_TARGET" ] || fail "no program at $CORBEL_TARGET; cargo build --release builds it"

# In the namespace. It execs, so the pid of `inside … &` is the program's own.
inside() { exec nsenter --net="/run/netns/$NS" -- "$@"; }

wait_for() { # SECONDS WHAT COMMAND… ; polls the command until it succeeds
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "waited in vain for $what"
    sleep 0.1
  done
}

config() { cat >"$WORK/target.toml"; } # from stdin

daemon_section() {
  cat <<TOML
[daemon]
threads = 2
admin_socket = "$WORK/target.sock"
state_dir = "$WORK/state"
TOML
}

ready_or_dead() { grep -qx ready "$WORK/target.out" || ! kill -0 "$TARGET_PID"; }

start_target() { # serves $WORK/target.toml in the namespace; returns once it really serves
  mkdir -p "$WORK/state"
  : >"$WORK/target.out"
  inside "$CORBEL_TARGET" serve --config "$WORK/target.toml" \
    >"$WORK/target.out" 2>>"$WORK/target.log" &
  TARGET_PID=$!
  wait_for 15 "the target's \`ready\`" ready_or_dead
  kill -0 "$TARGET_PID" 2>/dev/null || fail "the target ended at once"
}

# Signals a child of this script and returns its exit code; one that goes on for 20 s is a failure.
end_child() { # PID SIGNAL WHAT
  local deadline=$((SECONDS + 20))
  kill -"$2" "$1"
  while kill -0 "$1" 2>/dev/null; do
    [ $SECONDS -lt $deadline ] || fail "the $3 goes on 20 s after SIG$2"
    sleep 0.05
  done
  wait "$1"
}

end_target() { # [SIGNAL]; TERM must end it with exit code 0
  local signal=${1:-TERM} rc=0
  end_child "$TARGET_PID" "$signal" target || rc=$?
  TARGET_PID=''
  [ "$signal" != TERM ] || [ $rc = 0 ] || fail "the target's exit code after SIGTERM was $rc"
}

run_guest() { # NICS MTU KERNEL TIMEOUT SCRIPT… ; $WORK/share is the script's working folder
  local nics=$1 mtu=$2 kernel=$3 timeout=$4
  shift 4
  mkdir -p "$WORK/share"
  set -- "$TESTS/guest/run.sh" --net "$NS:$nics" --mtu "$mtu" --kernel "$kernel" \
    --timeout "$timeout" --share "$WORK/share" --env "LUN=$LUN" --env "IQN=$IQN" "$@"
  # In the background it takes this shell's place, so that the pid of `run_guest … &` is its own.
  [ "$BASHPID" = $$ ] || exec "$@"
  "$@"
}

share() { # FILE… ; for a guest to have, beside what all of them need
  mkdir -p "$WORK/share"
  cp "$TESTS/interop/guest-lib.sh" "$@" "$WORK/share/"
}

guest_failed() { :; } # what a script has to show of it, beside what the guest said itself

guest_in_steps() { # as run_guest; the host does what the guest asks for (serve_requests)
  run_guest "$@" &
  local guest=$!
  PIDS+=("$guest")
  serve_requests "$guest"
  wait "$guest" || { guest_failed; fail "the guest says so above"; }
  PIDS=()
}

grow_disk() { # the image, and the target is told
  truncate -s 256M "$WORK/disk.img"
  kill -HUP "$TARGET_PID"
  sleep 1
}

disk_holds_last_write() { # of the guest, by its own account
  local written on_disk
  written=$(cat "$WORK/share/written.sum")
  on_disk=$(head -c 16M "$WORK/disk.img" | sha256sum | cut -d' ' -f1)
  [ "$written" = "$on_disk" ] || fail "what the guest wrote last is not in the file"
  pass "the file holds what the guest wrote"
}

# Guest and host step together by files in the shared folder: the guest makes ask.X, the host calls
# host_action X and makes done.X, the guest takes both away. Ends with the guest.
serve_requests() { # GUEST-PID
  local action request
  while kill -0 "$1" 2>/dev/null; do
    for request in "$WORK"/share/ask.*; do
      action=${request##*/ask.}
      [ -e "$request" ] && [ ! -e "$WORK/share/done.$action" ] || continue
      echo "host: $action"
      host_action "$action"
      : >"$WORK/share/done.$action"
    done
    sleep 0.1
  done
}
