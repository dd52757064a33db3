//! `Envelope`: bytes from other nodes, and envelopes that a program may make.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use wshub::{
    Message,
    cluster::{Envelope, EnvelopeKind, Presence, Recipient},
    limit::MAX_ROOM_NAME,
};

#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    node: &'a str,
    to: u8,
    name: &'a str,
    except: Vec<&'a str>,
    is_text: bool,
    text: &'a str,
    payload: &'a [u8],
    event: Option<(&'a str, &'a str, u32)>,
    counts: BTreeMap<&'a str, u64>,
    ts: i64,
}

fuzz_target!(|bytes: &[u8]| {
    raw(bytes);
    if let Ok(fields) = Fields::arbitrary_take_rest(Unstructured::new(bytes)) {
        message(&fields);
        presence(&fields);
    }
});

/// Any bytes: what decodes means the same after a second journey, and its bytes stay the same from the first encoding
/// on.
fn raw(bytes: &[u8]) {
    let envelope = match Envelope::decode(bytes) {
        Ok(envelope) => envelope,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let wire = envelope.encode();
    let again = Envelope::decode(&wire).expect("its own encoding");
    assert_eq!(again, envelope);
    assert_eq!(again.encode(), wire);
    is_sound(envelope);
}

/// What `decode` promises of the fields.
fn is_sound(envelope: Envelope) {
    assert!(!envelope.node_id.is_empty());
    let to = envelope.recipients();
    if envelope.kind == EnvelopeKind::Presence {
        if let Ok(presence) = envelope.to_presence() {
            let again = Envelope::presence(&presence);
            assert_eq!(again.to_presence().expect("its own encoding"), presence);
        }
        assert_eq!(envelope.msg_type, 0);
        assert!(envelope.into_message().is_none());
        return;
    }
    assert!(envelope.to_presence().is_err());
    assert!(!to.is_empty());
    for recipient in to {
        match recipient {
            Recipient::All => {}
            Recipient::Room(name) => assert!(!name.is_empty() && name.len() <= MAX_ROOM_NAME),
            Recipient::User(name) | Recipient::Client(name) => assert!(!name.is_empty()),
            other => panic!("{other:?} is not checked"),
        }
    }
    let (is_text, data) = (envelope.msg_type == 1, envelope.data.clone());
    let message = envelope.into_message().expect("not presence");
    assert_eq!(message.is_text(), is_text);
    assert_eq!(message.payload(), &data);
    assert_eq!(message.as_text().is_some(), is_text);
}

/// Any message: it crosses, if its recipient can be named.
fn message(fields: &Fields<'_>) {
    let name = fields.name.to_owned();
    let to = match fields.to % 4 {
        0 => Recipient::All,
        1 => Recipient::Room(name),
        2 => Recipient::User(name),
        _ => Recipient::Client(name),
    };
    let mut message =
        if fields.is_text { Message::text(fields.text.to_owned()) } else { Message::binary(fields.payload.to_vec()) };
    if let Some((name, id, millis)) = fields.event {
        message = message.with_event_name(name).with_event_id(id);
        message = message.with_retry(std::time::Duration::from_millis(u64::from(millis)));
    }
    let except: Vec<_> = fields.except.iter().map(ToString::to_string).collect();
    let can_be_named = match &to {
        Recipient::All => true,
        Recipient::Room(name) => !name.is_empty() && name.len() <= MAX_ROOM_NAME,
        Recipient::User(name) | Recipient::Client(name) => !name.is_empty(),
        other => panic!("{other:?} is not checked"),
    };
    let made = Envelope::message(fields.node, &to, except.clone(), &message);
    assert_eq!(made.is_some(), can_be_named);
    let Some(envelope) = made else { return };
    let wire = envelope.encode();
    let again = Envelope::decode(&wire);
    if fields.node.is_empty() {
        return assert!(again.is_err());
    }
    let again = again.expect("well-formed");
    assert_eq!(again, envelope);
    assert_eq!((again.recipients(), &again.except), (vec![to], &except));
    let received = again.into_message().expect("not presence");
    assert_eq!((received.payload(), received.is_text()), (message.payload(), message.is_text()));
}

fn presence(fields: &Fields<'_>) {
    let rooms = fields.counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let mut presence = Presence::new(fields.node, fields.counts.len() as u64, rooms, fields.ts);
    presence.gone = fields.is_text;
    let again = Envelope::decode(&Envelope::presence(&presence).encode());
    match again {
        Ok(again) => assert_eq!(again.to_presence().expect("well-formed"), presence),
        Err(_) => assert!(fields.node.is_empty()),
    }
}
