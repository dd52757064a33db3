//! Close codes and close frames (RFC 6455 §5.5.1, §7.4).

use tungstenite::protocol::frame::coding::CloseCode;

use super::Violation;
use crate::error::CloseError;

/// The close codes that a program may send, by their names in RFC 6455 §7.4.1 and the IANA registry.
///
/// 3000–3999 are registered by libraries, 4000–4999 are free for applications.
pub mod close_code {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The server goes down or the page is left.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The peer sent a type of data that is not accepted.
    pub const UNSUPPORTED: u16 = 1003;
    /// A text message was not UTF-8, or the payload does not fit its type.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// The message violates a policy.
    pub const POLICY: u16 = 1008;
    /// The message is too big.
    pub const MESSAGE_TOO_BIG: u16 = 1009;
    /// The server met an unexpected condition.
    pub const INTERNAL_ERROR: u16 = 1011;
    /// The server restarts.
    pub const RESTART: u16 = 1012;
    /// The server is overloaded: try again later.
    pub const TRY_AGAIN_LATER: u16 = 1013;
}

/// Maximum length of a reason, in bytes: a control frame holds 125, two of which are the code.
pub(crate) const MAX_REASON: usize = 123;

/// A close frame's content. Without a code if the payload was empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CloseFrame {
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
}

impl CloseFrame {
    /// Checks a received payload: length, code, UTF-8.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        let (code, reason) = match payload {
            [] => return Ok(Self { code: None, reason: String::new() }),
            [_] => return Err(Violation::protocol("close frame of one byte")),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !may_be_sent(code) {
            return Err(Violation::protocol("invalid close code"));
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Violation::utf8())?;
        Ok(Self { code: Some(code), reason: reason.to_owned() })
    }
}

/// 1014 (bad gateway) is registered with IANA but unknown to tungstenite.
fn may_be_sent(code: u16) -> bool {
    code == 1014 || CloseCode::from(code).is_allowed()
}

/// Checks a code and reason that the program wants to send.
pub(crate) fn check_close(code: u16, reason: &str) -> Result<(), CloseError> {
    if !may_be_sent(code) {
        return Err(CloseError::InvalidCode(code));
    }
    if reason.len() > MAX_REASON {
        return Err(CloseError::ReasonTooLong(reason.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(check_close(code, ""), Ok(()), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert_eq!(check_close(code, ""), Err(CloseError::InvalidCode(code)));
        }
        assert_eq!(check_close(1000, &"x".repeat(123)), Ok(()));
        assert_eq!(check_close(1000, &"x".repeat(124)), Err(CloseError::ReasonTooLong(124)));
    }

    #[test]
    fn received_payloads() {
        assert_eq!(CloseFrame::parse(&[]), Ok(CloseFrame { code: None, reason: String::new() }));
        assert_eq!(CloseFrame::parse(b"\x03\xe8ok"), Ok(CloseFrame { code: Some(1000), reason: "ok".into() }));
        assert_eq!(CloseFrame::parse(&[3]).map_err(|v| v.code), Err(1002));
        assert_eq!(CloseFrame::parse(&[3, 0xed]).map_err(|v| v.code), Err(1002));
        assert_eq!(CloseFrame::parse(&[3, 0xe8, 0xff]).map_err(|v| v.code), Err(1007));
    }
}
