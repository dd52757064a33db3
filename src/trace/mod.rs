//! Traces of inbound messages, one for each: what ran, how long it took, what was sent, and the outcome.
//!
//! ```
//! use std::time::Duration;
//! use wshub::Hub;
//! use wshub::trace::{Sampling, Tracer};
//!
//! // At most 20 traces a second; the newest 500 are kept.
//! let tracer = Tracer::new(500).sample(Sampling::PerSecond(20));
//! let hub = Hub::builder().tracer(tracer.clone()).build()?;
//! // … while it serves:
//! for trace in tracer.recent(10) {
//!     println!("{} {:?} took {:?}: {:?}", trace.client, trace.event, trace.duration, trace.outcome);
//! }
//! let live = tracer.subscribe(64);
//! if let Ok(trace) = live.recv_timeout(Duration::ZERO) {
//!     println!("{}", serde_json::to_string(&*trace)?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A trace begins when a whole message has arrived and ends when its hooks and handlers have returned. Upgrades, pings
//! and closes by the peer have no trace. The spans are the parts that ran on the connection's thread: hooks, the
//! handlers, each middleware of a [`Chain`](crate::middleware::Chain), each send, and each [`span`] of the application.
//! Work of other threads for a message is not part of its trace.
//!
//! Without a tracer, a hub pays one branch for each message, and a check of a thread-local flag for each send, hook and
//! middleware. A tracer that is [off](Sampling::Off) adds one load. Neither allocates or reads a clock. A recorded
//! message costs some allocations, and two clock reads for each span.

mod current;
mod record;
mod sampling;
mod subscription;
mod tracer;

pub use current::{SpanGuard, name_event, span};
pub(crate) use current::{begin_send, begin_span, note_close, note_error, note_panic};
pub use record::{MAX_SPANS, Outcome, SendSpan, Span, SpanKind, Trace};
pub use sampling::Sampling;
pub use subscription::{RecvTimeoutError, Subscription};
pub use tracer::Tracer;
