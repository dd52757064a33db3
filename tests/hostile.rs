//! Application code in unexpected places: loggers, destructors, `Display`, panic payloads. Whatever it does there,
//! connections end as they should and everything else continues. The tests run one after the other, because they share
//! the process's logger.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::cell::Cell;
use std::fmt;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{panic_any, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use common::bus::{Mood, Wire, connected};
use common::{PATIENCE, TestServer, WsClient, counted, errors, eventually, exchange, get, status};
use wshub::cluster::Cluster;
use wshub::metrics::{ErrorType, Metrics};
use wshub::{Admission, Client, Config, Hub, HubBuilder, RequestHead, Response, Target};

/// Panics past the panic hook: with `RUST_BACKTRACE` set, a thousand backtraces take minutes on a busy machine.
fn boom() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// What the process' logger does with each record.
type OnRecord = Box<dyn Fn(&str) + Send + Sync>;

struct Logger {
    on_record: Mutex<Option<Arc<OnRecord>>>,
}

static LOGGER: Logger = Logger { on_record: Mutex::new(None) };

thread_local! {
    /// The logger does nothing about records that it causes itself.
    static LOGGING: Cell<bool> = const { Cell::new(false) };
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("wshub")
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) || LOGGING.replace(true) {
            return;
        }
        let _done = OnDrop(|| LOGGING.set(false));
        let text = record.args().to_string();
        let on_record = self.on_record.lock().unwrap().clone();
        if let Some(on_record) = on_record {
            on_record(&text);
        }
    }

    fn flush(&self) {}
}

/// Lets the logger do this with each record, until the guard is dropped; one test at a time.
struct Logging(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

fn logging(on_record: impl Fn(&str) + Send + Sync + 'static) -> Logging {
    static ALONE: Mutex<()> = Mutex::new(());
    static SET: Once = Once::new();
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    SET.call_once(|| {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
    });
    *LOGGER.on_record.lock().unwrap() = Some(Arc::new(Box::new(on_record)));
    Logging(alone)
}

impl Drop for Logging {
    fn drop(&mut self) {
        let last = LOGGER.on_record.lock().unwrap().take();
        drop(last);
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A value whose destructor panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        boom()
    }
}

/// An error whose text panics.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        boom()
    }
}

impl std::error::Error for Unspeakable {}

/// An error whose destructor panics.
#[derive(Debug)]
struct Explosive(#[allow(dead_code, reason = "dropped")] BombError);

struct BombError;

impl fmt::Debug for BombError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BombError")
    }
}

impl Drop for BombError {
    fn drop(&mut self) {
        boom()
    }
}

impl fmt::Display for Explosive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("explosive")
    }
}

impl std::error::Error for Explosive {}

/// Nothing of the clients is left, and a shutdown ends in time: every connection has run to its very end.
fn expect_all_gone(server: &TestServer) {
    let hub = &server.hub;
    eventually("all are gone", || hub.client_count() == 0);
    assert_eq!((hub.user_count(), hub.room_names().len()), (0, 0));
    server.handle.shutdown(PATIENCE).unwrap();
}

/// A client of a hub without a server.
fn accept(hub: &Hub) -> (WsClient, Client) {
    let (near, far) = UnixStream::pair().unwrap();
    let request = common::upgrade_request("GET / HTTP/1.1", &[]);
    let (head, _) = RequestHead::parse(request.as_bytes()).unwrap().unwrap();
    let client = hub.accept(near, head, &[]).detach().unwrap();
    // What a client does with its stream does not depend on the family.
    let mut socket = WsClient::on(TcpStream::from(OwnedFd::from(far)));
    assert!(socket.read_head().starts_with("HTTP/1.1 101 "));
    (socket, client)
}

fn admit(head: &RequestHead) -> Admission {
    Admission::user(head.query().unwrap_or("anonymous")).room("room")
}

