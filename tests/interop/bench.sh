#!/usr/bin/env bash
# corbel-bench over iSCSI, over AoE and on a file; and what --verify is there for: blocks that are
# stale, misplaced or torn under a running target are found, each by its name. No time is judged.
#
# env: CORBEL_BENCH        the program under test (default beside corbel-target)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
CORBEL_BENCH=${CORBEL_BENCH:-$(dirname "$CORBEL_TARGET")/corbel-bench}
[ -x "$CORBEL_BENCH" ] ||
  fail "no program at $CORBEL_BENCH; cargo build --release -p corbel-benches builds it"
make_net 9000
serve_disk
ISCSI=iscsi:$IQN/$LUN@$PORTAL AOE=aoe:0.0@client0

bench() { run_inside timeout 60 "$CORBEL_BENCH" run "$@" >"$WORK/bench.out" 2>>"$WORK/bench.log"; }
none_wrong() { grep -q '^verify  [1-9][0-9]* blocks checked, none wrong' "$WORK/bench.out"; }
shown() { cat "$WORK/bench.out"; }

for path in "$ISCSI" "$AOE"; do
  bench --rw randrw=50 --verify --size 4M --time 1s "$path" || { shown; fail "verify, $path"; }
  none_wrong || { shown; fail "nothing checked, $path"; }
  bench --rw randrw=70 --bs 64k --qd 8 --verify --size 8M --jobs 2 --time 1s "$path" ||
    { shown; fail "two jobs, long requests, $path"; }
  bench --rw randread --rate 500 --time 1s --server-pid "$TARGET_PID" --json "$path" ||
    { shown; fail "a paced load, $path"; }
  python3 - "$WORK/bench.out" <<'PY' || { shown; fail "the JSON of $path"; }
import json, sys
told = json.load(open(sys.argv[1]))
latency = told["read"]["latency_ns"]
assert told["failed"] == 0 and told["write"] is None
# Due in 1.2 s; those of the warm-up may end in the measured part.
assert 0 < told["read"]["requests"] <= 601, told["read"]
assert latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
assert told["cpu"]["own_ns_per_request"] > 0 and told["cpu"]["server_ns_per_request"] > 0
PY
  pass "loads and --verify over ${path%%:*}"
done
bench --rw randread --size 8M --time 1s --digests "$ISCSI" || { shown; fail "digests"; }
pass "with digests"

bench --rw randwrite --durable --size 8M --time 1s --json "$ISCSI" ||
  { shown; fail "durable writes"; }
grep -q '"durable": true' "$WORK/bench.out" || { shown; fail "durable writes are not told of"; }
if bench --rw randwrite --durable --size 8M --time 1s "$AOE"; then fail "durable over AoE"; fi
pass "durable writes"

# What a broken store, or a late copy of a write, does to a block: done here by hand, beneath a
# target that serves. The state tells what each block holds from one run to the next.
spoil() { # WHAT BLOCK COMMAND… ; the run after it must name WHAT, at BLOCK, and fail
  local what=$1 byte=$(($2 * 4096)) rc=0
  shift 2
  "$@" 2>>"$WORK/bench.log" || fail "could not make a $what block"
  for path in "$ISCSI" "$AOE"; do
    rc=0
    verify_state "$path" || rc=$?
    [ $rc = 1 ] || { shown; fail "a $what block left the exit code at $rc, $path"; }
    grep -q "byte $byte, sector [0-9]*: $what" "$WORK/bench.out" ||
      { shown; fail "a $what block was not found, $path"; }
  done
  cp "$WORK/known.good" "$WORK/known"
  dd if="$WORK/good.img" of="$WORK/disk.img" bs=1M count=1 conv=notrunc,fsync 2>/dev/null
  pass "a $what block is found"
}
verify_state() {
  bench --rw randread --verify --state "$WORK/known" --size 1M --time 0.2s "$1"
}
block() { # FROM-IMAGE FROM-BLOCK TO-BLOCK [SECTORS]
  dd if="$1" of="$WORK/disk.img" bs=512 skip=$(($2 * 8)) seek=$(($3 * 8)) count="${4:-8}" \
    conv=notrunc,fsync
}
write_all() { bench --rw write --verify --state "$WORK/known" --size 1M --time 0.5s "$ISCSI"; }
write_all || { shown; fail "the first writing"; }
cp "$WORK/disk.img" "$WORK/old.img"
write_all || { shown; fail "the second writing"; }
cp "$WORK/disk.img" "$WORK/good.img"
cp "$WORK/known" "$WORK/known.good"
verify_state "$AOE" || { shown; fail "what iSCSI wrote is not what AoE reads"; }
none_wrong || { shown; fail "nothing checked"; }
pass "written over iSCSI, read over AoE, known from the run before"
spoil stale 10 block "$WORK/old.img" 10 10
spoil misplaced 20 block "$WORK/good.img" 21 20
spoil torn 30 block "$WORK/old.img" 30 30 4
spoil lost 40 block /dev/zero 0 40

