//! Code that runs around a message handler: logging, recovery from panics, metrics and an application's own.
//!
//! ```
//! use std::sync::Arc;
//! use wshub::middleware::{Chain, Logging, RecordMetrics, Recovery};
//! use wshub::{Hub, metrics::DebugMetrics};
//!
//! let metrics = Arc::new(DebugMetrics::new());
//! let chain = Chain::new(|client, message| {
//!     client.send(message)?;
//!     Ok(())
//! })
//! .wrap(RecordMetrics::new(metrics.clone()))
//! .wrap(Logging)
//! .wrap(Recovery)
//! .wrap_fn(|client, message, next| {
//!     if client.user_id().is_none() {
//!         return Err("log in first".into());
//!     }
//!     next.run(client, message)
//! });
//! let hub = Hub::builder().metrics(metrics).without_handler_latency().on_message(chain.into_handler()).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The first middleware is the outermost: here the metrics see the result of all others. A chain is built once and
//! allocates nothing itself when a message runs through it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

pub use crate::error::HandlerPanic;

use crate::error::{HandlerError, HandlerResult};
use crate::guard::{self, record, record_limited};
use crate::hub::Client;
use crate::message::Message;
use crate::metrics::{Metrics, guarded};
use crate::trace::{self, SpanKind};

type Handler = Box<dyn Fn(&Client, &Message) -> HandlerResult + Send + Sync>;

/// Code that runs around a message handler: before it, after it, or instead of it.
///
/// Closures of the form `|client: &Client, message: &Message, next: Next<'_>| …` are middleware too;
/// [`Chain::wrap_fn`] infers their argument types.
pub trait Middleware: Send + Sync {
    /// Handles a message, on the connection's thread. [`Next::run`] continues with the rest of the chain; without that
    /// call the message does not reach the handler.
    ///
    /// # Errors
    ///
    /// Any error that the middleware returns, its own or from the rest of the chain.
    fn handle(&self, client: &Client, message: &Message, next: Next<'_>) -> HandlerResult;

    /// The name in [traces](crate::trace), read once when the middleware is added to a chain. Default: the name of the
    /// type, without path and parameters; `closure` for closures.
    fn name(&self) -> &'static str {
        short_name::<Self>()
    }
}

impl<F: Fn(&Client, &Message, Next<'_>) -> HandlerResult + Send + Sync> Middleware for F {
    fn handle(&self, client: &Client, message: &Message, next: Next<'_>) -> HandlerResult {
        self(client, message, next)
    }
}

/// The rest of the chain: the remaining middleware, then the handler.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    rest: &'a [Link],
    handler: &'a Handler,
}

impl Next<'_> {
    /// Runs the rest of the chain with this message, which may differ from the original. May be called several times.
    ///
    /// # Errors
    ///
    /// The rest of the chain has failed.
    pub fn run(self, client: &Client, message: &Message) -> HandlerResult {
        let Some((first, rest)) = self.rest.split_first() else {
            let _span = trace::begin_span(|| (SpanKind::Handler, "handler".into()));
            return (self.handler)(client, message);
        };
        let _span = trace::begin_span(|| (SpanKind::Middleware, first.name.clone()));
        first.middleware.handle(client, message, Next { rest, ..self })
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("middleware", &self.rest.len()).finish_non_exhaustive()
    }
}

/// One middleware of a chain.
struct Link {
    /// The name in traces.
    name: Cow<'static, str>,
    middleware: Box<dyn Middleware>,
}

/// The last part of a type's path, without its parameters: `Logging`. Closures have no name of their own.
fn short_name<M: ?Sized>() -> &'static str {
    let path = std::any::type_name::<M>();
    let path = path.split('<').next().unwrap_or(path);
    match path.rsplit("::").next() {
        Some(name) if !name.starts_with('{') => name,
        _ => "closure",
    }
}

/// A handler and the middleware around it, outermost first.
#[must_use = "a chain does nothing until messages are given to it"]
pub struct Chain {
    middleware: Vec<Link>,
    handler: Handler,
}

impl Chain {
    /// Creates a chain without middleware.
    pub fn new(handler: impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static) -> Self {
        Self { middleware: Vec::new(), handler: Box::new(handler) }
    }

