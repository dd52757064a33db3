//! The implementation of each method.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::error::{CommandError, Disconnect};
use super::super::formats::Attached;
use super::super::members;
use super::super::message_of;
use super::super::nodes::{About, Nodes};
use super::super::recover::{self, Recording};
use super::super::session::Session;
use super::super::subscribe;
use super::super::wire::command::{History, Subscribe};
use super::answer::{Published, part, response};
use super::idempotency::Idempotency;
use super::request::{Channel, Channels, OfUser, Publish, checked, matches, payload};
use crate::cluster::ClusterNode;
use crate::{Client, ClientId, Hub, Response};

/// Maximum number of publications in one answer.
const MAX_HISTORY: usize = 10_000;

/// How long an answer waits for a shared history.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request.
pub(super) struct Call<'a> {
    pub(super) hub: &'a Hub,
    pub(super) idempotency: &'a Idempotency,
    pub(super) body: &'a [u8],
}

/// A method of the API.
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) run: fn(&Call<'_>) -> Response,
    /// Whether every node of a cluster runs it, for its own clients.
    pub(super) is_for_all: bool,
}

impl Method {
    const fn of_one(name: &'static str, run: fn(&Call<'_>) -> Response) -> Self {
        Self { name, run, is_for_all: false }
    }

    const fn of_all(name: &'static str, run: fn(&Call<'_>) -> Response) -> Self {
        Self { name, run, is_for_all: true }
    }
}

pub(super) static ALL: [Method; 11] = [
    Method::of_one("publish", |call| call.run(Call::publish)),
    Method::of_one("broadcast", |call| call.run(Call::broadcast)),
    Method::of_all("subscribe", |call| call.run(Call::subscribe)),
    Method::of_all("unsubscribe", |call| call.run(Call::unsubscribe)),
    Method::of_all("disconnect", |call| call.run(Call::disconnect)),
    Method::of_one("presence", |call| call.run(Call::presence)),
    Method::of_one("presence_stats", |call| call.run(Call::presence_stats)),
    Method::of_one("history", |call| call.run(Call::history)),
    Method::of_one("history_remove", |call| call.run(Call::history_remove)),
    Method::of_one("channels", |call| call.run(Call::channels)),
    Method::of_one("info", |call| call.run(Call::info)),
];

#[derive(Serialize)]
struct Empty {}

