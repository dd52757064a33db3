//! A client's connection: TCP, or TLS over it. Handshakes and writes block; [`Stream::receive`] does not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// How all clients connect.
pub struct Connector {
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub fn new(is_tls: bool) -> Self {
        Connector { tls: is_tls.then(|| Arc::new(client_config())) }
    }

    /// Connects client `index`, the TLS handshake included.
    pub fn connect(&self, addr: SocketAddr, index: usize, small_receive_buffer: bool) -> Stream {
        // Spread over 127.0.0.1-4 so that more than 28,000 local ports are available.
        let source = SocketAddr::from(([127, 0, 0, 1 + (index % 4) as u8], 0));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        if small_receive_buffer {
            socket.set_recv_buffer_size(4096).expect("rcvbuf");
        }
        socket.bind(&source.into()).expect("bind");
        socket.connect(&addr.into()).expect("connect");
        let tcp: TcpStream = socket.into();
        tcp.set_nodelay(true).expect("nodelay");
        let name = ServerName::from(addr.ip());
        let start = |config: &Arc<ClientConfig>| ClientConnection::new(Arc::clone(config), name).expect("TLS");
        let mut stream = Stream { tcp, tls: self.tls.as_ref().map(start).map(Box::new) };
        if let Some(tls) = &mut stream.tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut stream.tcp).expect("TLS handshake");
            }
        }
        stream
    }
}

/// Without session resumption: every connection makes a full handshake.
fn client_config() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    /// Reads what is there, without blocking. A result shorter than `buffer` means that no plaintext is left here: what
    /// the socket still holds, epoll reports again.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = NonBlocking(&self.tcp);
        match &mut self.tls {
            Some(tls) => read_tls(tls, &mut socket, buffer),
            None => socket.read(buffer),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => read_tls(tls, &mut self.tcp, buffer),
            None => self.tcp.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.write(bytes) };
        let n = tls.writer().write(bytes)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from `socket` until there is plaintext.
fn read_tls(tls: &mut ClientConnection, socket: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        if tls.read_tls(socket)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
    }
}

/// Reads from a blocking socket without blocking.
struct NonBlocking<'a>(&'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = self.0.as_raw_fd();
        let n = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

/// Takes any certificate: this measures, and trusts nothing that it receives.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
