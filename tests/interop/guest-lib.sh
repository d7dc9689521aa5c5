# shellcheck shell=bash
# What the guest's halves of the interop scripts share; found in the shared folder.
set -euo pipefail
HERE=${HERE:-/mnt/share}

pass() { read -r up _ </proc/uptime; echo "PASS guest: $* (at $up s)"; }
more_words() { :; } # what a script has to say about a failure, beside the kernel's log
fail() { echo "FAIL guest: $*"; more_words || true; dmesg | tail -n 30 | sed "s/^/kernel: /"; exit 1; }
trap 'echo "FAIL guest: line $LINENO: $BASH_COMMAND"; dmesg | tail -n 30' ERR

wait_for() { # SECONDS WHAT COMMAND…
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "waited in vain for $what"
    sleep 0.2
  done
}

ask_host() { # the host does it, then we go on
  : >"$HERE/ask.$1"
  wait_for 60 "the host to $1" test -e "$HERE/done.$1"
  rm -f "$HERE/ask.$1" # in this order: the host acts on an ask without its done
  rm -f "$HERE/done.$1"
}

# --- iSCSI

setting() { iscsiadm -m node -T "$IQN" -o update -n "$1" -v "$2"; } # NAME VALUE
sd_disks() { [ "$(find /sys/block -name 'sd?' | wc -l)" = "$1" ]; }
log_in() { # DISKS [NAME VALUE]… ; at all portals, with these settings, until there are so many disks
  local disks=$1
  shift
  iscsiadm -m discovery -t sendtargets -p 10.77.0.1 >/dev/null
  for (( ; $# > 1; )); do
    setting "$1" "$2"
    shift 2
  done
  iscsiadm -m node -T "$IQN" --login >/dev/null
  wait_for 120 "$disks disks" sd_disks "$disks" # an emulated guest beside others took 40 s
  udevadm settle
}
log_out() { iscsiadm -m node --logoutall=all >/dev/null; }
port_group() { # DISK ; the tag of the target port group that it comes by
  sg_vpd -p di "/dev/$1" | sed -n 's/.*Target port group: 0x//p'
}

multipath_config() { # from stdin: what stands in `defaults` beside what is the same for all
  {
    echo "defaults {"
    cat
    cat <<'CONF'
    find_multipaths no
    user_friendly_names yes
    polling_interval 1
    max_polling_interval 1
    no_path_retry queue
}
blacklist {
    devnode "^(vd|nbd|etherd)"
}
CONF
  } >/etc/multipath.conf
}
let_go() { # of the map. udev looks again at a device that was open for writing, and holds it meanwhile
  udevadm settle
  wait_for 60 "the map to be let go" multipath -F
}

# --- work for a device

grown_end_holds_data() { # DEVICE ; of 256 MiB, of which the last 16 were not there before
  dd if=/dev/urandom of=/tmp/last bs=1M count=16 status=none
  dd if=/tmp/last of="$1" bs=1M count=16 seek=240 oflag=direct conv=fsync status=none
  cmp <(dd if="$1" bs=1M skip=240 iflag=direct status=none) /tmp/last
  pass "grown to 256 MiB, the new end holds data"
}
last_write() { # DEVICE ; its first 16 MiB, for the host to compare with what the store has
  dd if=/dev/urandom of=/tmp/last bs=1M count=16 status=none
  dd if=/tmp/last of="$1" bs=1M oflag=direct conv=fsync status=none
  sha256sum </tmp/last | cut -d' ' -f1 >"$HERE/written.sum"
}

# Random reads and writes in small and in large blocks; all that is written is read back and
# compared. serialize_overlap: without it fio, once it goes over the same blocks again, has a block's
# check and its next write under way at the same time, and calls what it sees a fault: a block that
# travels in several frames may be read half old and half new.
verified_load() { # DEVICE SECONDS ; an error or a wrong byte ends it
  fio --eta=never --output=/tmp/load.txt --filename="$1" --rw=randrw --ioengine=libaio --direct=1 \
    --verify=crc32c --verify_fatal=1 --verify_backlog=128 --serialize_overlap=1 --time_based --runtime="$2" \
    --name=small --offset=64M --size=16M --bs=4k --iodepth=16 \
    --name=large --offset=96M --size=64M --bs=64k --iodepth=4 ||
    { cat /tmp/load.txt; fail "the load on $1 ended with an error"; }
  grep -E 'IOPS|err=|clat \(' /tmp/load.txt
}

file_system_round() { # DEVICE ; format, fill, unmount, check, compare
  local device=$1
  mkfs.ext4 -q -F "$device"
  mount "$device" /mnt/disk
  head -c 24M /dev/urandom >/tmp/random
  cp /tmp/random /mnt/disk/
  umount /mnt/disk
  e2fsck -fn "$device" >/tmp/fsck.txt 2>&1 || { cat /tmp/fsck.txt; fail "fsck found errors"; }
  echo 3 >/proc/sys/vm/drop_caches
  mount -o ro "$device" /mnt/disk
  cmp /tmp/random /mnt/disk/random
  umount /mnt/disk
}

lvm_round() { # DEVICE ; a physical volume, a logical one, a file system in it, and away again
  cat >/etc/lvm/lvmlocal.conf <<'LVM'
devices {
    types = [ "aoe", 16 ]
    use_devicesfile = 0
}
LVM
  pvcreate -qq -y "$1"
  vgcreate -qq shelf "$1"
  lvcreate -qq -y -L 64M -n volume shelf
  mkfs.ext4 -q -F /dev/shelf/volume
  mount /dev/shelf/volume /mnt/disk
  cp /tmp/random /mnt/disk/
  umount /mnt/disk
  vgchange -qq -an shelf
  vgchange -qq -ay shelf
  mount -o ro /dev/shelf/volume /mnt/disk
  cmp /tmp/random /mnt/disk/random
  umount /mnt/disk
  vgchange -qq -an shelf
  vgremove -qq -f shelf
  pvremove -qq "$1"
}

# Nothing in the kernel's log that an administrator would be woken for. An extra pattern, if given,
# is bad as well. An error of one path (sdX) is the multipath layer's to bear, not a finding.
dmesg_is_clean() { kernel_said_nothing "$broken|I/O error|EXT4-fs error${1:+|$1}"; }
# Likewise after a device was taken away: what udev wanted to read all the same fails, and the kernel
# rightly says so.
kernel_is_sound() { kernel_said_nothing "$broken"; }
broken='BUG:|WARNING:|Oops|refcount_t|hung_task|blocked for more'
kernel_said_nothing() { # LIKE ; marked, since what the kernel says is left out of short logs
  if dmesg | grep -vE 'I/O error(,| on) dev sd[a-z]' | grep -E "$1" | sed 's/^/kernel: /' | grep .; then
    fail "the kernel log has the lines above"
  fi
  pass "the kernel log is clean"
}
