//! Frames of Centrifuge clients, for the fuzz target.

use crate::message::Message;
use crate::protocol::centrifuge::check_frame;

/// Decodes a frame and panics if what comes of it is not what it should be; text is JSON, binary protobuf.
pub fn centrifuge_frame(frame: &Message) {
    check_frame(frame);
}
