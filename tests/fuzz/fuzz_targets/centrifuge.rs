//! Frames of Centrifuge clients, in JSON and in protobuf.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wshub::Message;
use wshub::internals::centrifuge_frame;

fuzz_target!(|bytes: &[u8]| {
    centrifuge_frame(&Message::binary(bytes.to_vec()));
    if let Ok(text) = std::str::from_utf8(bytes) {
        centrifuge_frame(&Message::text(text));
    }
});
