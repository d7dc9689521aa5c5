#!/usr/bin/env bash
# libiscsi's tools and qemu-img on this machine against the target: discovery, inquiry, capacity, an
# image there and back, CHAP one way and mutual, header digest; a wrong secret is refused and no
# secret is logged. (Data digests: guest-iscsi.sh; libiscsi 1.19 cannot ask for them.)
# usage: host-iscsi.sh
. "$(dirname "$0")/lib.sh"
secret=one-way-secret-1
mutual=other-way-secret
open_iqn=$IQN chap_iqn=$IQN-chap mutual_iqn=$IQN-mutual

ip netns add "$NS"
ip -n "$NS" link set lo up
truncate -s 64M "$WORK"/{open,chap,mutual}.img
umask 077
echo "$secret" >"$WORK/user.secret"
echo "$mutual" >"$WORK/target.secret"
umask 022
open_section() {
  cat <<TOML
$(daemon_section)

[[export]]
name = "open"
path = "$WORK/open.img"
iscsi = [{ target = "$open_iqn", lun = $LUN }]

[[target]]
name = "$open_iqn"
portals = ["127.0.0.1:3260"]
TOML
}
closed_section() { # NAME IQN
  cat <<TOML

[[export]]
name = "$1"
path = "$WORK/$1.img"
iscsi = [{ target = "$2", lun = $LUN }]

[[target]]
name = "$2"
portals = ["127.0.0.1:3260"]
chap = { user = "dom0", secret_file = "$WORK/user.secret" }
TOML
}

portal=127.0.0.1:3260
tool() { nsenter --net="/run/netns/$NS" -- timeout 60 "$@"; }
open_section | config
start_target
found=$(tool iscsi-ls -s "iscsi://$portal" 2>"$WORK/iscsi-ls.log") || fail "iscsi-ls: $found"
grep -qF "$open_iqn" <<<"$found" || fail "iscsi-ls does not show $open_iqn: $found"
grep -qE "Lun:$LUN .*DIRECT_ACCESS" <<<"$found" || fail "iscsi-ls shows no disk: $found"
pass "iscsi-ls: the target and its LUN"

# iscsi-ls -s gives up at a target it has no secret for, so those come only now.
end_target
{
  open_section
  closed_section chap "$chap_iqn"
  closed_section mutual "$mutual_iqn"
  echo "mutual_chap = { user = \"shelf\", secret_file = \"$WORK/target.secret\" }"
} | config
start_target
found=$(tool iscsi-ls "iscsi://$portal" 2>"$WORK/iscsi-ls.log") || fail "iscsi-ls: $found"
[ "$(grep -c "^Target:$IQN" <<<"$found")" = 3 ] || fail "iscsi-ls wants three targets: $found"
pass "iscsi-ls: three targets"

url=iscsi://$portal/$open_iqn/$LUN
inquiry=$(tool iscsi-inq "$url") || fail "iscsi-inq: $inquiry"
grep -q 'DIRECT_ACCESS' <<<"$inquiry" || fail "no disk in iscsi-inq: $inquiry"
pages=$(tool iscsi-inq -e 1 -c 0 "$url") || fail "iscsi-inq of the page list"
for page in 0x83 0xb0; do
  tool iscsi-inq -e 1 -c $((page)) "$url" >"$WORK/page.txt" || fail "VPD $page: $pages"
done
pass "iscsi-inq: standard data, VPD 00, 83 and B0"

size=$(tool iscsi-readcapacity16 -s "$url") || fail "iscsi-readcapacity16: $size"
[ "$size" = $((64 << 20)) ] || fail "READ CAPACITY (16) says $size bytes, not 64 MiB"
pass "iscsi-readcapacity16: $size bytes"

file() { echo "driver=raw,file.driver=file,file.filename=$1"; }
at() { # IQN EXTRA-OPTIONS
  echo "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=$portal,file.target=$1,file.lun=$LUN,$2"
}
round_trip() { # NAME SERVED-FILE IMAGE-OPTIONS QEMU-ARG… ; the image there, compared, and back
  local name=$1 served=$2 image=$3
  shift 3
  head -c 64M /dev/urandom >"$WORK/there.raw"
  tool qemu-img convert -n "$@" --image-opts --target-image-opts "$(file "$WORK/there.raw")" "$image" ||
    fail "$name: qemu-img convert to the target"
  cmp "$WORK/there.raw" "$served" || fail "$name: the served file differs from what was written"
  tool qemu-img compare "$@" --image-opts "$(file "$WORK/there.raw")" "$image" ||
    fail "$name: qemu-img compare"
  tool qemu-img convert -O raw "$@" --image-opts "$image" "$WORK/back.raw" ||
    fail "$name: qemu-img convert from the target"
  cmp "$WORK/there.raw" "$WORK/back.raw" || fail "$name: what came back differs"
  pass "$name: an image there, compared and back"
}

head -c 64M /dev/urandom >"$WORK/there.raw"
tool qemu-img convert -n -f raw -O raw "$WORK/there.raw" "$url" || fail "qemu-img convert to $url"
tool qemu-img compare -f raw -F raw "$WORK/there.raw" "$url" || fail "qemu-img compare with $url"
tool qemu-img convert -f raw -O raw "$url" "$WORK/back.raw" || fail "qemu-img convert from $url"
cmp "$WORK/there.raw" "$WORK/back.raw" || fail "what came back from $url differs"
cmp "$WORK/there.raw" "$WORK/open.img" || fail "the served file differs"
pass "qemu-img by URL: there, compared and back"

round_trip "header digest" "$WORK/open.img" "$(at "$open_iqn" file.header-digest=crc32c)"
printf %s "$secret" >"$WORK/user.plain"
round_trip "CHAP and header digest" "$WORK/chap.img" \
  "$(at "$chap_iqn" file.user=dom0,file.password-secret=key,file.header-digest=crc32c)" \
  --object "secret,id=key,file=$WORK/user.plain"

chap_url=iscsi://dom0%$secret@$portal/$chap_iqn/$LUN
tool iscsi-inq "$chap_url" >/dev/null || fail "CHAP with the right secret"
tool iscsi-inq "iscsi://dom0%$secret@$portal/$mutual_iqn/$LUN?target_user=shelf&target_password=$mutual" \
  >/dev/null || fail "mutual CHAP with the right secrets"
pass "CHAP and mutual CHAP"

refused() { # WHAT URL
  if tool iscsi-inq "$2" >"$WORK/refused.txt" 2>&1; then fail "$1 was let in"; fi
  grep -qiE 'auth' "$WORK/refused.txt" || fail "$1: refused, but not for its secret: $(cat "$WORK/refused.txt")"
}
refused "a wrong secret" "iscsi://dom0%wrong-secret-12@$portal/$chap_iqn/$LUN"
refused "a wrong user" "iscsi://dom1%$secret@$portal/$chap_iqn/$LUN"
refused "no secret" "iscsi://$portal/$chap_iqn/$LUN"
if tool iscsi-inq "iscsi://dom0%$secret@$portal/$mutual_iqn/$LUN?target_user=shelf&target_password=guessed-wrong1" \
  >"$WORK/refused.txt" 2>&1; then fail "the initiator took a target with a wrong secret"; fi
tool iscsi-inq "$chap_url" >/dev/null || fail "CHAP after refusals"
pass "wrong secret, wrong user, no secret: refused, and the right one still let in"
if grep -qE "$secret|$mutual|wrong-secret" "$WORK/target.log" "$WORK/target.out"; then
  fail "a CHAP secret stands in the target's log"
fi
pass "no secret in the target's log"

end_target
pass "SIGTERM ended the target with 0"
