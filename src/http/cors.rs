//! The CORS protocol (WHATWG Fetch) for event streams: which pages of other origins may read them. WebSocket upgrades
//! do not use CORS.

use super::{OriginPolicy, RequestHead, Response};
use crate::config::is_token;

/// How long a browser may remember the answer to a preflight request, in seconds.
const MAX_AGE: &str = "600";

/// The headers that let the page of an allowed origin read an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cors(Vec<(&'static str, String)>);

impl Cors {
    /// The headers for a request that the policy allows. None without an `Origin`, because then there is no page.
    pub(crate) fn allowed(head: &RequestHead, policy: &OriginPolicy) -> Self {
        let Some(origin) = head.header("origin") else { return Self::default() };
        let mut headers = vec![("Access-Control-Allow-Origin", origin.to_owned()), ("Vary", "Origin".to_owned())];
        if policy.allows_credentials() {
            headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
        }
        Self(headers)
    }

    pub(crate) fn headers(&self) -> &[(&'static str, String)] {
        &self.0
    }

    /// Adds the headers to a response.
    pub(crate) fn apply(&self, response: Response) -> Response {
        self.0.iter().fold(response, |response, (name, value)| response.header(*name, value.as_str()))
    }
}

/// Whether this is a preflight request, by which a browser asks whether it may send the actual request.
pub(crate) fn is_preflight(head: &RequestHead) -> bool {
    head.method() == "OPTIONS"
        && head.header("origin").is_some()
        && head.header("access-control-request-method").is_some()
}

/// The answer to a preflight request of an allowed origin. Allows `GET` with the requested headers.
pub(crate) fn preflight(head: &RequestHead, cors: &Cors) -> Response {
    let wanted: Vec<&str> = head.tokens("access-control-request-headers").filter(|name| is_token(name)).collect();
    let mut response = cors.apply(Response::new(204)).header("Access-Control-Allow-Methods", "GET");
    if !wanted.is_empty() {
        response = response.header("Access-Control-Allow-Headers", wanted.join(", "));
    }
    response
        .header("Access-Control-Max-Age", MAX_AGE)
        .header("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, more: &[(&str, &str)]) -> RequestHead {
        let headers = [("Host", "a"), ("Origin", "https://b.org")].iter().chain(more).copied();
        RequestHead::from_parts(method, "/", headers).expect("valid")
    }

    #[test]
    fn credentials_only_for_origins_that_are_named() {
        let names = |policy: &OriginPolicy| -> Vec<&'static str> {
            Cors::allowed(&head("GET", &[]), policy).headers().iter().map(|(name, _)| *name).collect()
        };
        let with = ["Access-Control-Allow-Origin", "Vary", "Access-Control-Allow-Credentials"];
        assert_eq!(names(&OriginPolicy::allow(["https://b.org"])), with);
        assert_eq!(names(&OriginPolicy::custom(|_| true)), with);
        assert_eq!(names(&OriginPolicy::allow_all()), with[..2]);
        assert_eq!(names(&OriginPolicy::same_origin()), with[..2]);
        let plain = RequestHead::from_parts("GET", "/", [("Host", "a")]).expect("valid");
        assert!(Cors::allowed(&plain, &OriginPolicy::allow_all()).headers().is_empty());
    }

    #[test]
    fn a_preflight_is_told_what_it_asks_for() {
        assert!(!is_preflight(&head("OPTIONS", &[])));
        let wanted = ("Access-Control-Request-Headers", "last-event-id,bad name, x-token");
        let asked = head("OPTIONS", &[("Access-Control-Request-Method", "GET"), wanted]);
        assert!(is_preflight(&asked));
        let cors = Cors::allowed(&asked, &OriginPolicy::allow_all());
        let answer = String::from_utf8(preflight(&asked, &cors).encode(false).bytes).expect("UTF-8");
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
        for line in [
            "Access-Control-Allow-Origin: https://b.org",
            "Access-Control-Allow-Methods: GET",
            "Access-Control-Allow-Headers: last-event-id, x-token",
            "Access-Control-Max-Age: 600",
        ] {
            assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line}: {answer}");
        }
    }
}
