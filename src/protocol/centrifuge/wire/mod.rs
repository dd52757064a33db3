//! The messages of the client protocol, as in Centrifugo's `client.proto`: one definition for JSON and protobuf.
//!
//! Field numbers and names are those of the official SDKs. Fields that are not listed are ignored in both encodings; an
//! absent field has its default; a default is never written.

pub(super) mod command;
mod json;
pub(super) mod reply;

pub(super) use json::Object;
