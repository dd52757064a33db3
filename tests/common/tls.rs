//! TLS in tests: a certificate for the loopback, the client's side, and a bridge that lets clients without TLS talk to
//! servers with it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;
use wshub::tls::Tls;

/// For `localhost` and `127.0.0.1`, as PEM; see `tests/tls/README.md`.
pub(crate) const CERTIFICATE: &str = include_str!("../tls/server.pem");
pub(crate) const KEY: &str = include_str!("../tls/server.key");
/// What has signed it.
pub(crate) const AUTHORITY: &str = include_str!("../tls/ca.pem");

pub(crate) fn server_side() -> Tls {
    Tls::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).unwrap()
}

/// A client that trusts [`AUTHORITY`] and offers these protocols.
pub(crate) fn client_side(protocols: &[&str]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITY.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Bytes that a bridge holds in each of its sockets.
const BUFFER: usize = 64 * 1024;

/// An address whose connections are passed on to a server with TLS.
pub(crate) fn bridge(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for plain in listener.incoming() {
            let (plain, mut secure) = (plain.unwrap(), TcpStream::connect(server).unwrap());
            plain.set_nodelay(true).unwrap();
            secure.set_nodelay(true).unwrap();
            // Or a client that does not read is behind by some MiB more than without the bridge.
            SockRef::from(&secure).set_recv_buffer_size(BUFFER).unwrap();
            SockRef::from(&plain).set_send_buffer_size(BUFFER).unwrap();
            let mut tls = client_side(&["http/1.1"]);
            // A server that refuses closes; the client sees that.
            let _ = tls.complete_io(&mut secure);
            let tls = Arc::new(Mutex::new(tls));
            let ends = (plain.try_clone().unwrap(), secure.try_clone().unwrap());
            let same = Arc::clone(&tls);
            thread::spawn(move || encrypt(ends.0, &ends.1, &same));
            thread::spawn(move || decrypt(secure, &plain, &tls));
        }
    });
    addr
}

/// From the client to the server.
fn encrypt(mut plain: TcpStream, secure: &TcpStream, tls: &Mutex<ClientConnection>) {
    let mut chunk = [0; 8192];
    while let Ok(n @ 1..) = plain.read(&mut chunk) {
        let records = {
            let mut tls = tls.lock().unwrap();
            tls.writer().write_all(&chunk[..n]).unwrap();
            records(&mut tls)
        };
        // Not under the lock: a server that does not read may still be heard.
        if (&*secure).write_all(&records).is_err() {
            // Or a client that goes on would never learn that nobody is there.
            let _ = plain.shutdown(Shutdown::Both);
            return;
        }
    }
    let end = {
        let mut tls = tls.lock().unwrap();
        tls.send_close_notify();
        records(&mut tls)
    };
    let _ = (&*secure).write_all(&end);
    let _ = secure.shutdown(Shutdown::Write);
}

/// From the server to the client.
fn decrypt(mut secure: TcpStream, mut plain: &TcpStream, tls: &Mutex<ClientConnection>) {
    let mut chunk = [0; 8192];
    while let Ok(n @ 1..) = secure.read(&mut chunk) {
        let mut rest = &chunk[..n];
        while !rest.is_empty() {
            let mut text = Vec::new();
            {
                let mut tls = tls.lock().unwrap();
                tls.read_tls(&mut rest).unwrap();
                if tls.process_new_packets().is_err() {
                    rest = &[];
                }
                // What there is; then it would block. What TLS itself has to say goes with what the client sends next.
                let _ = tls.reader().read_to_end(&mut text);
            }
            if plain.write_all(&text).is_err() {
                let _ = secure.shutdown(Shutdown::Both);
                return;
            }
        }
    }
    let _ = plain.shutdown(Shutdown::Write);
}

/// What TLS wants to be sent. Only one thread takes it after the handshake, so that records keep their order.
fn records(tls: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut records).unwrap();
    }
    records
}
