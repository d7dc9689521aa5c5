# shellcheck shell=bash
# The guest's half of guest-lio.sh.
. /mnt/share/guest-lib.sh
PRESENTER=ublk
. /mnt/share/guest-corbel.sh

modprobe -a target_core_mod target_core_file iscsi_target_mod nf_tables nft_compat 2>/dev/null || true
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
core=/sys/kernel/config/target/core/fileio_0/disk
group=/sys/kernel/config/target/iscsi/$IQN/tpgt_1
truncate -s 192M /tmp/lio.img
mkdir -p $core
echo "fd_dev_name=/tmp/lio.img,fd_dev_size=$((192 << 20)),fd_buffered_io=1" >$core/control
# Its world-wide name is made from this; without, the two portals may lead anywhere.
echo 2f3c1a52-8b0e-4a63-9f6e-6d2f0e7c9b11 >$core/wwn/vpd_unit_serial
echo 1 >$core/enable
mkdir -p "$group/lun/lun_0" "$group/np/127.0.0.1:3260" "$group/np/127.0.0.2:3260"
ln -s $core "$group/lun/lun_0/disk"
for setting in generate_node_acls=1 cache_dynamic_acls=1 demo_mode_write_protect=0 authentication=0; do
  echo "${setting#*=}" >"$group/attrib/${setting%=*}"
done
echo 1 >"$group/enable"

start_initiator --path "iscsi:$IQN/0@127.0.0.1:3260" --path "iscsi:$IQN/0@127.0.0.2:3260"
wait_for 30 "two paths" ready_paths 2
device=$(readlink -f /dev/corbel/disk)
corbel status disk
pass "LIO: one device from two portals: $device"
verified_load "$device" 8
file_system_round "$device"
pass "LIO: verified load, ext4"

cut() { # ADDRESS ; neither way gets through
  nft -f - <<NFT
table inet cut { chain out { type filter hook output priority 0; ip daddr $1 tcp dport 3260 drop; ip saddr $1 tcp sport 3260 drop; }; }
NFT
  sleep 4
  nft delete table inet cut
}
close_all() { echo 0 >"$group/enable"; sleep 3; echo 1 >"$group/enable"; }
under_load 10 "LIO: a portal silent" cut 127.0.0.1
under_load 10 "LIO: the other one silent" cut 127.0.0.2
under_load 10 "LIO: the target closed and opened again" close_all
wait_for 120 "two paths again, one of which may be damped" ready_paths 2
dmesg_is_clean
end_initiator
kernel_is_sound
