#!/usr/bin/env bash
# The one test command. On a fresh Debian 12 machine with Rust it installs what it needs (see
# packages.txt), then runs every stage, names those that failed and shows the end of their logs.
# One stage at a time, but for two that mostly wait: see `beside`.
#
# usage: tests/run.sh [STAGE…]     default: all of them, in this order
#   fmt dependencies build clippy test optimised simulator doc    need no root
#   conformance export host-iscsi                libiscsi and qemu-img, in a network namespace
#   isns                                         Open-iSNS's server, in a network namespace
#   cross-protocol fencing compare-and-write sanitize hostile idle-sessions hung-storage
#                                                our own clients, in a network namespace
#   nbd attach                                   clients of NBD, in a network namespace
#   initiator-cli                                the initiator's commands, in a network namespace
#   bench                                        the load generator, in a network namespace
#   guest-image                                  what the guests boot
#   guest-ring guest-aoe guest-iscsi guest-target
#                                                kernels 6.1 and 6.12 in QEMU, two guests at a time
#   guest-sg guest-multipath                     sg3-utils, and ALUA, with a guest's own initiator
#   guest-fencing                                fence_scsi, between two guests
#   guest-ublk guest-nbd                         the initiator's block devices
#   guest-initiator guest-lio                    the initiator while paths die
# env: CORBEL_GUEST_CACHE (kernels and root image of the guests; default /tmp/corbel-guest)
#      CORBEL_HOSTILE_COUNT (malformed frames, and as many PDUs; 500000 for the million)
#      CORBEL_CONTEST_ROUNDS (of COMPARE AND WRITE; 1000000 for the million)
#      CORBEL_SEEDS (runs of the simulator; 1000000 for a soak)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# Cargo's own default, target/, is a crate here; this holds wherever cargo is started from.
export CARGO_TARGET_DIR=$PWD/.build CARGO_TERM_COLOR=never
# Where nothing is there yet, there is nothing that a build could be a small change of.
[ -d .build ] || export CARGO_INCREMENTAL=0
export CORBEL_TARGET=${CORBEL_TARGET:-$CARGO_TARGET_DIR/release/corbel-target}
export CORBEL_INITIATOR=${CORBEL_INITIATOR:-$CARGO_TARGET_DIR/release/corbel-initiator}
export CORBEL_BENCH=${CORBEL_BENCH:-$CARGO_TARGET_DIR/release/corbel-bench}
export CORBEL_PROGRAMS=${CORBEL_PROGRAMS:-$CARGO_TARGET_DIR/checks}
log_folder=$CARGO_TARGET_DIR/test-logs
all_stages="fmt dependencies build clippy test optimised simulator doc conformance export host-iscsi isns
  cross-protocol fencing compare-and-write sanitize hostile idle-sessions hung-storage nbd attach
  initiator-cli bench
  guest-image guest-ring guest-aoe guest-iscsi guest-target guest-sg guest-multipath guest-fencing
  guest-ublk guest-nbd guest-initiator guest-lio"
