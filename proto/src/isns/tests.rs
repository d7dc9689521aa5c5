//! A client against a server that is played by hand, and bytes that no server should send.

use proptest::prelude::*;

use super::super::message::{HEADER_BYTES, MESSAGE_BYTES_MAX};
use super::*;

#[path = "session_tests.rs"]
mod sessions;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn node(name: &str, portals: &[(&str, u16)]) -> Node {
    let portals = portals.iter().map(|(portal, group)| (portal.parse().unwrap(), *group));
    Node { name: name.into(), alias: None, portals: portals.collect() }
}

fn registration(nodes: Vec<Node>) -> Registration {
    Registration { entity: "shelf".into(), nodes }
}

fn one() -> Registration {
    registration(vec![node("iqn.2026-11.org:a", &[("10.0.0.1:3260", 1)])])
}

fn actions(client: &mut Client) -> Vec<Action> {
    std::iter::from_fn(|| client.poll()).collect()
}

/// The one message that the client sends now.
fn sent(client: &mut Client) -> Vec<u8> {
    match &actions(client)[..] {
        [Action::Send(message)] => message.clone(),
        other => panic!("{other:?}"),
    }
}

fn function_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[2], message[3]])
}

fn flags_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[6], message[7]])
}

fn has(message: &[u8], tag: u32, value: &[u8]) -> bool {
    Attributes::new(&message[HEADER_BYTES..])
        .any(|attribute| attribute == Ok(super::super::message::Attribute { tag, value }))
}

fn groups(message: &[u8]) -> Vec<(SocketAddr, Option<u32>)> {
    let mut groups = Vec::new();
    let (mut address, mut port) = (None, None);
    for attribute in Attributes::new(&message[HEADER_BYTES..]).map(Result::unwrap) {
        match attribute.tag {
            tag::GROUP_ADDRESS => address = attribute.address(),
            tag::GROUP_PORT => port = attribute.port(),
            tag::GROUP_TAG => {
                let portal = SocketAddr::new(address.unwrap(), port.unwrap());
                groups.push((portal, attribute.number()));
            }
            _ => {}
        }
    }
    groups
}

/// The answer to a question.
fn answer(question: &[u8], status: u32, attributes: &Writer) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.append(attributes);
    let mut message = writer.message(function_of(question) | function::RESPONSE, 0);
    message.splice(HEADER_BYTES..HEADER_BYTES, status.to_be_bytes());
    let len = u16::from_be_bytes([message[4], message[5]]) + 4;
    message[4..6].copy_from_slice(&len.to_be_bytes());
    message[8..10].copy_from_slice(&question[8..10]);
    message
}

fn done(question: &[u8]) -> Vec<u8> {
    answer(question, 0, &Writer::default())
}

fn connected(registration: Registration) -> Client {
    let mut client = Client::new(registration, at(0));
    client.handle_timeout(at(0));
    assert_eq!(actions(&mut client), [Action::Connect]);
    client.connected(HERE, at(0));
    client
}

fn registered() -> Client {
    let mut client = connected(one());
    let question = sent(&mut client);
    client.received(&done(&question), at(0));
    assert_eq!(actions(&mut client), [Action::Tell(News::Registered)]);
    client
}

#[test]
fn a_registration_replaces_and_brings_entity_portal_node_and_group() {
    let message = sent(&mut connected(one()));
    assert_eq!(function_of(&message), function::REGISTER);
    assert_eq!(flags_of(&message), flag::CLIENT | flag::REPLACE | flag::FIRST | flag::LAST);
    assert!(has(&message, tag::ENTITY, b"shelf\0\0\0"));
    assert!(has(&message, tag::PROTOCOL, &2u32.to_be_bytes()));
    assert!(has(&message, tag::PERIOD, &300u32.to_be_bytes()));
    assert!(has(&message, tag::PORTAL_PORT, &3260u32.to_be_bytes()));
    assert!(has(&message, tag::NAME, b"iqn.2026-11.org:a\0\0\0"));
    assert!(has(&message, tag::NODE_TYPE, &1u32.to_be_bytes()));
    assert_eq!(groups(&message), [("10.0.0.1:3260".parse().unwrap(), Some(1))]);
}

