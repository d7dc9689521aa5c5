# shellcheck shell=bash
# The guest's half of guest-ring.sh.
. /mnt/share/guest-lib.sh
cp /mnt/share/ring-tests /tmp/
/tmp/ring-tests --test-threads 2 >/tmp/ring.txt 2>&1 ||
  { cat /tmp/ring.txt; fail "the ring's tests, on $(uname -r)"; }
pass "$(grep '^test result' /tmp/ring.txt)"
kernel_is_sound
