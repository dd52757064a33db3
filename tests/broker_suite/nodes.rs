//! Three nodes with members and calls, each in a process of its own: nodes and their broker are killed and stand still.
//! Member lists converge to the truth, changes are told once each, calls end in an answer or a timeout, and none is
//! made twice.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wshub::members::MemberChange;
use wshub::router::Router;
use wshub::server::Request;
use wshub::{Admission, Hub, Response, RoomOptions, Server, Target};

use super::{Bus, settings_at};
use crate::common::broker::{Broker, signal};
use crate::common::{CLOSE, Log, PATIENCE, TEXT, WsClient, eventually, get};

/// In the environment of a node's process: its id and the broker's URL.
const NODE: &str = "WSHUB_TEST_NODE";
/// A process of a busy machine may stand still for some time, and is not to be taken for a silent one.
const INTERVAL: Duration = Duration::from_secs(1);
/// Three intervals until a silent node is found out, three until all nodes agree; and time for a busy machine.
const CONVERGED: Duration = Duration::from_secs(6 + 4);

/// The process of a node: serves until its standard input ends. A client `/ws?user=U` is in the room `m:x`.
fn serve<B: Bus>(node: &str) {
    let (id, url) = node.split_once(' ').unwrap();
    let told = Log::default();
    let changes = told.clone();
    let hub = Router::json_field("type").install(Hub::builder().rooms("m:*", RoomOptions::members()));
    let hub = hub.cluster(settings_at::<B>(url, id).presence(INTERVAL));
    let hub = hub.on_upgrade(|head| Ok(Admission::user(head.query_param("user").unwrap_or_default()).room("m:x")));
    let hub = hub.on_member_change(move |_, _, change| {
        let what = match change {
            MemberChange::Joined(_) => "joined",
            MemberChange::Left(_) => "left",
            _ => "updated",
        };
        changes.add(format!("{what} {}", change.member().id));
    });
    let hub = hub.build().unwrap();
    let (listed, caller) = (hub.clone(), hub.clone());
    let server = Server::bind("127.0.0.1:0").unwrap().websocket("/ws", &hub);
    let server = server.handle("/members", move |_| Response::json(200, &listed.members("m:x")));
    let server = server.handle("/changes", move |_| Response::json(200, &told.all()));
    let handle = server.handle("/call", move |request| Response::json(200, &call(&caller, request))).spawn().unwrap();
    #[allow(clippy::print_stdout, reason = "the test that has started this process reads it")]
    {
        println!("listening on {}", handle.local_addr().unwrap());
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Asks the whole room: what each client has answered, or why it has not.
fn call(hub: &Hub, request: &Request) -> Vec<(String, String)> {
    let param = |name| request.head().query_param(name).unwrap();
    let timeout = Duration::from_millis(param("ms").parse().unwrap());
    let answers = hub.call(Target::room("m:x"), "do", param("n"), timeout);
    let text = |answer: Result<wshub::Message, _>| match answer {
        Ok(message) => message.as_text().unwrap().to_owned(),
        Err(error) => format!("{error:?}"),
    };
    answers.map(|(client, answer)| (client.to_string(), text(answer))).collect()
}

/// A node in a process of its own: this test's program, with only this test.
struct Node {
    process: Child,
    addr: SocketAddr,
}

impl Node {
    fn start(broker: &Broker, id: &str) -> Self {
        let test = thread::current().name().unwrap().to_owned();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([&test, "--exact", "--nocapture"]).env(NODE, format!("{id} {}", broker.url()));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let addr = lines.find_map(|line| line.rsplit_once("listening on ")?.1.parse().ok());
        Self { process, addr: addr.expect("it listens") }
    }

    fn signal(&self, number: i32) {
        signal(&self.process, number);
    }

    fn members(&self) -> Vec<String> {
        let members: Value = serde_json::from_str(&get(self.addr, "/members").1).unwrap();
        members.as_array().unwrap().iter().map(|member| member["id"].as_str().unwrap().to_owned()).collect()
    }

    /// What it was told of each member, in order: `joined`, `left` and so on.
    fn told(&self) -> BTreeMap<String, Vec<String>> {
        let changes: Vec<String> = serde_json::from_str(&get(self.addr, "/changes").1).unwrap();
        let mut told = BTreeMap::<String, Vec<String>>::new();
        for change in changes {
            let (what, who) = change.split_once(' ').unwrap();
            told.entry(who.to_owned()).or_default().push(what.to_owned());
        }
        told
    }

    /// It is told this of each of these, soon after its list has changed, and nothing else.
    fn was_told(&self, of: &[&str], changes: &[&str]) {
        eventually(&format!("{changes:?} of {of:?}"), || {
            let mut told = self.told();
            let mut told = of.iter().map(|who| told.remove(*who).unwrap_or_default());
            told.all(|told| {
                assert!(changes.iter().zip(&told).all(|(a, b)| a == b) && told.len() <= changes.len(), "{told:?}");
                told.len() == changes.len()
            })
        });
    }

    /// Begins a call of the whole room.
    fn call(&self, n: usize, timeout: Duration) -> JoinHandle<Vec<(String, String)>> {
        let (addr, path) = (self.addr, format!("/call?n={n}&ms={}", timeout.as_millis()));
        thread::spawn(move || serde_json::from_str(&get(addr, &path).1).unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Also ends one that stands still.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Clients, and which calls they were made.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    made: HashMap<(String, usize), usize>,
    /// Nobody answers this call if its own name begins so.
    silence: Option<(usize, &'static str)>,
}

impl Crowd {
    /// Connects a user, who answers each call with its name, until the connection ends.
    fn enter(&self, node: &Node, user: &'static str) {
        let mut socket = WsClient::connect(node.addr, &format!("/ws?user={user}"), "");
        let calls = Arc::clone(&self.0);
        socket.stream.set_read_timeout(None).unwrap();
        // Ends with the connection, which ends with its node.
        thread::spawn(move || {
            while let Some(frame) = socket.next_frame().filter(|frame| frame.first != CLOSE) {
                if frame.first == TEXT {
                    let call: Value = serde_json::from_str(frame.text()).unwrap();
                    let n = usize::try_from(call["data"].as_u64().unwrap()).unwrap();
                    let mut calls = calls.lock().unwrap();
                    *calls.made.entry((user.to_owned(), n)).or_default() += 1;
                    if !calls.silence.is_some_and(|(call, name)| call == n && user.starts_with(name)) {
                        socket.send_text(&json!({"type": "reply", "id": call["id"], "data": user}).to_string());
                    }
                }
            }
        });
    }

    /// Who was made this call; each once.
    fn made(&self, n: usize) -> Vec<String> {
        let calls = self.0.lock().unwrap();
        assert!(calls.made.values().all(|times| *times == 1), "{:?}", calls.made);
        let mut names: Vec<String> = calls.made.keys().filter(|(_, call)| *call == n).map(|(u, _)| u.clone()).collect();
        names.sort();
        names
    }

    fn silence(&self, n: usize, name: &'static str) {
        self.0.lock().unwrap().silence = Some((n, name));
    }
}

/// The answers of a call, sorted; `Timeout` for those without.
fn results(call: JoinHandle<Vec<(String, String)>>) -> Vec<String> {
    let mut results: Vec<String> =
        call.join().unwrap().into_iter().map(|(_, answer)| answer.replace('"', "")).collect();
    results.sort();
    results
}

/// Waits until these nodes list these members; the limit counts from `since`.
fn agree(what: &str, nodes: &[&Node], expected: &[&str], since: Instant) {
    eventually(what, || nodes.iter().all(|node| node.members() == expected));
    let took = since.elapsed();
    eprintln!("{what}: after {took:?}");
    assert!(took < CONVERGED, "{what}: after {took:?}");
}

fn start(broker: &Broker, crowd: &Crowd) -> [Node; 3] {
    let nodes = ["a", "b", "c"].map(|id| Node::start(broker, id));
    for (node, users) in nodes.iter().zip([["a1", "a2"], ["b1", "b2"], ["c1", "c2"]]) {
        users.iter().for_each(|user| crowd.enter(node, user));
    }
    eventually("all know all", || nodes.iter().all(|node| node.members() == ALL));
    nodes
}

const ALL: [&str; 6] = ["a1", "a2", "b1", "b2", "c1", "c2"];

pub(crate) fn nodes_that_are_killed_or_stand_still<B: Bus>() {
    if let Ok(node) = std::env::var(NODE) {
        return serve::<B>(&node);
    }
    let (broker, crowd) = (B::broker(), Crowd::default());
    let [a, b, c] = start(&broker, &crowd);
    assert_eq!(results(a.call(1, PATIENCE)), ALL);

    // Killed in the middle of a call.
    crowd.silence(2, "b");
    let call = a.call(2, Duration::from_secs(2));
    eventually("all were asked", || crowd.made(2).len() == 6);
    // When the first of these calls is over, b has told a whom it asked; when the second is over, a has heard it.
    for n in [8, 9] {
        assert_eq!(results(b.call(n, PATIENCE)), ALL);
    }
    drop(b);
    let killed = Instant::now();
    assert_eq!(results(call), ["Timeout", "Timeout", "a1", "a2", "c1", "c2"]);
    agree("a node was killed", &[&a, &c], &["a1", "a2", "c1", "c2"], killed);
    for node in [&a, &c] {
        node.was_told(&["b1", "b2"], &["joined", "left"]);
        node.was_told(&["a1", "a2", "c1", "c2"], &["joined"]);
    }

    // A successor of the same name.
    let started = Instant::now();
    let b = Node::start(&broker, "b");
    crowd.enter(&b, "b3");
    agree("it is back", &[&a, &b, &c], &["a1", "a2", "b3", "c1", "c2"], started);

    // Its process stands still: the others give it up, and it gives up nobody when it goes on.
    c.signal(libc::SIGSTOP);
    let stopped = Instant::now();
    agree("a node stands still", &[&a, &b], &["a1", "a2", "b3"], stopped);
    crowd.enter(&a, "a3");
    assert_eq!(results(b.call(3, Duration::from_secs(1))), ["a1", "a2", "a3", "b3"]);
    c.signal(libc::SIGCONT);
    agree("it goes on", &[&a, &b, &c], &["a1", "a2", "a3", "b3", "c1", "c2"], Instant::now());
    for node in [&a, &b] {
        node.was_told(&["c1", "c2"], &["joined", "left", "joined"]);
    }
    c.was_told(&["a1", "a2", "a3", "b3", "c1", "c2"], &["joined"]);
    assert_eq!(results(c.call(4, PATIENCE)), ["a1", "a2", "a3", "b3", "c1", "c2"]);
    // What waited for it may have come late, but not twice.
    assert!(crowd.made(3).len() >= 4);
    for node in [&a, &b, &c] {
        node.was_told(&["a1", "a2", "a3", "b3"], &["joined"]);
    }
}

pub(crate) fn a_broker_that_is_killed_or_stands_still<B: Bus>() {
    if let Ok(node) = std::env::var(NODE) {
        return serve::<B>(&node);
    }
    let (mut broker, crowd) = (B::broker(), Crowd::default());
    let nodes = start(&broker, &crowd);
    let [a, b, c] = &nodes;
    let alone = |what: &str, since: Instant, users: [&[&str]; 3]| {
        nodes.iter().zip(users).for_each(|(node, users)| agree(what, &[node], users, since));
    };

    broker.kill();
    let killed = Instant::now();
    crowd.enter(a, "a3");
    assert_eq!(results(a.call(1, Duration::from_secs(1)))[..3], ["a1", "a2", "a3"]);
    alone("the broker was killed", killed, [&["a1", "a2", "a3"], &["b1", "b2"], &["c1", "c2"]]);
    broker.start();
    let everyone = ["a1", "a2", "a3", "b1", "b2", "c1", "c2"];
    agree("it is back", &[a, b, c], &everyone, Instant::now());
    for node in [b, c] {
        node.was_told(&["a1", "a2"], &["joined", "left", "joined"]);
        node.was_told(&["a3"], &["joined"]);
    }
    a.was_told(&["a1", "a2", "a3"], &["joined"]);
    a.was_told(&["b1", "b2", "c1", "c2"], &["joined", "left", "joined"]);

    broker.pause();
    let paused = Instant::now();
    // What is published now may arrive when the broker goes on, or not.
    let call = a.call(2, Duration::from_secs(1));
    alone("the broker stands still", paused, [&["a1", "a2", "a3"], &["b1", "b2"], &["c1", "c2"]]);
    assert_eq!(results(call)[..3], ["a1", "a2", "a3"]);
    broker.resume();
    agree("it goes on", &[a, b, c], &everyone, Instant::now());
    a.was_told(&["a1", "a2", "a3"], &["joined"]);
    a.was_told(&["b1", "b2", "c1", "c2"], &["joined", "left", "joined", "left", "joined"]);
    assert_eq!(results(b.call(3, PATIENCE)), everyone);
    assert!(crowd.made(1).len() >= 3 && crowd.made(2).len() >= 3);
}
