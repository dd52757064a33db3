//! What one would write with an async runtime: for each client a pair of tasks and a bounded queue.

use std::net::TcpStream;

use futures_util::{SinkExt, StreamExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// As the default of `Config::queue_messages`.
const PLACES: usize = 256;

pub(crate) struct Peer {
    queues: Vec<Sender<Message>>,
    /// Its end ends the tasks.
    _runtime: Runtime,
}

impl Peer {
    pub(crate) fn new(streams: Vec<TcpStream>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build().unwrap();
        let queues = streams.into_iter().map(|stream| {
            let (queue, queued) = channel(PLACES);
            runtime.spawn(serve(stream, queued));
            queue
        });
        Self { queues: queues.collect(), _runtime: runtime }
    }

    pub(crate) fn send(&self, message: &Message) {
        self.queues.iter().for_each(|queue| queue.try_send(message.clone()).expect("the queue has room"));
    }
}

async fn serve(stream: TcpStream, mut queued: Receiver<Message>) {
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let (mut sink, mut source) = WebSocketStream::from_raw_socket(stream, Role::Server, None).await.split();
    tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
    while let Some(message) = queued.recv().await {
        if sink.feed(message).await.is_err() {
            return;
        }
        while let Ok(message) = queued.try_recv() {
            if sink.feed(message).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}
