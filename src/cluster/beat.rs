//! The wire form of a heartbeat, and its division into envelopes that the bus accepts. No I/O.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, EnvelopeError};
use super::fields::{Presence, is_false, or_empty};
use super::gojson;

/// Maximum number of envelopes in one heartbeat. It bounds the memory of a receiver that waits for the rest.
const MAX_PARTS: u32 = 1024;

/// The payload of a presence envelope: a [`Presence`], plus fields that Go nodes ignore. Empty fields are omitted, so
/// that an ordinary heartbeat is byte-identical to a Go node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beat {
    pub(super) node_id: String,
    /// All clients of the node, even if `rooms` holds only a part of the rooms.
    pub(super) client_count: u64,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) rooms: BTreeMap<String, u64>,
    /// When the node sent it, in Unix milliseconds. For diagnostics only.
    #[serde(default)]
    pub(super) ts: i64,
    /// Distinguishes the node from an earlier one with the same id. Present in heartbeats that announce the node and in
    /// its farewell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<String>,
    /// Set if this envelope holds a part of the rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<Part>,
    /// The node is leaving.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) gone: bool,
}

/// The position of an envelope in a heartbeat that needs several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Number of the heartbeat; it grows by one each time.
    pub(super) beat: u64,
    /// Index of the part, from 0.
    pub(super) index: u32,
    /// Number of parts.
    pub(super) of: u32,
}

impl Part {
    /// Returns whether the position is valid.
    pub(super) fn is_valid(self) -> bool {
        self.index < self.of && self.of <= MAX_PARTS
    }
}

impl From<Presence> for Beat {
    fn from(presence: Presence) -> Self {
        let Presence { node_id, client_count, rooms, ts, gone } = presence;
        Self { node_id, client_count, rooms, ts, run: None, part: None, gone }
    }
}

/// A heartbeat as envelopes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// Each is within the limit. Empty if even a heartbeat without rooms is too large.
    pub(super) envelopes: Vec<Bytes>,
    /// Rooms whose counts did not fit.
    pub(super) rooms_left_out: usize,
}

impl Beat {
    pub(super) fn decode(envelope: &Envelope) -> Result<Self, EnvelopeError> {
        serde_json::from_slice(&envelope.data).map_err(EnvelopeError::Json)
    }

    fn envelope(&self) -> Vec<u8> {
        Envelope::presence_of(&self.node_id, gojson::to_vec(self)).encode()
    }

    /// Encodes the heartbeat in envelopes of at most `limit` bytes: one if that suffices, otherwise several parts with
    /// the same number, `beat`. Rooms that fit into no part, or would need more than the maximum number of parts, are
    /// left out.
    pub(super) fn encode(&self, beat: u64, limit: usize) -> Encoded {
        let whole = self.envelope();
        if whole.len() <= limit {
            return Encoded { envelopes: vec![whole.into()], rooms_left_out: 0 };
        }
        let groups = self.groups(beat, limit);
        let of = u32::try_from(groups.len()).unwrap_or(MAX_PARTS);
        let part = |(rooms, index)| {
            // A single part is not marked as a part.
            let part = (of > 1).then_some(Part { beat, index, of });
            Self { rooms, part, ..self.without_rooms() }
        };
        let parts = groups.into_iter().zip(0..).map(part);
        let (mut envelopes, mut sent) = (Vec::new(), 0);
        for part in parts {
            let envelope = part.envelope();
            if envelope.len() <= limit {
                sent += part.rooms.len();
                envelopes.push(envelope.into());
            }
        }
        Encoded { envelopes, rooms_left_out: self.rooms.len() - sent }
    }

    /// Divides the rooms, in order, so that each group fits into a part. Returns at least one group, perhaps an empty
    /// one.
    fn groups(&self, beat: u64, limit: usize) -> Vec<BTreeMap<String, u64>> {
        let longest = Part { beat, index: MAX_PARTS, of: MAX_PARTS };
        let empty = Self { part: Some(longest), ..self.without_rooms() };
        let payload = gojson::to_vec(&empty).len();
        // Base64 turns three bytes of the payload into four, and pads the end.
        let frame = empty.envelope().len() - payload.div_ceil(3) * 4;
        let space = (limit.saturating_sub(frame) / 4 * 3).saturating_sub(payload);
        let (mut groups, mut used) = (vec![BTreeMap::new()], 0);
        for (name, count) in &self.rooms {
            // `"name":count,`
            let size = gojson::to_vec(name).len() + count.to_string().len() + 2;
            if size > space {
                continue;
            }
            if used + size > space {
                if groups.len() >= MAX_PARTS as usize {
                    break;
                }
                groups.push(BTreeMap::new());
                used = 0;
            }
            used += size;
            if let Some(group) = groups.last_mut() {
                group.insert(name.clone(), *count);
            }
        }
        groups
    }

