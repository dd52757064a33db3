//! From a request head to a registered client, WebSocket or event stream, or to the HTTP response that says why not
//! (RFC 6455 §4.2).

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::RoomError;
use crate::guard::record;
use crate::http::{
    Cors, Framing, RequestHead, Response, come_back_later, event_stream_head, is_preflight, preflight, return_time,
};
use crate::hub::{Admission, Admit, Announcements, Check, Client, Hub, Refused, Rejection};
use crate::log_limit::LogLimit;
#[cfg(feature = "deflate")]
use crate::message::Window;
use crate::message::WireFormat;
use crate::metrics::ErrorType;
use crate::outbox::Outbox;
use crate::transport::{Peer, Transport};
use crate::ws;

static REFUSALS: LogLimit = LogLimit::new();

/// A request that wants to become a client.
pub(crate) struct Opening<'a> {
    pub(crate) head: RequestHead,
    pub(crate) format: WireFormat,
    /// Whether bytes followed the head.
    pub(crate) is_early: bool,
    /// The endpoint's own checks, which run before the hub's.
    pub(crate) checks: &'a [Check],
    /// The endpoint's own admission, which replaces the hub's.
    pub(crate) admit: Option<&'a Admit>,
    /// The application's decision, which replaces `on_upgrade`.
    pub(crate) admission: Option<Admission>,
}

/// A registered client whose connection has not been opened. Dropping it undoes the registration.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) client: Client,
    pub(crate) outbox: Arc<Outbox>,
    /// `None` after [`into_parts`](Self::into_parts).
    announcements: Option<Announcements>,
}

impl Upgraded {
    /// Takes the parts out. From then on, the caller must end the connection.
    pub(crate) fn into_parts(mut self) -> (Client, Arc<Outbox>, Announcements) {
        let announcements = self.announcements.take().unwrap_or_default();
        (self.client.clone(), Arc::clone(&self.outbox), announcements)
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        if let Some(announcements) = self.announcements.take() {
            self.client.hub().withdraw(&self.client, announcements);
        }
    }
}

/// The response that refuses an upgrade, and the error that is counted.
struct Refusal {
    response: Response,
    error: ErrorType,
}

impl Refusal {
    fn new(status: u16, reason: &str, error: ErrorType) -> Self {
        let response = Response::text(status, format!("{reason}\n"));
        // A temporarily refused client gets a time to return, which differs between clients.
        let is_for_now = matches!(status, 429 | 503);
        let response = if is_for_now { response.header("Retry-After", retry_after()) } else { response };
        Self { response, error }
    }

    /// Refuses because the hub drains or is stopped. An event stream is accepted and ends at once instead, because a
    /// browser never reconnects after a status other than 200.
    fn not_admitting(format: WireFormat) -> Self {
        if format.is_websocket() {
            return Self::new(503, "not accepting connections", ErrorType::ConnectionRejectedDraining);
        }
        Self { response: come_back_later(), error: ErrorType::ConnectionRejectedDraining }
    }

    fn bad(reason: &str) -> Self {
        Self::new(400, reason, ErrorType::UpgradeFailed)
    }
}

fn retry_after() -> String {
    return_time().as_secs().to_string()
}

/// Checks the request, asks the application, applies the limits and registers the client. The head must contain the
/// peer's address. When this returns a refusal, the peer has been answered; the error is the HTTP status.
pub(crate) fn upgrade(hub: &Hub, transport: Transport, mut opening: Opening<'_>) -> Result<Upgraded, u16> {
    let mut cors = Cors::default();
    // The policy is asked first, because an allowed page of another origin may also read refusals of a stream.
    let verdict = opening.wants_cors().then(|| is_allowed(hub, &opening.head));
    if verdict == Some(true) {
        cors = Cors::allowed(&opening.head, hub.origins());
        if is_preflight(&opening.head) {
            return Err(answer_preflight(&opening.head, &transport, &cors));
        }
    }
    match decide(hub, &mut opening, verdict) {
        Ok(admission) => register(hub, transport, opening, admission, &cors),
        Err(refusal) => Err(refuse(hub, &opening.head, &transport, &refusal, &cors)),
    }
}

