//! Round trips of frames, and invalid frames.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::json;

use super::super::wire::command::{self, Command, StreamPosition};
use super::super::wire::reply::{self, Publication, Push, Reply};
use super::*;

fn decode(text: &str) -> Result<Vec<Command>, Violation> {
    Codec::Json.decode(&Message::text(text))
}

fn violated(text: &str) -> String {
    decode(text).expect_err(text).to_string()
}

fn text(replies: &[Reply]) -> String {
    Codec::Json.encode(replies).as_text().expect("text").to_owned()
}

#[test]
fn a_frame_holds_several_objects() {
    let frame = concat!(
        r#"{"id":1,"connect":{"token":"t","data":{"a":[1, 2]}}}"#,
        "\n",
        r#"{"id":2,"subscribe":{"channel":"c"}}"#,
        "\n\n{}"
    );
    let commands = decode(frame).expect("valid");
    assert_eq!(commands.len(), 3);
    let connect = commands[0].connect.as_ref().expect("connect");
    assert_eq!((connect.token.as_str(), &connect.data[..]), ("t", &b"{\"a\":[1, 2]}"[..]));
    assert_eq!(commands[1].subscribe.as_ref().map(|s| s.channel.as_str()), Some("c"));
    assert_eq!(commands[2], Command::default());
}

