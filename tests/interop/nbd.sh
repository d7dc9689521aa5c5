#!/usr/bin/env bash
# The NBD machine against the clients people have: libnbd's tools and QEMU's, over a UNIX socket
# and over TCP. What is served is a file, without paths or ring: see tests/programs/nbd_mem.rs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
server=$(program nbd-mem)
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # nbdsh wants the python it was built for
ip netns add "$NS"
ip -n "$NS" link set lo up
cd "$WORK"
tool() { nsenter --net="/run/netns/$NS" -- timeout 120 "$@"; }

serve() { # PLACE OPTION… ; the file disk.img
  : >server.out
  inside "$server" disk.img --listen "$@" >server.out 2>>server.log &
  PIDS=($!)
  wait_for 15 "the server's \`ready\`" grep -qx ready server.out
  uri=$(head -n 1 server.out)
}
end_server() {
  kill "${PIDS[0]}"
  wait "${PIDS[0]}" 2>/dev/null || true
  PIDS=()
  rm -f nbd.sock
}

head -c 40M /dev/urandom >there.raw
information() { # BLOCK PREFERRED MAX
  tool nbdinfo --json "$uri" >info.json || fail "nbdinfo $uri"
  local word
  for word in '"protocol": "newstyle-fixed"' '"structured": true' "\"block_size_minimum\": $1" \
    "\"block_size_preferred\": $2" "\"block_size_maximum\": $3" '"can_multi_conn": true' '"can_fua": true' \
    '"can_flush": true' '"can_trim": true' '"can_zero": true' '"can_fast_zero": true' \
    '"can_df": true' '"can_cache": false' '"description": "a file of a test"' \
    '"base:allocation"' '"export-size": 67108864'; do
    grep -qF "$word" info.json || { cat info.json; fail "nbdinfo does not say $word"; }
  done
  tool nbdinfo --list "$uri" | grep -q 'export="mem"' || fail "the export is not listed"
  tool nbdinfo --map "$uri" >map.txt
  [ "$(awk '{ print $1, $2, $3 }' map.txt)" = "0 67108864 0" ] || fail "the map: $(cat map.txt)"
  ! tool nbdinfo "${uri/mem/other}" >/dev/null 2>&1 || fail "another export is there, too"
}

round() { # copies in and out by both families of clients
  local options
  for options in "" "--connections=4 --requests=64" "--synchronous" "--request-size=33554432"; do
    truncate -s 0 disk.img; truncate -s 64M disk.img
    # shellcheck disable=SC2086
    tool nbdcopy $options --flush there.raw "$uri" || fail "nbdcopy $options"
    cmp -n $((40 << 20)) there.raw disk.img || fail "nbdcopy $options wrote something else"
    # shellcheck disable=SC2086
    tool nbdcopy $options "$uri" back.raw || fail "nbdcopy $options back"
    cmp disk.img back.raw || fail "nbdcopy $options read something else"
  done
  truncate -s 0 disk.img; truncate -s 64M disk.img
  tool qemu-img convert -n -W -f raw -O raw there.raw "$uri" || fail "qemu-img convert"
  tool qemu-img compare -f raw -F raw "$uri" there.raw >/dev/null ||
    cmp -n $((40 << 20)) there.raw disk.img || fail "qemu-img wrote something else"
  tool qemu-img convert -f raw -O raw "$uri" back.raw || fail "qemu-img convert back"
  cmp disk.img back.raw || fail "qemu-img read something else"
}

