#!/usr/bin/env bash
# Makes what run.sh boots: Debian's kernels as bare vmlinux files with the modules that storage
# tests need, one root image with the real initiators in it, one small initramfs per kernel.
# The machine needs no KVM, no bootloader and none of these kernels installed.
#
# usage: build.sh [--force]
# env:   CORBEL_GUEST_CACHE   where everything goes (default /tmp/corbel-guest, about 1 GiB)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${CORBEL_GUEST_CACHE:-/tmp/corbel-guest}
suite=trixie
kernels="6.12=trixie 6.1=bookworm"
force=0
for argument in "$@"; do
  case $argument in
    --force) force=1 ;;
    *) sed -n '2,8s/^# \?//p' "$0" >&2; exit 2 ;;
  esac
done

# No systemd: guest/init starts udevd and then the test, which starts what it needs itself.
packages="busybox-static kmod udev iproute2 iputils-ping procps psmisc util-linux
 open-iscsi multipath-tools kpartx lvm2 dmsetup aoetools fio sg3-utils hdparm smartmontools
 e2fsprogs xfsprogs nbd-client nftables tcpdump python3-minimal fdisk fence-agents-scsi"

# What is kept of a kernel's modules, below kernel/; the rest would only cost depmod time.
module_paths="arch crypto lib block mm virt fs
 net/8021q net/802 net/9p net/bridge net/core net/ipv4 net/ipv6 net/llc net/netfilter net/packet
 net/sched net/unix
 drivers/block drivers/md drivers/scsi drivers/target drivers/virtio drivers/char/hw_random
 drivers/net/virtio_net.ko drivers/net/net_failover.ko drivers/net/veth.ko drivers/net/dummy.ko
 drivers/net/ifb.ko drivers/net/tun.ko drivers/net/bonding"
# Hardware adapters and file systems that cannot occur in the guest.
module_refuse="drivers/scsi/(aacraid|aic7xxx|aic94xx|be2iscsi|bfa|bnx2fc|bnx2i|csiostor|cxgbi|elx|\
fnic|isci|lpfc|megaraid|mpi3mr|mpt3sas|mvsas|pm8001|qedf|qedi|qla2xxx|qla4xxx|smartpqi|snic)/|\
fs/(cifs|smb|ceph|afs|coda|f2fs|jfs|reiserfs|nilfs2|ubifs|ufs|udf|ntfs|ntfs3|orangefs|hfs|hfsplus)/"

say() { echo "guest/build: $*" >&2; }

