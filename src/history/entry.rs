//! A publication as stored in a shared history: bytes, the same for every node.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::publication::Publish;
use crate::client_id::ClientId;
use crate::message::Message;

/// The first byte: the form of the rest.
const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// `kind, count of exceptions (u16), 16 bytes each, length of the attachment (u32), the attachment, the payload`.
///
/// An attachment travels if it is [`Bytes`]; exceptions beyond 65,535 do not.
pub(crate) fn encode(publish: &Publish) -> Bytes {
    let attachment = publish.attachment.as_ref().and_then(|(value, _)| value.downcast_ref::<Bytes>());
    let payload = publish.message.payload();
    let count = u16::try_from(publish.except.len()).unwrap_or(u16::MAX);
    let mut bytes =
        BytesMut::with_capacity(7 + payload.len() + attachment.map_or(0, Bytes::len) + usize::from(count) * 16);
    bytes.put_u8(if publish.message.is_text() { TEXT } else { BINARY });
    bytes.put_u16(count);
    publish.except.iter().take(count.into()).for_each(|id| bytes.put_u128(id.as_uuid().as_u128()));
    // An attachment counts against the history's bytes, so 4 GiB are impossible.
    bytes.put_u32(attachment.map_or(0, |a| u32::try_from(a.len()).unwrap_or_default()));
    bytes.extend_from_slice(attachment.map_or(&[][..], |a| a));
    bytes.extend_from_slice(payload);
    bytes.freeze()
}

/// Returns `None` if another version has written the entry.
pub(crate) fn decode(entry: &[u8]) -> Option<Publish> {
    let mut rest = Bytes::copy_from_slice(entry);
    let kind = rest.try_get_u8().ok()?;
    let count = rest.try_get_u16().ok()?;
    let mut except = Vec::new();
    for _ in 0..count {
        except.push(ClientId::from(uuid::Uuid::from_u128(rest.try_get_u128().ok()?)));
    }
    let length = usize::try_from(rest.try_get_u32().ok()?).ok().filter(|length| *length <= rest.len())?;
    let attachment = rest.split_to(length);
    let message = match kind {
        TEXT => Message::text(std::str::from_utf8(&rest).ok()?),
        BINARY => Message::binary(rest),
        _ => return None,
    };
    let mut publish = Publish::new(message);
    publish.except = except;
    Some(if attachment.is_empty() { publish } else { publish.attach(attachment, length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_come_back(text: String, is_text: bool, except in 0..4_usize, attachment: Vec<u8>) {
            let message = if is_text { Message::text(text) } else { Message::binary(text.into_bytes()) };
            let mut publish = Publish::new(message);
            publish.except = (0..except).map(|_| ClientId::random()).collect();
            let length = attachment.len();
            let publish = publish.attach(Bytes::from(attachment.clone()), length);
            let back = decode(&encode(&publish)).expect("ours");
            prop_assert_eq!(&back.message, &publish.message);
            prop_assert_eq!(&back.except, &publish.except);
            let bytes = back.attachment.as_ref().and_then(|(value, _)| value.downcast_ref::<Bytes>()).cloned();
            prop_assert_eq!(bytes.unwrap_or_default(), attachment);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            decode(&bytes);
        }
    }
}
