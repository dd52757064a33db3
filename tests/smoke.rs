//! A minimal test of everything: connect, talk, leave.

mod common;

use common::TestServer;
use wshub::{Hub, Target};

#[test]
fn a_message_reaches_everyone() {
    let server = TestServer::new(Hub::builder().on_message(|client, message| {
        client.hub().send(Target::all(), message)?;
        Ok(())
    }));
    let mut ann = server.connect();
    let mut bob = server.connect();
    ann.send_text("hello");
    assert_eq!(ann.text(), "hello");
    assert_eq!(bob.text(), "hello");
    ann.close();
    common::eventually("one client is left", || server.hub.client_count() == 1);
}
