//! Connections by `Hub::accept`, without a server.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use socket2::{Domain, SockRef, Socket, Type};
use wshub::server::Transport;
use wshub::{Client, Hub, RequestHead};

use super::{KEY, WsClient};

/// How the ends of an [`accept`]ed connection are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Tcp,
    Unix,
    /// TCP and Unix sockets whose kernel buffers hold a few KiB.
    TinyTcp,
    TinyUnix,
}

/// A connection by `Hub::accept`: the client's end, and the hub's handle for it. `target` is the request's.
pub(crate) fn accept(hub: &Hub, link: Link, target: &str) -> (WsClient, Client) {
    let (near, far): (Transport, TcpStream) = match link {
        Link::Tcp | Link::TinyTcp => {
            let (near, far) = tcp_pair(link == Link::TinyTcp);
            (near.into(), far)
        }
        Link::Unix | Link::TinyUnix => {
            let (near, far) = UnixStream::pair().unwrap();
            if link == Link::TinyUnix {
                SockRef::from(&near).set_send_buffer_size(TINY).unwrap();
            }
            // What a client does with its stream does not depend on the family.
            (near.into(), TcpStream::from(OwnedFd::from(far)))
        }
    };
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let (head, _) = RequestHead::parse(request.as_bytes()).unwrap().unwrap();
    hub.accept(near, head, &[]).detach().unwrap();
    // The newest client is the last of the list.
    let handle = hub.clients().pop().unwrap();
    let mut client = WsClient::on(far);
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (client, handle)
}

const TINY: usize = 4096;

fn tcp_pair(is_tiny: bool) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if is_tiny {
        // Before connecting: it bounds the window.
        far.set_recv_buffer_size(TINY).unwrap();
    }
    far.connect(&listener.local_addr().unwrap().into()).unwrap();
    let (near, _) = listener.accept().unwrap();
    if is_tiny {
        SockRef::from(&near).set_send_buffer_size(TINY).unwrap();
    }
    (near, far.into())
}
