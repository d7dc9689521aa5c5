//! How clients find their export.

use super::*;

/// Replies to options in `bytes`: option, type, data.
fn replies(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[..8], 0x0003_e889_0455_65a9u64.to_be_bytes());
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let len = number(16) as usize;
        replies.push((number(8), number(12), bytes[20..20 + len].to_vec()));
        bytes = &bytes[20 + len..];
    }
    replies
}

fn haggling() -> Bench {
    let mut bench = Bench::new(export(), Mode::Handshake, Bounds::default());
    assert_eq!(bench.sent(), b"NBDMAGICIHAVEOPT\0\x03");
    bench.gets(&3u32.to_be_bytes());
    bench
}

fn ask(bench: &mut Bench, kind: u32, data: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    bench.option(kind, data);
    replies(&bench.sent())
}

const ERR: u32 = 1 << 31;

#[test]
fn nbd_client_of_old_gets_size_flags_and_124_zeroes() {
    let mut bench = Bench::new(export(), Mode::Handshake, Bounds::default());
    bench.sent();
    bench.gets(&1u32.to_be_bytes());
    bench.option(1, b"vmstore");
    let mut expected = SIZE.to_be_bytes().to_vec();
    expected.extend(0x096du16.to_be_bytes());
    expected.extend([0; 124]);
    assert_eq!(bench.sent(), expected);
    assert_eq!(bench.asks(cmd::FLUSH, 0, 0, 0), simple(0));
}

#[test]
fn no_zeroes_are_sent_to_who_wants_none() {
    let mut bench = haggling();
    bench.option(1, b"");
    assert_eq!(bench.sent().len(), 10);
}

#[test]
fn go_tells_size_flags_and_block_sizes() {
    let mut bench = haggling();
    assert_eq!(ask(&mut bench, 8, &[]), [(8, 1, vec![])]);
    let told = ask(&mut bench, 7, &name_and_infos(b"vmstore", &[1, 2, 3]));
    let mut geometry = vec![0, 0];
    geometry.extend(SIZE.to_be_bytes());
    geometry.extend((0x096du16 | 1 << 7).to_be_bytes());
    let mut blocks = vec![0, 3];
    blocks.extend([512, 4096, 32 << 20].iter().flat_map(|n: &u32| n.to_be_bytes()));
    let expected = [
        (7, 3, geometry),
        (7, 3, blocks),
        (7, 3, b"\0\x01vmstore".to_vec()),
        (7, 3, b"\0\x02a disk".to_vec()),
        (7, 1, vec![]),
    ];
    assert_eq!(told, expected);
    assert_eq!(chunks(&bench.asks(cmd::READ, 0, 0, 512))[0].1, 1);
}

#[test]
fn info_leaves_the_client_haggling_and_go_does_not() {
    let mut bench = haggling();
    assert_eq!(ask(&mut bench, 6, &name_and_infos(b"", &[])).len(), 3);
    assert_eq!(ask(&mut bench, 3, &[])[0], (3, 2, b"\0\0\0\x07vmstorea disk".to_vec()));
    assert_eq!(ask(&mut bench, 7, &name_and_infos(b"", &[])).len(), 3);
    assert_eq!(bench.asks(cmd::FLUSH, 0, 0, 0), simple(0));
}

#[test]
fn tls_extended_headers_and_unknown_options_are_unsupported() {
    let mut bench = haggling();
    for kind in [5, 11, 4, 99] {
        assert_eq!(ask(&mut bench, kind, &[])[0].1, ERR | 1);
    }
}

#[test]
fn another_export_is_unknown() {
    let mut bench = haggling();
    assert_eq!(ask(&mut bench, 7, &name_and_infos(b"other", &[]))[0].1, ERR | 6);
    let refusal = bench.try_gets(&option(1, b"other")).unwrap_err();
    assert_eq!(refusal, Refusal::UnknownExport("other".to_owned()));
}

#[test]
fn options_with_wrong_lengths_are_invalid() {
    let mut bench = haggling();
    assert_eq!(ask(&mut bench, 7, &[0, 0, 0, 9, b'x'])[0].1, ERR | 3);
    assert_eq!(ask(&mut bench, 3, b"data")[0].1, ERR | 3);
    assert_eq!(ask(&mut bench, 8, b"data")[0].1, ERR | 3);
    let mut long = name_and_infos(b"", &[]);
    long.push(0);
    assert_eq!(ask(&mut bench, 7, &long)[0].1, ERR | 3);
}

