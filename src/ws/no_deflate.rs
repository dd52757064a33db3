//! Replaces `deflate` if that feature is off: nothing is ever compressed.

use super::Violation;

pub(crate) fn compress(_: &[u8], _: u32, _: u8) -> Option<Vec<u8>> {
    None
}

/// Never created, because compression is never negotiated.
#[derive(Debug)]
pub(crate) enum Inflater {}

impl Inflater {
    pub(crate) fn for_message(_: bool) -> Option<Self> {
        None
    }

    pub(crate) fn push(&mut self, _: &[u8], _: &mut Vec<u8>, _: usize) -> Result<(), Violation> {
        match *self {}
    }

    pub(crate) fn finish(&mut self) -> Result<(), Violation> {
        match *self {}
    }
}
