//! The parts of HTTP/1.1 that a WebSocket server needs: request heads, bodies, responses, event streams, origins, and
//! client addresses behind proxies. No I/O.

mod chunked;
mod cors;
mod event_stream;
mod fields;
mod forwarded;
mod head;
mod origin;
mod response;
mod response_parse;
mod return_time;

pub(crate) use chunked::{ChunkError, ChunkedDecoder, LAST_CHUNK, encode_chunk};
pub(crate) use cors::{Cors, is_preflight, preflight};
pub(crate) use event_stream::{EventFields, encode_comment, encode_event_chunk, event_stream_head, last_event_id};
pub use forwarded::ForwardedHeader;
pub(crate) use forwarded::TrustedProxies;
pub(crate) use head::Framing;
pub use head::{HeadError, MAX_HEAD, MAX_HEADERS, RequestHead};
pub use origin::OriginPolicy;
pub use response::Response;
pub(crate) use return_time::{come_back_later, encode_retry, overloaded, return_time, unavailable};