rc=0
bench --rw randread "iscsi:$IQN/7@$PORTAL" || rc=$?
[ $rc = 1 ] || fail "a LUN that is not there: exit code $rc"
rc=0
bench --bs 1000 "$ISCSI" || rc=$?
[ $rc = 2 ] || fail "a wrong block size: exit code $rc"
kill -0 "$TARGET_PID" || fail "the target died"
end_target
bench --rw randrw=50 --verify --size 4M --time 0.5s "$WORK/disk.img" || { shown; fail "a file"; }
pass "a file, exit codes, SIGTERM"

# Every server that is installed, or its name and why it is not there. One round, no time judged.
compare() {
  timeout 180 "$CORBEL_BENCH" compare --target "$CORBEL_TARGET" --rounds 1 --retakes 0 --size 16M \
    --disk "$WORK" --report "$WORK/report" "$@" >"$WORK/bench.out" 2>>"$WORK/bench.log" ||
    { shown; fail "compare $*"; }
}
compare --only iscsi-ram,aoe-ram,aoe-1500 --sample 100ms
python3 - "$WORK/report" <<'PY' || { shown; fail "the report"; }
import json, sys
told = json.load(open(f"{sys.argv[1]}/report.json"))
page = open(f"{sys.argv[1]}/report.html").read()
assert [g["group"]["name"] for g in told["groups"]] == ["iscsi-ram", "aoe-ram", "aoe-1500"]
for group in told["groups"]:
    names = [member["name"] for member in group["group"]["members"]]
    assert names[0] == "corbel" and not group["group"]["failures"], group["group"]["failures"]
    assert len(group["summary"]) == len(names) * len(group["group"]["loads"])
    assert len(group["group"]["samples"]) == len(group["summary"])
peers = {m["name"] for g in told["groups"] for m in g["group"]["members"]}
absent = " ".join(absent["who"] for absent in told["not_compared"])
for peer in ("tgt", "tgt-1", "spdk", "spdk-interrupt", "vblade", "ggaoed", "null-aoe"):
    assert peer in peers or peer in absent, f"{peer} is neither compared nor named"
# No curve over depth where there is one depth.
assert page.count("<svg") == 4 + 4 + 3 and "</html>" in page
PY
compare --only iscsi-file --peer fio --sample 50ms
python3 - "$WORK/report" <<'PY' || { shown; fail "the report on a file"; }
import json, sys
told = json.load(open(f"{sys.argv[1]}/report.json"))
[group] = told["groups"]
assert not group["group"]["failures"], group["group"]["failures"]
measured = {(line["server"], line["load"]["durable"]) for line in group["summary"]}
assert ("corbel", True) in measured
assert ("fio", True) in measured or "fio" in " ".join(a["who"] for a in told["not_compared"])
assert [c["load"]["durable"] for c in group["contrasts"] if c["server"] == "corbel"] == [True]
PY
! ip netns list | grep -q '^corbel-bench-' || fail "compare left its namespaces behind"
pass "a comparison, with its report"
