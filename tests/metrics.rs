//! Scrapes: names, types, values and labels, of `PrometheusMetrics` and of the text of `DebugMetrics`.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{Link, TestServer, accept, eventually, exchange, status};
use wshub::metrics::prometheus::{IntCounter, Registry};
use wshub::{
    Config, HandlerResult, Hub, HubBuilder, Server, Target,
    metrics::{DebugMetrics, ErrorType, Gauges, Metrics, PrometheusMetrics},
};

/// Names and types as they are published; dashboards and alerts depend on them.
const SERIES: [(&str, &str); 22] = [
    ("adapter_connects_total", "counter"),
    ("adapter_disconnects_total", "counter"),
    ("adapter_dropped_total", "counter"),
    ("adapter_published_total", "counter"),
    ("adapter_received_total", "counter"),
    ("broadcast_duration_seconds", "histogram"),
    ("call_timeouts_total", "counter"),
    ("connections_active", "gauge"),
    ("connections_total", "counter"),
    ("errors_total", "counter"),
    ("history_evictions_total", "counter"),
    ("history_gaps_total", "counter"),
    ("late_replies_total", "counter"),
    ("message_latency_seconds", "histogram"),
    ("message_received_bytes_total", "counter"),
    ("message_sent_bytes_total", "counter"),
    ("messages_dropped_total", "counter"),
    ("messages_received_total", "counter"),
    ("messages_sent_total", "counter"),
    ("room_joins_total", "counter"),
    ("room_leaves_total", "counter"),
    ("rooms_active", "gauge"),
];
const GAUGES: [(&str, &str); 11] = [
    ("calls_pending", "gauge"),
    ("handshakes_active", "gauge"),
    ("history_bytes", "gauge"),
    ("history_messages", "gauge"),
    ("history_rooms", "gauge"),
    ("members", "gauge"),
    ("queue_bytes", "gauge"),
    ("queue_clients", "gauge"),
    ("queue_messages", "gauge"),
    ("state_values", "gauge"),
    ("writer_threads", "gauge"),
];

/// A page of the text format, read line by line. (`tests/peers` reads it with the official parser.)
#[derive(Debug, Default)]
struct Page {
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    samples: BTreeMap<String, f64>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(page.types.insert(name.into(), kind.into()).is_none(), "{name} comes twice");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(help.ends_with('.'), "{line}");
                page.helps.insert(name.into());
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(page.samples.insert(sample.into(), value.parse().unwrap()).is_none(), "{sample} comes twice");
            }
        }
        page
    }

    #[track_caller]
    fn get(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples))
    }

    #[track_caller]
    fn expect(&self, samples: &[(&str, u32)]) {
        for (sample, value) in samples {
            let found = self.get(&format!("wshub_{sample}"));
            assert!((found - f64::from(*value)).abs() < 0.5, "{sample} is {found}, not {value}");
        }
    }
}

/// Serves `/metrics`, and a chat in one room.
fn serve(metrics: Arc<dyn Metrics>, page: impl FnOnce(Server, Gauges) -> Server) -> TestServer {
    let hub = builder().metrics(Arc::clone(&metrics)).build().unwrap();
    let gauges = Gauges::new().hub(&hub);
    TestServer::of(hub, |server| {
        let gauges = gauges.server(&server);
        page(server.metrics(metrics), gauges)
    })
}

fn builder() -> HubBuilder {
    Hub::builder().after_connect(|client| client.join("room").unwrap()).on_message(|client, message| -> HandlerResult {
        if message.as_text() == Some("fail") {
            return Err("as asked".into());
        }
        client.hub().send(Target::room("room"), message)?;
        Ok(())
    })
}

