#!/usr/bin/env bash
# libiscsi's iscsi-test-cu against the target, suite by suite. conformance.txt says what a test must
# give: a result below its line, or a listed test that does not run, is a failure. A test better than
# its line, or without one, is named, so that the list can be raised.
# usage: conformance.sh [--update]     (--update writes today's results into conformance.txt)
. "$(dirname "$0")/lib.sh"
list=$TESTS/interop/conformance.txt
# Five units of one target: an ordinary disk, and what takes another kind of unit to be tested.
suites="Read6 Read10 Read12 Read16 ReadCapacity10 ReadCapacity16 Write10 Write12 Write16
 Inquiry ModeSense6 TestUnitReady Mandatory ReportSupportedOpcodes StartStopUnit
 Verify10 Verify12 Verify16 WriteVerify10 WriteVerify12 WriteVerify16 WriteSame10 WriteSame16
 CompareAndWrite OrWrite Prefetch10 Prefetch16 ReadDefectData10 ReadDefectData12
 PrinReadKeys PrinServiceactionRange PrinReportCapabilities ProutRegister ProutReserve ProutClear
 ProutPreempt Reserve6 MultipathIO
 iSCSIcmdsn iSCSIdatasn iSCSIResiduals iSCSITMF
 thin/Inquiry thin/Unmap thin/GetLBAStatus thin/WriteSame10 thin/WriteSame16 thin/CompareAndWrite
 thin/ReadCapacity16
 memory/WriteAtomic16 WriteAtomic16 memory/GetLBAStatus
 removable/NoMedia removable/TestUnitReady removable/StartStopUnit removable/PreventAllow
 read-only/ReadOnly"

ip netns add "$NS"
ip -n "$NS" link set lo up
unit() { # NAME OPTIONS ; the next LUN
  truncate -s 64M "$WORK/$1.img"
  printf '\n[[export]]\nname = "%s"\npath = "%s"\n%s\n' "$1" "$WORK/$1.img" "$2"
  printf 'iscsi = [{ target = "%s", lun = %d }]\n' "$IQN" "$(lun_of "$1")"
}
lun_of() { # NAME
  case $1 in
    thin) echo $((LUN + 1)) ;;
    removable) echo $((LUN + 2)) ;;
    read-only) echo $((LUN + 3)) ;;
    memory) echo $((LUN + 4)) ;;
    *) echo "$LUN" ;;
  esac
}
config <<TOML
$(daemon_section)
$(unit disk "")
$(unit thin "thin = true")
$(unit removable "removable = true
thin = true")
$(unit read-only "read_only = true
thin = true")

[[export]]
name = "memory"
path = "mem:64MiB"
thin = true
iscsi = [{ target = "$IQN", lun = $(lun_of memory) }]

[[target]]
name = "$IQN"
portals = ["127.0.0.1:3260"]
TOML
start_target

# One line per test: SUITE.TEST pass|fail|skip|dead   (dead: no result, the tool or target ended)
results_of() { # LOG SUITE
  awk -v suite="$2" '
    function flush() { if (test != "") print suite "." test, (result == "" ? "dead" : result) }
    /^ *Test: / { flush(); test = $2; result = ""; skipped = 0 }
    # What follows the verdict on its line was said by whatever runs after the test.
    { passed = match($0, /(^|\.\.\. *)passed/); before = passed ? substr($0, 1, RSTART) : $0 }
    before ~ /\[SKIPPED\]/ { skipped = 1 }
    /(^|[^[])FAILED/ && test != "" { result = "fail" }
    passed && result == "" { result = skipped ? "skip" : "pass" }
    /^Run Summary|^CUnit/ && /Summary/ { flush(); test = "" }
    END { flush() }' "$1"
}

for suite in $suites; do
  log=$WORK/${suite/\//-}.out
  url=iscsi://127.0.0.1:3260/$IQN/$(lun_of "${suite%/*}")
  urls=("$url")
  [ "$suite" != MultipathIO ] || urls+=("$url")
  nsenter --net="/run/netns/$NS" -- timeout 30 iscsi-test-cu -d -g -v -t "ALL.${suite#*/}" \
    "${urls[@]}" </dev/null >"$log" 2>&1 || true
  results_of "$log" "$suite" >>"$WORK/results.txt"
  kill -0 "$TARGET_PID" || fail "the target died in suite $suite"
done
[ -s "$WORK/results.txt" ] || fail "iscsi-test-cu ran no test"
awk '{ split($1, name, "."); count[name[1], $2]++; if (!seen[name[1]]++) order[++n] = name[1] }
  END { printf "%-24s %5s %5s %5s %5s\n", "suite", "pass", "fail", "skip", "dead"
    for (i = 1; i <= n; i++) { s = order[i]; printf "%-24s %5d %5d %5d %5d\n", s,
      count[s, "pass"], count[s, "fail"], count[s, "skip"], count[s, "dead"] } }' "$WORK/results.txt"

if [ "${1:-}" = --update ]; then
  { grep '^#' "$list" 2>/dev/null || true; sort "$WORK/results.txt"; } >"$WORK/list"
  cp "$WORK/list" "$list"
fi
worse=$(awk 'NR == FNR { if (!/^#/) want[$1] = $2; next }
  want[$1] == "pass" && $2 != "pass" || want[$1] == "skip" && $2 !~ /pass|skip/ {
    print "  " $1 " is " $2 ", promised: " want[$1] }' "$list" "$WORK/results.txt")
missing=$(awk 'NR == FNR { got[$1] = 1; next } !/^#/ && !($1 in got) { print "  " $1 " did not run" }' \
  "$WORK/results.txt" "$list")
unlisted=$(awk 'NR == FNR { want[$1] = 1; next } !($1 in want) { print "  " $1 " is " $2 }' \
  "$list" "$WORK/results.txt")
better=$(awk 'NR == FNR { want[$1] = $2; next } want[$1] ~ /fail|dead|skip/ && $2 == "pass" { print "  " $1 }' \
  "$list" "$WORK/results.txt")
[ -z "$unlisted" ] || printf 'without a promise; give each a line:\n%s\n' "$unlisted"
[ -z "$better" ] || printf 'better than promised; raise its line:\n%s\n' "$better"
if [ -n "$worse$missing" ]; then
  for suite in $(awk -F'[ .]+' '{ print $2 }' <<<"$worse" | sort -u); do
    grep -A4 -E 'FAILED' "$WORK/${suite/\//-}.out" 2>/dev/null | head -n 12 || true
  done
  printf 'worse than promised:\n%s\n%s\n' "$worse" "$missing"
  fail "a promise is broken"
fi
pass "$(grep -c ' pass$' "$WORK/results.txt") of $(wc -l <"$WORK/results.txt") tests pass, as promised"
end_target