#[allow(clippy::unnecessary_wraps, reason = "one signature for all methods")]
impl Call<'_> {
    /// Runs a method. An invalid body is answered with 400, as in Centrifugo.
    fn run<A: DeserializeOwned, R: Serialize>(&self, method: fn(&Self, &A) -> Result<R, CommandError>) -> Response {
        let body = if self.body.is_empty() { b"{}" } else { self.body };
        match serde_json::from_slice(body) {
            Ok(request) => response(method(self, &request)),
            Err(error) => Response::text(400, format!("invalid request: {error}\n")),
        }
    }

    fn publish(&self, request: &Publish) -> Result<Published, CommandError> {
        let data = request.payload()?;
        self.publish_to(&request.channel, &data, request)
    }

    fn broadcast(&self, request: &Publish) -> Result<impl Serialize + use<>, CommandError> {
        let data = request.payload()?;
        if request.channels.is_empty() {
            return Err(CommandError::BAD_REQUEST);
        }
        let responses: Vec<_> =
            request.channels.iter().map(|channel| part(self.publish_to(channel, &data, request))).collect();
        Ok(BTreeMap::from([("responses", responses)]))
    }

    fn publish_to(&self, channel: &str, data: &Bytes, request: &Publish) -> Result<Published, CommandError> {
        let channel = checked(channel)?;
        let publish = || {
            let attached = Attached { info: None, tags: request.tags.clone() };
            let recording = if request.skip_history { Recording::Skipped } else { Recording::Awaited(PATIENCE) };
            recover::publish(self.hub, channel, &message_of(data), &attached, recording)
        };
        let place = match request.idempotency_key.as_str() {
            "" => publish(),
            key => self.idempotency.once(channel, key, publish),
        };
        place.map(Published::from)
    }

    fn subscribe(&self, request: &OfUser) -> Result<Empty, CommandError> {
        checked(&request.channel)?;
        let info = payload(request.info.as_deref(), request.b64info.as_deref())?.unwrap_or_default();
        let data = payload(request.data.as_deref(), request.b64data.as_deref())?;
        let since = request.recover_since.clone();
        let wish = Subscribe {
            channel: request.channel.clone(),
            recover: since.is_some(),
            epoch: since.as_ref().map(|since| since.epoch.clone()).unwrap_or_default(),
            offset: since.map(|since| since.offset).unwrap_or_default(),
            ..Subscribe::default()
        };
        for (client, session) in self.connections(request)? {
            if session.is_connected() && !session.is_subscribed(&wish.channel) {
                let data = data.as_ref().map(message_of);
                match subscribe::subscribe_by_server(&client, &session, &wish, data, info.clone()) {
                    // By another thread, just now.
                    Err(error) if error == CommandError::ALREADY_SUBSCRIBED => {}
                    result => result?,
                }
            }
        }
        Ok(Empty {})
    }

    fn unsubscribe(&self, request: &OfUser) -> Result<Empty, CommandError> {
        checked(&request.channel)?;
        for (client, session) in self.connections(request)? {
            subscribe::end(&client, &session, &request.channel, subscribe::BY_SERVER);
        }
        Ok(Empty {})
    }

    fn disconnect(&self, request: &OfUser) -> Result<Empty, CommandError> {
        let disconnect = match &request.disconnect {
            Some(wanted) if wanted.code != 0 => Disconnect::new(wanted.code, wanted.reason.clone()),
            _ => Disconnect::FORCE_NO_RECONNECT,
        };
        for (client, _) in self.connections(request)? {
            if !request.whitelist.contains(&client.id().to_string()) {
                disconnect.close(&client);
            }
        }
        Ok(Empty {})
    }

    /// The user's connections on this node, or only the named one.
    fn connections(&self, request: &OfUser) -> Result<Vec<(Client, std::sync::Arc<Session>)>, CommandError> {
        let clients = match (request.client.as_str(), request.user.as_str()) {
            ("", "") => return Err(CommandError::BAD_REQUEST),
            ("", user) => self.hub.user_clients(user),
            (client, user) => {
                let named = client.parse::<ClientId>().ok().and_then(|id| self.hub.client(id));
                named.filter(|client| client.user_id().as_deref().unwrap_or_default() == user).into_iter().collect()
            }
        };
        let with_session = |client: Client| Some((client.clone(), Session::of(&client)?));
        Ok(clients.into_iter().filter_map(with_session).collect())
    }

    fn presence(&self, request: &Channel) -> Result<impl Serialize + use<>, CommandError> {
        let channel = checked(&request.channel)?;
        Ok(BTreeMap::from([("presence", members::presence(self.hub, channel))]))
    }

    fn presence_stats(&self, request: &Channel) -> Result<impl Serialize + use<>, CommandError> {
        let stats = members::presence_stats(self.hub, checked(&request.channel)?);
        Ok(BTreeMap::from([("num_clients", stats.num_clients), ("num_users", stats.num_users)]))
    }

    fn history(&self, request: &History) -> Result<impl Serialize + use<>, CommandError> {
        checked(&request.channel)?;
        recover::page(self.hub, request, MAX_HISTORY)
    }

    fn history_remove(&self, request: &Channel) -> Result<Empty, CommandError> {
        recover::remove(self.hub, checked(&request.channel)?)?;
        Ok(Empty {})
    }

    fn channels(&self, request: &Channels) -> Result<impl Serialize + use<>, CommandError> {
        let is_asked = |name: &str| request.pattern.is_empty() || matches(&request.pattern, name);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for node in self.hub.cluster_nodes() {
            for (name, count) in node.rooms.into_iter().filter(|(name, _)| is_asked(name)) {
                *counts.entry(name).or_default() += count;
            }
        }
        let channels: BTreeMap<String, BTreeMap<&str, usize>> =
            counts.into_iter().map(|(name, count)| (name, BTreeMap::from([("num_clients", count)]))).collect();
        Ok(BTreeMap::from([("channels", channels)]))
    }

    fn info(&self, _: &Channels) -> Result<impl Serialize + use<>, CommandError> {
        // Heartbeats do not tell users and uptimes.
        let mut about = Nodes::ask(self.hub);
        about.insert(self.hub.node_id().to_owned(), About::own(self.hub));
        let show = |node: &ClusterNode| {
            let About { users, uptime } = about.get(&node.id).copied().unwrap_or_default();
            serde_json::json!({
                "uid": node.id,
                "name": node.id,
                "version": super::super::VERSION,
                "num_clients": node.clients,
                "num_subs": node.rooms.values().sum::<usize>(),
                "num_channels": node.rooms.len(),
                "num_users": users,
                "uptime": uptime,
            })
        };
        let nodes: Vec<_> = self.hub.cluster_nodes().iter().map(show).collect();
        Ok(BTreeMap::from([("nodes", nodes)]))
    }
}
