//! What becomes of a registration over time: servers that come and go, changes, and the end.

use super::*;

#[test]
fn each_question_has_a_transaction_of_its_own() {
    let mut client = connected(one());
    let question = sent(&mut client);
    client.received(&done(&question), at(0));
    actions(&mut client);
    client.handle_timeout(at(100));
    let check = sent(&mut client);
    assert_ne!(check[8..10], question[8..10]);
    // The answer to the first, once more, and as if it were one to the second.
    let mut late = done(&question);
    client.received(&late, at(100));
    late[2..4].copy_from_slice(&(function::QUERY | function::RESPONSE).to_be_bytes());
    client.received(&late, at(100));
    // And one with the right transaction, to something that was not asked.
    let mut other = done(&question);
    other[8..10].copy_from_slice(&check[8..10]);
    client.received(&other, at(100));
    assert_eq!(actions(&mut client), []);
    client.handle_timeout(at(110));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Silent)]);
}

/// Connects, and answers all questions with success; gives what is told.
fn through(client: &mut Client, now: Instant) -> Vec<News> {
    client.handle_timeout(now);
    let mut news = Vec::new();
    while let Some(action) = client.poll() {
        match action {
            Action::Connect => client.connected(HERE, now),
            Action::Send(question) => client.received(&done(&question), now),
            Action::Tell(told) => news.push(told),
            Action::Close => {}
        }
    }
    news
}

#[test]
fn a_server_that_comes_back_is_told_all_again_and_its_next_failure_is_news() {
    let mut client = registered();
    for begin in [1, 100] {
        client.closed(at(begin));
        assert!(actions(&mut client).contains(&Action::Tell(News::Unreachable)), "{begin}");
        let due = client.poll_timeout().unwrap();
        client.handle_timeout(due);
        assert_eq!(actions(&mut client), [Action::Connect]);
        client.closed(due);
        assert_eq!(actions(&mut client), [Action::Close], "the same is told once");
        let due = client.poll_timeout().unwrap();
        assert_eq!(through(&mut client, due), [News::Registered]);
    }
}

#[test]
fn waits_are_short_again_after_a_good_check_and_after_a_change() {
    let there = || {
        let mut there = Writer::default();
        there.put(tag::DELIMITER, &[]).text(tag::ENTITY, "shelf");
        there
    };
    let wait_after = |mend: &dyn Fn(&mut Client)| {
        let mut client = registered();
        for second in [10, 20, 30] {
            client.closed(at(second));
            actions(&mut client);
            let due = client.poll_timeout().unwrap();
            assert_eq!(through(&mut client, due).last(), Some(&News::Registered));
        }
        mend(&mut client);
        client.closed(at(1000));
        client.poll_timeout().unwrap().since(at(1000))
    };
    assert_eq!(wait_after(&|_| ()), Duration::from_secs(8));
    let checked = wait_after(&|client| {
        let due = client.poll_timeout().unwrap();
        client.handle_timeout(due);
        let check = sent(client);
        client.received(&answer(&check, 0, &there()), due);
    });
    assert_eq!(checked, Duration::from_secs(1));
    let changed = wait_after(&|client| {
        let other = registration(vec![node("iqn.2026-11.org:a", &[("10.0.0.1:3261", 1)])]);
        client.register(other, at(999));
    });
    assert_eq!(changed, Duration::from_secs(1));
}

#[test]
fn only_our_entity_in_the_answer_itself_means_that_we_are_known() {
    let (mut in_key, mut another) = (Writer::default(), Writer::default());
    in_key.text(tag::ENTITY, "shelf").put(tag::DELIMITER, &[]);
    another.put(tag::DELIMITER, &[]).text(tag::ENTITY, "shelf2");
    for attributes in [in_key, another] {
        let mut client = registered();
        client.handle_timeout(at(100));
        let check = sent(&mut client);
        client.received(&answer(&check, 0, &attributes), at(100));
        assert_eq!(function_of(&sent(&mut client)), function::REGISTER);
    }
}

#[test]
fn without_targets_no_server_is_asked_until_there_is_one() {
    let mut client = Client::new(registration(Vec::new()), at(0));
    client.handle_timeout(at(0));
    assert_eq!((actions(&mut client), client.poll_timeout()), (vec![], None));
    client.register(one(), at(5));
    assert_eq!(actions(&mut client), [Action::Connect]);
    assert_eq!(client.poll_timeout(), Some(at(15)), "a connection may take as long as an answer");
    client.handle_timeout(at(15));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Unreachable)]);
}

