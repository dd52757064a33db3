//! What the outbox uses of the rest of the crate, as small as it gets. A frame is two bytes, so that it can be torn:
//! its number, and the same with the top bit set.

pub(crate) mod config {
    use std::time::{Duration, Instant};

    pub(crate) fn deadline_after(time: Duration) -> Instant {
        Instant::now() + time
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum DropPolicy {
        DropNewest,
        DropOldest,
        Disconnect,
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Config {
        pub(crate) queue_messages: usize,
        pub(crate) queue_bytes: usize,
        pub(crate) drop_policy: DropPolicy,
        pub(crate) coalesce_writes: bool,
        pub(crate) eager_writers: bool,
        pub(crate) writer_stack: usize,
        pub(crate) write_timeout: Duration,
    }
}

pub(crate) mod message {
    use std::sync::Arc;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum WireFormat {
        WebSocket,
        #[allow(dead_code, reason = "the outbox names it")]
        Deflate(()),
        #[allow(dead_code, reason = "the outbox names it")]
        EventStream,
        #[allow(dead_code, reason = "the outbox names it")]
        PlainEventStream,
    }

    impl WireFormat {
        pub(crate) fn is_websocket(self) -> bool {
            self == Self::WebSocket
        }

        pub(crate) fn is_event_stream(self) -> bool {
            false
        }
    }

    #[derive(Debug)]
    pub(crate) struct Message;

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Encoded(Arc<[u8; 2]>);

    impl Encoded {
        pub(crate) fn new(number: u8) -> Self {
            Self(Arc::new([number, number | 0x80]))
        }

        pub(crate) fn number(&self) -> u8 {
            self.0[0]
        }

        pub(crate) fn wire(&self) -> &[u8] {
            &self.0[..]
        }

        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn held(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn is_text(&self) -> bool {
            false
        }

        pub(crate) fn payload(&self) -> &[u8] {
            self.wire()
        }

        /// Nothing of it is the application's.
        pub(crate) fn release(self) -> Option<Message> {
            None
        }
    }
}

pub(crate) mod ws {
    /// The numbers of control frames.
    pub(crate) const PING: u8 = 0x71;
    pub(crate) const PONG: u8 = 0x72;
    pub(crate) const CLOSE: u8 = 0x73;

    pub(crate) mod close_code {
        pub(crate) const GOING_AWAY: u16 = 1001;
        pub(crate) const TRY_AGAIN_LATER: u16 = 1013;
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Control {
        Ping,
        Pong,
        Close,
    }

    pub(crate) fn encode_control(control: Control, _payload: &[u8]) -> Vec<u8> {
        let number = match control {
            Control::Ping => PING,
            Control::Pong => PONG,
            Control::Close => CLOSE,
        };
        vec![number, number | 0x80]
    }

    pub(crate) fn encode_joined_text<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        texts.flatten().copied().collect()
    }
}

pub(crate) mod http {
    use std::time::Duration;

    pub(crate) const LAST_CHUNK: &[u8] = b"";

    pub(crate) fn encode_comment(_text: &str) -> Vec<u8> {
        Vec::new()
    }

    pub(crate) fn encode_chunk(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    pub(crate) fn encode_retry(_pause: Duration) -> String {
        String::new()
    }

    pub(crate) fn return_time() -> Duration {
        Duration::ZERO
    }
}

pub(crate) mod transport {
    use std::io::{self, IoSlice};
    use std::time::Duration;

    use loom::sync::{Condvar, Mutex};

    /// A socket in memory.
    #[derive(Debug)]
    pub(crate) struct Transport {
        socket: Mutex<Socket>,
        changed: Condvar,
    }

    #[derive(Debug)]
    struct Socket {
        /// Bytes that it takes from writers that do not block. One that blocks makes room: the peer reads.
        room: usize,
        /// The peer is gone after so many bytes.
        breaks_after: usize,
        wire: Vec<u8>,
        is_dead: bool,
    }

    impl Transport {
        pub(crate) fn new(room: usize, breaks_after: usize) -> Self {
            let socket = Socket { room, breaks_after, wire: Vec::new(), is_dead: false };
            Self { socket: Mutex::new(socket), changed: Condvar::new() }
        }

        pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
            self.write(&[IoSlice::new(bytes)], false)
        }

        pub(crate) fn try_send_all(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(buffers, false)
        }

        pub(crate) fn send_all(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(buffers, true)
        }

        fn write(&self, buffers: &[IoSlice<'_>], is_blocking: bool) -> io::Result<usize> {
            let mut socket = self.socket.lock().expect("no panic");
            if socket.is_dead {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let bytes: Vec<u8> = buffers.iter().flat_map(|b| b.iter().copied()).collect();
            let n = if is_blocking { bytes.len() } else { bytes.len().min(socket.room) };
            if n == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if socket.wire.len() + n > socket.breaks_after {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if !is_blocking && socket.room != usize::MAX {
                socket.room -= n;
            }
            socket.wire.extend_from_slice(&bytes[..n]);
            self.changed.notify_all();
            Ok(n)
        }

        pub(crate) fn set_write_timeout(&self, _timeout: Duration) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn finish(&self) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn try_finish(&self) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn kill(&self) {
            self.socket.lock().expect("no panic").is_dead = true;
            self.changed.notify_all();
        }

        /// Waits until so many bytes have been written or the socket is dead; gives what has been written. If nobody
        /// writes them, no thread can run any more, and loom reports it.
        pub(crate) fn wait_written(&self, bytes: usize) -> Vec<u8> {
            let mut socket = self.socket.lock().expect("no panic");
            while socket.wire.len() < bytes && !socket.is_dead {
                socket = self.changed.wait(socket).expect("no panic");
            }
            socket.wire.clone()
        }
    }

    pub(crate) fn is_timeout(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::WouldBlock
    }
}

/// Values of the application have no destructors here.
pub(crate) mod guard {
    pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Option<T> {
        Some(code())
    }
}

pub(crate) mod disposal {
    pub(crate) fn keep_off_this_thread() {}

    pub(crate) fn dispose_all<T>(values: Vec<T>) {
        drop(values);
    }
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::AtomicU64;
}
