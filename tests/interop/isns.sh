#!/usr/bin/env bash
# Open-iSNS's server on this machine: it learns the target's nodes, portals and groups, learns of a
# reload, knows them again after its own restart, and forgets them when the target ends.
# usage: isns.sh
. "$(dirname "$0")/lib.sh"
HOST=192.0.2.1 SERVER=192.0.2.1:3205 PERIOD=6

ip netns add "$NS"
# isnsd asks for addresses of which the host has others than loopback's.
ip -n "$NS" link add shelf0 type veth peer name client0
for interface in lo shelf0 client0; do ip -n "$NS" link set "$interface" up; done
ip -n "$NS" addr add $HOST/24 dev shelf0
truncate -s 64M "$WORK/disk.img"
# Without a database it keeps all in memory: after a restart it knows nothing.
cat >"$WORK/isnsd.conf" <<CONF
SourceName = iqn.2026-11.org.example:isns
RegistrationPeriod = $PERIOD
DefaultDiscoveryDomain = 1
SLPRegister = 0
Security = 0
PIDFile = $WORK/isnsd.pid
BindAddress = $SERVER
ControlSocket = $WORK/isnsd.socket
CONF
cat >"$WORK/isnsadm.conf" <<CONF
SourceName = iqn.2026-11.org.example:asker
ServerAddress = $SERVER
Security = 0
CONF
start_isnsd() {
  inside /usr/sbin/isnsd -4 --foreground --config "$WORK/isnsd.conf" >>"$WORK/isnsd.log" 2>&1 &
  PIDS=($!)
}
end_isnsd() {
  end_child "${PIDS[0]}" TERM "iSNS server" || true
  PIDS=()
}
serve_section() { # PORTALS [SECOND-TARGET]
  local second=''
  [ -z "${2:-}" ] || second=", { target = \"$2\", lun = $LUN }"
  cat <<TOML
$(daemon_section)
isns = { servers = ["$SERVER"], entity = "shelf.example.org" }

[[export]]
name = "disk"
path = "$WORK/disk.img"
iscsi = [{ target = "$IQN", lun = $LUN }$second]

[[target]]
name = "$IQN"
alias = "the shelf's disk"
portals = [$1]
TOML
  if [ -n "$second" ]; then
    printf '\n[[target]]\nname = "%s"\nportals = [{ address = "%s:3261", group = 7 }]\n' "$2" $HOST
  fi
}

ask() { # MODE ATTRIBUTE… ; like any initiator does, over TCP
  nsenter --net="/run/netns/$NS" -- timeout 20 isnsadm --config "$WORK/isnsadm.conf" "$@" \
    >"$WORK/answer.txt" 2>&1
}
knows() { ask --query iscsi-name="$1" && grep -qF "\"$1\"" "$WORK/answer.txt"; }
# A query without an answer is a success, too; a server that is away is not.
forgot() { ask --query iscsi-name="$1" && ! grep -qF "\"$1\"" "$WORK/answer.txt"; }
listed() { # KIND TEXT…
  local kind=$1 text
  shift
  ask --list "$kind" || fail "isnsadm --list $kind: $(cat "$WORK/answer.txt")"
  for text in "$@"; do
    grep -qF -- "$text" "$WORK/answer.txt" || fail "no $text in $kind: $(cat "$WORK/answer.txt")"
  done
}

serve_section '"0.0.0.0:3260"' | config
start_isnsd
start_target
wait_for 20 "the registration" knows "$IQN"
listed nodes "iSCSI node type = Target" "the shelf's disk"
listed portals "Portal IP address = $HOST" "port = 3260/tcp"
listed portal-groups "$IQN" "Portal group tag = 1"
listed entities "shelf.example.org"
pass "node, portal and portal group are there; a portal on all addresses has the host's"

sleep $((PERIOD + 3))
knows "$IQN" || fail "forgotten after $PERIOD s: $(cat "$WORK/answer.txt")"
[ "$(grep -c "$SERVER: registered" "$WORK/target.log")" = 1 ] || fail "it was not just renewed"
pass "still there after the registration period"

serve_section '"0.0.0.0:3260"' "$IQN-two" | config
"$CORBEL_TARGET" reload --socket "$WORK/target.sock" >>"$WORK/reload.log" 2>&1 || fail "reload"
wait_for 20 "the second target" knows "$IQN-two"
listed portal-groups "Portal group tag = 1" "Portal group tag = 7"
[ "$(grep -c "Portal group tag" "$WORK/answer.txt")" = 2 ] ||
  fail "a target is told to be at a portal of the other one: $(cat "$WORK/answer.txt")"
knows "$IQN" || fail "the first one is gone: $(cat "$WORK/answer.txt")"
serve_section '"0.0.0.0:3260"' | config
"$CORBEL_TARGET" reload --socket "$WORK/target.sock" >>"$WORK/reload.log" 2>&1 || fail "reload"
wait_for 20 "the second target's end" forgot "$IQN-two"
knows "$IQN" || fail "the first one is gone: $(cat "$WORK/answer.txt")"
sed -i "s/$SERVER/not-an-address/" "$WORK/target.toml"
if "$CORBEL_TARGET" reload --socket "$WORK/target.sock" >>"$WORK/reload.log" 2>&1; then
  fail "a wrong address was taken"
fi
knows "$IQN" || fail "a refused configuration took the registration back"
pass "a reload adds and removes; a refused one changes nothing"

end_isnsd
start_isnsd
wait_for 30 "the registration with the next server" knows "$IQN"
pass "a server that was restarted is told again"

end_target
wait_for 5 "the registration's end" forgot "$IQN"
[ "$(grep -c "registration taken back" "$WORK/target.log")" = 1 ] || fail "it was not taken back"
pass "gone with the target"

serve_section '"0.0.0.0:3260"' | config
start_target
wait_for 20 "the registration" knows "$IQN"
end_isnsd
end_target
pass "without a server the target ends all the same"
