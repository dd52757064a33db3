//! The messages of the client protocol, as in Centrifugo's `client.proto`: one definition for JSON and protobuf.
//!
//! Field numbers and names match the official SDKs. Both encodings ignore unlisted fields. An absent field has its
//! default; defaults are never written.

pub(super) mod command;
mod json;
mod message;
pub(super) mod reply;

pub(super) use json::Object;
