//! What others put on the bus.

use wshub::{
    Message, Target,
    cluster::{Envelope, Recipient},
    metrics::ErrorType,
};

use super::{Bus, early_node, node, settings};
use crate::common::bus::connected;
use crate::common::{Log, errors, eventually};

const MAX_ENVELOPE: usize = 64 * 1024;

pub(crate) fn what_is_no_envelope_is_counted_and_goes_nowhere<B: Bus>() {
    let broker = B::broker();
    let log = Log::default();
    let told = log.clone();
    let hook = move |_: &_, bytes: &[u8]| told.add(bytes.len().to_string());
    let (one, metrics) = early_node(settings::<B>(&broker, "one").max_envelope(MAX_ENVELOPE).on_decode_error(hook));
    connected(&one.hub);
    let mut here = one.connect();
    let large = format!(r#"{{"node_id":"x","type":"broadcast","msg_type":1,"data":"{}"}}"#, "A".repeat(MAX_ENVELOPE));
    let every_byte: Vec<u8> = (0..=255).collect();
    let wrong: [&[u8]; 13] = [
        b"",
        b"hello",
        b"\x00",
        b"{}",
        b"[]",
        br#"{"node_id":"","type":"broadcast","msg_type":1,"data":""}"#,
        br#"{"node_id":"x","type":"everybody","msg_type":1,"data":""}"#,
        br#"{"node_id":"x","type":"room","msg_type":1,"data":""}"#,
        br#"{"node_id":"x","type":"broadcast","msg_type":1,"data":"%%%"}"#,
        br#"{"node_id":"x","type":"broadcast","msg_type":1,"data":"/w=="}"#,
        br#"{"node_id":"x","type":"broadcast","msg_type":1,"da"#,
        &every_byte,
        large.as_bytes(),
    ];
    for (n, bytes) in wrong.iter().enumerate() {
        B::publish(&broker, bytes);
        eventually("it is refused", || log.all().len() == n + 1);
    }
    B::publish(&broker, "[".repeat(10_000).as_bytes());
    eventually("it is refused", || errors(&metrics, ErrorType::AdapterDecode) == wrong.len() as u64 + 1);
    assert_eq!(log.all()[..wrong.len()], wrong.map(|bytes| bytes.len().to_string()));
    let stats = metrics.stats();
    assert_eq!((stats.adapter_received, stats.adapter_published, stats.adapter_disconnects), (0, 0, 0));
    one.hub.send(Target::all(), "end").unwrap();
    assert_eq!(here.texts_until_end(), [""; 0]);
}

pub(crate) fn envelopes_of_others_are_delivered_once_each_and_never_go_round<B: Bus>() {
    let broker = B::broker();
    let ((one, a), (two, b)) = (node::<B>(&broker, "one"), node::<B>(&broker, "two"));
    let (mut here, mut there) = (one.connect(), two.connect());
    let envelope = |node: &str, text: &str| {
        Envelope::message(node, &Recipient::All, Vec::new(), &Message::text(text)).unwrap().encode()
    };
    B::publish(&broker, &envelope("stranger", "new"));
    // A replay cannot be told from a message that was sent twice.
    B::publish(&broker, &envelope("stranger", "new"));
    B::publish(&broker, &envelope("one", "in the name of one"));
    B::publish(&broker, &envelope("stranger", "end"));
    assert_eq!(here.texts_until_end(), ["new", "new"]);
    assert_eq!(there.texts_until_end(), ["new", "new", "in the name of one"]);
    for (metrics, received) in [(a, 3), (b, 4)] {
        assert_eq!((metrics.stats().adapter_received, metrics.stats().adapter_published), (received, 0));
    }
}
