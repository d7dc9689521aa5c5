#!/usr/bin/env bash
# Control requests are answered while storage hangs. The image lies on a file system on a loop
# device that is frozen: writes to it wait until it is thawed. (fsfreeze needs no device mapper.)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/programs-lib.sh"
hung=$(program hung-storage)
mkdir "$WORK/mount"
truncate -s 128M "$WORK/file-system.img"
mkfs.ext4 -q "$WORK/file-system.img"
mount -o loop "$WORK/file-system.img" "$WORK/mount" || fail "this kernel has no loop devices"
unmount() { fsfreeze -u "$WORK/mount" 2>/dev/null; umount -l "$WORK/mount" 2>/dev/null; }
trap 'rc=$?; unmount || true; cleanup $rc' EXIT
# Filled, so that a write changes no metadata and hangs by itself alone.
head -c 64M /dev/zero >"$WORK/mount/disk.img"
sync -f "$WORK/mount"
DISK=$WORK/mount/disk.img
make_net
serve_disk
run_inside "$hung" --portal "$PORTAL" --target "$IQN" --lun "$LUN" --aoe 0.0@client0 \
  --status "$CORBEL_TARGET status --socket $WORK/target.sock" \
  --hang "fsfreeze -f $WORK/mount" --release "fsfreeze -u $WORK/mount" || fail "see above"
pass "pings, logins, aborts, AoE queries and status were answered while storage hung"
end_target
pass "SIGTERM ended the target with 0"
