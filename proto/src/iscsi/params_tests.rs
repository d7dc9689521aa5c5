//! The keys of section 13, as either side meets them.

use super::*;

fn answers(negotiator: &mut Negotiator, offers: &[(&str, &str)]) -> String {
    let mut reply = Vec::new();
    for (key, value) in offers {
        negotiator.answer(key, value, &mut reply).unwrap();
    }
    String::from_utf8(reply).unwrap().replace('\0', " ")
}

fn target(session: SessionType) -> Negotiator {
    Negotiator::new(Limits::default(), session, true)
}

#[test]
fn each_kind_of_key_resolves_as_section_13_says() {
    let mut negotiator = target(SessionType::Normal);
    let reply = answers(
        &mut negotiator,
        &[
            ("HeaderDigest", "CRC32C,None"),
            ("DataDigest", "None,CRC32C"),
            ("InitialR2T", "Yes"),
            ("ImmediateData", "No"),
            ("MaxBurstLength", "0x1000"),
            ("DefaultTime2Wait", "0"),
            ("ErrorRecoveryLevel", "2"),
            ("MaxRecvDataSegmentLength", "65536"),
            ("IFMarker", "Yes"),
            ("OFMarkInt", "1~2"),
            ("X-com.example.key", "1"),
        ],
    );
    assert_eq!(
        reply,
        "HeaderDigest=CRC32C DataDigest=None InitialR2T=Yes ImmediateData=No \
         MaxBurstLength=4096 DefaultTime2Wait=2 ErrorRecoveryLevel=0 IFMarker=No \
         OFMarkInt=Reject X-com.example.key=NotUnderstood "
    );
    let agreed = negotiator.finish().unwrap();
    assert_eq!(agreed.header_digest, Digest::Crc32c);
    assert_eq!(agreed.peer_segment_bytes_max, 65536);
    assert_eq!(agreed.first_burst_bytes_max, 4096);
}

#[test]
fn values_outside_their_range_are_rejected_and_the_default_stays() {
    let mut negotiator = target(SessionType::Normal);
    let reply = answers(
        &mut negotiator,
        &[
            ("MaxBurstLength", "511"),
            ("FirstBurstLength", "16777216"),
            ("MaxOutstandingR2T", "0"),
            ("InitialR2T", "yes"),
            ("HeaderDigest", "CRC64"),
        ],
    );
    assert_eq!(reply.matches("=Reject ").count(), 5);
    let agreed = negotiator.finish().unwrap();
    assert_eq!(agreed, Negotiated::default());
}

#[test]
fn data_keys_are_irrelevant_in_discovery() {
    let reply = answers(
        &mut target(SessionType::Discovery),
        &[("InitialR2T", "No"), ("MaxBurstLength", "1024"), ("DefaultTime2Wait", "3")],
    );
    assert_eq!(reply, "InitialR2T=Irrelevant MaxBurstLength=Irrelevant DefaultTime2Wait=3 ");
}

/// Use, Irrelevant when, default and result function of each key, as sections 13.1 to 13.25
/// give them: `IO` for every connection, `LO` for the leading one only.
#[test]
fn scope_and_result_of_every_key_are_those_of_section_13() {
    const LOW: &str = "512";
    for (key, offer, answer, leading_only, in_discovery) in [
        ("HeaderDigest", "None", "None", false, true),
        ("DataDigest", "None", "None", false, true),
        ("MaxConnections", "65535", "1", true, false),
        ("InitialR2T", "Yes", "Yes", true, false),
        ("ImmediateData", "No", "No", true, false),
        (SEGMENT, LOW, "", false, true),
        ("MaxBurstLength", LOW, LOW, true, false),
        ("FirstBurstLength", LOW, LOW, true, false),
        ("DefaultTime2Wait", "3600", "3600", true, true),
        ("DefaultTime2Retain", "3600", "0", true, true),
        ("MaxOutstandingR2T", "1", "1", true, false),
        ("DataPDUInOrder", "No", "Yes", true, false),
        ("DataSequenceInOrder", "No", "Yes", true, false),
        ("ErrorRecoveryLevel", "2", "0", true, true),
        ("TaskReporting", "FastAbort,RFC3720", "RFC3720", true, false),
        ("IFMarker", "Yes", "No", false, true),
        ("OFMarker", "Yes", "No", false, true),
        ("IFMarkInt", "1~65535", "Reject", false, true),
        ("OFMarkInt", "1~65535", "Reject", false, true),
    ] {
        let expected = |answer: &str| match answer {
            "" => String::new(),
            answer => format!("{key}={answer} "),
        };
        let offers = [(key, offer)];
        assert_eq!(answers(&mut target(SessionType::Normal), &offers), expected(answer));
        let answer = if in_discovery { answer } else { "Irrelevant" };
        assert_eq!(answers(&mut target(SessionType::Discovery), &offers), expected(answer));
        let mut joining = Negotiator::new(Limits::default(), SessionType::Normal, false);
        let refused = joining.answer(key, offer, &mut Vec::new()).is_err();
        assert_eq!(refused, leading_only, "{key}");
    }
    let defaults = Negotiated::default();
    assert_eq!((defaults.peer_segment_bytes_max, defaults.burst_bytes_max), (8192, 262_144));
    assert_eq!((defaults.first_burst_bytes_max, defaults.outstanding_r2t_max), (65_536, 1));
    assert_eq!((defaults.initial_r2t, defaults.immediate_data), (true, true));
    assert_eq!((defaults.time2wait_s, defaults.time2retain_s), (2, 20));
    assert_eq!((defaults.header_digest, defaults.connections_max), (Digest::None, 1));
}