impl Opening<'_> {
    /// Whether a page requests an event stream.
    fn wants_cors(&self) -> bool {
        self.format.is_event_stream() && self.head.header("origin").is_some()
    }
}

/// Asks the origin policy, which may run the application's code. A panic there refuses.
fn is_allowed(hub: &Hub, head: &RequestHead) -> bool {
    hub.guarded(None, "the origin policy", || hub.origins().allows(head)) == Some(true)
}

/// Tells a browser what its page may ask for.
#[cold]
#[inline(never)]
fn answer_preflight(head: &RequestHead, transport: &Transport, cors: &Cors) -> u16 {
    let response = preflight(head, cors).encode(false);
    record!(Debug, "wshub::upgrade", "{head:?} of {} answered with {}", Peer(head.remote_addr()), response.status);
    transport.answer(&response.bytes, || true);
    response.status
}

/// Not inlined, like the other steps: a step's stack frame is gone before the next step begins. So a connection's
/// resident stack is that of the deepest step, not the sum.
#[inline(never)]
fn decide(hub: &Hub, opening: &mut Opening<'_>, verdict: Option<bool>) -> Result<Admission, Refusal> {
    let Opening { head, format, is_early, checks, admit, admission } = opening;
    check(hub, head, *is_early, *format)?;
    if !verdict.unwrap_or_else(|| is_allowed(hub, head)) {
        return Err(Refusal::new(403, "origin not allowed", ErrorType::OriginRejected));
    }
    ask(hub, head, checks)?;
    admission.take().map_or_else(|| ask_to_admit(hub, head, *admit), Ok)
}

/// Checks the request itself, cheapest first.
fn check(hub: &Hub, head: &RequestHead, is_early: bool, format: WireFormat) -> Result<(), Refusal> {
    if !hub.is_admitting() {
        return Err(Refusal::not_admitting(format));
    }
    if head.method() != "GET" {
        let mut refusal = Refusal::new(405, "method not allowed", ErrorType::UpgradeFailed);
        refusal.response = refusal.response.header("Allow", "GET");
        return Err(refusal);
    }
    if format.is_websocket() {
        check_websocket(head)?;
    }
    let has_body = head.framing() != Ok(Framing::Length(0));
    if has_body || is_early {
        return Err(Refusal::bad("the request must not have a body"));
    }
    Ok(())
}

/// RFC 6455 §4.2.1.
fn check_websocket(head: &RequestHead) -> Result<(), Refusal> {
    if !head.is_http11() {
        return Err(Refusal::bad("an upgrade needs HTTP/1.1"));
    }
    if !head.has_token("upgrade", "websocket") || !head.has_token("connection", "upgrade") {
        return Err(Refusal::bad("not a WebSocket upgrade request"));
    }
    if head.header("sec-websocket-version") != Some("13") {
        let mut refusal = Refusal::new(426, "unsupported WebSocket version", ErrorType::UpgradeFailed);
        refusal.response = refusal.response.header("Sec-WebSocket-Version", "13").header("Upgrade", "websocket");
        return Err(refusal);
    }
    if ws::is_valid_key(key(head)) { Ok(()) } else { Err(Refusal::bad("missing or invalid Sec-WebSocket-Key")) }
}

fn key(head: &RequestHead) -> &str {
    head.header("sec-websocket-key").unwrap_or_default()
}

/// Runs the endpoint's checks in order.
fn ask(hub: &Hub, head: &RequestHead, checks: &[Check]) -> Result<(), Refusal> {
    checks.iter().try_for_each(|check| decided(hub.guarded(None, "a check of the endpoint", || check(head))))
}