# STAGE=ANOTHER: mostly waiting (for the protocol's own times, for a download), it is started as soon
# as ANOTHER is done, runs beside whatever comes next, and is told in its turn. Such a stage calls no
# cargo, whose lock it would wait for, boots no guest, judges no time that load on the machine could
# change, and has folders and a network namespace of its own.
declare -A beside=([conformance]=build [guest-image]=fmt)
all_stages=${all_stages//$'\n'/}
stages=${*:-$all_stages}
passed=0 failed_stages=''
declare -A running # of the stages that run

for stage in $stages; do
  [[ " $all_stages " == *" $stage "* ]] || { sed -n '2,/^set /s/^# \?//p' "$0" >&2; exit 2; }
done
wants_root() { [[ $stages =~ (export|host-|conformance|isns|cross-|fencing|compare-|sanitize|hostile|idle-|hung-|nbd|attach|initiator-|bench|guest-) ]]; }
as_root=''
if [ "$(id -u)" != 0 ]; then
  as_root="sudo --preserve-env=CORBEL_TARGET,CORBEL_INITIATOR,CORBEL_BENCH,CORBEL_PROGRAMS,CORBEL_RING_TESTS,CORBEL_SEED,CORBEL_TEST_LUN,CORBEL_GUEST_CACHE,CORBEL_GUEST_ACCEL"
fi

install_packages() {
  local need=() command package version
  while read -r command package; do
    case $command in
      '' | '#'*) continue ;;
      /*) [ -e "$command" ] ;;
      *) PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null ;;
    esac || need+=("$package")
  done <tests/packages.txt
  if wants_root && [ ${#need[@]} -gt 0 ]; then
    echo "installing: ${need[*]}"
    apt "${need[@]}" || return 1
  fi
  # qemu-img loads its iSCSI driver only from a qemu-block-extra of its very own version; where the
  # archive has no such version (qemu-utils from backports), both are set to the archive's.
  if wants_root && ! has_iscsi; then
    version=$(dpkg-query -W -f '${Version}' qemu-utils)
    apt "qemu-block-extra=$version" || {
      version=$(apt-cache madison qemu-block-extra | awk 'NR == 1 { print $3 }')
      apt --allow-downgrades "qemu-utils=$version" "qemu-block-extra=$version"
    }
    has_iscsi || { echo "qemu-img still knows no iscsi://; install qemu-block-extra"; return 1; }
  fi
}
# Opening fails either way (nothing listens there); only one way is about the driver.
has_iscsi() {
  ! qemu-img info iscsi://127.0.0.1:1/iqn.2026-11.org.example:none/0 2>&1 |
    grep -qiE 'unknown (protocol|driver)|failed to (open|load|initialize) module'
}
apt_updated=0
apt() {
  [ $apt_updated = 1 ] || $as_root apt-get -qq update || return 1
  apt_updated=1
  $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "$@" >"$log_folder/apt.log" 2>&1 ||
    { tail -n 20 "$log_folder/apt.log"; return 1; }
}

find_cargo() {
  [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
  command -v cargo >/dev/null || {
    echo "cargo is missing. Install Rust (rust-version in Cargo.toml or newer) with rustup:"
    echo "  see https://rustup.rs; then run this again."
    return 1
  }
}

# Side by side, but not more than two: the guests are emulated, and wait for one another's CPU.
side_by_side() { # COMMAND-LINE COMMAND-LINE ; each in a log of its own, the verdicts shown
  local pids=() logs=() rc=0 line at
  for line in "$@"; do
    logs+=("$log_folder/$(tr -c 'a-z0-9.\n' - <<<"${line##*/}").log")
    # shellcheck disable=SC2086
    $as_root $line >"${logs[-1]}" 2>&1 &
    pids+=($!)
  done
  for at in "${!pids[@]}"; do
    echo "--- ${logs[at]}"
    if wait "${pids[at]}"; then
      grep -E '^PASS' "${logs[at]}"
    else
      rc=1
      grep -vE '^\[ *[0-9.]+\]' "${logs[at]}" | tail -n 60
    fi
  done
  return $rc
}
guests() { # SCRIPT
  $as_root tests/guest/build.sh || return 1
  side_by_side "tests/interop/$1.sh 6.12 1500" "tests/interop/$1.sh 6.1 9000" || return 1
  [ "$1" != guest-aoe ] ||
    side_by_side "tests/interop/$1.sh 6.12 9000" "tests/interop/$1.sh 6.1 1500"
}

stage_fmt() { cargo fmt --all -- --check; }
stage_clippy() { cargo clippy --workspace --all-targets --locked -- -D warnings; }
stage_dependencies() { cargo metadata --locked --format-version 1 | tests/dependencies.py deny.toml; }
stage_test() { cargo test --workspace --locked; }
stage_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked; }
# The compiler is part of what is tested: it once lost a line of ours, in optimised builds only.
stage_optimised() { cargo test --release --locked -p corbel-ring -p corbel-proto; }
# Target and initiator in virtual time: thousands of seeds, and every safety rule broken once.
stage_simulator() {
  timeout 900 cargo test --profile checks --locked -p corbel-tests --test fleet -- --nocapture
}
stage_build() {
  cargo build --release --locked -p corbel-target -p corbel-initiator &&
    cargo build --release --locked -p corbel-benches --bins &&
    cargo build --profile checks --locked -p corbel-tests --bins
}
stage_export() { $as_root tests/interop/export.sh; }
stage_host-iscsi() { $as_root tests/interop/host-iscsi.sh; }
stage_conformance() { $as_root tests/interop/conformance.sh; }
stage_isns() { $as_root tests/interop/isns.sh; }
stage_cross-protocol() { $as_root tests/interop/cross-protocol.sh; }
stage_sanitize() { $as_root tests/interop/sanitize.sh; }
stage_hostile() { $as_root tests/interop/hostile.sh "${CORBEL_HOSTILE_COUNT:-50000}"; }
stage_idle-sessions() { $as_root tests/interop/idle-sessions.sh; }
stage_fencing() { $as_root tests/interop/fencing.sh; }
stage_compare-and-write() {
  $as_root tests/interop/compare-and-write.sh "${CORBEL_CONTEST_ROUNDS:-100000}"
}
stage_hung-storage() { $as_root tests/interop/hung-storage.sh; }
stage_nbd() { $as_root tests/interop/nbd.sh; }
stage_attach() { $as_root tests/interop/attach.sh; }
# The guest stages build what is missing, too; where all of them are run, this one has.
stage_guest-image() { $as_root tests/guest/build.sh; }
stage_guest-initiator() {
  $as_root tests/guest/build.sh || return 1
  side_by_side "tests/interop/guest-initiator.sh 6.12 ublk listed" \
    "tests/interop/guest-initiator.sh 6.1 nbd reversed"
}
stage_guest-lio() {
  $as_root tests/guest/build.sh || return 1
  $as_root tests/interop/guest-lio.sh
}
stage_initiator-cli() { $as_root tests/interop/initiator-cli.sh; }
stage_bench() { $as_root tests/interop/bench.sh; }
# The ring's tests once more, on kernels whose io_uring is another.
stage_guest-ring() {
  local said
  # The packages of stage_optimised: with fewer, cargo would build the same once more.
  said=$(cargo test --release --locked -p corbel-ring -p corbel-proto --no-run 2>&1) ||
    { echo "$said"; return 1; }
  CORBEL_RING_TESTS=$(realpath "$(sed -n 's/^ *Executable .*(\(.*corbel_ring-.*\))$/\1/p' <<<"$said")") ||
    return 1
  export CORBEL_RING_TESTS
  $as_root tests/guest/build.sh || return 1
  side_by_side "tests/interop/guest-ring.sh 6.12" "tests/interop/guest-ring.sh 6.1"
}
stage_guest-aoe() { guests guest-aoe; }
stage_guest-iscsi() { guests guest-iscsi; }
stage_guest-target() {
  $as_root tests/guest/build.sh || return 1
  side_by_side "tests/interop/guest-target.sh 6.1" "tests/interop/guest-target.sh 6.12"
}
stage_guest-sg() { $as_root tests/guest/build.sh && $as_root tests/interop/guest-sg.sh; }
stage_guest-multipath() {
  $as_root tests/guest/build.sh || return 1
  side_by_side "tests/interop/guest-multipath.sh 6.12" "tests/interop/guest-multipath.sh 6.1 9000"
}
stage_guest-fencing() { $as_root tests/guest/build.sh && $as_root tests/interop/guest-fencing.sh; }
stage_guest-ublk() { $as_root tests/guest/build.sh && $as_root tests/interop/guest-ublk.sh; }
stage_guest-nbd() {
  $as_root tests/guest/build.sh || return 1
  side_by_side "tests/interop/guest-nbd.sh 6.1" "tests/interop/guest-nbd.sh 6.12"
}

