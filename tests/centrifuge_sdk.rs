//! The errors of the Centrifuge protocol that the example cannot cause, as the official SDK for JavaScript sees them:
//! tests/sdk/errors.mjs.
// Not over TLS: the SDK does not know the certificate.
#![cfg(feature = "centrifuge")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by a panic, and prints what the SDK did")]

mod centrifuge_suite;
mod common;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::TestServer;
use common::skip::{is_missing, is_missing_file};
use wshub::history::{Bounds, Epoch, HistoryStore, MemoryStore, Position, StoreError, StoreEvent, Stored};
use wshub::protocol::centrifuge::{
    Access, Centrifuge, ChannelOptions, CommandError, ConnectionToken, SubscriptionToken,
};
use wshub::{Client, Hub, Message, RoomOptions};

#[test]
fn each_error_is_what_the_sdk_knows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
    if is_missing("node") || is_missing_file(&folder.join("node_modules/centrifuge"), "the SDK (npm ci in tests/sdk)") {
        return;
    }
    let store = Sticky::default();
    let hub = Hub::builder()
        .rooms("*", RoomOptions::history())
        .rooms("too_many_requests_*", RoomOptions::history().shared())
        .history_store(store.clone());
    let server = TestServer::of(protocol(&store).install(hub).build().unwrap(), |server| server);
    let url = format!("ws://{}/ws", server.addr);
    let output = Command::new("node").arg("errors.mjs").arg(&url).current_dir(&folder).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert_eq!(told.lines().filter(|line| line.starts_with("ok ")).count(), 12);
}

fn protocol(store: &Sticky) -> Centrifuge {
    let (known, store) = (Mutex::new(HashSet::new()), store.clone());
    Centrifuge::new()
        .connection_tokens(|user| {
            let token = ConnectionToken::user(user);
            Ok(if user == "own" { token.channel("own") } else { token })
        })
        .subscription_tokens(|text| {
            let (user, expires_at) = centrifuge_suite::token(text)?;
            let token = SubscriptionToken::new(user, "secret");
            Ok(expires_at.map_or(token.clone(), |time| token.expires_at(time)))
        })
        .on_connecting(|_, connecting| match connecting.user {
            "eve" => Err(CommandError::UNAUTHORIZED.into()),
            _ => Ok(None),
        })
        .channels(|channel| {
            let options = ChannelOptions::default().publish(Access::Subscribers);
            (!channel.starts_with("nowhere:")).then_some(options)
        })
        .on_subscribe(move |_, subscribing| {
            let is_first = known.lock().unwrap().insert(subscribing.channel.to_owned());
            if is_first && subscribing.channel.starts_with("flaky:") {
                return Err(CommandError::INTERNAL.into());
            }
            Ok(None)
        })
        .rpc("broken", |_, _| Err(CommandError::INTERNAL))
        .rpc("login", |_, _| Err(CommandError::UNAUTHORIZED))
        .rpc("stick", move |client, data| stick(client, data, &store))
}

/// Stops the store until its queue is full, or lets it go on until its queue is empty.
fn stick(client: &Client, data: &Message, store: &Sticky) -> Result<Message, CommandError> {
    let wanted = data.parse_json().map_err(|_| CommandError::BAD_REQUEST)?;
    store.is_stuck.store(wanted, Ordering::SeqCst);
    let publish = || client.hub().publish("too_many_requests_filler", "0").delivery.published;
    if wanted {
        publish();
        // From then on nothing is taken out of the queue.
        common::eventually("an append waits", || store.waits.load(Ordering::SeqCst));
        while publish() {}
    } else {
        common::eventually("the queue is empty", publish);
    }
    Ok(Message::text("null"))
}

/// A store whose appends wait while it is stuck.
#[derive(Debug, Clone, Default)]
struct Sticky {
    store: MemoryStore,
    is_stuck: Arc<AtomicBool>,
    /// An append waits.
    waits: Arc<AtomicBool>,
}

impl HistoryStore for Sticky {
    fn append(&self, room: &str, entry: &[u8], bounds: Bounds) -> Result<Position, StoreError> {
        while self.is_stuck.load(Ordering::SeqCst) {
            self.waits.store(true, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(10));
        }
        self.waits.store(false, Ordering::SeqCst);
        self.store.append(room, entry, bounds)
    }

    fn read(&self, room: &str, after: u64, bounds: Bounds) -> Result<Stored, StoreError> {
        self.store.read(room, after, bounds)
    }

    fn renew(&self, room: &str, old: Epoch) -> Result<Epoch, StoreError> {
        self.store.renew(room, old)
    }

    fn clear(&self, room: &str) -> Result<(), StoreError> {
        self.store.clear(room)
    }

    fn follow(&self, on: &mut dyn FnMut(StoreEvent<'_>) -> bool) -> Result<(), StoreError> {
        self.store.follow(on)
    }
}
