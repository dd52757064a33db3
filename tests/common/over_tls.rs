//! The tests of sockets once more, over TLS: with `WSHUB_TEST_TLS` in the environment, test servers speak TLS, and
//! clients that do not reach them through a bridge.

use std::net::SocketAddr;

use wshub::server::Listener;

/// Whether test servers speak TLS.
pub(crate) fn is_wanted() -> bool {
    let is_set = std::env::var_os("WSHUB_TEST_TLS").is_some();
    assert!(cfg!(feature = "tls") || !is_set, "WSHUB_TEST_TLS needs the feature tls");
    is_set
}

/// The listener of a test server.
#[cfg(feature = "tls")]
pub(crate) fn listener(listener: Listener) -> Listener {
    if is_wanted() { listener.tls(&super::tls::server_side()) } else { listener }
}

#[cfg(not(feature = "tls"))]
pub(crate) fn listener(listener: Listener) -> Listener {
    is_wanted();
    listener
}

/// Where clients without TLS reach a test server.
pub(crate) fn address(server: SocketAddr) -> SocketAddr {
    #[cfg(feature = "tls")]
    if is_wanted() {
        return super::tls::bridge(server);
    }
    server
}
