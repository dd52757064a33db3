//! The cluster's wire format: byte-identical to the Go package's, and received bytes are not trusted.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use wshub::{
    Message,
    cluster::{Envelope, EnvelopeError, EnvelopeKind, Presence, Recipient},
    limit::MAX_ROOM_NAME,
};

const FIRST: &str = "246173a9-650a-4d6f-9630-e7533aed5d60";
const SECOND: &str = "67db6680-81e7-4000-a65c-00e1f9f43b67";

fn vectors() -> Vec<&'static str> {
    include_str!("vectors/s3-envelopes.jsonl").lines().collect()
}

fn encode(to: &Recipient, except: &[&str], message: impl Into<Message>) -> String {
    let except = except.iter().map(ToString::to_string).collect();
    String::from_utf8(Envelope::message("node-a", to, except, &message.into()).unwrap().encode()).unwrap()
}

#[test]
fn the_same_operations_give_the_same_bytes() {
    let (all, room) = (Recipient::All, |name: &str| Recipient::Room(name.into()));
    let user = Recipient::User("user-1".into());
    let client = Recipient::Client("unknown-client".into());
    let binary = |bytes: &[u8]| Message::binary(bytes.to_vec());
    let ours = [
        encode(&all, &[], "plain text"),
        encode(&all, &[], binary(&[0, 1, 0xfe, 0xff])),
        encode(&all, &[], "snow ☃ \"quoted\" <b>&amp;</b>"),
        encode(&all, &[], Message::json(&serde_json::json!({"k": [1, 2]})).unwrap()),
        encode(&all, &[FIRST], "x"),
        encode(&all, &[FIRST, SECOND], binary(&[1])),
        encode(&room("lobby"), &[], "room"),
        encode(&room("lobby"), &[], binary(&[2])),
        encode(&room("lobby"), &[FIRST], "re"),
        encode(&room("lobby"), &[SECOND], binary(&[3])),
        encode(&room("no such room ü"), &[], "r2"),
        encode(&user, &[], "u"),
        encode(&user, &[], binary(&[4])),
        encode(&client, &[], "c"),
        encode(&client, &[], binary(&[5])),
        encode(&all, &[], ""),
    ];
    for (ours, theirs) in ours.iter().zip(vectors()) {
        assert_eq!(ours, theirs);
    }
    for (theirs, ts) in vectors()[17..].iter().zip([1_795_228_329_354, 1_795_228_329_653, 1_795_228_329_954]) {
        let rooms = BTreeMap::from([("lobby".to_owned(), 2)]);
        let presence = Presence::new("node-a", 2, rooms, ts);
        assert_eq!(String::from_utf8(Envelope::presence(&presence).encode()).unwrap(), **theirs);
    }
    assert_eq!(vectors().len(), 20);
}