#[test]
fn a_key_is_negotiated_once_and_some_only_on_the_leading_connection() {
    let mut negotiator = target(SessionType::Normal);
    answers(&mut negotiator, &[("InitialR2T", "No")]);
    assert!(negotiator.answer("InitialR2T", "No", &mut Vec::new()).is_err());
    let mut second = Negotiator::new(Limits::default(), SessionType::Normal, false);
    assert!(second.answer("InitialR2T", "No", &mut Vec::new()).is_err());
    assert!(second.answer("HeaderDigest", "None", &mut Vec::new()).is_ok());
}

#[test]
fn answers_beyond_the_offer_are_refused() {
    let mut initiator = target(SessionType::Normal);
    assert!(initiator.accept("MaxBurstLength", "65536").is_ok());
    assert!(initiator.accept("MaxOutstandingR2T", "9").is_err());
    assert!(initiator.accept("DefaultTime2Wait", "1").is_err());
    assert!(initiator.accept("ImmediateData", "Reject").is_ok());
    assert!(initiator.accept("X-unknown", "1").is_err());
    assert_eq!(initiator.agreed().burst_bytes_max, 65536);
}

#[test]
fn a_required_digest_is_required() {
    let limits = Limits { header_digests: vec![Digest::Crc32c], ..Limits::default() };
    let mut negotiator = Negotiator::new(limits, SessionType::Normal, true);
    assert!(negotiator.finish().is_err());
    answers(&mut negotiator, &[("HeaderDigest", "None,CRC32C")]);
    assert!(negotiator.finish().is_ok());
}

#[test]
fn order_is_given_up_only_if_both_sides_can_do_without() {
    for (insists, offer, answer) in
        [(true, "No", "Yes"), (false, "No", "No"), (false, "Yes", "Yes")]
    {
        let limits = Limits {
            data_pdu_in_order: insists,
            data_sequence_in_order: insists,
            ..Limits::default()
        };
        let mut negotiator = Negotiator::new(limits, SessionType::Normal, true);
        let offers = [("DataPDUInOrder", offer), ("DataSequenceInOrder", offer)];
        let reply = answers(&mut negotiator, &offers);
        assert_eq!(reply, format!("DataPDUInOrder={answer} DataSequenceInOrder={answer} "));
        let agreed = negotiator.finish().unwrap();
        let both = (agreed.data_pdu_in_order, agreed.data_sequence_in_order);
        assert_eq!(both, (answer == "Yes", answer == "Yes"));
    }
}

/// 13.19: with recovery and sequences in order, only the last R2T can be sent again.
#[test]
fn one_r2t_at_a_time_where_recovery_needs_it() {
    for (level, in_order, outstanding) in
        [("0", "Yes", "4"), ("1", "Yes", "1"), ("2", "No", "4"), ("2", "Yes", "1")]
    {
        let limits =
            Limits { recovery_level_max: 2, data_sequence_in_order: false, ..Limits::default() };
        let mut negotiator = Negotiator::new(limits, SessionType::Normal, true);
        let mut offers = [
            ("MaxOutstandingR2T", "4"),
            ("ErrorRecoveryLevel", level),
            ("DataSequenceInOrder", in_order),
        ];
        offers.sort_by_key(|(key, _)| rank(key));
        let reply = answers(&mut negotiator, &offers);
        assert!(reply.ends_with(&format!("MaxOutstandingR2T={outstanding} ")), "{reply}");
        let agreed = negotiator.finish().unwrap();
        assert_eq!(agreed.recovery_level.to_string(), level);
        assert_eq!(agreed.outstanding_r2t_max.to_string(), outstanding);
    }
}

#[test]
fn a_discovery_session_has_nothing_to_recover() {
    let limits = Limits { recovery_level_max: 2, ..Limits::default() };
    let mut negotiator = Negotiator::new(limits, SessionType::Discovery, true);
    let reply = answers(&mut negotiator, &[("ErrorRecoveryLevel", "2")]);
    assert_eq!(reply, "ErrorRecoveryLevel=0 ");
}
