#!/bin/sh
# Fuzzes: fuzz/run.sh [SECONDS] [TARGET…]
#
# Every target (or those named) for SECONDS (300 by default), one after another, from the inputs
# in corpus/. What is new and interesting is kept in .build/corpus/ and can be minimised into
# corpus/ with --keep as the first argument. Ends with 1 if anything was found; the inputs that
# show it are in artifacts/TARGET/.
set -eu
cd "$(dirname "$0")"

keep=no
if [ "${1:-}" = --keep ]; then keep=yes; shift; fi
seconds=300
case "${1:-}" in
    '' | *[!0-9]*) ;;
    *) seconds=$1; shift ;;
esac

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

# Coverage counters need compiler flags that a stable toolchain keeps for itself. The build folder
# is named because cargo-fuzz would take ../target, which is a crate here.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="$PWD/.build"
fuzz() {
    subcommand=$1
    shift
    cargo fuzz "$subcommand" -s none --target-dir "$CARGO_TARGET_DIR" "$@"
}

[ $# -gt 0 ] || set -- $(cargo fuzz list)
fuzz build
found=
for target in "$@"; do
    grown=.build/corpus/$target
    mkdir -p "$grown"
    echo "== $target for $seconds s"
    fuzz run "$target" "$grown" "corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
        || found="$found $target"
    if [ "$keep" = yes ]; then
        ./keep.sh "$target"
    fi
done
if [ -n "$found" ]; then
    echo "findings in:$found; the inputs are in fuzz/artifacts/" >&2
    exit 1
fi