/// Asks the endpoint, or the hub if the endpoint does not decide.
fn ask_to_admit(hub: &Hub, head: &RequestHead, admit: Option<&Admit>) -> Result<Admission, Refusal> {
    if let Some(admit) = admit {
        return decided(hub.guarded(None, "the endpoint's admit", || admit(head)));
    }
    let Some(hook) = &hub.hooks().on_upgrade else { return Ok(Admission::anonymous()) };
    decided(hub.guarded(None, "on_upgrade", || hook(head)))
}

/// Converts the application's verdict; `None` means that its code panicked.
fn decided<T>(verdict: Option<Result<T, Rejection>>) -> Result<T, Refusal> {
    match verdict {
        Some(verdict) => verdict.map_err(|rejection| Refusal {
            response: rejection.response().clone(),
            error: ErrorType::ConnectionRejected,
        }),
        None => Err(Refusal::new(500, "internal error", ErrorType::ConnectionRejected)),
    }
}

#[inline(never)]
fn register(
    hub: &Hub,
    transport: Transport,
    opening: Opening<'_>,
    admission: Admission,
    cors: &Cors,
) -> Result<Upgraded, u16> {
    let head = opening.head;
    let (subprotocol, format, response) = if opening.format.is_websocket() {
        let subprotocol = choose_subprotocol(hub, &head, admission.subprotocol);
        let (format, extensions) = agree_on_format(hub, &head);
        let response = switching_protocols(key(&head), subprotocol.as_deref(), extensions.as_deref());
        (subprotocol, format, response)
    } else {
        let format = if head.is_http11() { WireFormat::EventStream } else { WireFormat::PlainEventStream };
        (None, format, event_stream_head(head.is_http11(), cors.headers(), SystemTime::now()))
    };
    size_buffers(hub, &transport);
    let outbox = Outbox::new(transport, Arc::clone(hub.group()), format, response);
    let format = admission.format.unwrap_or(hub.format());
    let client = Client::new(hub, &outbox, head, subprotocol, format, admission.metadata, admission.extensions);
    client.set_member_json(admission.member);
    let expires_at = admission.expires_at;
    let (id, head, peer) = (client.id(), client.request(), Peer(client.remote_addr()));
    record!(Debug, "wshub::upgrade", "{id} is {peer} at {:?}", head.path());
    match hub.register(&client, admission.user, &admission.rooms) {
        Ok(announcements) => {
            if expires_at.is_some() {
                client.set_expiry(expires_at);
            }
            Ok(Upgraded { client, outbox, announcements: Some(announcements) })
        }
        Err(refused) => {
            Err(refuse(hub, client.request(), outbox.transport(), &refusal_of(&refused, opening.format), cors))
        }
    }
}

/// Applies `send_buffer` and `unsent_low_water`.
fn size_buffers(hub: &Hub, transport: &Transport) {
    let config = hub.config();
    if config.send_buffer > 0 {
        transport.set_send_buffer(config.send_buffer);
    }
    if config.unsent_low_water > 0 {
        transport.set_unsent_low_water(u32::try_from(config.unsent_low_water).unwrap_or(u32::MAX));
    }
}

fn refusal_of(refused: &Refused, format: WireFormat) -> Refusal {
    match refused {
        Refused::NotRunning => Refusal::not_admitting(format),
        Refused::TooManyConnections => Refusal::new(503, "too many connections", ErrorType::ConnectionLimit),
        Refused::TooManyOfAddress => {
            Refusal::new(429, "too many connections from this address", ErrorType::ConnectionLimit)
        }
        Refused::TooManyOfUser => Refusal::new(429, "too many connections of this user", ErrorType::ConnectionLimit),
        Refused::EmptyUser => Refusal::new(400, "empty user id", ErrorType::ConnectionRejected),
        Refused::UserTooLong => Refusal::new(400, "user id too long", ErrorType::ConnectionRejected),
        Refused::Room(RoomError::Full | RoomError::TooManyRooms) => {
            Refusal::new(503, "the room is full", ErrorType::ConnectionLimit)
        }
        Refused::Room(RoomError::EmptyName | RoomError::NameTooLong) => {
            Refusal::new(400, "unusable room name", ErrorType::ConnectionRejected)
        }
        Refused::Room(_) => Refusal::new(403, "joining the room was refused", ErrorType::ConnectionRejected),
    }
}