#[test]
fn a_logger_that_panics_costs_nothing_but_records() {
    let _logging = logging(|_| boom());
    let builder = Hub::builder().on_upgrade(|head| match head.query() {
        Some("refused") => Err(wshub::Rejection::forbidden()),
        _ => Ok(admit(head)),
    });
    let (metrics, builder) = counted(builder.on_message(|client, message| match message.as_text() {
        Some("error") => Err("an error".into()),
        Some("panic") => boom(),
        _ => Ok(client.send(message)?),
    }));
    let server = TestServer::with(builder, |server| server.handle("/plain", |_| Response::text(200, "fine")));
    for round in 0..3 {
        let (mut socket, handle) = server.pair_to("/ws?ann");
        socket.send_text("error");
        socket.send_text("hello");
        assert_eq!(socket.text(), "hello", "round {round}");
        handle.join("other").unwrap();
        handle.leave("other").unwrap();
        handle.set_user("bob").unwrap();
        if round == 0 {
            socket.close();
        } else if round == 1 {
            handle.close(4000, "").unwrap();
            assert_eq!(socket.expect_close().0, 4000);
        } else {
            socket.send_text("panic");
            assert_eq!(socket.expect_close().0, 1011);
        }
        assert!(WsClient::try_connect(server.addr, "/ws?refused", "").0.starts_with("HTTP/1.1 403 "));
        assert_eq!(status(&exchange(server.addr, b"nonsense\r\n\r\n")), 400);
        assert_eq!(get(server.addr, "/plain").0, 200);
    }
    // A violation, and a peer that is just gone.
    let mut socket = server.connect();
    socket.send_frame(0xff, b"");
    assert_eq!(socket.expect_close().0, 1002);
    drop(server.connect());
    expect_all_gone(&server);
    assert_eq!(metrics.stats().active_connections, 0);
}

