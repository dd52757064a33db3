//! The wire forms of room publications, one for each codec.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::codec::Codec;
use super::wire::reply::{ClientInfo, Publication, Push, Reply, Unsubscribe};
use crate::Message;
use crate::history::{self, Format, Gap, Publish, Sealed};

/// The code of an unsubscribe push after which the SDK subscribes again, and recovers or informs the application.
pub(super) const INSUFFICIENT_STATE: u32 = 2500;

/// The data that this protocol attaches to a publication: bytes, so that it travels with a shared history.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached {
    /// The client that has published; `None` for the program.
    pub(super) info: Option<ClientInfo>,
    pub(super) tags: BTreeMap<String, String>,
}

impl Attached {
    /// Attaches the data, if there is any.
    pub(super) fn to(&self, publish: Publish) -> Publish {
        let Self { info, tags } = self.clone();
        let bytes = Bytes::from(Publication { info, tags, ..Publication::default() }.encode_to_vec());
        let length = bytes.len();
        if bytes.is_empty() { publish } else { publish.attach(bytes, length) }
    }

    fn of(publication: &history::Publication) -> Self {
        let bytes = publication.attachment::<Bytes>().cloned().unwrap_or_default();
        // Bytes that other code has attached are no such message, or decode to nothing.
        let Publication { info, tags, .. } = Publication::decode(bytes).unwrap_or_default();
        Self { info, tags }
    }
}

/// A publication as sent to clients. A value of a state has a key instead of an offset.
pub(super) fn shown(publication: &history::Publication) -> Publication {
    let Attached { info, tags } = Attached::of(publication);
    Publication {
        data: publication.message().payload().clone(),
        info,
        offset: if publication.key().is_none() { publication.offset() } else { 0 },
        tags,
        key: publication.key().unwrap_or_default().to_owned(),
        removed: publication.is_removal(),
        ..Publication::default()
    }
}

/// The format of one codec's clients.
#[derive(Debug)]
pub(super) struct Pushes(Codec);

pub(super) static JSON: Pushes = Pushes(Codec::Json);
pub(super) static PROTOBUF: Pushes = Pushes(Codec::Protobuf);

impl Pushes {
    fn push(&self, push: Push) -> Message {
        self.0.encode(&[Reply { push: Some(push), ..Reply::default() }])
    }
}

impl Sealed for Pushes {}

impl Format for Pushes {
    fn name(&self) -> &'static str {
        match self.0 {
            Codec::Json => "centrifuge",
            Codec::Protobuf => super::PROTOBUF,
        }
    }

    fn message(&self, publication: &history::Publication) -> Option<Message> {
        let channel = publication.room().to_owned();
        Some(self.push(Push { channel, publication: Some(shown(publication)), ..Push::default() }))
    }

    /// The SDK subscribes again and learns that it cannot recover. It ignores pushes until then.
    fn gap(&self, gap: &Gap) -> Option<Message> {
        let unsubscribe = Unsubscribe { code: INSUFFICIENT_STATE, reason: "insufficient state".to_owned() };
        Some(self.push(Push { channel: gap.room().to_owned(), unsubscribe: Some(unsubscribe), ..Push::default() }))
    }
}
