//! The operator's dashboard over raw HTTP: access and contents.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::operator::{PASSWORD, Viewer, act, ask, builder, credentials, dashboard, serve};
use common::stream::SseClient;
use common::{PATIENCE, TestServer, counted, deep_queue, eventually, stall, status};
use serde_json::{Value, json};
use wshub::trace::Tracer;
use wshub::{
    Hub, Rejection, RoomOptions, Server,
    cluster::{Cluster, MemoryBus},
    dashboard::Dashboard,
    metrics::ErrorType,
};

#[test]
fn other_nodes_are_told_of_on_a_server_apart() {
    let bus = MemoryBus::new();
    let node = |id| builder().cluster(Cluster::new(bus.adapter()).node_id(id).presence(Duration::from_millis(200)));
    let (public, far) = (serve(node("near")), serve(node("far")));
    let endpoints = public.handle.endpoints();
    let apart = dashboard(&public.hub).endpoints(endpoints);
    let apart = TestServer::of(Hub::new(), |server| server.dashboard("/admin", apart));
    let _members =
        [public.connect_to("/ws?room=lobby"), far.connect_to("/ws?room=lobby"), far.connect_to("/ws?room=x")];
    let (mut viewer, hello) = Viewer::open(&apart, "");
    assert_eq!((&hello["node"], &hello["endpoints"][0]["path"]), (&json!("near"), &json!("/ws")));
    let tick =
        viewer.until("both nodes", |tick| tick["hub"]["everywhere"] == 3 && tick["hub"]["adapter"] == "connected");
    assert_eq!((&tick["nodes"][0]["id"], &tick["nodes"][1]["id"]), (&json!("near"), &json!("far")));
    assert_eq!((&tick["nodes"][1]["clients"], &tick["nodes"][1]["rooms"]), (&json!(2), &json!(2)));
    assert_eq!(tick["rooms"]["rows"], json!([{ "name": "lobby", "members": 1, "elsewhere": 1 }]));
    let (status, answer) = act(&apart, r#"{"action":"send","to":{"room":"x"},"text":"far"}"#);
    assert_eq!((status, &answer["published"]), (200, &json!(true)), "nobody here, perhaps elsewhere");
}

#[test]
fn members_are_users_on_all_nodes_and_those_of_the_picked_room_are_named() {
    let bus = MemoryBus::new();
    let node = |id| {
        let builder = builder().rooms("m:*", RoomOptions::members().with_history());
        serve(builder.cluster(Cluster::new(bus.adapter()).node_id(id).presence(Duration::from_millis(200))))
    };
    let (near, far) = (node("near"), node("far"));
    let target = |user| format!("/ws?room=m:x&user={user}");
    let _here = ["ann", "ann", "bob"].map(|user| near.connect_to(&target(user)));
    let _there = ["ann", "<eve>"].map(|user| far.connect_to(&target(user)));
    near.hub.publish("m:x", "remembered");
    let (mut viewer, _) = Viewer::open(&near, "?room=m:x");
    let tick = viewer.until("three users", |tick| tick["members"]["total"] == 3);
    assert_eq!(tick["members"]["shown"], json!(["<eve>", "ann", "bob"]));
    let tick = viewer.until("counts", |tick| tick["hub"]["members"] == 3 && tick["rooms"]["rows"][0]["elsewhere"] == 2);
    let row = &tick["rooms"]["rows"][0];
    assert_eq!((&row["members"], &row["tracked"], &row["remembered"][0]), (&json!(3), &json!(3), &json!(1)));
    let (mut viewer, _) = Viewer::open(&near, "");
    assert_eq!(viewer.tick().get("members"), None, "no room is picked");
}

fn users(tick: &Value) -> Vec<&str> {
    let mut users: Vec<_> =
        tick["clients"]["rows"].as_array().unwrap().iter().filter_map(|c| c["user"].as_str()).collect();
    users.sort_unstable();
    users
}

#[test]
fn without_auth_the_server_does_not_start() {
    let hub = Hub::new();
    let error = Server::bind("127.0.0.1:0").unwrap().dashboard("/admin", Dashboard::new(&hub)).spawn().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("dashboard: \"/admin\": no auth is set"), "{error}");
    let twice = Server::bind("127.0.0.1:0").unwrap().handle("/admin", |_| wshub::Response::new(200));
    assert!(twice.dashboard("/admin", dashboard(&hub)).spawn().is_err(), "the path is taken");
}

