//! When a silent initiator is asked whether it lives, and given up.

use super::*;

#[test]
fn silence_is_measured_by_the_times_of_the_target() {
    let mut world = World::new();
    let client = world.logged_in(0, 1);
    for (seconds, pings) in [(4, 0), (5, 1), (12, 0)] {
        world.shards[0].machine.now = Instant::ZERO + Duration::from_secs(seconds);
        world.at(0, |server, cx| server.timeout(cx));
        assert_eq!(client.heard(&mut world).len(), pings, "after {seconds} s");
        assert_eq!(world.shards[0].server.poll_close(), None);
    }
    world.shards[0].machine.now = Instant::ZERO + Duration::from_secs(13);
    world.at(0, |server, cx| server.timeout(cx));
    assert_eq!(world.shards[0].server.poll_close(), Some(client.id));
}
