# shellcheck shell=bash
# What the scripts around corbel-tests' own programs share; sourced after lib.sh.
#
# env: CORBEL_PROGRAMS     folder of the programs (default .build/checks)
PROGRAMS=${CORBEL_PROGRAMS:-$TESTS/../.build/checks}
PORTAL=127.0.0.1:3260

program() { # NAME ; its path
  [ -x "$PROGRAMS/$1" ] || fail "no $PROGRAMS/$1; cargo build --profile checks -p corbel-tests builds it"
  echo "$PROGRAMS/$1"
}

# A namespace with loopback and a pair of interfaces: the target has shelf0, clients have client0.
make_net() { # [MTU]
  local mtu=${1:-1500} interface
  ip netns add "$NS"
  ip -n "$NS" link add shelf0 mtu "$mtu" type veth peer name client0 mtu "$mtu"
  for interface in lo shelf0 client0; do ip -n "$NS" link set "$interface" up; done
}

# $WORK/disk.img (or $DISK, with $OPTION) as shelf 0 slot 0 on shelf0 and as LUN $LUN of $IQN, by four threads.
serve_disk() {
  truncate -s 64M "$WORK/disk.img"
  config <<TOML
$(daemon_section | sed 's/^threads = .*/threads = 4/')

[[export]]
name = "disk"
path = "${DISK:-$WORK/disk.img}"
${OPTION:-}
aoe = [{ shelf = 0, slot = 0, interfaces = ["shelf0"] }]
iscsi = [{ target = "$IQN", lun = $LUN }]

[[target]]
name = "$IQN"
portals = ["$PORTAL"]
TOML
  start_target
}

run_inside() { (inside "$@"); }