#[test]
fn only_the_right_password_opens_anything() {
    let server = serve(builder());
    for path in ["GET /admin", "GET /admin/", "HEAD /admin", "GET /admin/events", "POST /admin/actions", "PUT /admin"] {
        for headers in [String::new(), credentials("wrong"), credentials(""), "Authorization: Bearer x\r\n".into()] {
            let answer = ask(&server, path, &headers, "");
            assert_eq!(status(&answer), 401, "{path} {headers}: {answer}");
            assert!(answer.contains("\r\nWWW-Authenticate: Basic realm="), "{answer}");
            assert!(answer.contains("\r\nCache-Control: no-store\r\n"), "{answer}");
            assert!(!answer.contains('<'), "{answer}");
        }
    }
    let right = credentials(PASSWORD);
    assert_eq!(status(&ask(&server, "GET /admin", &right, "")), 200);
    assert_eq!(status(&ask(&server, "GET /admin/", &right, "")), 200);
    assert!(ask(&server, "HEAD /admin", &right, "").ends_with("\r\n\r\n"));
    for (line, code) in
        [("POST /admin", 405), ("GET /admin/actions", 405), ("POST /admin/events", 405), ("GET /admin/x", 404)]
    {
        assert_eq!(status(&ask(&server, line, &right, "")), code, "{line}");
    }
}

