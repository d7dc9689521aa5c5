#!/usr/bin/env bash
# corbel-initiator against Linux's own target (LIO), both in one guest: two portals, one ublk device,
# verified load while a portal is cut off, closes, and both close.
# usage: guest-lio.sh [KERNEL]      (6.12)
. "$(dirname "$0")/lib.sh"
kernel=${1:-6.12}
NAME=guest-lio-$kernel
CORBEL_INITIATOR=${CORBEL_INITIATOR:-$(dirname "$CORBEL_TARGET")/corbel-initiator}
"$TESTS/guest/net.sh" up "$NS" 1 1500
share "$TESTS"/interop/guest-corbel.sh "$CORBEL_INITIATOR"
run_guest 1 1500 "$kernel" 700 "$TESTS/interop/in-guest-lio.sh" ||
  { tail -n 60 "$WORK/share/initiator.log" 2>/dev/null; fail "the guest says so above"; }
