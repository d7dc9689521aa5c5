#!/usr/bin/env bash
# libiscsi's iscsi-test-cu against the target: every test on every one of five exports, each in a
# process of its own, with data loss and SANITIZE allowed, two initiator names and two URLs. Each
# test must pass on one of them and fail on none; conformance.txt says what each must give where.
# Where Debian's tgt is installed, its score stands beside ours.
# usage: conformance.sh [--update]     (--update writes today's results into conformance.txt)
. "$(dirname "$0")/lib.sh"
list=$TESTS/interop/conformance.txt
exports="thin removable read-only thick encrypted"
sanitize=8MiB # a second: one test wants to see that it goes on for some

od -An -vtx1 -N32 /dev/urandom | tr -d ' \n' >"$WORK/key"
chmod 600 "$WORK/key"
ip netns add "$NS"
ip -n "$NS" link set lo up
truncate -s 64M "$WORK/read-only.img" "$WORK/thick.img" "$WORK/tgt.img"
truncate -s 65M "$WORK/encrypted.img"
# A target each: one test resets its whole target while the others' tests run.
unit() { # NAME PATH OPTIONS
  printf '\n[[export]]\nname = "%s"\npath = "%s"\nsanitize_rate = "%s"\n%s\n' "$1" "$2" $sanitize "$3"
  printf 'iscsi = [{ target = "%s-%s" }]\n' "$IQN" "$1"
  printf '[[target]]\nname = "%s-%s"\nportals = ["127.0.0.1:3260"]\n' "$IQN" "$1"
  # Sanitize.Reset sleeps for a minute and answers no ping.
  printf 'ping_timeout = "3m"\n'
}
config <<TOML
$(daemon_section)
$(unit thin mem:64MiB "thin = true")
$(unit removable mem:64MiB "removable = true
thin = true")
$(unit thick "$WORK/thick.img" "")
$(unit encrypted "$WORK/encrypted.img" "encryption = { key_file = \"$WORK/key\" }
thin = true")
$(unit read-only "$WORK/read-only.img" "read_only = true
thin = true")
TOML
start_target

# iscsi-test-cu's verdict on one test: pass, fail, skip or dead (it or the target ended); then what
# it left out. Some tests fail for want of the leave to lose data: they did not run.
verdict_of() { # LOG TEST
  awk -v name="${2#*.}" '
    # What follows the verdict on its line was said by whatever runs after the test.
    { passed = match($0, /(^|\.\.\. *)passed/); before = passed ? substr($0, 1, RSTART) : $0 }
    /^ *Test: / { test = $2 == name }
    test && before ~ /\[SKIPPED\]/ { sub(/.*\[SKIPPED\] */, ""); why = $0; skipped++ }
    test && /--dataloss flag is not set/ { forbidden = 1 }
    /(^|[^[])FAILED/ && test { result = "fail" }
    passed && test && result == "" { result = skipped ? "skip" : "pass" }
    /^Run Summary/ { exit }
    END { if (forbidden) { result = "skip"; why = "no data may be lost" }
      print (result == "" ? "dead" : result), why }' "$1"
}

run_tests() { # NAME URL RESULTS
  local test only log verdict options
  while read -r test; do
    # The tool expects every unit to take its writes, but for one test.
    options=(-d -S)
    [ "$1" != read-only ] || [[ $test == ReadOnly.* ]] || options=()
    log=$WORK/$1-$test.out
    # One of these passes only after the other.
    only=$test
    [[ $test != iSCSITMF.* ]] || only=iSCSITMF
    nsenter --net="/run/netns/$NS" -- timeout 300 iscsi-test-cu "${options[@]}" -g -v -t "ALL.$only" \
      -i "$IQN-a" -I "$IQN-b" "$2" "$2" </dev/null >"$log" 2>&1 || true
    verdict=$(verdict_of "$log" "$test")
    echo "$1/$test $verdict" >>"$3"
    [ "${verdict%% *}" != dead ] || [ "$1" = tgt ] || kill -0 "$TARGET_PID" || return 1
  done <"$WORK/tests.txt"
}

iscsi-test-cu --list 2>/dev/null | sed -n 's/^ALL\.\([A-Za-z0-9]*\.[A-Za-z0-9_-]*\)$/\1/p' >"$WORK/tests.txt"
all=$(wc -l <"$WORK/tests.txt")
[ "$all" -ge 200 ] || fail "iscsi-test-cu lists $all tests"
runs=()
for export in $exports; do
  run_tests "$export" "iscsi://127.0.0.1:3260/$IQN-$export/0" "$WORK/$export.results" &
  runs+=($!) PIDS+=($!)
done

start_tgt() {
  local control=$((RANDOM % 900 + 100)) tries=50
  local -a adm=(nsenter --net="/run/netns/$NS" -- tgtadm -C "$control" --lld iscsi)
  inside tgtd -f -C $control --iscsi portal=127.0.0.1:3270 >"$WORK/tgt.log" 2>&1 &
  PIDS+=($!)
  until "${adm[@]}" --op show --mode target >/dev/null 2>&1; do
    [ $((tries--)) -gt 0 ] || return 1
    sleep 0.1
  done
  "${adm[@]}" --op new --mode target --tid 1 -T "$IQN-tgt" &&
    "${adm[@]}" --op new --mode logicalunit --tid 1 --lun 1 -b "$WORK/tgt.img" &&
    "${adm[@]}" --op bind --mode target --tid 1 -I ALL
}
peers=()
if command -v tgtd >/dev/null && start_tgt; then
  peers=(tgt)
  run_tests tgt "iscsi://127.0.0.1:3270/$IQN-tgt/1" "$WORK/tgt.results" || true
fi
for run in "${runs[@]}"; do wait "$run" || fail "the target died"; done
PIDS=("${PIDS[@]:${#runs[@]}}") # these have ended

(cd "$WORK" && for export in $exports; do cat "$export.results"; done) >"$WORK/results.txt"
count() { awk -v want="$2" '$2 == want { n++ } END { print n + 0 }' "$WORK/$1.results"; }
printf '%-12s %5s %5s %5s %5s\n' "" pass fail skip dead
for export in $exports "${peers[@]}"; do
  printf '%-12s %5d %5d %5d %5d\n' "$export" "$(count "$export" pass)" "$(count "$export" fail)" \
    "$(count "$export" skip)" "$(count "$export" dead)"
done
if [ "${1:-}" = --update ]; then
  { grep '^#' "$list" 2>/dev/null || true; awk '{ print $1, $2 }' "$WORK/results.txt"; } >"$WORK/list"
  cp "$WORK/list" "$list"
fi

# No test is excused: each passes somewhere and fails nowhere.
awk -v exports="$exports" '
  { split($1, at, "/"); name = $1; sub(/^[^\/]*\//, "", name); tests[name] = 1 }
  $2 == "pass" { passes[name] = 1 }
  $2 == "fail" || $2 == "dead" { print "  " $1 " is " $2 }
  END { for (name in tests) { n++; if (passes[name]) ok++
      else print "  " name " passes nowhere" }
    print n, ok >"/dev/stderr" }' "$WORK/results.txt" >"$WORK/wrong.txt" 2>"$WORK/sum.txt"
worse=$(awk 'NR == FNR { if (!/^#/) want[$1] = $2; next }
  want[$1] == "pass" && $2 != "pass" || want[$1] == "skip" && $2 !~ /pass|skip/ {
    print "  " $1 " is " $2 ", promised: " want[$1] }' "$list" "$WORK/results.txt")
missing=$(awk 'NR == FNR { got[$1] = 1; next } !/^#/ && !($1 in got) { print "  " $1 " did not run" }' \
  "$WORK/results.txt" "$list")
if [ -s "$WORK/wrong.txt" ] || [ -n "$worse$missing" ]; then
  for name in $(awk '$3 ~ /fail|dead/ { print $1 }' "$WORK/wrong.txt" | sort -u | head -n 8); do
    grep -A4 -E 'FAILED' "$WORK/${name/\//-}.out" 2>/dev/null | head -n 6 || true
  done
  printf 'not as it should be:\n%s\n%s\n%s\n' "$(sort "$WORK/wrong.txt")" "$worse" "$missing"
  fail "a promise is broken"
fi
read -r ran passing <"$WORK/sum.txt"
pass "$passing of $ran tests pass on one export at least, and none fails on any"
end_target