start_stage() { # STAGE ; in the background, whether it is waited for at once or not
  local log=$log_folder/$1
  rm -f "$log.seconds"
  (
    trap - EXIT
    trap 'trap "" TERM; wait; exit 143' TERM # not before what it started
    SECONDS=0
    "stage_$1"
    rc=$?
    echo "$SECONDS" >"$log.seconds"
    exit $rc
  ) >"$log.log" 2>&1 </dev/null &
  running[$1]=$!
}
start_waiting_stages() { # LEFT… ; those of them whose other is not, or no longer, among them
  local stage
  for stage in "$@"; do
    if [ -n "${beside[$stage]:-}" ] && [ -z "${running[$stage]:-}" ] &&
      [[ " $* " != *" ${beside[$stage]} "* ]]; then
      start_stage "$stage"
    fi
  done
}
finish_stage() { # STAGE
  local rc=0 seconds
  wait "${running[$1]}" || rc=$?
  unset "running[$1]"
  seconds="$(cat "$log_folder/$1.seconds" || echo '?') s${beside[$1]:+, beside others}"
  if [ $rc = 0 ]; then
    passed=$((passed + 1))
    echo "ok      $seconds"
  else
    failed_stages+=" $1"
    echo "FAILED  $seconds"
  fi
}

descendants() { # PID…
  local pid
  for pid in "$@"; do
    echo "$pid"
    # shellcheck disable=SC2046
    descendants $(ps -o pid= --ppid "$pid")
  done
}
any_lives() { ps -o stat= -p "$*" | grep -qv '^Z'; } # PID…
# Whatever ends the suite ends the stages that run, with all they started: each script then takes
# away its own namespace and folder.
end_stages() {
  trap '' INT TERM
  [ ${#running[@]} != 0 ] || return 0
  local ours tries=300
  mapfile -t ours < <(descendants "${running[@]}")
  $as_root kill "${ours[@]}" 2>/dev/null
  while any_lives "${ours[@]}"; do
    [ $((tries--)) -gt 0 ] || { $as_root kill -9 "${ours[@]}"; break; }
    sleep 0.1
  done
}

main() {
  trap end_stages EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  mkdir -p "$log_folder"
  find_cargo && install_packages || exit 2
  read -ra order <<<"$stages"
  for at in "${!order[@]}"; do
    stage=${order[at]}
    start_waiting_stages "${order[@]:at}"
    printf '%-18s' "$stage"
    [ -n "${running[$stage]:-}" ] || start_stage "$stage"
    finish_stage "$stage"
  done
  for stage in $failed_stages; do
    echo "--- the end of $log_folder/$stage.log"
    tail -n 50 "$log_folder/$stage.log"
  done
  echo "$passed passed; failed:${failed_stages:- none}"
  [ -z "$failed_stages" ]
}
# One line, so that bash has read all of this file before a long run starts.
main; exit
