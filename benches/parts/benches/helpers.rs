//! `cargo bench --bench helpers`, in `benches/parts`. With `-- COUNT …`: so many helpers instead of 1.
//!
//! The time of `Hub::send` to many clients: until the message is in all sockets, with and without helper threads, in
//! turn. The receivers only buffer, as distant ones do, so cores are idle. Every 25 sends, what they have buffered is
//! read; the send that follows is not counted, because the sockets are in the cache of the core that has read.
//!
//! The second table has the parts of such a send, from which `benches/scale.py --cores` calculates what it costs with
//! more cores. Pushing is a send under a cork, flushing is the end of that cork: both for each client, on one thread. A
//! sleeping thread is called by a condition variable, as helpers are: the time of the call, and until it runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{connect, is_smoke};
use wshub::{Config, Hub, Message, Target};

const CLIENTS: [usize; 3] = [200, 1_000, 5_000];

/// A hub with so many helpers, and its clients.
struct Way {
    hub: Hub,
    clients: Vec<TcpStream>,
}

impl Way {
    fn new(helpers: usize, clients: usize) -> Self {
        let config = Config::default().fanout_threads(helpers).pong_timeout(Duration::ZERO);
        let hub = Hub::builder().config(config).build().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let clients = (0..clients).map(|_| {
            let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, _) = listener.accept().unwrap();
            near.set_nodelay(true).unwrap();
            let far = connect(&hub, (near, far));
            far.set_nonblocking(true).unwrap();
            far
        });
        Self { clients: clients.collect(), hub }
    }

    /// Seconds of each send.
    fn run(&self, sends: usize) -> Vec<f64> {
        self.repeat(sends, || self.send())
    }

    fn send(&self) -> f64 {
        let message = Message::text("x".repeat(128));
        let started = Instant::now();
        let delivery = self.hub.send(Target::all(), &message).unwrap();
        let time = started.elapsed();
        assert_eq!((delivery.queued, delivery.dropped), (self.clients.len(), 0));
        time.as_secs_f64()
    }

    /// Seconds of each send's pushes, and of its flushes.
    fn run_in_parts(&self, sends: usize) -> (Vec<f64>, Vec<f64>) {
        let in_parts = || {
            let cork = self.hub.cork();
            let pushed = self.send();
            let started = Instant::now();
            drop(cork);
            (pushed, started.elapsed().as_secs_f64())
        };
        self.repeat(sends, in_parts).into_iter().unzip()
    }

    fn repeat<T>(&self, times: usize, mut send: impl FnMut() -> T) -> Vec<T> {
        let mut results = Vec::new();
        while results.len() < times {
            self.drain();
            send();
            results.extend((0..25).map(|_| send()));
        }
        results
    }

    fn drain(&self) {
        let mut buffer = [0; 8192];
        for mut client in &self.clients {
            match client.read(&mut buffer) {
                Ok(n) => assert!(n > 0, "the connection stays"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.clients.clear();
        let _ = self.hub.shutdown(Duration::from_secs(5));
    }
}

/// Seconds that calling a sleeping thread takes, and until it runs; each time.
fn calls(times: usize) -> (Vec<f64>, Vec<f64>) {
    let (called, condition) = (Mutex::new(None::<Instant>), Condvar::new());
    thread::scope(|scope| {
        let helper = scope.spawn(|| {
            (0..times)
                .map(|_| {
                    let mut called = condition.wait_while(called.lock().unwrap(), |called| called.is_none()).unwrap();
                    called.take().unwrap().elapsed().as_secs_f64()
                })
                .collect()
        });
        let call = |_| {
            // As between two broadcasts: the helper sleeps, and its core, too.
            thread::sleep(Duration::from_millis(2));
            while called.lock().unwrap().is_some() {
                thread::yield_now();
            }
            let started = Instant::now();
            *called.lock().unwrap() = Some(started);
            condition.notify_one();
            started.elapsed().as_secs_f64()
        };
        ((0..times).map(call).collect(), helper.join().unwrap())
    })
}

/// The value below which this share of the values lies.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    values[((values.len() - 1) as f64 * share) as usize]
}

fn main() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let counts: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1] } else { counts };
    let (rounds, sends) = if is_smoke() { (1, 3) } else { (5, 100) };
    let sizes: Vec<usize> = CLIENTS.into_iter().filter(|clients| *clients <= 200 || !is_smoke()).collect();
    println!("| clients | helpers | median, ms | 99th percentile, ms | ratio of medians | ratio of 99th |");
    println!("| --- | --- | --- | --- | --- | --- |");
    sizes.iter().for_each(|clients| compare(*clients, &counts, rounds, sends));
    println!("\n| clients | push, ns each | flush, ns each | call, us | until it runs, us |");
    println!("| --- | --- | --- | --- | --- |");
    sizes.iter().for_each(|clients| take_apart(*clients, rounds, sends));
}

/// A send without helpers and with each of these numbers of them.
fn compare(clients: usize, counts: &[usize], rounds: usize, sends: usize) {
    let mut figures = vec![(Vec::new(), Vec::new()); counts.len() + 1];
    for _ in 0..rounds {
        for (helpers, (medians, tails)) in [0].iter().chain(counts).zip(&mut figures) {
            let way = Way::new(*helpers, clients);
            way.run(sends / 5 + 1);
            let times = way.run(sends);
            medians.push(quantile(&times, 0.5));
            tails.push(quantile(&times, 0.99));
        }
    }
    let (alone, alone_tails) = figures[0].clone();
    for (helpers, (medians, tails)) in [0].iter().chain(counts).zip(&figures) {
        let ratio =
            |ours: &[f64], base: &[f64]| quantile(&ours.iter().zip(base).map(|(a, b)| a / b).collect::<Vec<_>>(), 0.5);
        println!(
            "| {clients} | {helpers} | {:.2} | {:.2} | {:.2} | {:.2} |",
            quantile(medians, 0.5) * 1e3,
            quantile(tails, 0.5) * 1e3,
            ratio(medians, &alone),
            ratio(tails, &alone_tails),
        );
    }
}

/// The parts of a send; medians of the rounds' medians.
fn take_apart(clients: usize, rounds: usize, sends: usize) {
    let mut medians = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let way = Way::new(0, clients);
        way.run_in_parts(sends / 5 + 1);
        let (pushes, flushes) = way.run_in_parts(sends);
        let (calls, starts) = calls(sends);
        for (medians, times) in medians.iter_mut().zip([pushes, flushes, calls, starts]) {
            medians.push(quantile(&times, 0.5));
        }
    }
    let [push, flush, call, start] = medians.map(|medians| quantile(&medians, 0.5));
    #[allow(clippy::cast_precision_loss, reason = "a mean")]
    let each = |seconds: f64| seconds * 1e9 / clients as f64;
    println!("| {clients} | {:.0} | {:.0} | {:.1} | {:.1} |", each(push), each(flush), call * 1e6, start * 1e6);
}
