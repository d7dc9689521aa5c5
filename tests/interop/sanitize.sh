#!/usr/bin/env bash
# SANITIZE across a kill -9, on an image, a block device and an encrypted image: the volume stays
# closed over both protocols until an attempt comes to its end. And encryption at rest: the same data
# over both, none of it on the store, another key file refused, and a new key where the old was.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
sanitize=$(program sanitize)
IMAGE=$WORK/disk.img LOOP=''
detach() { [ -z "$LOOP" ] || losetup -d "$LOOP" || true; }
trap 'rc=$?; detach || true; cleanup $rc' EXIT

key() { # FILE
  od -An -vtx1 -N32 /dev/urandom | tr -d ' \n' >"$1"
  chmod 600 "$1"
}
key "$WORK/key"
key "$WORK/other"

serve() { # PATH OPTION
  config <<TOML
$(daemon_section)

[[export]]
name = "disk"
path = "$1"
sanitize_rate = "16MiB" # a few seconds, of which one is waited before the target is killed
$2
aoe = [{ shelf = 0, slot = 0, interfaces = ["shelf0"] }]
iscsi = [{ target = "$IQN", lun = $LUN }]

[[target]]
name = "$IQN"
portals = ["$PORTAL"]
TOML
  start_target
}

step() { # STEP
  run_inside "$sanitize" --portal "$PORTAL" --target "$IQN" --lun "$LUN" --aoe 0.0@client0 "$1" ||
    fail "$kind: $1"
}

# A killed target's port is taken until the kernel has ended the block operations under way, whose
# ring it belongs to; systemd tries again each second.
until_port_is_free() {
  for _ in $(seq 100); do
    [ -n "$(inside ss -Htln "sport = :${PORTAL##*:}")" ] || return 0
    sleep 0.1
  done
  fail "ten seconds after the target was killed its port is in use"
}

plain() { grep -qa 'plain text that a store keeps' "$IMAGE"; }

make_net
for kind in image block-device encrypted; do
  rm -rf "$IMAGE" "$WORK/state"
  truncate -s 64M "$IMAGE"
  path=$IMAGE option=''
  case $kind in
    block-device)
      LOOP=$(losetup -f --show "$IMAGE") || fail "this kernel has no loop devices"
      path=$LOOP
      ;;
    encrypted) option="encryption = { key_file = \"$WORK/key\" }" ;;
  esac
  serve "$path" "$option"
  step write
  end_target
  serve "$path" "$option"
  step read
  case $kind in
    encrypted) plain && fail "plain text is on an encrypted store" ;;
    *) sync -f "$IMAGE"; plain || fail "what is looked for is not found where it must be" ;;
  esac
  step begin
  sleep 1
  end_target KILL || true
  until_port_is_free
  for again in 1 2; do
    serve "$path" "$option"
    step closed
    [ $again = 2 ] || end_target
  done
  step overwrite
  end_target
  serve "$path" "$option"
  step write
  if [ $kind = encrypted ]; then
    step crypto-erase
    end_target
    serve "$path" "$option"
    step read
    plain && fail "plain text is on an encrypted store"
    end_target
    sed "s|$WORK/key|$WORK/other|" "$WORK/target.toml" >"$WORK/other.toml"
    before=$(sha256sum <"$IMAGE")
    if (inside timeout 20 "$CORBEL_TARGET" serve --config "$WORK/other.toml") >"$WORK/other.log" 2>&1; then
      fail "a store was opened with another key file"
    fi
    grep -q 'encrypted under another key' "$WORK/other.log" || fail "another key file: no clear word"
    [ "$before" = "$(sha256sum <"$IMAGE")" ] || fail "another key file changed the store"
    ! grep -qE "$(cat "$WORK/key")|$(cat "$WORK/other")" "$WORK"/*.log || fail "a key is in a log"
    rm "$WORK/other.log"
  else
    end_target
  fi
  pass "$kind: killed during SANITIZE, closed until one came to its end"
done
