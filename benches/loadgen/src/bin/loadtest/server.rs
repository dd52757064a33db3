//! The server of the load test, for all scenarios; it runs in a process of its own, `--serve`.
//!
//! `/echo` sends each message back to its sender; `/broadcast` to every client, the sender included; `/rooms?room=N` to
//! every client of the sender's room. `GET /dropped` says how many messages were dropped because queues were full.

use std::error::Error;
use std::io;
use std::time::Duration;

use wshub::{Admission, Config, Hub, Response, Server, Target};

use super::console;

/// By default a client that takes nothing is gone after 10 seconds, and so would be what `stall` measures. It still has
/// to answer pings, once a minute.
const STALLED: Duration = Duration::from_secs(3600);

/// Room for a few messages of any size, and no less than the defaults. Stalled clients stay.
fn config(size: usize) -> Config {
    let config = Config::default();
    let (largest, queue) = (config.max_message_size.max(size), config.queue_bytes.max(8 * size));
    config.max_message_size(largest).queue_bytes(queue).write_timeout(STALLED)
}

/// Serves until standard input ends, which is when the load test does, however it ends. Blocks.
pub(crate) fn serve(size: usize) -> Result<(), Box<dyn Error>> {
    let config = config(size);
    let echo = Hub::builder().config(config.clone()).on_message(|client, message| Ok(client.send(message)?)).build()?;
    let broadcast = Hub::builder()
        .config(config.clone())
        .on_message(|client, message| {
            client.hub().send(Target::all(), message)?;
            Ok(())
        })
        .build()?;
    let rooms = Hub::builder()
        .config(config)
        .on_upgrade(|head| Ok(Admission::anonymous().room(head.query_param("room").unwrap_or_default())))
        .on_message(|client, message| {
            let rooms = client.rooms();
            client.hub().send(Target::rooms(rooms.iter().map(|room| &**room)), message)?;
            Ok(())
        })
        .build()?;
    let counted = broadcast.clone();
    let dropped = move || counted.clients().iter().map(|client| client.dropped().messages).sum::<u64>();
    let handle = Server::bind("127.0.0.1:0")?
        .websocket("/echo", &echo)
        .websocket("/broadcast", &broadcast)
        .websocket("/rooms", &rooms)
        .handle("/dropped", move |_| Response::text(200, dropped().to_string()))
        .spawn()?;
    if let Some(addr) = handle.local_addr() {
        console::announce(addr);
    }
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    // The clients have gone; whoever has not is not waited for.
    let _ = handle.shutdown(Duration::from_secs(1));
    Ok(())
}