#[test]
fn the_last_target_that_goes_takes_the_registration_with_it_and_a_new_one_is_told() {
    let mut client = registered();
    client.register(registration(Vec::new()), at(1));
    let leave = sent(&mut client);
    assert_eq!(function_of(&leave), function::DEREGISTER);
    client.received(&done(&leave), at(1));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Gone)]);
    assert!(!client.is_over() && client.poll_timeout().is_none());
    client.register(registration(vec![node("iqn.2026-11.org:b", &[("10.0.0.1:3260", 1)])]), at(2));
    assert_eq!(actions(&mut client), [Action::Connect]);
    client.connected(HERE, at(2));
    assert_eq!(
        function_of(&sent(&mut client)),
        function::REGISTER,
        "there is nothing to take back"
    );
}

#[test]
fn who_stops_takes_nothing_new_and_what_was_not_sent_is_not_sent() {
    let mut client = registered();
    client.stop(at(1));
    let mut more = one();
    more.entity = "another".into();
    client.register(more, at(1));
    let leave = sent(&mut client);
    assert!(has(&leave, tag::ENTITY, b"shelf\0\0\0"));
    client.closed(at(2));
    assert!(client.is_over(), "it is not tried again");
    actions(&mut client);
    client.closed(at(3));
    client.connected(HERE, at(3));
    assert_eq!((actions(&mut client), client.poll_timeout()), (vec![], None));
    // Taken back once, and then nothing is news any more.
    let mut client = registered();
    client.stop(at(1));
    client.register(registration(Vec::new()), at(1));
    let leave = sent(&mut client);
    client.received(&done(&leave), at(1));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Gone)]);
    client.closed(at(1));
    assert_eq!(actions(&mut client), []);
    // A question that the host has not taken yet when the connection is given up.
    let mut client = connected(one());
    client.closed(at(0));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Unreachable)]);
}

/// On a listener for both families, IPv4 comes as IPv6.
#[test]
fn a_wildcard_of_ipv4_is_reached_by_ipv4_whatever_the_socket_calls_it() {
    let mut client =
        Client::new(registration(vec![node("iqn.2026-11.org:a", &[("0.0.0.0:3260", 1)])]), at(0));
    client.handle_timeout(at(0));
    actions(&mut client);
    client.connected("::ffff:10.0.0.1".parse().unwrap(), at(0));
    let message = sent(&mut client);
    assert_eq!(groups(&message), [("10.0.0.1:3260".parse().unwrap(), Some(1))]);
}

#[test]
fn a_portal_of_several_targets_is_told_once_and_no_more_than_fit() {
    let shared = [("10.0.0.1:3260", 1)];
    let nodes = vec![node("iqn.2026-11.org:a", &shared), node("iqn.2026-11.org:b", &shared)];
    let message = sent(&mut connected(registration(nodes)));
    let count = |message: &[u8], wanted| tags(message).iter().filter(|tag| **tag == wanted).count();
    assert_eq!(count(&message, tag::PORTAL_ADDRESS), 1);
    let mut many = one();
    let portal = |at: u16| (SocketAddr::new(HERE, 4000 + at), 1);
    many.nodes[0].portals = (0..200).map(portal).collect();
    let message = sent(&mut connected(many));
    assert_eq!(count(&message, tag::PORTAL_ADDRESS), PORTALS_MAX);
}

#[test]
fn an_answer_without_a_status_makes_no_sense() {
    let mut client = connected(one());
    let mut short = done(&sent(&mut client));
    short.truncate(HEADER_BYTES);
    short[4..6].copy_from_slice(&[0, 0]);
    client.received(&short, at(0));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Senseless)]);
    let mut client = connected(one());
    sent(&mut client);
    client.received(&[0xff; HEADER_BYTES], at(0));
    assert_eq!(actions(&mut client), [Action::Close, Action::Tell(News::Senseless)]);
}

#[test]
fn a_wildcard_of_the_other_family_is_nowhere() {
    let portals = [("[::]:3262", 2), ("0.0.0.0:3260", 1)];
    let nodes = vec![node("iqn.2026-11.org:a", &portals)];
    let message = sent(&mut connected(registration(nodes.clone())));
    assert_eq!(groups(&message), [("10.0.0.1:3260".parse().unwrap(), Some(1))]);
    let mut client = Client::new(registration(nodes), at(0));
    client.handle_timeout(at(0));
    actions(&mut client);
    client.connected("fd00::1".parse().unwrap(), at(0));
    assert_eq!(groups(&sent(&mut client)), [("[fd00::1]:3262".parse().unwrap(), Some(2))]);
}

#[test]
fn portals_with_one_port_at_two_addresses_are_two() {
    let nodes = vec![
        node("iqn.2026-11.org:a", &[("10.0.0.1:3260", 1)]),
        node("iqn.2026-11.org:b", &[("10.0.0.2:3260", 2)]),
    ];
    let (first, second) = ("10.0.0.1:3260".parse().unwrap(), "10.0.0.2:3260".parse().unwrap());
    let message = sent(&mut connected(registration(nodes)));
    assert_eq!(
        groups(&message),
        [(first, Some(1)), (second, None), (first, None), (second, Some(2))]
    );
}
