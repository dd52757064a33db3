//! HTTP/1.1 as far as a WebSocket server needs it: request heads, responses, origins. No I/O.

mod head;
mod origin;
mod response;

pub use head::{HeadError, MAX_HEAD, MAX_HEADERS, RequestHead};
pub use origin::OriginPolicy;
pub use response::Response;
