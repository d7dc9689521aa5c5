//! Clients of the control socket that mean no good, or know no better.

use corbel_daemon::socket::{CLIENTS_MAX, IDLE_MAX};

use super::*;
use crate::admin::protocol::REQUEST_BYTES_MAX;

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(&world.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn answer(stream: &UnixStream) -> Response {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn an_endless_line_is_refused_and_the_client_left() {
    let world = World::start();
    let mut stream = connect(&world);
    // The daemon hangs up in the middle of it.
    let _ = stream.write_all(&vec![b'x'; 100 * REQUEST_BYTES_MAX]);
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    if !said.is_empty() {
        assert!(said.contains("at most 4096 bytes"), "{said}");
    }
    assert!(matches!(world.ask(Request::Status), Response::Status { .. }));
    world.stop();
}

#[test]
fn a_line_that_just_fits_is_judged_by_what_it_says() {
    let world = World::start();
    let mut stream = connect(&world);
    let mut line = vec![b' '; REQUEST_BYTES_MAX - 21];
    line.extend_from_slice(b"{\"command\":\"status\"}\n");
    stream.write_all(&line).unwrap();
    assert!(matches!(answer(&stream), Response::Status { .. }));
    stream.write_all(&vec![b'x'; REQUEST_BYTES_MAX]).unwrap();
    let Response::Error { kind, .. } = answer(&stream) else { panic!() };
    assert_eq!(kind, ErrorKind::Request);
    world.stop();
}

#[test]
fn what_is_no_request_is_answered_with_what_would_be() {
    let world = World::start();
    let mut stream = connect(&world);
    for line in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\n",
        b"{\"command\":\"format\"}\n",
        b"{\"command\":\"stop\",\"force\":true}\n",
        b"{\"command\":{}}\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        b"\xff\xfe\0\n",
    ] {
        stream.write_all(line).unwrap();
        let Response::Error { kind, message } = answer(&stream) else { panic!("{line:?}") };
        assert_eq!(kind, ErrorKind::Request);
        assert!(message.contains("{\"command\":\"status\"}"), "{message}");
    }
    assert!(!world.fake.state.lock().unwrap().stopped);
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
        if stream.write_all(b"{\"command\":\"status\"}\n").is_ok()
            && matches!(answer(&stream), Response::Status { .. })
        {
            held.push(stream);
        }
    }
    let Response::Error { message, .. } = answer(&connect(&world)) else { panic!() };
    assert!(message.contains("try again"), "{message}");
    drop(held);
    while !matches!(ask(&world.socket, Request::Status), Ok((Response::Status { .. }, _))) {
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
        assert!(matches!(world.ask(Request::Status), Response::Status { .. }));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(left, "a byte now and then keeps a client for ever");
    world.stop();
}