#[test]
fn every_vector_decodes_and_encodes_to_itself() {
    for line in vectors() {
        let envelope = Envelope::decode(line.as_bytes()).unwrap();
        assert_eq!(envelope.node_id, "node-a");
        // Go's `nil` payload is the one thing that has no form of its own here.
        let expected = line.replace(r#""data":null"#, r#""data":"""#);
        assert_eq!(String::from_utf8(envelope.encode()).unwrap(), expected);
        if envelope.kind == EnvelopeKind::Presence {
            let presence = envelope.to_presence().unwrap();
            assert_eq!((presence.client_count, presence.rooms["lobby"], presence.gone), (2, 2, false));
            assert_eq!(Envelope::presence(&presence), envelope);
        }
    }
}

#[test]
fn the_vectors_say_what_they_were_made_to_say() {
    let all: Vec<_> = vectors().iter().map(|line| Envelope::decode(line.as_bytes()).unwrap()).collect();
    assert_eq!(all[1].data, &b"\x00\x01\xfe\xff"[..]);
    assert_eq!(all[2].clone().into_message(), Some(Message::text("snow ☃ \"quoted\" <b>&amp;</b>")));
    assert_eq!((all[5].kind, &all[5].except[..]), (EnvelopeKind::BroadcastExcept, &[FIRST.into(), SECOND.into()][..]));
    assert_eq!(all[10].recipients(), [Recipient::Room("no such room ü".into())]);
    assert_eq!(all[13].recipients(), [Recipient::Client("unknown-client".into())]);
    assert_eq!(all[16].clone().into_message(), Some(Message::text("")));
    assert_eq!((all[17].recipients(), all[17].clone().into_message()), (vec![], None));
}

#[test]
fn strings_are_escaped_as_go_does() {
    let room = Recipient::Room("<a>&\u{2028}\u{2029}\"\\\n\u{1}".into());
    let json = encode(&room, &[], "");
    assert!(json.contains(r#""room":"\u003ca\u003e\u0026\u2028\u2029\"\\\n\u0001","msg_type":1"#), "{json}");
    assert_eq!(Envelope::decode(json.as_bytes()).unwrap().recipients(), [room]);
    let rooms = BTreeMap::from([("z".into(), 1), ("a&".into(), 2), ("Z".into(), 3)]);
    let mut presence = Presence::new("n", 6, rooms, -1);
    presence.gone = true;
    let data = Envelope::presence(&presence).data;
    let expected: &[u8] = br#"{"node_id":"n","client_count":6,"rooms":{"Z":3,"a\u0026":2,"z":1},"ts":-1,"gone":true}"#;
    assert_eq!(data, expected);
}

#[test]
fn fields_of_event_streams_cross_and_stay_lines() {
    let message = Message::text("x").with_event_name("e").with_event_id("7").with_retry(Duration::from_millis(1500));
    let json = encode(&Recipient::All, &[], &message);
    let start = r#"{"node_id":"node-a","type":"broadcast","msg_type":1,"data":"eA==","#;
    assert_eq!(json, format!(r#"{start}"event":{{"name":"e","id":"7","retry":1500}}}}"#));
    assert_eq!(decode(&json).unwrap().into_message(), Some(message));
    let forged = format!(r#"{start}"event":{{"name":"e\ndata: forged"}}}}"#);
    let expected = Message::text("x").with_event_name("e data: forged");
    assert_eq!(decode(&forged).unwrap().into_message(), Some(expected));
}

#[test]
fn what_cannot_be_named_is_not_encoded() {
    let none = |to| Envelope::message("n", &to, Vec::new(), &"x".into()).is_none();
    assert!(none(Recipient::Room(String::new())) && none(Recipient::User(String::new())));
    assert!(none(Recipient::Room("x".repeat(MAX_ROOM_NAME + 1))));
    assert!(!none(Recipient::Room("x".repeat(MAX_ROOM_NAME))));
}

fn decode(json: &str) -> Result<Envelope, EnvelopeError> {
    Envelope::decode(json.as_bytes())
}

#[test]
fn unknown_fields_and_go_s_nulls_are_accepted() {
    let json =
        r#"{"v":[{"deep":{}}],"data":"eA==","msg_type":1,"except":null,"room":null,"type":"broadcast","node_id":"n"}"#;
    assert_eq!(decode(json).unwrap().data, &b"x"[..]);
    let presence = |data: &str| {
        let mut envelope = presence_envelope();
        envelope.data = Bytes::copy_from_slice(data.as_bytes());
        envelope
    };
    let bare = presence(r#"{"node_id":"n","client_count":3,"rooms":null,"x":1}"#).to_presence().unwrap();
    assert_eq!((bare.client_count, bare.rooms.len(), bare.ts), (3, 0, 0));
    assert!(presence(r#"{"node_id":"n","client_count":-3}"#).to_presence().is_err());
    assert!(presence(r#"{"node_id":"n","client_count":3,"rooms":{"a":-1}}"#).to_presence().is_err());
    assert!(presence("").to_presence().is_err());
}

fn presence_envelope() -> Envelope {
    decode(r#"{"node_id":"n","type":"presence","msg_type":0,"data":null}"#).unwrap()
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let long = "x".repeat(MAX_ROOM_NAME + 1);
    let cases = [
        "",
        "null",
        "[]",
        "not JSON",
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"eA=="} x"#,
        r#"{"type":"broadcast","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"","type":"broadcast","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":null,"type":"broadcast","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"shout","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":1}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":0,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":3,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":-1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":"1","data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"eA"}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"e_-="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"eA==eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":[120]}"#,
        // Not UTF-8.
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"/w=="}"#,
        r#"{"node_id":"n","type":"presence","msg_type":1,"data":"e30="}"#,
        r#"{"node_id":"n","type":"room","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"room","room":"","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"user","room":"r","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"client","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"room_except","except":["x"],"msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast_except","except":"x","msg_type":1,"data":"eA=="}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"eA==","union":[{"planet":"x"}]}"#,
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"eA==","union":[{"room":""}]}"#,
        r#"{"node_id":"n","node_id":"m","type":"broadcast","msg_type":1,"data":"eA=="}"#,
    ];
    for case in cases {
        assert!(decode(case).is_err(), "{case}");
    }
    let room = |name: &str| format!(r#"{{"node_id":"n","type":"room","room":"{name}","msg_type":1,"data":"eA=="}}"#);
    assert!(decode(&room(&long)).is_err() && decode(&room(&long[1..])).is_ok());
    assert!(Envelope::decode(b"{\"node_id\":\"\xff\",\"type\":\"broadcast\",\"msg_type\":1,\"data\":\"\"}").is_err());
    let deep = format!(r#"{{"v":{}1{},"node_id":"n"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode(&deep).is_err(), "and no stack overflow");
}

fn recipient() -> impl Strategy<Value = Recipient> {
    prop_oneof![
        Just(Recipient::All),
        "\\PC{1,60}".prop_map(Recipient::Room),
        ".{1,60}".prop_map(Recipient::User),
        ".{1,60}".prop_map(Recipient::Client),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![".*".prop_map(Message::text), vec(any::<u8>(), 0..300).prop_map(Message::binary)]
}

proptest! {
    #[test]
    fn envelopes_come_back(
        node in ".{1,40}", to in recipient(), except in vec(".{0,40}", 0..4), message in message(),
        union in vec(recipient(), 0..4), part: bool,
    ) {
        let envelope = Envelope::message(&node, &to, except, &message).unwrap();
        let mut back = Envelope::decode(&envelope.encode()).unwrap();
        prop_assert_eq!(&back, &envelope);
        prop_assert_eq!(back.recipients(), [to]);
        prop_assert_eq!(back.clone().into_message(), Some(message));
        (back.union, back.part) = (union, part);
        prop_assert_eq!(Envelope::decode(&back.encode()).unwrap(), back);
    }

    #[test]
    fn presence_comes_back(
        node in ".{1,40}", clients: u64, ts: i64, gone: bool,
        rooms in proptest::collection::btree_map(".{0,40}", any::<u64>(), 0..5),
    ) {
        let mut presence = Presence::new(node, clients, rooms, ts);
        presence.gone = gone;
        let envelope = Envelope::decode(&Envelope::presence(&presence).encode()).unwrap();
        prop_assert_eq!(envelope.to_presence().unwrap(), presence);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(bytes in vec(any::<u8>(), 0..200), line in 0usize..20, at: prop::sample::Index) {
        let _ = Envelope::decode(&bytes);
        // And a good one with some bytes replaced.
        let mut damaged = vectors()[line].as_bytes().to_vec();
        let start = at.index(damaged.len());
        for (to, from) in damaged[start..].iter_mut().zip(bytes.iter().take(3)) {
            *to = *from;
        }
        if let Ok(envelope) = Envelope::decode(&damaged) {
            let _ = (envelope.to_presence(), envelope.into_message());
        }
    }
}
