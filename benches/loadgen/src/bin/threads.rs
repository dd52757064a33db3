//! The bare minimum of a blocking thread per connection: `threads ADDR` echoes small frames, each connection on a
//! thread that does nothing but read and write. No server to use: it is what any design with blocking reads pays for an
//! echo.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..n]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(response.as_bytes())?;
    loop {
        // One whole frame a read, of at most 4 KiB and with mask zero, as `loadgen` sends them.
        if stream.read(&mut buffer)? == 0 {
            return Ok(());
        }
        let (start, len) = match buffer[1] & 127 {
            126 => (8, usize::from(u16::from_be_bytes([buffer[2], buffer[3]]))),
            n => (6, usize::from(n)),
        };
        // The answer's header stands where the mask was.
        let from = if len < 126 { start - 2 } else { start - 4 };
        buffer[from] = 0x81;
        if len < 126 {
            buffer[from + 1] = len as u8;
        } else {
            buffer[from + 1] = 126;
            buffer[from + 2..from + 4].copy_from_slice(&(len as u16).to_be_bytes());
        }
        stream.write_all(&buffer[from..start + len])?;
    }
}

fn main() {
    let addr = std::env::args().nth(1).expect("usage: threads ADDR");
    let listener = TcpListener::bind(addr).expect("bind");
    for stream in listener.incoming().flatten() {
        let thread = std::thread::Builder::new().stack_size(64 * 1024);
        thread.spawn(move || serve(stream)).expect("thread");
    }
}
