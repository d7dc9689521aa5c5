//! Clients of the control socket that mean no good, or know no better.

use super::*;
use crate::socket::{CLIENTS_MAX, IDLE_MAX};

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(&world.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn answer(stream: &UnixStream) -> Answer {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// The daemon goes on.
fn assert_answers(world: &World) {
    assert_eq!(world.ask(&echo("x")), Answer::Echo { text: "x".into() });
}

const ECHO: &[u8] = b"{\"command\":\"echo\",\"text\":\"x\"}\n";

#[test]
fn an_endless_line_is_refused_and_the_client_left() {
    let world = World::start();
    let mut stream = connect(&world);
    // The daemon hangs up in the middle of it.
    let _ = stream.write_all(&vec![b'x'; 100 * Wish::BYTES_MAX]);
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    if !said.is_empty() {
        assert!(said.contains("at most 4096 bytes"), "{said}");
    }
    assert_answers(&world);
    world.stop();
}

#[test]
fn a_line_that_just_fits_is_judged_by_what_it_says() {
    let world = World::start();
    let mut stream = connect(&world);
    let mut line = vec![b' '; Wish::BYTES_MAX - ECHO.len()];
    line.extend_from_slice(ECHO);
    stream.write_all(&line).unwrap();
    assert!(matches!(answer(&stream), Answer::Echo { .. }));
    stream.write_all(&vec![b'x'; Wish::BYTES_MAX]).unwrap();
    let Answer::Error { kind, .. } = answer(&stream) else { panic!() };
    assert_eq!(kind, ErrorKind::Request);
    world.stop();
}

#[test]
fn what_is_no_request_is_answered_with_what_would_be() {
    let world = World::start();
    let mut stream = connect(&world);
    for line in [&b"\n"[..], b"GET / HTTP/1.1\r\n", b"{\"command\":\"format\"}\n", b"\xff\xfe\0\n"]
    {
        stream.write_all(line).unwrap();
        let Answer::Error { kind, message } = answer(&stream) else { panic!("{line:?}") };
        assert_eq!(kind, ErrorKind::Request);
        assert!(message.starts_with("no request: "), "{message}");
        assert!(message.ends_with("; send {\"command\":\"stop\"}"), "{message}");
    }
    drop(stream);
    world.stop();
}

#[test]
fn more_clients_than_there_are_places_are_sent_away() {
    let world = World::start();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut held = Vec::new();
    while held.len() < CLIENTS_MAX {
        assert!(Instant::now() < deadline, "only {} clients were let in", held.len());
        let mut stream = connect(&world);
        // One that was here before may not have been seen off yet.
        if stream.write_all(ECHO).is_ok() && matches!(answer(&stream), Answer::Echo { .. }) {
            held.push(stream);
        }
    }
    let Answer::Error { message, .. } = answer(&connect(&world)) else { panic!() };
    assert!(message.contains("try again"), "{message}");
    drop(held);
    while !matches!(try_ask(&world.socket, &echo("x")), Ok(Answer::Echo { .. })) {
        assert!(Instant::now() < deadline, "the places were never free again");
    }
    world.stop();
}

#[test]
fn a_client_that_drips_is_left_in_time_and_holds_nobody_up() {
    let world = World::start();
    let mut stream = connect(&world);
    let began = Instant::now();
    let mut left = false;
    while began.elapsed() < IDLE_MAX + Duration::from_secs(5) {
        if stream.write_all(b" ").is_err() {
            left = true;
            break;
        }
        assert_answers(&world);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(left, "a byte now and then keeps a client for ever");
    world.stop();
}