fn tags(message: &[u8]) -> Vec<u32> {
    Attributes::new(&message[HEADER_BYTES..]).map(|attribute| attribute.unwrap().tag).collect()
}

/// What is told of an object begins with what names it (5.6.5.1), the key ends with a delimiter.
#[test]
fn attributes_come_in_the_standards_order() {
    let mut with_alias = one();
    with_alias.nodes[0].alias = Some("the shelf's disk".into());
    let mut client = connected(with_alias);
    let register = sent(&mut client);
    assert_eq!(
        tags(&register),
        [
            tag::NAME,
            tag::ENTITY,
            tag::DELIMITER,
            tag::ENTITY,
            tag::PROTOCOL,
            tag::PERIOD,
            tag::PORTAL_ADDRESS,
            tag::PORTAL_PORT,
            tag::NAME,
            tag::NODE_TYPE,
            tag::ALIAS,
            tag::GROUP_NAME,
            tag::GROUP_ADDRESS,
            tag::GROUP_PORT,
            tag::GROUP_TAG,
        ]
    );
    assert!(has(&register, tag::ALIAS, b"the shelf's disk\0\0\0\0"));
    client.received(&done(&register), at(0));
    actions(&mut client);
    client.handle_timeout(at(100));
    let check = sent(&mut client);
    assert_eq!(tags(&check), [tag::NAME, tag::ENTITY, tag::DELIMITER, tag::ENTITY]);
    assert!(has(&check, tag::ENTITY, b""), "what is asked for has no value");
    client.stop(at(100));
    client.received(&done(&check), at(100));
    let leave = sent(&mut client);
    assert_eq!(tags(&leave), [tag::NAME, tag::DELIMITER, tag::ENTITY]);
    for message in [check, leave] {
        assert_eq!(flags_of(&message), flag::CLIENT | flag::FIRST | flag::LAST);
    }
}

#[test]
fn a_portal_that_does_not_lead_to_a_node_is_told_as_a_group_without_tag() {
    let nodes = vec![
        node("iqn.2026-11.org:a", &[("10.0.0.1:3260", 1)]),
        node("iqn.2026-11.org:b", &[("10.0.0.1:3261", 7)]),
    ];
    let (first, second) = ("10.0.0.1:3260".parse().unwrap(), "10.0.0.1:3261".parse().unwrap());
    let message = sent(&mut connected(registration(nodes)));
    assert_eq!(
        groups(&message),
        [(first, Some(1)), (second, None), (first, None), (second, Some(7))]
    );
}

#[test]
fn a_wildcard_is_where_the_server_is_reached_from_and_loopback_is_left_out() {
    let portals = [("0.0.0.0:3260", 1), ("[::]:3260", 1), ("127.0.0.1:3261", 2)];
    let message = sent(&mut connected(registration(vec![node("iqn.2026-11.org:a", &portals)])));
    assert_eq!(groups(&message), [("10.0.0.1:3260".parse().unwrap(), Some(1))]);
    let alone = registration(vec![node("iqn.2026-11.org:a", &[("127.0.0.1:3260", 1)])]);
    assert_eq!(
        actions(&mut connected(alone)),
        [Action::Close, Action::Tell(News::Nothing)],
        "nobody elsewhere could reach it"
    );
}

#[test]
fn a_thousand_nodes_come_in_several_messages_of_which_the_first_replaces() {
    let name = |at: usize| format!("iqn.2026-11.org:{at}{}", "x".repeat(190));
    let nodes = (0..1000).map(|at| node(&name(at), &[("10.0.0.1:3260", 1)])).collect();
    let mut client = connected(registration(nodes));
    let (mut messages, mut names) = (0, 0);
    loop {
        let message = match &actions(&mut client)[..] {
            [Action::Send(message)] => message.clone(),
            [Action::Tell(News::Registered)] => break,
            other => panic!("{other:?}"),
        };
        assert_eq!(flags_of(&message) & flag::REPLACE != 0, messages == 0);
        names += groups(&message).len();
        messages += 1;
        client.received(&done(&message), at(0));
    }
    assert_eq!(names, 1000);
    assert!(messages > 1);
}