commands() { # flush, FUA, trim, zeroes in all their ways; what may not be asked
  tool qemu-io -f raw -t none -c 'write -P 7 0 1M' -c 'write -f -P 8 1M 64k' -c flush \
    -c 'write -z 512k 256k' -c 'write -z -u 768k 256k' -c 'discard 1M 32k' -c 'read -P 7 0 512k' \
    -c 'read -P 0 512k 512k' -c 'read -P 8 1056k 32k' -c 'read -P 0 1M 32k' "$uri" >qemu-io.txt ||
    { cat qemu-io.txt; fail "qemu-io"; }
  ! grep -qiE 'fail|error' qemu-io.txt || { cat qemu-io.txt; fail "qemu-io"; }
  URI=$uri NATIVE=$1 tool nbdsh -c - <<'PY' || fail "nbdsh: see above"
import errno, os
import nbd
h.add_meta_context("base:allocation")
h.connect_uri(os.environ["URI"])
native = os.environ["NATIVE"] == "1"
h.set_strict_mode(0)
h.pwrite(b"x" * 8192, 0, nbd.CMD_FLAG_FUA)
h.zero(4096, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(8192, 0) == bytes(4096) + b"x" * 4096
h.trim(4096, 4096, nbd.CMD_FLAG_FUA)
try:
    h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO)
    assert native, "fast although it is not"
except nbd.Error as error:
    assert not native and error.errnum == errno.ENOTSUP, error
h.flush()
chunks = []
def chunk(data, offset, status, error):
    chunks.append((offset, len(data), status))
buffer = h.pread_structured(1 << 20, 512 << 10, chunk)
assert sorted((o, l) for o, l, s in chunks) == [(o << 10, 256 << 10) for o in (512, 768, 1024, 1280)], chunks
chunks.clear()
h.pread_structured(1 << 20, 0, chunk, nbd.CMD_FLAG_DF)
assert chunks == [(0, 1 << 20, nbd.READ_DATA)], chunks
found = []
h.block_status(1 << 20, 0, lambda context, offset, entries, error: found.append((context, entries)))
assert found == [("base:allocation", [1 << 20, 0])], found
def refused(number, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errnum == number, (error.errnum, number)
    else:
        raise AssertionError(arguments)
size, block = h.get_size(), h.get_block_size(nbd.SIZE_MINIMUM)
refused(errno.EINVAL, h.pread, block, size)
refused(errno.ENOSPC, h.pwrite, bytes(block), size)
refused(errno.EINVAL, h.pread, 100, 0)
refused(errno.EINVAL, h.pwrite, bytes(100), 50)
refused(errno.EINVAL, h.cache, block, 0)
refused(errno.EINVAL, h.trim, block, size)
refused(errno.ENOSPC, h.zero, block, size)
h.zero(32 << 20, 8 << 20)
assert h.pread(block, 0) == bytes(block)
h.shutdown()
PY
}

truncate -s 64M disk.img
serve "unix:$WORK/nbd.sock"
information 512 4096 33554432
round
commands 1
tool /usr/bin/python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(18)
s.sendall(b"\0\0\0\3" + b"x" * 16)
sys.exit(s.recv(1) != b"")' nbd.sock || fail "who breaks the protocol is not shown the door"
grep -q 'wrong magic' server.log || fail "and nothing tells why"
end_server
pass "over a UNIX socket: nbdinfo, nbdcopy, qemu-img, qemu-io, nbdsh"

# Blocks of 4096 bytes, little memory, zeroes written by hand, over TCP.
serve 127.0.0.1:10809 --block 4096 --no-zeroes --memory-kib 1024
[ "$uri" = nbd://127.0.0.1:10809/mem ] || fail "the URI is $uri"
tool nbdinfo --size "$uri" >/dev/null
tool nbdcopy --flush there.raw "$uri" || fail "nbdcopy in blocks of 4096"
cmp -n $((40 << 20)) there.raw disk.img || fail "nbdcopy in blocks of 4096"
truncate -s 0 disk.img; truncate -s 64M disk.img
tool qemu-img convert -n -W -f raw -O raw there.raw "$uri" || fail "qemu-img with little memory"
cmp -n $((40 << 20)) there.raw disk.img || fail "qemu-img with little memory"
tool nbdcopy --connections=4 "$uri" back.raw
cmp disk.img back.raw || fail "nbdcopy back with little memory"
commands 0
end_server
pass "over TCP: blocks of 4096, 1 MiB of memory, a device that cannot write zeroes"

serve 127.0.0.1:10809 --read-only
tool nbdinfo --json "$uri" | grep -qF '"is_read_only": true' || fail "not told read-only"
! tool qemu-io -f raw -c 'write 0 4k' "$uri" >/dev/null 2>&1 || fail "wrote to a read-only export"
end_server
pass "read-only"
