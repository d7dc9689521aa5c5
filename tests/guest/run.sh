#!/usr/bin/env bash
# Boots a guest made by build.sh, runs SCRIPT in it as root and exits with the script's code
# (124: timed out; 125: the guest died without a code, a panic for instance).
#
# usage: run.sh [options] SCRIPT [ARG...]
#   --net NS:COUNT   COUNT network cards eth0.., each a tap on brI of namespace NS (see net.sh up)
#   --mtu N          of the cards (1500); the same as given to net.sh up
#   --share DIR      host folder, read and write at /mnt/share, the script's working directory
#   --kernel NAME    6.12 (default) or 6.1
#   --id N           1..200; guests that run at the same time need their own (1)
#   --disk SIZE      an empty /dev/vdb of that size, with a write cache
#   --mem MiB (1024)  --timeout SECONDS (300)  --env NAME=VALUE
# env: CORBEL_GUEST_CACHE, CORBEL_GUEST_ACCEL (tcg,thread=multi; kvm where there is one)
set -euo pipefail
cache=${CORBEL_GUEST_CACHE:-/tmp/corbel-guest}
accel=${CORBEL_GUEST_ACCEL:-tcg,thread=multi}
kernel=6.12 id=1 mem=1024 timeout=300 mtu=1500 ns='' nets=0 share='' environment=() disk=''
usage() { sed -n '2,13s/^# \?//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --net) ns=${2%%:*} nets=${2##*:} ;;
    --mtu) mtu=$2 ;;
    --share) share=$(realpath "$2") ;;
    --kernel) kernel=$2 ;;
    --id) id=$2 ;;
    --mem) mem=$2 ;;
    --timeout) timeout=$2 ;;
    --env) environment+=("$2") ;;
    --disk) disk=$2 ;;
    -*) usage ;;
    *) break ;;
  esac
  shift 2
done
[ $# -ge 1 ] || usage
script=$1
shift
boot=$cache/kernels/$kernel
[ -s "$boot/vmlinux" ] && [ -s "$cache/root.img" ] ||
  { echo "guest/run: no kernel $kernel in $cache; run tests/guest/build.sh" >&2; exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/corbel-guest-run.XXXXXX")
qemu_pid='' watchdog_pid='' taps=()
cleanup() {
  trap '' INT TERM
  [ -z "$watchdog_pid" ] || kill "$watchdog_pid" 2>/dev/null || true
  if [ -n "$qemu_pid" ]; then
    kill -9 "$qemu_pid" 2>/dev/null || true
    wait "$qemu_pid" 2>/dev/null || true
  fi
  for tap in "${taps[@]}"; do ip -n "$ns" link del "$tap" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$work/control"
cp "$script" "$work/control/script"
{
  echo "GUEST_ID=$id GUEST_NETS=$nets GUEST_MTU=$mtu GUEST_DEADLINE=$timeout"
  echo "GUEST_SHARE=$([ -n "$share" ] && echo 1 || echo 0)"
  printf 'GUEST_ARGS=('
  [ $# = 0 ] || printf '%q ' "$@"
  echo ')'
  for pair in "${environment[@]}"; do printf 'export %s=%q\n' "${pair%%=*}" "${pair#*=}"; done
  echo 'export GUEST_ID GUEST_NETS GUEST_MTU'
} >"$work/control/env"

append="console=ttyS0 quiet loglevel=4 panic=-1 net.ifnames=0 biosdevname=0 nowatchdog workqueue.watchdog_thresh=0 audit=0
 mitigations=off selinux=0 apparmor=0 rcupdate.rcu_cpu_stall_timeout=120 random.trust_cpu=on"
# Where every core is emulated, and the host may have others to serve, a kernel that measures one
# clock by another measures the host's scheduler: the tick is "broken", which is a panic, or the
# time-stamp counter ten times as fast as it is, and so is the guest's clock. The ACPI timer has a
# rate that nobody has to measure.
case $accel in
  tcg*) append+=" no_timer_check tsc=unstable clocksource=acpi_pm" ;;
  *) append+=" tsc=reliable" ;;
esac
share_folder() { # DIR TAG
  printf '%s\n' -virtfs "local,path=$1,mount_tag=$2,security_model=none,multidevs=remap"
}
mapfile -t shares < <(share_folder "$work/control" control
  [ -z "$share" ] || share_folder "$share" share)
qemu=(qemu-system-x86_64 -M q35,hpet=off -accel "$accel" -cpu max -m "$mem" -smp 2
  -no-user-config -nodefaults -display none -serial stdio -monitor none -no-reboot
  -kernel "$boot/vmlinux" -initrd "$boot/initrd" -append "${append//$'\n'/}"
  # snapshot: whatever a test does to its root disk is gone with it
  -drive "if=none,id=root,file=$cache/root.img,format=raw,snapshot=on,cache=unsafe"
  -device virtio-blk-pci,drive=root,serial=root -device virtio-rng-pci "${shares[@]}")
if [ -n "$disk" ]; then
  truncate -s "$disk" "$work/disk"
  qemu+=(-drive "if=none,id=disk,file=$work/disk,format=raw,cache=unsafe,discard=unmap"
    -device virtio-blk-pci,drive=disk,serial=disk)
fi
if [ "$nets" -gt 0 ]; then
  for ((i = 0; i < nets; i++)); do
    tap=g${id}t$i
    ip -n "$ns" tuntap add "$tap" mode tap
    taps+=("$tap")
    ip -n "$ns" link set "$tap" mtu "$mtu" master "br$i" up
    mac=$(printf '02:77:%02x:00:%02x:02' "$id" "$i")
    qemu+=(-netdev "tap,id=n$i,ifname=$tap,script=no,downscript=no"
      -device "virtio-net-pci,netdev=n$i,mac=$mac,host_mtu=$mtu,romfile=")
  done
  # nsenter, not `ip netns exec`: it leaves /sys alone and execs, so the pid below is qemu's own.
  qemu=(nsenter --net="/run/netns/$ns" -- "${qemu[@]}")
fi

started=$SECONDS
TMPDIR=$work "${qemu[@]}" </dev/null > >(exec sed -u 's/\r$//') 2>&1 &
qemu_pid=$!
(
  trap 'kill "$sleep_pid" 2>/dev/null; exit 0' TERM
  sleep "$timeout" &
  sleep_pid=$!
  wait "$sleep_pid"
  : >"$work/late"
  kill -9 "$qemu_pid"
) 2>/dev/null &
watchdog_pid=$!
wait "$qemu_pid" 2>/dev/null || true
qemu_pid=''
if [ -s "$work/control/rc" ]; then
  rc=$(cat "$work/control/rc")
elif [ -e "$work/late" ]; then
  rc=124
else
  rc=125
fi
echo "guest/run: kernel $(cat "$boot/version"), exit code $rc, $((SECONDS - started)) s"
exit "$rc"