fn scrape(server: &TestServer, method: &str) -> String {
    exchange(server.addr, format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

fn page(server: &TestServer) -> Page {
    let answer = scrape(server, "GET");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    Page::read(body)
}

/// Two clients; three messages to both, one that fails, and one client leaves.
fn talk(server: &TestServer) {
    let (mut ann, mut bob) = (server.connect(), server.connect());
    ann.sync();
    bob.sync();
    for text in ["a", "bb", "ccc"] {
        ann.send_text(text);
        assert_eq!((ann.text(), bob.text()), (text.into(), text.into()));
    }
    ann.send_text("fail");
    ann.sync();
    bob.close();
    eventually("bob is gone", || server.hub.client_count() == 1);
    assert_eq!(status(&exchange(server.addr, b"GARBAGE\r\n\r\n")), 400);
    // A client that is gone leaves its room before it leaves the count.
    ann.sync();
    let told = page(server);
    told.expect(&[
        ("connections_total", 2),
        ("messages_received_total", 4),
        ("message_received_bytes_total", 10),
        ("messages_sent_total", 6),
        ("message_sent_bytes_total", 12),
        ("messages_dropped_total", 0),
        ("message_latency_seconds_count", 4),
        ("broadcast_duration_seconds_count", 3),
        ("rooms_active", 1),
        ("room_joins_total", 2),
        ("room_leaves_total", 1),
        ("errors_total{type=\"message_handling\"}", 1),
        ("errors_total{type=\"upgrade_failed\"}", 1),
        ("queue_messages", 0),
        ("writer_threads", 0),
    ]);
    // Scrapes that have been answered take a moment to go.
    eventually("there is the scrape itself", || (page(server).get("wshub_handshakes_active") - 1.0).abs() < 0.5);
    assert!(told.get("wshub_message_latency_seconds_sum") > 0.0);
    eventually("one is connected", || (page(server).get("wshub_connections_active") - 1.0).abs() < 0.5);
}

fn names_of(page: &Page) -> Vec<(String, String)> {
    page.types.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect()
}

fn expected(summaries: bool) -> Vec<(String, String)> {
    let kind = |kind: &'static str| if summaries && kind == "histogram" { "summary" } else { kind };
    let both = SERIES.iter().chain(&GAUGES);
    let all: BTreeMap<_, _> = both.map(|(name, k)| (format!("wshub_{name}"), kind(k).to_owned())).collect();
    all.into_iter().collect()
}

#[test]
fn a_scrape_shows_what_has_happened() {
    let metrics = Arc::new(PrometheusMetrics::new().unwrap());
    let server = serve(metrics.clone(), |server, gauges| server.handle("/metrics", metrics.handler(gauges)));
    talk(&server);
    let page = page(&server);
    assert_eq!(names_of(&page), expected(false));
    assert_eq!(page.helps.len(), page.types.len());
    let bounds = |name: &str| {
        let prefix = format!("wshub_{name}_bucket{{le=\"");
        let mut bounds: Vec<f64> = page
            .samples
            .keys()
            .filter_map(|s| s.strip_prefix(&prefix))
            .map(|s| s.trim_end_matches("\"}").parse().unwrap())
            .collect();
        bounds.sort_by(f64::total_cmp);
        bounds.pop();
        bounds
    };
    assert_eq!(bounds("message_latency_seconds"), [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
    assert_eq!(bounds("broadcast_duration_seconds"), [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]);
}

#[test]
fn the_text_of_debug_metrics_has_the_same_names() {
    let metrics = Arc::new(DebugMetrics::new());
    let server = serve(metrics.clone(), |server, gauges| server.handle("/metrics", metrics.handler(gauges)));
    talk(&server);
    let page = page(&server);
    assert_eq!(names_of(&page), expected(true));
    assert_eq!(page.helps.len(), page.types.len());
}

#[test]
fn only_get_and_head_are_answered() {
    let metrics = Arc::new(PrometheusMetrics::new().unwrap());
    let server = serve(metrics.clone(), |server, gauges| server.handle("/metrics", metrics.handler(gauges)));
    let head = scrape(&server, "HEAD");
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n") && !head.contains("Content-Length: 0\r\n"), "{head}");
    let post = scrape(&server, "POST");
    assert!(status(&post) == 405 && post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
}

#[test]
fn labels_cannot_break_out() {
    let hostile = "a\"} 1\nevil{x=\"\\";
    let metrics = PrometheusMetrics::builder().const_label("place", hostile).build().unwrap();
    metrics.increment_errors(ErrorType::Custom(hostile));
    metrics.increment_errors(ErrorType::Custom("till"));
    let text = metrics.text(&Gauges::new()).unwrap();
    assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("wshub_")), "{text}");
    let escaped = r#"a\"} 1\nevil{x=\"\\"#;
    assert!(text.contains(&format!("wshub_errors_total{{place=\"{escaped}\",type=\"{escaped}\"}} 1\n")), "{text}");
}

#[test]
fn two_hubs_share_a_registry_of_the_programs_own() {
    let registry = Registry::new();
    let own = IntCounter::new("tills_opened_total", "Tills opened.").unwrap();
    own.inc_by(5);
    registry.register(Box::new(own)).unwrap();
    let metrics = ["a", "b"].map(|name| {
        Arc::new(PrometheusMetrics::builder().registry(&registry).const_label("hub", name).build().unwrap())
    });
    let hubs = metrics.clone().map(|metrics| Hub::builder().metrics(metrics).build().unwrap());
    for (metrics, hub) in metrics.iter().zip(&hubs) {
        registry.register(Box::new(metrics.collector(Gauges::new().hub(hub)).unwrap())).unwrap();
    }
    let _clients =
        [accept(&hubs[0], Link::Unix, "/"), accept(&hubs[1], Link::Unix, "/"), accept(&hubs[1], Link::Unix, "/")];
    let read = || Page::read(&metrics[0].text(&Gauges::new()).unwrap());
    let connected = |hub: &str| read().get(&format!("wshub_connections_active{{hub=\"{hub}\"}}"));
    eventually("all are counted", || connected("a") > 0.5 && connected("b") > 1.5);
    let page = read();
    page.expect(&[
        ("connections_active{hub=\"a\"}", 1),
        ("connections_active{hub=\"b\"}", 2),
        ("queue_messages{hub=\"a\"}", 0),
        ("queue_messages{hub=\"b\"}", 0),
    ]);
    assert!((page.get("tills_opened_total") - 5.0).abs() < 0.5);
    let again = PrometheusMetrics::builder().registry(&registry).const_label("hub", "a").build();
    assert!(again.is_err(), "the same names and labels twice");
    let fresh = PrometheusMetrics::builder().registry(&registry).namespace("till").subsystem("chat").build().unwrap();
    assert!(fresh.text(&Gauges::new()).unwrap().contains("\ntill_chat_rooms_active 0\n"));
    drop(hubs);
}

#[test]
fn unusable_settings_are_errors() {
    let builder = PrometheusMetrics::builder;
    assert!(builder().namespace("1 2").build().is_err());
    assert!(builder().const_label("not-a-label", "x").build().is_err());
    assert!(builder().latency_buckets([1.0, 0.5]).build().is_err());
    assert!(builder().latency_buckets([0.1]).broadcast_buckets(vec![0.2, 0.3]).build().is_ok());
}

#[test]
fn a_client_that_does_not_read_shows_in_the_gauges() {
    let config = Config::default().queue_messages(8).write_timeout(Duration::from_secs(60));
    let metrics = Arc::new(PrometheusMetrics::new().unwrap());
    let hub = Hub::builder().config(config).metrics(metrics.clone()).build().unwrap();
    let (_socket, stalled) = accept(&hub, Link::TinyUnix, "/");
    let _idle = accept(&hub, Link::Unix, "/");
    eventually("the queue is full and a writer thread waits for the socket", || {
        let is_full = stalled.send(vec![0; 1000]).is_err();
        is_full && hub.load().writer_threads == 1
    });
    let load = hub.load();
    assert_eq!((load.clients, load.queued_messages, load.waiting_clients, load.writer_threads), (2, 8, 1, 1));
    assert!(load.queued_bytes > 8000, "{load:?}");
    let page = Page::read(&metrics.text(&Gauges::new().hub(&hub)).unwrap());
    page.expect(&[("queue_messages", 8), ("queue_clients", 1), ("writer_threads", 1)]);
    assert!(page.get("wshub_messages_dropped_total") > 0.5);
    let _ = hub.shutdown(Duration::ZERO);
    assert_eq!(hub.load().writer_threads, 0);
}

#[test]
fn gauges_do_not_keep_a_hub_alive() {
    let metrics = Arc::new(PrometheusMetrics::new().unwrap());
    let hub = Hub::builder().metrics(metrics.clone()).build().unwrap();
    let collector = metrics.collector(Gauges::new().hub(&hub)).unwrap();
    metrics.registry().register(Box::new(collector)).unwrap();
    drop(hub);
    // The hub held the metrics.
    assert_eq!(Arc::strong_count(&metrics), 1);
    assert!(metrics.text(&Gauges::new()).unwrap().contains("\nwshub_queue_messages 0\n"));
}