install_tools() {
  local pair missing=()
  for pair in qemu-system-x86:qemu-system-x86_64 mmdebstrap:mmdebstrap busybox-static:busybox \
    cpio:cpio zstd:zstd xz-utils:xz kmod:depmod python3-minimal:python3 e2fsprogs:mke2fs \
    iproute2:ip; do
    command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
  done
  [ -e /usr/share/seabios/bios-256k.bin ] || missing+=(seabios)
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The machine's own Debian archive, asked for another suite: so mirrors and proxies keep working.
apt_source=/etc/apt/sources.list.d/debian.sources
[ -e $apt_source ] || apt_source=/etc/apt/sources.list
source_suffix=${apt_source##*.}
archive_of() { # SUITE
  # shellcheck source=/dev/null
  sed -E "s#\\b$(. /etc/os-release && echo "$VERSION_CODENAME")\\b#$1#g" "$apt_source" |
    grep -v '^ *#'
}

apt_for() { # SUITE COMMAND ARG... ; an apt that knows only that suite and touches nothing here
  local apt=$work/apt-$1 command=$2
  if [ ! -d "$apt" ]; then
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    archive_of "$1" >"$apt/archive.$source_suffix"
    apt_for "$1" apt-get -qq update >/dev/null 2>&1
  fi
  shift 2
  "$command" -o Dir::Etc::sourcelist="$apt/archive.$source_suffix" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@"
}

unpack_kernel() { # VMLINUZ VMLINUX ; booted by PVH, so nothing is decompressed inside TCG
  python3 - "$1" "$2" <<'PY'
import subprocess, sys
image = open(sys.argv[1], 'rb').read()
packers = ((b'\x28\xb5\x2f\xfd', 'zstd'), (b'\xfd7zXZ\0', 'xz'), (b'\x1f\x8b\x08', 'gzip'))
for magic, command in packers:
    at = image.find(magic)
    while at >= 0:
        unpack = subprocess.run([command, '-dc'], input=image[at:], capture_output=True)
        if unpack.stdout[:4] == b'\x7fELF':
            open(sys.argv[2], 'wb').write(unpack.stdout)
            sys.exit(0)
        at = image.find(magic, at + 1)
sys.exit('no ELF kernel in ' + sys.argv[1])
PY
}

make_initramfs() { # KERNELDIR VERSION ; busybox and the modules that mount the root disk
  local tree=$1/initramfs module
  mkdir -p "$tree"/{bin,mod,proc,sys,dev,disk}
  cp "$(command -v busybox)" "$tree/bin/busybox"
  install -m 755 "$here/initramfs-init" "$tree/init"
  for module in virtio_pci virtio_blk crc32c_generic crc32c_intel ext4; do
    modprobe -d "$1/modules" -S "$2" --show-depends $module 2>/dev/null |
      awk '$1 == "insmod" { print $2 }' || true
  done | awk '!seen[$0]++' | while read -r module; do
    cp "$module" "$tree/mod/"
    echo "${module##*/}"
  done >"$tree/mod/order"
  (cd "$tree" && find . | cpio -o -H newc --quiet) >"$1/initrd"
  rm -rf "$tree"
}

make_kernel() { # NAME SUITE -> $cache/kernels/NAME/{vmlinux,initrd,version,modules}
  local name=$1 from=$2 deb tree modules version kernel=$work/kernel-$1 kept path
  if [ $force = 0 ] && cmp -s "$here/initramfs-init" "$cache/kernels/$name/init"; then
    say "kernel $name: $(cat "$cache/kernels/$name/version") (cached)"
    return
  fi
  deb=$(apt_for "$from" apt-cache depends linux-image-amd64 |
    awk '/Depends: linux-image-/ { print $2; exit }')
  [ -n "$deb" ] || { say "the archive has no linux-image-amd64 for $from"; exit 1; }
  (cd "$work" && apt_for "$from" apt-get -qq download "$deb" >/dev/null 2>&1)
  tree=$work/deb-$name
  mkdir "$tree"
  dpkg-deb -x "$work/$deb"_*.deb "$tree"
  modules=$(find "$tree" -type d -path '*lib/modules/*' -prune -print -quit)
  version=${modules##*/}
  kept=$kernel/modules/lib/modules/$version
  mkdir -p "$kept"
  cp "$modules"/modules.{order,builtin,builtin.modinfo} "$kept/"
  for path in $module_paths; do
    (cd "$modules" && find "kernel/$path" "kernel/$path.xz" "kernel/$path.zst" -type f 2>/dev/null || true)
  done | grep -vE "kernel/($module_refuse)" | tar -C "$modules" -cf - -T - | tar -C "$kept" -xf -
  find "$kept" -name '*.ko.xz' -print0 | xargs -0r -n64 -P2 xz -d
  find "$kept" -name '*.ko.zst' -print0 | xargs -0r -n64 -P2 zstd -q -d --rm
  depmod -b "$kernel/modules" "$version"
  unpack_kernel "$tree/boot/vmlinuz-$version" "$kernel/vmlinux"
  make_initramfs "$kernel" "$version"
  echo "$version" >"$kernel/version"
  cp "$here/initramfs-init" "$kernel/init"
  mkdir -p "$cache/kernels"
  rm -rf "${cache:?}/kernels/$name"
  mv "$kernel" "$cache/kernels/$name"
  rm -rf "$tree"
  say "kernel $name: $version"
}

make_base() { # -> $cache/base.tar: the userland as the archive gives it
  local stamp
  stamp=$(echo "$suite" $packages | sha256sum)
  [ $force = 0 ] && [ -s "$cache/base.tar" ] &&
    [ "$(cat "$cache/base.stamp" 2>/dev/null)" = "$stamp" ] && return
  say "userland: mmdebstrap (a minute or two)"
  archive_of $suite >"$work/root.$source_suffix"
  # shellcheck disable=SC2086
  mmdebstrap --quiet --variant=minbase --include="$(echo $packages | tr -s ' \n' ,)" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --customize-hook='rm -rf "$1"/etc/apt/sources.list* "$1"/var/lib/apt/lists/*' \
    --customize-hook='rm -rf "$1"/var/cache/*' \
    $suite "$work/base.tar" - <"$work/root.$source_suffix" >"$work/mmdebstrap.log" 2>&1 ||
    { tail -20 "$work/mmdebstrap.log" >&2; exit 1; }
  mv "$work/base.tar" "$cache/base.tar"
  echo "$stamp" >"$cache/base.stamp"
}

make_root() { # -> $cache/root.img: userland, modules of every kernel, guest-init
  local stamp tree=$work/root kernel version
  # shellcheck disable=SC2086
  stamp=$({ echo $packages; cat "$here/init" "$0" "$cache"/kernels/*/version; } | sha256sum)
  if [ $force = 0 ] && [ -s "$cache/root.img" ] &&
    [ "$(cat "$cache/root.stamp" 2>/dev/null)" = "$stamp" ]; then
    say "root image: cached"
    return
  fi
  make_base
  mkdir "$tree"
  tar -C "$tree" -xf "$cache/base.tar" --exclude='./dev/*'
  install -m 755 "$here/init" "$tree/sbin/guest-init"
  for kernel in "$cache"/kernels/*/; do
    version=$(cat "$kernel/version")
    mkdir -p "$tree/usr/lib/modules"
    cp -a "$kernel/modules/lib/modules/$version" "$tree/usr/lib/modules/"
  done
  mkdir -p "$tree"/{mnt/share,mnt/control,mnt/disk,var/cache,var/lib/iscsi}
  # No resolver in the guest: each reverse look-up would wait five seconds.
  sed -i "s/^hosts:.*/hosts: files/" "$tree/etc/nsswitch.conf"
  : >"$tree/etc/fstab"
  echo guest >"$tree/etc/hostname"
  rm -f "$tree/etc/resolv.conf" "$tree/etc/mtab" "$tree/etc/machine-id"
  ln -s /proc/self/mounts "$tree/etc/mtab"
  mke2fs -q -F -t ext4 -O ^has_journal,^metadata_csum -E lazy_itable_init=1,nodiscard \
    -d "$tree" "$work/root.img" "$(($(du -sm "$tree" | cut -f1) * 5 / 4 + 512))M" >/dev/null
  mv "$work/root.img" "$cache/root.img"
  echo "$stamp" >"$cache/root.stamp"
  say "root image: $(du -m "$cache/root.img" | cut -f1) MiB"
}

install_tools
mkdir -p "$cache"
chmod 755 "$cache"
exec 9>"$cache/.lock"
flock 9
work=$(mktemp -d "$cache/.build.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
for pair in $kernels; do make_kernel "${pair%%=*}" "${pair#*=}"; done
make_root