#[test]
fn unknown_fields_are_ignored_and_null_is_absent() {
    let frame = concat!(
        r#"{"id":1,"new":{"x":[]},"subscribe":"#,
        r#"{"channel":"c","token":null,"offset":null,"tf":{"op":"eq"},"data":null}}"#,
    );
    let subscribe = decode(frame).expect("valid").remove(0).subscribe.expect("subscribe");
    assert_eq!((subscribe.channel.as_str(), subscribe.token.as_str(), subscribe.offset), ("c", "", 0));
    assert_eq!(&subscribe.data[..], b"null", "a payload of null is one");
    let unknown = decode(r#"{"id":7,"future":{}}"#).expect("valid").remove(0);
    assert_eq!((unknown.id, unknown.requests()), (7, 0));
}

#[test]
fn defaults_are_never_written() {
    assert_eq!(text(&[Reply::default()]), "{}");
    assert_eq!(Codec::Protobuf.encode(&[Reply::default()]).payload()[..], [0]);
    let subscribe = Some(reply::Subscribed::default());
    assert_eq!(
        text(&[Reply { id: 3, subscribe, ..Reply::default() }, Reply::default()]),
        "{\"id\":3,\"subscribe\":{}}\n{}"
    );
}

#[test]
fn payloads_stand_in_json_whatever_they_are() {
    let shown = |data: &[u8]| {
        let rpc = Some(command::Data { data: Bytes::copy_from_slice(data) });
        let frame = text(&[Reply { id: 1, rpc, ..Reply::default() }]);
        assert!(!frame.contains('\n'), "{frame}");
        let value: serde_json::Value = serde_json::from_str(&frame).expect("json");
        value["rpc"]["data"].clone()
    };
    assert_eq!(shown(b"{\"a\": 1.50}"), json!({"a": 1.50}));
    assert_eq!(shown(b"{\r\n  \"a\":\n\"b\\n\"\n}\n"), json!({"a": "b\n"}));
    assert_eq!(shown(b"plain\ntext"), json!("plain\ntext"));
    assert_eq!(shown(b"{\"a\":1} x"), json!("{\"a\":1} x"));
    assert_eq!(shown(&[0, 255]), json!("AP8="));
}

#[test]
fn at_most_64_commands_besides_subscriptions() {
    let pings = |n: usize| (1..=n).map(|id| format!("{{\"id\":{id},\"ping\":{{}}}}")).collect::<Vec<_>>().join("\n");
    assert_eq!(decode(&pings(MAX_COMMANDS)).expect("valid").len(), MAX_COMMANDS);
    assert_eq!(violated(&pings(MAX_COMMANDS + 1)), "more than 64 commands in one frame");
    let subscribe = |id| format!("{{\"id\":{id},\"subscribe\":{{\"channel\":\"c{id}\"}}}}");
    let subscriptions = (1..=300).map(subscribe).collect::<Vec<_>>().concat();
    assert_eq!(decode(&subscriptions).expect("valid").len(), 300);
    let empty = Command::default().encode_length_delimited_to_vec();
    assert!(Codec::Protobuf.decode(&Message::binary(empty.repeat(64))).is_ok());
    assert!(Codec::Protobuf.decode(&Message::binary(empty.repeat(65))).is_err());
}

#[test]
fn what_breaks_the_protocol_is_said() {
    for (frame, why) in [
        ("", "empty frame"),
        (" \n ", "empty frame"),
        ("[]", "invalid command: "),
        ("{", "invalid command: "),
        ("{\"id\":-1}", "invalid command: "),
        ("{\"id\":4294967296,\"ping\":{}}", "invalid command: "),
        ("{\"id\":1,\"rpc\":[]}", "invalid command: "),
        ("{\"id\":1,\"subscribe\":{\"channel\":5}}", "invalid command: "),
        ("{\"id\":1,\"ping\":{}} x", "invalid command: "),
        ("{\"id\":1,\"ping\":{},\"rpc\":{}}", "2 requests in one command"),
        ("{\"ping\":{}}", "request without an id"),
        ("{\"subscribe\":{\"channel\":\"c\"}}", "request without an id"),
    ] {
        assert!(violated(frame).starts_with(why), "{frame}: {}", violated(frame));
    }
    let deep = format!("{{\"id\":1,\"rpc\":{{\"data\":{}}}}}", "[".repeat(100_000));
    assert!(violated(&deep).starts_with("invalid command: "));
    let refused =
        |bytes: &[u8]| Codec::Protobuf.decode(&Message::binary(bytes.to_vec())).expect_err("refused").to_string();
    assert_eq!(refused(&[]), "empty frame");
    assert_eq!(refused(&[5, 8, 1]), "command of 5 bytes with 2 bytes left in the frame");
    assert!(refused(&[0xff; 11]).starts_with("invalid length: "));
    assert!(refused(&[2, 8, 0xff]).starts_with("invalid command: "));
    assert_eq!(
        Codec::Protobuf.decode(&Message::text("{}")).expect_err("kind").to_string(),
        "text message in the protobuf protocol"
    );
    assert_eq!(
        Codec::Json.decode(&Message::binary(vec![0])).expect_err("kind").to_string(),
        "binary message in the JSON protocol"
    );
}

/// Payloads that are JSON: they survive both encodings.
fn payload() -> impl Strategy<Value = Bytes> {
    let value = prop_oneof![
        any::<String>().prop_map(|text| json!(text)),
        any::<i64>().prop_map(|number| json!(number)),
        vec(any::<bool>(), 0..3).prop_map(|list| json!({ "list": list })),
        Just(json!(null)),
    ];
    prop_oneof![Just(Bytes::new()), value.prop_map(|value| Bytes::from(value.to_string()))]
}

fn subscribe() -> impl Strategy<Value = command::Subscribe> {
    (any::<(String, String, bool, String, u64)>(), payload(), any::<(bool, bool, bool, i64)>()).prop_map(
        |(a, data, b)| {
            let (channel, token, recover, epoch, offset) = a;
            let (positioned, recoverable, join_leave, flag) = b;
            command::Subscribe {
                channel,
                token,
                recover,
                epoch,
                offset,
                data,
                positioned,
                recoverable,
                join_leave,
                flag,
            }
        },
    )
}

fn a_command() -> impl Strategy<Value = Command> {
    let connect = (any::<[String; 3]>(), payload(), btree_map(any::<String>(), subscribe(), 0..3))
        .prop_map(|([token, name, version], data, subs)| command::Connect { token, data, subs, name, version });
    let since = option::of(any::<(u64, String)>().prop_map(|(offset, epoch)| StreamPosition { offset, epoch }));
    let history = (any::<(String, i32, bool)>(), since)
        .prop_map(|((channel, limit, reverse), since)| command::History { channel, limit, since, reverse });
    let publish = (any::<String>(), payload()).prop_map(|(channel, data)| command::Publish { channel, data });
    let rpc = (any::<String>(), payload()).prop_map(|(method, data)| command::Rpc { data, method });
    let request = prop_oneof![
        connect.prop_map(|c| Command { connect: Some(c), ..Command::default() }),
        subscribe().prop_map(|s| Command { subscribe: Some(s), ..Command::default() }),
        history.prop_map(|h| Command { history: Some(h), ..Command::default() }),
        publish.prop_map(|p| Command { publish: Some(p), ..Command::default() }),
        rpc.prop_map(|r| Command { rpc: Some(r), ..Command::default() }),
    ];
    (1..=u32::MAX, request).prop_map(|(id, command)| Command { id, ..command })
}

fn a_push() -> impl Strategy<Value = Reply> {
    let info = (any::<[String; 2]>(), payload(), payload())
        .prop_map(|([user, client], conn_info, chan_info)| reply::ClientInfo { user, client, conn_info, chan_info });
    let tags = btree_map(any::<String>(), any::<String>(), 0..3);
    (any::<String>(), payload(), option::of(info), any::<(u64, i64, bool, String)>(), tags).prop_map(
        |(channel, data, info, (offset, time, removed, key), tags)| {
            let publication = Some(Publication { data, info, offset, tags, time, key, removed });
            Reply { push: Some(Push { channel, publication, ..Push::default() }), ..Reply::default() }
        },
    )
}

proptest! {
    #[test]
    fn commands_come_back(commands in vec(a_command(), 1..5)) {
        let json: Vec<String> = commands.iter().map(|c| serde_json::to_string(c).expect("json")).collect();
        prop_assert_eq!(&decode(&json.join("\n")).expect("valid"), &commands);
        let bytes: Vec<u8> = commands.iter().flat_map(Command::encode_length_delimited_to_vec).collect();
        prop_assert_eq!(&Codec::Protobuf.decode(&Message::binary(bytes)).expect("valid"), &commands);
    }

    #[test]
    fn pushes_come_back(pushes in vec(a_push(), 1..4)) {
        let frame = text(&pushes);
        let read: Result<Vec<Reply>, _> = frame.split('\n').map(serde_json::from_str).collect();
        prop_assert_eq!(&read.expect("one object a line"), &pushes);
        let frame = Codec::Protobuf.encode(&pushes);
        let mut rest = frame.payload().clone();
        for push in &pushes {
            prop_assert_eq!(&Reply::decode_length_delimited(&mut rest).expect("a reply"), push);
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, text: String) {
        let _ = Codec::Protobuf.decode(&Message::binary(bytes));
        let _ = decode(&text);
    }

    #[test]
    fn any_payload_is_one_line_of_json(data: Vec<u8>, tags in btree_map(any::<String>(), any::<String>(), 0..2)) {
        let publication = Publication { data: data.into(), tags, ..Publication::default() };
        let push = Push { publication: Some(publication), ..Push::default() };
        let frame = text(&[Reply { push: Some(push), ..Reply::default() }]);
        prop_assert!(!frame.contains('\n'));
        prop_assert!(serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&frame).is_ok());
    }
}
