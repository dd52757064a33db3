//! One user with a password, by HTTP Basic authentication (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use crate::guard::record;
use crate::http::{RequestHead, Response};
use crate::hub::Rejection;
use crate::log_limit::LogLimit;

/// Decides who may see the page: a name for the log, or a refusal.
pub(super) type Auth = dyn Fn(&RequestHead) -> Result<String, Rejection> + Send + Sync;

static FAILURES: LogLimit = LogLimit::new();

pub(super) fn basic(user: String, password: &str) -> impl Fn(&RequestHead) -> Result<String, Rejection> + use<> {
    let expected = (!password.is_empty()).then(|| format!("{user}:{password}").into_bytes());
    move |head| {
        let given = credentials(head);
        let is_right = match (&given, &expected) {
            (Some(given), Some(expected)) => is_equal(given, expected),
            _ => false,
        };
        if is_right {
            return Ok(user.clone());
        }
        // A first visit has no credentials and is not logged.
        if let Some(suppressed) = given.and_then(|_| FAILURES.pass()) {
            let peer = head.remote_addr();
            record!(Info, "wshub::dashboard", "wrong credentials from {peer:?} ({suppressed} more not logged)");
        }
        Err(challenge().into())
    }
}

fn challenge() -> Response {
    Response::text(401, "unauthorized\n")
        .header("WWW-Authenticate", "Basic realm=\"wshub dashboard\", charset=\"UTF-8\"")
}

/// User and password with a colon between them, as the browser sends them.
fn credentials(head: &RequestHead) -> Option<Vec<u8>> {
    let (scheme, token) = head.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    STANDARD.decode(token.trim()).ok()
}

/// Compares in a time that depends only on the lengths. An attacker who measures times can therefore learn the length.
fn is_equal(given: &[u8], expected: &[u8]) -> bool {
    given.ct_eq(expected).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(auth: &Auth, header: Option<&str>) -> Result<String, u16> {
        let headers = [("Host", "a")].into_iter().chain(header.map(|value| ("Authorization", value)));
        auth(&RequestHead::from_parts("GET", "/", headers).expect("valid")).map_err(|refusal| refusal.status())
    }

    fn encoded(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn only_the_user_and_the_password_pass() {
        let auth = basic("ann".into(), "pass:wörd");
        assert_eq!(ask(&auth, Some(&encoded("ann:pass:wörd"))), Ok("ann".into()));
        assert_eq!(ask(&auth, Some(&encoded("ann:pass:wörd").replace("Basic", "bAsIc"))), Ok("ann".into()));
        for wrong in
            ["ann:pass:wör", "ann:pass:wördd", "ann:", "ann", "", ":pass:wörd", "bob:pass:wörd", "annann:pass:wörd"]
        {
            assert_eq!(ask(&auth, Some(&encoded(wrong))), Err(401), "{wrong}");
        }
        let right = encoded("ann:pass:wörd");
        for wrong in [right.replace("Basic", "Bearer"), right.replace("Basic ", ""), "Basic !".into(), "Basic".into()] {
            assert_eq!(ask(&auth, Some(&wrong)), Err(401), "{wrong}");
        }
        assert_eq!(ask(&auth, None), Err(401));
    }

    #[test]
    fn repeating_the_right_ones_is_wrong() {
        assert!(is_equal(b"ab", b"ab"));
        assert!(!is_equal(b"abab", b"ab"));
        assert!(!is_equal(b"", b"ab"));
    }

    #[test]
    fn an_empty_password_lets_nobody_in() {
        assert_eq!(ask(&basic("ann".into(), ""), Some(&encoded("ann:"))), Err(401));
    }
}
