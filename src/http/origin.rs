//! Which web pages may open a connection (RFC 6455 §10.2).

use std::fmt;
use std::sync::Arc;

use super::RequestHead;

/// Decides by a request's `Origin` header. Browsers always send one; other clients need not, and requests without one
/// are allowed by all policies but [`custom`](OriginPolicy::custom).
#[derive(Clone, Default)]
pub struct OriginPolicy(Rule);

#[derive(Clone, Default)]
enum Rule {
    #[default]
    SameOrigin,
    List(Arc<[String]>),
    Any,
    Custom(Arc<dyn Fn(&RequestHead) -> bool + Send + Sync>),
}

impl OriginPolicy {
    /// The origin's host and port must be those of the `Host` header. The default.
    pub fn same_origin() -> Self {
        Self(Rule::SameOrigin)
    }

    /// The origin must be one of these, such as `https://example.org`; case does not matter.
    pub fn allow<S: Into<String>>(origins: impl IntoIterator<Item = S>) -> Self {
        Self(Rule::List(origins.into_iter().map(Into::into).collect()))
    }

    /// Every page of the web may connect with its visitor's cookies. Only for public data or other authentication.
    pub fn allow_all() -> Self {
        Self(Rule::Any)
    }

    /// `decide` says whether the request may be upgraded; it is asked for requests without an origin too. Called on
    /// the connection's thread; a panic refuses.
    pub fn custom(decide: impl Fn(&RequestHead) -> bool + Send + Sync + 'static) -> Self {
        Self(Rule::Custom(Arc::new(decide)))
    }

    /// Whether the policy allows the request.
    pub fn allows(&self, head: &RequestHead) -> bool {
        if let Rule::Custom(decide) = &self.0 {
            return decide(head);
        }
        // Looked up by bytes: an origin that is not UTF-8 must not pass as none.
        let Some((_, origin)) = head.headers().find(|(name, _)| name.eq_ignore_ascii_case("origin")) else {
            return true;
        };
        let Ok(origin) = std::str::from_utf8(origin) else { return matches!(self.0, Rule::Any) };
        match &self.0 {
            Rule::SameOrigin => is_same_origin(origin, head.header("host").unwrap_or_default()),
            Rule::List(list) => list.iter().any(|o| o.eq_ignore_ascii_case(origin)),
            Rule::Any | Rule::Custom(_) => true,
        }
    }
}

impl fmt::Debug for OriginPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::SameOrigin => f.write_str("SameOrigin"),
            Rule::List(list) => f.debug_tuple("Allow").field(list).finish(),
            Rule::Any => f.write_str("AllowAll"),
            Rule::Custom(_) => f.write_str("Custom"),
        }
    }
}

fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        s if s.eq_ignore_ascii_case("http") => "80",
        s if s.eq_ignore_ascii_case("https") => "443",
        _ => return false,
    };
    let (name, port) = split_port(authority);
    let (host_name, host_port) = split_port(host);
    // `Host` leaves out the default port of a scheme that the request itself does not tell.
    name.eq_ignore_ascii_case(host_name) && port.unwrap_or(default_port) == host_port.unwrap_or(default_port)
}

/// Host and port; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: &OriginPolicy, host: &str, origin: Option<&str>) -> bool {
        let mut headers = vec![("Host", host)];
        headers.extend(origin.map(|o| ("Origin", o)));
        policy.allows(&RequestHead::from_parts("GET", "/", headers).expect("valid"))
    }

    #[test]
    fn same_origin_compares_host_and_port() {
        let policy = OriginPolicy::default();
        for (host, origin) in [
            ("a.org", "http://a.org"),
            ("a.org", "https://A.org"),
            ("a.org:80", "http://a.org"),
            ("a.org:8080", "http://a.org:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("[::1]", "http://[::1]"),
        ] {
            assert!(allows(&policy, host, Some(origin)), "{host} {origin}");
        }
        for (host, origin) in [
            ("a.org", "http://b.org"),
            ("a.org", "http://a.org:8080"),
            ("a.org:8080", "http://a.org"),
            ("a.org", "http://a.org.evil.org"),
            ("a.org", "http://a.org@evil.org"),
            ("a.org", "null"),
            ("a.org", "file://a.org"),
            ("a.org", ""),
            ("[::1]:8080", "http://[::1]"),
        ] {
            assert!(!allows(&policy, host, Some(origin)), "{host} {origin}");
        }
        assert!(allows(&policy, "a.org", None));
    }

    #[test]
    fn lists_any_and_custom() {
        let list = OriginPolicy::allow(["https://a.org"]);
        assert!(allows(&list, "x", Some("https://A.org")));
        assert!(!allows(&list, "x", Some("http://a.org")));
        assert!(allows(&list, "x", None));
        assert!(allows(&OriginPolicy::allow_all(), "x", Some("null")));
        let none = OriginPolicy::custom(|head| head.header("origin").is_some());
        assert!(!allows(&none, "x", None));
    }
}