#[test]
fn the_acceptor_outlives_a_logger_that_panics() {
    // The bridge's connections are not the clients' own.
    if common::over_tls::is_wanted() {
        return;
    }
    let _logging = logging(|_| boom());
    let server = TestServer::with(Hub::builder(), |server| server.max_handshakes(1));
    // Takes the only place; the next one is refused, which is logged.
    for _ in 0..3 {
        let silent = TcpStream::connect(server.addr).unwrap();
        eventually("one is refused", || status(&exchange(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")) == 503);
        drop(silent);
        eventually("there is a place again", || {
            status(&exchange(server.addr, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")) == 200
        });
    }
    // The place of the last request may be taken a moment longer.
    eventually("a client connects", || WsClient::try_connect(server.addr, "/ws", "").0.starts_with("HTTP/1.1 101 "));
    expect_all_gone(&server);
}

#[test]
fn the_publisher_outlives_a_logger_that_panics() {
    let _logging = logging(|_| boom());
    let wire = Wire::new(Mood::Works);
    let cluster = Cluster::new(wire.adapter()).backoff(Duration::from_millis(1), Duration::from_millis(5));
    let hub = Hub::builder().cluster(cluster).build().unwrap();
    connected(&hub);
    for mood in [Mood::Unavailable, Mood::Rejects, Mood::Panics] {
        wire.both(mood);
        let before = wire.attempts();
        assert!(hub.send(Target::all(), "lost or late").unwrap().published);
        eventually("it has tried", || wire.attempts() != before || mood == Mood::Rejects);
        wire.both(Mood::Works);
        connected(&hub);
        if mood == Mood::Rejects {
            // The subscription stood all the time.
            wire.receive("no envelope");
        }
    }
    let payload = "after all";
    assert!(hub.send(Target::all(), payload).unwrap().published);
    eventually("it is published", || wire.payloads().iter().any(|text| text == payload));
    hub.shutdown(PATIENCE).unwrap();
}

#[test]
fn a_logger_that_sends_and_closes_hangs_nothing() {
    let hub: Arc<Mutex<Option<Hub>>> = Arc::default();
    let target = hub.clone();
    let _logging = logging(move |text| {
        let hub = target.lock().unwrap().clone();
        let Some(hub) = hub else { return };
        hub.send(Target::room("room"), "a record").unwrap();
        let _ = (hub.health(), hub.room_names(), hub.user_count(), hub.load());
        if text.contains("did not close") {
            let victim = hub.clients().into_iter().find(|client| client.request().query() == Some("victim"));
            let _ = victim.map(|victim| victim.close(4009, "by the logger"));
        }
    });
    let config = Config::default().close_timeout(Duration::from_millis(300));
    let builder = Hub::builder().config(config).on_upgrade(|head| Ok(admit(head)));
    let server = TestServer::new(builder.on_message(|_, _| Err("an error".into())));
    *hub.lock().unwrap() = Some(server.hub.clone());
    let (mut victim, _) = server.pair_to("/ws?victim");
    let (_silent, handle) = server.pair_to("/ws?silent");
    victim.send_text("makes a record");
    // Begun from outside and never answered: the watcher logs that, and the logger closes the other one.
    handle.close(4000, "").unwrap();
    let closed = std::iter::from_fn(|| Some(victim.frame())).find(|frame| frame.first == common::CLOSE).unwrap();
    assert_eq!(closed.close(), (4009, "by the logger"));
    victim.send_close(4009);
    eventually("both are gone", || server.hub.client_count() == 0);
    *hub.lock().unwrap() = None;
    expect_all_gone(&server);
}

#[test]
fn a_thousand_panics_of_a_handler_make_a_few_records() {
    // Tests that run at the same time make records of errors, too.
    let records = Arc::new(AtomicUsize::new(0));
    let count = records.clone();
    let _logging =
        logging(move |text| _ = count.fetch_add(usize::from(text.contains("on_user_online")), Ordering::Relaxed));
    let (metrics, builder) = counted(Hub::builder().before_message(|_, m| Ok(m)));
    // A hook whose panic closes nobody, once for each change of user.
    let server = TestServer::new(builder.on_user_online(|_, _| boom()).on_message(|client, message| {
        (0..1000).try_for_each(|n| client.set_user(&format!("user {n}")))?;
        Ok(client.send(message)?)
    }));
    let mut socket = server.connect();
    let started = Instant::now();
    socket.send_text("go");
    assert_eq!(socket.text(), "go");
    assert_eq!(errors(&metrics, ErrorType::Panic), 1000);
    let records = records.load(Ordering::Relaxed);
    // Ten in each second that began, however slow the machine; another test may have begun the first one.
    let most = 10 * (usize::try_from(started.elapsed().as_secs()).unwrap() + 2);
    assert!(records <= most, "{records} records, at most {most}");
    socket.close();
    expect_all_gone(&server);
}

/// A client whose handlers fail like this; the connection's end is expected, and others do not notice.
fn failing(builder: HubBuilder, is_closed: bool) {
    let _logging = logging(|_| {});
    let server = TestServer::new(builder.on_upgrade(|head| Ok(admit(head))));
    let mut bystander = server.connect_to("/ws?bystander");
    let (mut victim, handle) = server.pair_to("/ws?victim");
    victim.send_text("go");
    if is_closed {
        assert_eq!(victim.expect_close().0, 1011);
        drop(victim);
    } else {
        victim.sync();
        victim.close();
    }
    eventually("its end is known", || handle.closed_at().is_some());
    eventually("its user is gone", || server.hub.user_count() == 1);
    bystander.sync();
    bystander.close();
    expect_all_gone(&server);
}

fn is_victim(client: &Client) -> bool {
    client.request().query() == Some("victim")
}

#[test]
fn payloads_of_panics_that_panic() {
    fn bomb() -> ! {
        panic_any(Bomb)
    }
    failing(Hub::builder().on_message(|_, _| bomb()), true);
    failing(Hub::builder().before_message(|_, _| bomb()), true);
    failing(Hub::builder().on_message(|_, _| Err("told".into())).on_error(|_, _| bomb()), true);
    let late = |client: &Client| {
        if is_victim(client) {
            bomb()
        }
    };
    failing(Hub::builder().before_disconnect(late), false);
    failing(Hub::builder().after_disconnect(late), false);
    failing(Hub::builder().after_room_leave(move |client, _| late(client)), false);
    failing(
        Hub::builder().on_user_offline(|_, user| {
            if user == "victim" {
                bomb()
            }
        }),
        false,
    );
}

#[test]
fn a_plain_handlers_payload_that_panics() {
    let _logging = logging(|_| {});
    let server = TestServer::with(Hub::builder(), |server| server.handle("/bomb", |_| panic_any(Bomb)));
    assert_eq!(get(server.addr, "/bomb").0, 500);
    assert_eq!(get(server.addr, "/healthz").0, 200);
    expect_all_gone(&server);
}

#[test]
fn metrics_whose_payload_panics() {
    struct Broken;
    impl Metrics for Broken {
        fn decrement_connections(&self) {
            panic_any(Bomb)
        }
        fn increment_messages_received(&self) {
            panic_any(Bomb)
        }
    }
    failing(Hub::builder().metrics(Arc::new(Broken)), false);
}

#[test]
fn errors_whose_text_or_destructor_panics() {
    failing(Hub::builder().on_message(|_, _| Err(Unspeakable.into())), false);
    failing(Hub::builder().on_message(|_, _| Err(Explosive(BombError).into())), false);
    failing(Hub::builder().before_message(|_, _| Err(Explosive(BombError).into())), false);
    let tracer = wshub::trace::Tracer::new(16);
    failing(Hub::builder().tracer(tracer).on_message(|_, _| Err(Unspeakable.into())), false);
}

#[test]
fn destructors_of_callbacks_and_metadata_that_panic() {
    let armed = |client: &Client| {
        if is_victim(client) {
            client.set_metadata("one", Bomb);
            client.set_metadata("two", Bomb);
            let (one, two, three) = (Bomb, Bomb, Bomb);
            client.on_message(move |client, _| {
                let _ = &one;
                // Replaces itself while it runs.
                client.on_message(|_, _| Ok(()));
                Ok(())
            });
            client.on_close(move |_| _ = &two);
            client.on_error(move |_, _| _ = &three);
        }
    };
    failing(Hub::builder().after_connect(armed), false);
    failing(Hub::builder().before_disconnect(armed), false);
    failing(Hub::builder().after_disconnect(armed), false);
}

#[test]
fn hooks_whose_destructors_panic_end_with_their_hub() {
    let _logging = logging(|_| {});
    for drops_here in [true, false] {
        let (one, two, three) = (Bomb, Bomb, Bomb);
        let hub = Hub::builder().on_message(move |_, _| {
            let _ = &one;
            Ok(())
        });
        let hub = hub.after_connect(move |_| _ = &two).after_disconnect(move |_| _ = &three).build().unwrap();
        let (socket, _) = accept(&hub);
        if drops_here {
            socket.close();
            eventually("the connection has ended", || common::crate_threads().is_empty());
            drop(hub);
        } else {
            // The connection's thread has the last handle.
            drop(hub);
            socket.close();
        }
        eventually("no thread is left", || common::crate_threads().is_empty());
    }
}

#[test]
fn an_admission_that_is_refused_with_a_destructor_that_panics() {
    let _logging = logging(|_| {});
    let builder = Hub::builder().on_upgrade(|_| Ok(Admission::user("ann").metadata("bomb", Bomb).room("room")));
    let is_refusing = Arc::new(AtomicBool::new(true));
    let refuses = is_refusing.clone();
    let server = TestServer::new(builder.before_room_join(move |_, _| {
        if refuses.load(Ordering::Relaxed) { Err(Explosive(BombError).into()) } else { Ok(()) }
    }));
    for _ in 0..3 {
        let (head, _) = WsClient::try_connect(server.addr, "/ws", "");
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    }
    is_refusing.store(false, Ordering::Relaxed);
    server.connect().close();
    expect_all_gone(&server);
}