/// Answers, counts and logs a refusal. Returns its status.
#[cold]
#[inline(never)]
fn refuse(hub: &Hub, head: &RequestHead, transport: &Transport, refusal: &Refusal, cors: &Cors) -> u16 {
    let response = cors.apply(rewritten(hub, head, refusal)).encode(head.method() == "HEAD");
    let status = response.status;
    hub.count_error(refusal.error);
    if let Some(suppressed) = REFUSALS.pass() {
        let (error, peer, names) = (refusal.error, Peer(head.remote_addr()), OriginAndHost(head, refusal.error));
        record!(
            Info,
            "wshub::upgrade",
            "{head:?} of {peer} refused with {status}: {error}{names} ({suppressed} more not logged)"
        );
    }
    transport.answer(&response.bytes, || hub.alive());
    status
}

/// The compared values of a refused origin, for the log. They reveal a proxy that changes `Host`.
struct OriginAndHost<'a>(&'a RequestHead, ErrorType);

impl fmt::Display for OriginAndHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(head, error) = self;
        if *error != ErrorType::OriginRejected {
            return Ok(());
        }
        // A head may hold 8 KiB; 100 characters suffice to recognise the value.
        let shown = |name| head.header(name).unwrap_or_default().chars().take(100).collect::<String>();
        write!(f, ", origin {:?}, host {:?}", shown("origin"), shown("host"))
    }
}

/// The refusal's response, as rewritten by `map_refusal`.
fn rewritten(hub: &Hub, head: &RequestHead, refusal: &Refusal) -> Response {
    if refusal.response.status() < 300 {
        return refusal.response.clone();
    }
    let hook = hub.hooks().map_refusal.as_ref();
    let mapped = hook.and_then(|hook| {
        let map = || hook(head, refusal.error, &refusal.response);
        hub.guarded(None, "map_refusal", map)
    });
    mapped.filter(|response| response.status() >= 300).unwrap_or_else(|| refusal.response.clone())
}

/// Returns the hook's choice if the client offers it, otherwise the first of `Config::subprotocols` that it offers.
fn choose_subprotocol(hub: &Hub, head: &RequestHead, chosen: Option<String>) -> Option<String> {
    let is_offered = |name: &str| head.tokens("sec-websocket-protocol").any(|offered| offered == name);
    chosen
        .filter(|name| is_offered(name))
        .or_else(|| hub.config().subprotocols.iter().find(|name| is_offered(name)).cloned())
}

/// Negotiates compression. Returns the wire format and the value of the response header.
#[cfg(feature = "deflate")]
fn agree_on_format(hub: &Hub, head: &RequestHead) -> (WireFormat, Option<String>) {
    let offers = hub.config().compression.then(|| head.headers("sec-websocket-extensions"));
    match ws::negotiate(offers.into_iter().flatten()) {
        Some(deflate) => (WireFormat::Deflate(Window::of_bits(deflate.window_bits)), Some(deflate.response())),
        None => (WireFormat::WebSocket, None),
    }
}

#[cfg(not(feature = "deflate"))]
fn agree_on_format(_: &Hub, _: &RequestHead) -> (WireFormat, Option<String>) {
    (WireFormat::WebSocket, None)
}

fn switching_protocols(key: &str, subprotocol: Option<&str>, extensions: Option<&str>) -> Vec<u8> {
    let mut head = String::with_capacity(192);
    head.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    head.extend(["Sec-WebSocket-Accept: ", &ws::accept_key(key), "\r\n"]);
    if let Some(name) = subprotocol {
        head.extend(["Sec-WebSocket-Protocol: ", name, "\r\n"]);
    }
    if let Some(extensions) = extensions {
        head.extend(["Sec-WebSocket-Extensions: ", extensions, "\r\n"]);
    }
    head.push_str("\r\n");
    head.into_bytes()
}