#[test]
fn the_page_may_run_nothing_but_its_own_script() {
    let server = serve(builder());
    let page = || ask(&server, "GET /admin", &credentials(PASSWORD), "");
    let nonce = |page: &str| page.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let (first, second) = (page(), page());
    assert_ne!(nonce(&first), nonce(&second));
    assert!(first.contains(&format!("<script type=\"module\" nonce=\"{}\">", nonce(&first))));
    let (head, body) = first.split_once("\r\n\r\n").unwrap();
    for part in [
        "default-src 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(head.contains(part), "{part}");
    }
    for header in [
        "Cache-Control: no-store",
        "X-Frame-Options: DENY",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
    ] {
        assert!(head.contains(header), "{header}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    assert_eq!(body.matches("<script").count(), 1);
}

#[test]
fn auth_of_ones_own_decides_by_the_head() {
    let hub = Hub::new();
    let shown = Dashboard::new(&hub).auth(|head| match head.header("x-user") {
        Some("boom") => panic!("on purpose"),
        Some(user) => Ok(user.to_owned()),
        None => Err(Rejection::new(404, "nothing here\n")),
    });
    let server = TestServer::of(hub, |server| server.dashboard("/", shown));
    assert_eq!(status(&ask(&server, "GET /", "X-User: eve\r\n", "")), 200);
    for path in ["GET /", "GET /events", "POST /actions"] {
        assert_eq!(status(&ask(&server, path, "", "")), 404, "{path}");
        assert_eq!(status(&ask(&server, path, "X-User: boom\r\n", "")), 500, "{path}");
    }
    assert!(SseClient::connect(server.addr, "/events", "X-User: eve\r\n").data().contains("\"instance\""));
}

#[test]
fn it_tells_who_is_connected_and_what_flows() {
    let (metrics, builder) = counted(builder().on_message(|client, message| {
        client.hub().send(wshub::Target::room("lobby"), message)?;
        Ok(())
    }));
    let tracer = Tracer::new(10);
    let hub = builder.tracer(tracer.clone()).build().unwrap();
    let shown = dashboard(&hub).title("the <shop>").metrics(metrics.clone()).tracer(tracer);
    let shown = shown.name_clients(|client| match client.user_id().as_deref() {
        Some("bob") => panic!("on purpose"),
        user => user.map(|user| format!("Name of {user}")),
    });
    let server = TestServer::of(hub, |server| server.dashboard("/admin", shown).event_stream("/late", &Hub::new()));
    let (mut ann, _bob) = (server.connect_to("/ws?user=ann&room=lobby"), server.connect_to("/ws?user=bob&room=lobby"));
    ann.send_text("hello");
    assert_eq!(ann.text(), "hello");
    // Sends are counted after the message has gone out.
    ann.sync();
    metrics_error(&metrics);

    let (mut viewer, hello) = Viewer::open(&server, "");
    assert_eq!(
        (&hello["title"], &hello["has_metrics"], &hello["has_tracer"]),
        (&json!("the <shop>"), &json!(true), &json!(true))
    );
    let paths: Vec<_> = hello["endpoints"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/ws", "/late"], "also what is mounted later, but not the dashboard's own stream");
    let tick = viewer.tick();
    assert_eq!(
        (&tick["hub"]["state"], &tick["hub"]["clients"], &tick["hub"]["users"]),
        (&json!("running"), &json!(2), &json!(2))
    );
    assert_eq!(users(&tick), ["ann", "bob"]);
    assert_eq!(tick["clients"]["rows"][0]["name"], json!(null), "bob's name panics");
    let row = &tick["clients"]["rows"][1];
    assert_eq!(
        (&row["name"], &row["rooms"], &row["kind"]),
        (&json!("Name of ann"), &json!(["lobby"]), &json!("websocket"))
    );
    assert_eq!((&row["queue"], &row["dropped"], &row["path"]), (&json!([0, 0]), &json!([0, 0]), &json!("/ws")));
    assert_eq!(tick["rooms"]["rows"], json!([{ "name": "lobby", "members": 2, "elsewhere": 0 }]));
    let sample = &tick["sample"];
    assert_eq!((&sample[1], &sample[2], &sample[3]), (&json!(2), &json!([1, 2, 0]), &json!([5, 10])), "{sample}");
    assert_eq!(tick["stats"]["errors"], json!([["origin_rejected", 1]]));
    let trace = &tick["traces"][0];
    assert_eq!(
        (&trace["outcome"]["result"], &trace["kind"], &trace["bytes"]),
        (&json!("ok"), &json!("text"), &json!(5))
    );
    assert!(trace["spans"].as_array().unwrap().iter().any(|s| s["kind"] == "send" && s["queued"] == 2), "{trace}");
    assert!(!tick.to_string().contains("hello"), "never a message's content");
}

fn metrics_error(metrics: &Arc<wshub::metrics::DebugMetrics>) {
    wshub::metrics::Metrics::increment_errors(&**metrics, ErrorType::OriginRejected);
}

#[test]
fn lists_are_bounded_searched_and_ordered_by_the_server() {
    let server = serve(builder());
    let _crowd: Vec<_> =
        (0..230).map(|n| server.connect_to(&format!("/ws?user=User%20{n:03}&room=r{}", n % 3))).collect();
    let rows = |query: &str| {
        let mut tick = Viewer::open(&server, query).0.tick();
        let count = tick["clients"]["rows"].as_array().unwrap().len();
        (count, tick["clients"]["matching"].take(), tick["clients"]["total"].take())
    };
    assert_eq!(rows(""), (50, json!(230), json!(230)));
    assert_eq!(rows("?rows=100000"), (200, json!(230), json!(230)));
    assert_eq!(rows("?rows=3&search=SER%2001"), (3, json!(10), json!(230)));
    assert_eq!(rows("?room=r0"), (50, json!(77), json!(230)));
    assert_eq!(rows("?room=r"), (0, json!(0), json!(230)), "a room's name is compared whole");
    assert_eq!(rows("?search=127.0.0.1"), (50, json!(230), json!(230)));
    let first = |order: &str| {
        let tick = Viewer::open(&server, &format!("?rows=1&order={order}")).0.tick();
        tick["clients"]["rows"][0]["user"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (first("user"), first("oldest"), first("newest")),
        ("User 000".into(), "User 000".into(), "User 229".into())
    );
    let tick = Viewer::open(&server, "?rooms=R2").0.tick();
    assert_eq!(
        tick["rooms"],
        json!({ "total": 3, "matching": 1, "rows": [{ "name": "r2", "members": 76, "elsewhere": 0 }] })
    );
}

#[test]
fn names_of_any_kind_are_json_and_long_ones_are_cut() {
    let server = serve(builder());
    let long = "y".repeat(256);
    let odd = "</script>\u{202e}\"\\\n\u{0}<b>";
    let encoded: String = form_urlencoded::byte_serialize(odd.as_bytes()).collect();
    let _odd = server.connect_to(&format!("/ws?user={encoded}&room={encoded}"));
    let _long = server.connect_to(&format!("/ws?user={long}"));
    let tick = Viewer::open(&server, "").0.tick();
    assert_eq!(users(&tick), [odd, &format!("{}…", "y".repeat(160))]);
    assert_eq!(tick["rooms"]["rows"][0]["name"], odd);
    let (_many, client) = server.pair_to("/ws?user=zz");
    (0..9).for_each(|n| client.join(&format!("room {n}")).unwrap());
    let row =
        Viewer::open(&server, "?search=zz").0.until("its rooms", |tick| tick["clients"]["rows"][0]["room_count"] == 9);
    assert_eq!(row["clients"]["rows"][0]["rooms"].as_array().unwrap().len(), 6);
    assert!(tick.to_string().len() < 4000);
}

#[test]
fn viewers_are_no_clients_of_the_hub() {
    let server = serve(builder());
    let mut viewers: Vec<_> = (0..64).map(|_| Viewer::open(&server, "").0).collect();
    assert_eq!((server.hub.client_count(), viewers[63].tick()["hub"]["clients"].clone()), (0, json!(0)));
    assert_eq!(server.hub.send(wshub::Target::all(), "x").unwrap().queued, 0);
    let more = ask(&server, "GET /admin/events", &credentials(PASSWORD), "");
    assert_eq!(status(&more), 503, "{more}");
    assert_eq!(server.handle.endpoints().len(), 1);
    let foreign = ask(&server, "GET /admin/events", &(credentials(PASSWORD) + "Origin: http://evil.example\r\n"), "");
    assert_eq!(status(&foreign), 403, "{foreign}");
    drop(viewers.split_off(1));
    eventually("there is room again", || status_of_stream(&server) == 200);
    viewers[0].until("it goes on", |tick| tick["hub"]["state"] == "running");
}

fn status_of_stream(server: &TestServer) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /admin/events HTTP/1.1\r\nHost: {}\r\n{}\r\n", server.addr, credentials(PASSWORD)).unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

#[test]
fn a_second_viewer_gets_the_history_of_the_first() {
    let server = serve(builder());
    let (mut first, hello) = Viewer::open(&server, "");
    assert_eq!(hello["history"], json!([]));
    first.tick();
    let at = first.tick()["sample"][0].clone();
    let (mut second, hello) = Viewer::open(&server, "?search=nobody");
    let history = hello["history"].as_array().unwrap();
    assert!(history.len() >= 2 && history.iter().any(|sample| sample[0] == at), "{hello}");
    assert_eq!(second.tick()["clients"]["matching"], 0);
}

#[test]
fn what_a_slow_client_has_lost_is_told() {
    let hub = builder().map_config(deep_queue).build().unwrap();
    let shown = dashboard(&hub);
    let server = TestServer::of(hub, |server| server.dashboard("/admin", shown));
    let (_socket, client) = server.pair_to("/ws?user=slow");
    let _quick = server.connect_to("/ws?user=quick");
    assert_eq!(client.dropped().messages, 0);
    // The send that ends the stall is the first drop.
    stall(&client);
    let size = 256 * 1024 + 10;
    let dropped = || (client.dropped().messages, client.dropped().bytes);
    assert_eq!(dropped(), (1, size));
    assert!(client.send_timeout("x", Duration::from_millis(1)).is_err());
    assert_eq!(dropped(), (2, size + 3));
    let tick = Viewer::open(&server, "?order=dropped").0.tick();
    assert_eq!(tick["slow"].as_array().unwrap().len(), 1);
    assert_eq!((&tick["slow"][0]["user"], &tick["slow"][0]["dropped"]), (&json!("slow"), &json!([2, size + 3])));
    assert_eq!(tick["clients"]["rows"][0]["user"], "slow");
    assert!(tick["slow"][0]["queue"][0].as_u64().unwrap() > 0);
}

#[test]
fn a_server_with_viewers_shuts_down() {
    let server = serve(builder());
    let (mut viewer, _) = Viewer::open(&server, "");
    viewer.tick();
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(viewer.0.expect_close().contains("1001"), "the stream ends, and says why"));
        server.handle.shutdown(PATIENCE).unwrap();
    });
}
