//! A WebSocket hub for programs without an async runtime.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(not(unix))]
compile_error!("wshub needs a Unix system: it writes to blocking sockets without blocking, and serves Unix sockets");

mod config;
mod conn;
mod error;
mod http;
mod hub;
mod log_limit;
mod message;
mod metrics;
mod outbox;
mod server;
mod transport;
mod ws;

pub use config::{Config, DropPolicy, Limits, RatePolicy};
pub use conn::{Accept, AcceptError};
pub use error::{CloseError, ConfigError, DeadlineError, HandlerError, HandlerResult, RoomError, SendError, UserError};
pub use http::{HeadError, MAX_HEAD, MAX_HEADERS, OriginPolicy, RequestHead, Response};
pub use hub::{
    Admission, Client, ClientId, Delivery, Health, Hub, HubBuilder, HubState, MAX_ROOM_NAME, RateLimiter, Rejection,
    Target, TokenBucket,
};
pub use message::Message;
pub use metrics::{DebugMetrics, DebugStats, ErrorType, Metrics};
pub use outbox::Cork;
pub use server::{Listener, Request, Server, ServerHandle};
pub use transport::Transport;
pub use ws::{MessageKind, close_code};
