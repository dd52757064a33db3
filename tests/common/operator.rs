//! An operator at the dashboard: its page without a browser.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wshub::{Admission, Hub, HubBuilder, dashboard::Dashboard};

use super::stream::SseClient;
use super::{PATIENCE, TestServer, exchange, split_answer};

pub(crate) const PASSWORD: &str = "a:b ü";

pub(crate) fn credentials(password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("ann:{password}")))
}

pub(crate) fn dashboard(hub: &Hub) -> Dashboard {
    Dashboard::new(hub).auth(Dashboard::basic("ann", PASSWORD))
}

/// Clients say by their query who they are and where they want to be.
pub(crate) fn builder() -> HubBuilder {
    Hub::builder().on_upgrade(|head| {
        let admission = head.query_param("user").map_or_else(Admission::anonymous, Admission::user);
        Ok(head.query_param("room").into_iter().fold(admission, Admission::room))
    })
}

pub(crate) fn serve(builder: HubBuilder) -> TestServer {
    let hub = builder.build().unwrap();
    let shown = dashboard(&hub);
    TestServer::of(hub, |server| server.dashboard("/admin", shown))
}

/// Sends a request as the operator's page would, with changed headers; gives the answer.
pub(crate) fn ask(server: &TestServer, line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n{headers}\r\n", server.addr);
    exchange(server.addr, format!("{head}{body}").as_bytes())
}

pub(crate) fn own_headers() -> String {
    credentials(PASSWORD) + "Content-Type: application/json\r\nX-Wshub-Dashboard: 1\r\n"
}

/// Status and JSON of an action.
pub(crate) fn act(server: &TestServer, action: &str) -> (u16, Value) {
    let (status, body) = split_answer(&ask(server, "POST /admin/actions", &own_headers(), action));
    (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
}

/// A page that watches.
pub(crate) struct Viewer(pub(crate) SseClient);

impl Viewer {
    pub(crate) fn open(server: &TestServer, query: &str) -> (Self, Value) {
        let mut stream = SseClient::connect(server.addr, &format!("/admin/events{query}"), &credentials(PASSWORD));
        let hello = stream.event();
        assert_eq!(hello.name.as_deref(), Some("hello"));
        (Self(stream), serde_json::from_str(&hello.data).unwrap())
    }

    pub(crate) fn tick(&mut self) -> Value {
        let event = self.0.event();
        assert_eq!(event.name.as_deref(), Some("tick"));
        serde_json::from_str(&event.data).unwrap()
    }

    /// The first tick of which this holds.
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tick = self.tick();
            if condition(&tick) {
                return tick;
            }
            assert!(Instant::now() < deadline, "{what}: {tick}");
        }
    }
}
