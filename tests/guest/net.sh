#!/usr/bin/env bash
# A network namespace with bridges br0, br1, ... on which the guests' taps and, on the host's side,
# the daemon under test meet at layer 2. br0 has 10.77.0.1/24; guest ID has 10.77.0.(10+ID) on eth0.
#
# usage: net.sh up NS COUNT [MTU] | down NS
#        net.sh cut NS ID NIC | restore NS ID NIC   # frames of that NIC vanish, the carrier stays
set -euo pipefail
case ${1:-} in
  up)
    ns=$2 count=$3 mtu=${4:-1500}
    ip netns list | grep -qE "^$ns( |$)" || ip netns add "$ns"
    ip -n "$ns" link set lo up
    # No IPv6: no chatter of its own in captures.
    nsenter --net="/run/netns/$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 \
      net.ipv6.conf.default.disable_ipv6=1 2>/dev/null || true
    for ((i = 0; i < count; i++)); do
      ip -n "$ns" link show "br$i" >/dev/null 2>&1 && continue
      ip -n "$ns" link add "br$i" address "$(printf '02:77:00:00:%02x:01' "$i")" mtu "$mtu" \
        type bridge stp_state 0 forward_delay 0 mcast_snooping 0
      ip -n "$ns" addr add "10.77.$i.1/24" dev "br$i"
      ip -n "$ns" link set "br$i" up
    done
    ;;
  cut) bridge -n "$2" link set dev "g$3t$4" state 0 ;;
  restore) bridge -n "$2" link set dev "g$3t$4" state 3 ;;
  down) ip netns del "$2" ;;
  *) sed -n '2,6s/^# \?//p' "$0" >&2; exit 2 ;;
esac
