//! HTTP/1.1 as far as a WebSocket server needs it: request heads, responses, event streams, origins. No I/O.

mod event_stream;
mod head;
mod origin;
mod response;

pub(crate) use event_stream::{EventFields, encode_comment, encode_event, event_stream_head};
pub use head::{HeadError, MAX_HEAD, MAX_HEADERS, RequestHead};
pub use origin::OriginPolicy;
pub use response::Response;
pub(crate) use response::overloaded;
