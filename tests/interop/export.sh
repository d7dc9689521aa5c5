#!/usr/bin/env bash
# README's first command, and what people type next: `export` without a configuration file, over
# iSCSI on this machine, on an address and LUN of one's choice, read-only, from RAM; wrong usage.
# usage: export.sh
. "$(dirname "$0")/lib.sh"

ip netns add "$NS"
ip -n "$NS" link set lo up
cd "$WORK"
tool() { nsenter --net="/run/netns/$NS" -- timeout 60 "$@"; }

start_export() { # ARG…
  : >"$WORK/target.out"
  inside "$CORBEL_TARGET" export "$@" >"$WORK/target.out" 2>>"$WORK/target.log" &
  TARGET_PID=$!
  wait_for 15 "\`ready\` from export $*" ready_or_dead
  kill -0 "$TARGET_PID" 2>/dev/null || fail "export $* ended at once"
  [ "$(tail -n 1 "$WORK/target.out")" = ready ] || fail "\`ready\` is not the last line"
}
discovered() { tool iscsi-ls "iscsi://$1" | sed -n 's/^Target:\([^ ]*\) .*/\1/p'; }

start_export demo.img --create 1G
[ "$(stat -c %s demo.img)" = $((1 << 30)) ] || fail "demo.img is not 1 GiB long"
[ "$(stat -c %b demo.img)" -lt 16384 ] || fail "demo.img is not sparse"
found=$(discovered 127.0.0.1:3260)
[ "$(wc -w <<<"$found")" = 1 ] || fail "one target wanted, found: $found"
grep -qF "$found" target.out || fail "the printed lines do not name $found"
size=$(tool iscsi-readcapacity16 -s "iscsi://127.0.0.1:3260/$found/0")
[ "$size" = $((1 << 30)) ] || fail "READ CAPACITY (16) says $size"
head -c 8M /dev/urandom >there.raw
tool qemu-img convert -n -f raw -O raw there.raw "iscsi://127.0.0.1:3260/$found/0" || fail "writing"
cmp -n $((8 << 20)) there.raw demo.img || fail "demo.img differs from what was written"
pass "export demo.img --create 1G: discovered, 1 GiB, written"

end_target TERM
start_export demo.img
[ "$(discovered 127.0.0.1:3260)" = "$found" ] || fail "the IQN changed over a restart"
cmp -n $((8 << 20)) there.raw demo.img || fail "a restart changed the data"
kill -INT "$TARGET_PID"
rc=0
wait "$TARGET_PID" || rc=$?
TARGET_PID=''
[ $rc = 0 ] || fail "exit code $rc after SIGINT"
if grep -q $'\e' target.out target.log; then fail "colour codes, and no terminal to show them"; fi
pass "the same name after a restart; SIGINT ends it with 0"

start_export mem:64M --iscsi "$IQN@127.0.0.1:3999" --lun 5 --read-only
url=iscsi://127.0.0.1:3999/$IQN/5
[ "$(tool iscsi-readcapacity16 -s "$url")" = $((64 << 20)) ] || fail "the size of mem:64M"
if tool qemu-img convert -n -f raw -O raw there.raw "$url" >refused.txt 2>&1; then
  fail "a read-only export took a write"
fi
pass "mem:64M read-only at a portal and LUN of choice: $(tail -n 1 refused.txt)"
end_target TERM

wrong() { # EXIT-CODE ARG…
  local want=$1 rc=0
  shift
  tool "$CORBEL_TARGET" "$@" >wrong.txt 2>&1 || rc=$?
  [ $rc = "$want" ] || fail "corbel-target $*: exit code $rc, not $want: $(cat wrong.txt)"
  [ -s wrong.txt ] || fail "corbel-target $*: not a word about what is wrong"
}
wrong 2 export
wrong 2 export demo.img --aoe nonsense
wrong 1 export no-such-file.img
printf '[[export]]\nname = "a"\npaht = "/dev/null"\n' >bad.toml
wrong 2 check --config bad.toml
grep -qE 'bad.toml:3' wrong.txt || fail "no line number: $(cat wrong.txt)"
pass "wrong usage is 2, a missing device 1, a bad configuration 2 with its line"