    /// Adds middleware inside all earlier middleware: the first one added is the outermost.
    pub fn wrap(self, middleware: impl Middleware + 'static) -> Self {
        self.wrap_named(middleware.name(), middleware)
    }

    /// Like [`wrap`](Chain::wrap), with another name for [traces](crate::trace).
    pub fn wrap_named(mut self, name: impl Into<Cow<'static, str>>, middleware: impl Middleware + 'static) -> Self {
        self.middleware.push(Link { name: name.into(), middleware: Box::new(middleware) });
        self
    }

    /// Adds a closure as middleware; like [`wrap`](Chain::wrap).
    pub fn wrap_fn(
        self,
        middleware: impl Fn(&Client, &Message, Next<'_>) -> HandlerResult + Send + Sync + 'static,
    ) -> Self {
        self.wrap(middleware)
    }

    /// Runs one message through the chain, on the calling thread.
    ///
    /// # Errors
    ///
    /// The error that the outermost middleware returns.
    pub fn handle(&self, client: &Client, message: &Message) -> HandlerResult {
        Next { rest: &self.middleware, handler: &self.handler }.run(client, message)
    }

    /// Converts the chain into a handler for [`HubBuilder::on_message`](crate::HubBuilder::on_message) or
    /// [`Client::on_message`](crate::Client::on_message).
    pub fn into_handler(self) -> impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static {
        move |client: &Client, message: &Message| self.handle(client, message)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("middleware", &self.middleware.len()).finish_non_exhaustive()
    }
}

/// Logs every message at debug level, target `wshub::middleware`: the client, the kind and length of the message, the
/// duration and the result. It never logs the content.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logging;

impl Middleware for Logging {
    fn handle(&self, client: &Client, message: &Message, next: Next<'_>) -> HandlerResult {
        let started = Instant::now();
        let result = next.run(client, message);
        let (id, took) = (client.id(), started.elapsed());
        match &result {
            Ok(()) => record!(Debug, "wshub::middleware", "{id} {message:?} handled in {took:?}"),
            Err(error) => record!(Debug, "wshub::middleware", "{id} {message:?} failed after {took:?}: {error}"),
        }
        result
    }
}

/// Turns a panic in the rest of the chain into a [`HandlerPanic`] error and logs it at error level, target
/// `wshub::middleware`. The connection stays open; without this middleware a panic closes it with 1011.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recovery;

impl Middleware for Recovery {
    fn handle(&self, client: &Client, message: &Message, next: Next<'_>) -> HandlerResult {
        guard::catch_text(|| next.run(client, message)).unwrap_or_else(|text| {
            let panic = HandlerPanic::new(text);
            record_limited!(Error, "wshub::middleware", "{} {panic}", client.id());
            Err(panic.into())
        })
    }
}

/// Records the handling time of each message and its errors by type
/// ([`HandlerError::error_type`](crate::HandlerError::error_type)). The hub counts a panic that no inner [`Recovery`]
/// catches.
///
/// The hub records the same for its handlers. If both use the same metrics, turn the hub's recording off with
/// [`HubBuilder::without_handler_latency`](crate::HubBuilder::without_handler_latency).
pub struct RecordMetrics(Arc<dyn Metrics>);

impl RecordMetrics {
    /// Records into these metrics.
    pub fn new(metrics: Arc<dyn Metrics>) -> Self {
        Self(metrics)
    }
}

impl Middleware for RecordMetrics {
    fn handle(&self, client: &Client, message: &Message, next: Next<'_>) -> HandlerResult {
        let started = Instant::now();
        let result = next.run(client, message);
        guarded(|| self.0.record_latency(started.elapsed()));
        if let Err(error) = &result {
            guarded(|| self.0.increment_errors(HandlerError::type_of(&**error)));
        }
        result
    }
}

impl fmt::Debug for RecordMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordMetrics").finish_non_exhaustive()
    }
}

impl Middleware for Box<dyn Middleware> {
    fn handle(&self, client: &Client, message: &Message, next: Next<'_>) -> HandlerResult {
        (**self).handle(client, message, next)
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }
}