#[test]
fn contexts_are_listed_and_chosen_only_with_structured_replies() {
    let mut bench = haggling();
    let query = context_query(b"vmstore", &[b"base:allocation", b"qemu:dirty-bitmap:x"]);
    assert_eq!(ask(&mut bench, 10, &query)[0].1, ERR | 3);
    ask(&mut bench, 8, &[]);
    let chosen = ask(&mut bench, 10, &query);
    assert_eq!(chosen[0], (10, 4, b"\0\0\0\x01base:allocation".to_vec()));
    assert_eq!(chosen[1], (10, 1, vec![]));
    assert_eq!(ask(&mut bench, 9, &context_query(b"", &[])).len(), 2);
    assert_eq!(ask(&mut bench, 9, &context_query(b"", &[b"base:"])).len(), 2);
    // Nothing that was asked for is here: nothing is chosen any more.
    assert_eq!(ask(&mut bench, 10, &context_query(b"", &[b"x:y"])), [(10, 1, vec![])]);
    ask(&mut bench, 7, &name_and_infos(b"", &[]));
    assert_eq!(chunks(&bench.asks(cmd::BLOCK_STATUS, 0, 0, 512))[0].1, 1 << 15 | 1);
}

#[test]
fn an_oversized_option_is_read_past() {
    let mut bench = haggling();
    assert_eq!(ask(&mut bench, 6, &vec![0; 100_000])[0].1, ERR | 9);
    assert_eq!(ask(&mut bench, 3, &[]).len(), 2);
    let mut endless = b"IHAVEOPT\0\0\0\x06".to_vec();
    endless.extend(u32::MAX.to_be_bytes());
    assert_eq!(bench.try_gets(&endless), Err(Refusal::OptionTooLong(u32::MAX)));
}

#[test]
fn abort_is_acknowledged_and_ends_the_connection() {
    let mut bench = haggling();
    bench.option(2, &[]);
    assert!(!bench.connection.is_over(), "the answer is still to be sent");
    assert_eq!(replies(&bench.sent()), [(2, 1, vec![])]);
    assert!(bench.connection.is_over() && !bench.connection.wants_read());
}

#[test]
fn flags_not_offered_wrong_magic_and_endless_talk_end_the_connection() {
    let mut bench = Bench::new(export(), Mode::Handshake, Bounds::default());
    assert_eq!(bench.try_gets(&7u32.to_be_bytes()), Err(Refusal::ClientFlags(7)));
    let mut bench = haggling();
    assert!(matches!(bench.try_gets(&[b'x'; 16]), Err(Refusal::Malformed(_))));
    assert!(!bench.connection.wants_read());
    let mut bench = haggling();
    let error = (0..300).find_map(|_| {
        let error = bench.try_gets(&option(3, &[])).err();
        bench.sent();
        error
    });
    assert_eq!(error, Some(Refusal::TooManyOptions));
}

#[test]
fn who_does_not_read_replies_is_not_read_from() {
    let mut bench = haggling();
    let mut count = 0;
    while bench.connection.wants_read() {
        bench.option(3, &[]);
        count += 1;
        assert!(count < 100);
    }
    bench.sent();
    assert!(bench.connection.wants_read());
}

#[test]
fn a_handshake_may_be_cut_anywhere() {
    let mut bench = haggling();
    let mut talk = option(8, &[]);
    talk.extend(option(10, &context_query(b"", &[b"base:allocation"])));
    talk.extend(option(7, &name_and_infos(b"vmstore", &[3])));
    talk.extend(request(cmd::BLOCK_STATUS, 0, 0, 4096));
    for byte in talk {
        bench.gets(&[byte]);
    }
    let sent = bench.sent();
    let status = &chunks(&sent[sent.len() - 32..])[0];
    assert_eq!(status, &(1, 5, vec![0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 0]));
}

#[test]
fn a_read_only_export_says_so_and_offers_no_ways_to_write() {
    let bench = Bench::kernel(Export { read_only: true, ..export() });
    assert_eq!(bench.connection.export().flags(false), 0x010f);
}

#[test]
fn large_blocks_are_told_and_divide_the_longest_request() {
    let export = Export { block_bytes: 4096, physical_block_bytes: 16384, ..export() };
    assert_eq!(export.block_sizes(100_000), [4096, 16384, 98304]);
    assert_eq!(export.block_sizes(1), [4096, 16384, 4096]);
}