#[test]
fn the_server_is_asked_within_its_period_and_told_anew_if_it_has_forgotten() {
    let mut client = connected(one());
    let question = sent(&mut client);
    let mut period = Writer::default();
    period.number(tag::PERIOD, 60);
    client.received(&answer(&question, 0, &period), at(0));
    actions(&mut client);
    assert_eq!(client.poll_timeout(), Some(at(20)));
    client.handle_timeout(at(20));
    let check = sent(&mut client);
    assert_eq!(function_of(&check), function::QUERY);
    let mut there = Writer::default();
    there.text(tag::ENTITY, "shelf").put(tag::DELIMITER, &[]).text(tag::ENTITY, "shelf");
    client.received(&answer(&check, 0, &there), at(20));
    assert_eq!(actions(&mut client), []);
    assert_eq!(client.poll_timeout(), Some(at(40)));
    for (seconds, status) in [(40, 0), (80, 6), (120, 9)] {
        client.handle_timeout(at(seconds));
        let check = sent(&mut client);
        client.received(&answer(&check, status, &Writer::default()), at(seconds));
        let again = sent(&mut client);
        assert_eq!(function_of(&again), function::REGISTER);
        client.received(&answer(&again, 0, &period), at(seconds));
        assert_eq!(actions(&mut client), [Action::Tell(News::Registered)]);
    }
}

#[test]
fn checks_come_a_second_to_ten_minutes_apart_whatever_the_period() {
    for (period, due) in [(0, 100), (1, 1), (u32::MAX, 600)] {
        let mut client = connected(one());
        let question = sent(&mut client);
        let mut attributes = Writer::default();
        attributes.number(tag::PERIOD, period);
        client.received(&answer(&question, 0, &attributes), at(0));
        assert_eq!(client.poll_timeout(), Some(at(due)), "{period}");
    }
}

#[test]
fn a_change_is_told_over_the_same_connection() {
    let mut client = registered();
    client.register(one(), at(1));
    assert_eq!(actions(&mut client), [], "nothing has changed");
    let mut more = one();
    more.nodes.push(node("iqn.2026-11.org:b", &[("10.0.0.1:3260", 1)]));
    client.register(more, at(1));
    let message = sent(&mut client);
    assert_eq!(function_of(&message), function::REGISTER);
    assert!(has(&message, tag::NAME, b"iqn.2026-11.org:b\0\0\0"));
}

#[test]
fn who_takes_another_name_takes_the_old_one_back_first() {
    let mut client = registered();
    client.register(registration(vec![node("iqn.2026-11.org:b", &[("10.0.0.1:3260", 1)])]), at(1));
    let leave = sent(&mut client);
    assert_eq!(function_of(&leave), function::DEREGISTER);
    assert!(has(&leave, tag::NAME, b"iqn.2026-11.org:a\0\0\0"));
    client.received(&done(&leave), at(1));
    assert_eq!(function_of(&sent(&mut client)), function::REGISTER);
}

#[test]
fn the_end_takes_the_registration_back() {
    for status in [0, 6, 9] {
        let mut client = registered();
        client.stop(at(1));
        let leave = sent(&mut client);
        assert_eq!(function_of(&leave), function::DEREGISTER);
        assert!(has(&leave, tag::ENTITY, b"shelf\0\0\0"));
        assert!(!client.is_over());
        client.stop(at(1));
        assert_eq!(actions(&mut client), [], "it was said");
        client.received(&answer(&leave, status, &Writer::default()), at(1));
        assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Gone)]);
        assert!(client.is_over());
    }
}

#[test]
fn the_end_waits_for_no_server_that_is_silent_or_away() {
    let mut client = registered();
    client.stop(at(1));
    client.handle_timeout(at(11));
    assert!(client.is_over());
    let mut client = Client::new(one(), at(0));
    client.handle_timeout(at(0));
    client.stop(at(0));
    assert!(client.is_over(), "it was never known there");
}