    fn without_rooms(&self) -> Self {
        Self {
            node_id: self.node_id.clone(),
            client_count: self.client_count,
            rooms: BTreeMap::new(),
            ts: self.ts,
            run: self.run.clone(),
            part: None,
            gone: self.gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(rooms: BTreeMap<String, u64>, run: Option<String>) -> Beat {
        Beat { node_id: "n<1>".into(), client_count: u64::MAX, rooms, ts: -1, run, part: None, gone: false }
    }

    fn decode(envelope: &Bytes) -> Beat {
        Beat::decode(&Envelope::decode(envelope).expect("an envelope")).expect("a heartbeat")
    }

    fn rooms() -> impl Strategy<Value = BTreeMap<String, u64>> {
        let count = prop_oneof![0..10u64, any::<u64>()];
        proptest::collection::btree_map("[a-z<&\"\u{2028}ä]{1,40}", count, 0..100)
    }

    #[test]
    fn one_that_fits_has_the_bytes_of_a_go_node() {
        let rooms = BTreeMap::from([("lobby".to_owned(), 2)]);
        let presence = Presence { node_id: "node-a".into(), client_count: 2, rooms, ts: 7, gone: false };
        let encoded = Beat::from(presence.clone()).encode(1, 10_000);
        assert_eq!(encoded.envelopes, [Envelope::presence(&presence).encode()]);
    }

    #[test]
    fn three_thousand_rooms_fit_into_envelopes_of_60_000_bytes() {
        let rooms = (0..3000).map(|n| (format!("sensors/floor-{n}/temperature"), n)).collect();
        let encoded = beat(rooms, None).encode(7, 60_000);
        assert!((2..5).contains(&encoded.envelopes.len()), "{}", encoded.envelopes.len());
        assert_eq!(encoded.rooms_left_out, 0);
    }

    #[test]
    fn what_cannot_be_said_is_left_out_and_the_count_stays() {
        let rooms = BTreeMap::from([("x".repeat(300), 1), ("y".into(), 2)]);
        let encoded = beat(rooms.clone(), None).encode(7, 350);
        let parts: Vec<_> = encoded.envelopes.iter().map(decode).collect();
        assert_eq!((parts.len(), parts[0].rooms.len(), parts[0].part), (1, 1, None));
        assert_eq!((parts[0].client_count, encoded.rooms_left_out), (u64::MAX, 1));
        assert_eq!(beat(rooms, None).encode(7, 50), Encoded { envelopes: vec![], rooms_left_out: 2 });
        let many = (0..20_000).map(|n| (format!("{n:080}"), n)).collect();
        let encoded = beat(many, None).encode(7, 400);
        assert_eq!(encoded.envelopes.len(), MAX_PARTS as usize);
        assert!(encoded.rooms_left_out > 10_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_are_within_the_limit_and_add_up(
            rooms in rooms(), run in proptest::option::of("[a-z]{8}"), number in any::<u64>(), limit in 1usize..8000,
        ) {
            let whole = beat(rooms, run);
            let Encoded { envelopes, rooms_left_out } = whole.encode(number, limit);
            let parts: Vec<Beat> = envelopes.iter().map(decode).collect();
            let mut told = BTreeMap::new();
            for (index, (part, envelope)) in parts.iter().zip(&envelopes).enumerate() {
                prop_assert!(envelope.len() <= limit);
                prop_assert_eq!(&Beat { rooms: BTreeMap::new(), part: None, ..part.clone() }, &whole.without_rooms());
                let place = Part { beat: number, index: index.try_into()?, of: parts.len().try_into()? };
                prop_assert_eq!(part.part, (parts.len() > 1).then_some(place));
                prop_assert!(place.is_valid());
                told.extend(part.rooms.clone());
            }
            prop_assert_eq!(told.len(), parts.iter().map(|part| part.rooms.len()).sum::<usize>(), "no room twice");
            prop_assert!(told.iter().all(|room| whole.rooms.get_key_value(room.0) == Some(room)));
            prop_assert_eq!(told.len() + rooms_left_out, whole.rooms.len());
            // A limit with space for the longest of these names leaves out no room.
            if limit > 1500 {
                prop_assert_eq!(rooms_left_out, 0);
            }
        }
    }
}