#[test]
fn waits_double_from_a_second_to_a_minute_and_a_failure_is_told_once() {
    let mut client = Client::new(one(), at(0));
    let mut now = at(0);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        client.handle_timeout(now);
        assert_eq!(client.poll(), Some(Action::Connect));
        client.closed(now);
        let news = actions(&mut client);
        assert_eq!(news.contains(&Action::Tell(News::Unreachable)), wait == 1);
        now = now + Duration::from_secs(wait);
        assert_eq!(client.poll_timeout(), Some(now));
    }
}

#[test]
fn a_server_that_hangs_up_after_each_registration_is_asked_ever_less_often() {
    let mut client = Client::new(one(), at(0));
    let mut now = at(0);
    for wait in [1, 2, 4, 8] {
        client.handle_timeout(now);
        client.connected(HERE, now);
        let all = actions(&mut client);
        let Some(Action::Send(question)) = all.last() else { panic!("{all:?}") };
        client.received(&done(question), now);
        client.closed(now);
        actions(&mut client);
        now = now + Duration::from_secs(wait);
        assert_eq!(client.poll_timeout(), Some(now));
    }
}

#[test]
fn a_refusal_is_told_with_its_meaning() {
    let mut client = connected(one());
    let question = sent(&mut client);
    client.received(&answer(&question, 8, &Writer::default()), at(0));
    let refused = News::Refused(Status(8));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(refused)]);
    assert_eq!(refused.to_string(), "refused: source unauthorized (status 8, RFC 4171 5.4)");
}

#[test]
fn an_answer_to_something_else_is_none_and_the_wait_has_an_end() {
    let mut client = connected(one());
    let mut other = done(&sent(&mut client));
    other[9] ^= 1;
    client.received(&other, at(9));
    assert_eq!(actions(&mut client), []);
    client.handle_timeout(at(10));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Silent)]);
}

#[test]
fn a_message_in_pieces_is_one_up_to_a_length() {
    let pdu = |flags: u16| {
        let mut writer = Writer::default();
        writer.put(1, &[0; PAYLOAD_BYTES_MAX - 8]);
        let mut pdu = writer.message(function::REGISTER, 0);
        pdu[6..8].copy_from_slice(&flags.to_be_bytes());
        pdu
    };
    let mut framer = Framer::default();
    framer.push(&pdu(flag::FIRST));
    assert_eq!(framer.next_message(), Ok(None));
    framer.push(&pdu(flag::LAST));
    let (_, payload) = framer.next_message().unwrap().unwrap();
    assert_eq!(payload.len(), 2 * PAYLOAD_BYTES_MAX);
    framer.push(&pdu(0));
    assert!(framer.next_message().is_err(), "it does not begin with its first");
    let mut framer = Framer::default();
    framer.push(&pdu(flag::FIRST));
    let mut taken = 0;
    while framer.next_message() == Ok(None) {
        taken += PAYLOAD_BYTES_MAX;
        assert!(taken <= MESSAGE_BYTES_MAX);
        framer.push(&pdu(0));
    }
}

#[test]
fn an_attribute_longer_than_its_message_makes_no_sense() {
    let mut client = connected(one());
    let question = sent(&mut client);
    let mut attributes = Writer::default();
    attributes.number(tag::PERIOD, 60);
    let mut bytes = answer(&question, 0, &attributes);
    bytes[HEADER_BYTES + 4 + 7] = 8;
    client.received(&bytes, at(0));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Senseless)]);
}

proptest! {
    #[test]
    fn whatever_a_server_sends_nothing_panics(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16),
        change in 0..60_usize,
        byte in any::<u8>(),
    ) {
        let mut client = connected(one());
        let question = sent(&mut client);
        let mut period = Writer::default();
        period.number(tag::PERIOD, 60).text(tag::ENTITY, "shelf").put(tag::DELIMITER, &[]);
        let mut bytes = answer(&question, 0, &period);
        let change = change % bytes.len();
        bytes[change] = byte;
        client.received(&bytes, at(0));
        for piece in pieces {
            client.received(&piece, at(1));
        }
        prop_assert!(actions(&mut client).len() <= 4);
    }
}
