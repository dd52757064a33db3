//! Which web pages may open a connection (RFC 6455 §10.2).

use std::fmt;
use std::sync::Arc;

use super::RequestHead;
use super::fields::is_host;

/// Decides by a request's `Origin` header. Browsers always send one; other clients need not. All policies except
/// [`custom`](OriginPolicy::custom) allow requests without one.
///
/// Pages of allowed origins can read event streams. With their visitor's cookies (`withCredentials`), only pages that
/// [`allow`](OriginPolicy::allow) lists or [`custom`](OriginPolicy::custom) admits can, not every page under
/// [`allow_all`](OriginPolicy::allow_all).
#[derive(Clone, Default)]
pub struct OriginPolicy(Rule);

#[derive(Clone, Default)]
enum Rule {
    #[default]
    SameOrigin,
    List(Arc<[String]>),
    /// A list with an invalid entry, and the reason. Building a hub with it fails.
    Invalid(Arc<str>),
    Any,
    Custom(Arc<dyn Fn(&RequestHead) -> bool + Send + Sync>),
}

impl OriginPolicy {
    /// Allows origins whose host and port equal those of the `Host` header. The default.
    pub fn same_origin() -> Self {
        Self(Rule::SameOrigin)
    }

    /// Allows these origins, such as `https://example.org`: scheme, host, and the port unless it is the scheme's
    /// default. Case, a trailing slash and a default port (`:443` with `https`) make no difference. `null` stands for
    /// pages without an origin, such as files.
    ///
    /// An entry that can never match, such as a host without a scheme, a path or a `*`, makes
    /// [`HubBuilder::build`](crate::HubBuilder::build) fail with an error that names it. For wildcards use
    /// [`custom`](OriginPolicy::custom).
    pub fn allow<S: Into<String>>(origins: impl IntoIterator<Item = S>) -> Self {
        let normalised = origins.into_iter().map(|origin| {
            let origin = origin.into();
            normalised(&origin).ok_or_else(|| format!("{origin:?} is not an origin such as \"https://example.org\""))
        });
        match normalised.collect::<Result<Vec<_>, _>>() {
            Ok(list) => Self(Rule::List(list.into())),
            Err(why) => Self(Rule::Invalid(why.into())),
        }
    }

    /// Allows every page of the web to connect with its visitor's cookies. Use it only for public data, or with another
    /// kind of authentication.
    pub fn allow_all() -> Self {
        Self(Rule::Any)
    }

    /// Allows requests for which `decide` returns true. It is also called for requests without an origin, on the
    /// connection's thread. A panic refuses. An allowed page may read event streams with its visitor's cookies.
    pub fn custom(decide: impl Fn(&RequestHead) -> bool + Send + Sync + 'static) -> Self {
        Self(Rule::Custom(Arc::new(decide)))
    }

    /// Why an entry of the list can never match; `None` if all entries are valid.
    pub(crate) fn fault(&self) -> Option<&str> {
        match &self.0 {
            Rule::Invalid(why) => Some(why),
            _ => None,
        }
    }

    /// Whether allowed pages may send their visitor's cookies and read the answer: only origins that the program named.
    pub(crate) fn allows_credentials(&self) -> bool {
        matches!(self.0, Rule::List(_) | Rule::Custom(_))
    }

    /// Whether the policy allows the request.
    pub fn allows(&self, head: &RequestHead) -> bool {
        if let Rule::Custom(decide) = &self.0 {
            return decide(head);
        }
        // Compares bytes, because an origin that is not UTF-8 must not count as missing.
        let Some((_, origin)) = head.header_lines().find(|(name, _)| name.eq_ignore_ascii_case("origin")) else {
            return true;
        };
        let Ok(origin) = std::str::from_utf8(origin) else { return matches!(self.0, Rule::Any) };
        match &self.0 {
            Rule::SameOrigin => is_same_origin(origin, head.header("host").unwrap_or_default()),
            Rule::List(list) => normalised(origin).is_some_and(|origin| list.contains(&origin)),
            Rule::Invalid(_) => false,
            Rule::Any | Rule::Custom(_) => true,
        }
    }
}

impl fmt::Debug for OriginPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::SameOrigin => f.write_str("SameOrigin"),
            Rule::List(list) => f.debug_tuple("Allow").field(list).finish(),
            Rule::Invalid(why) => f.debug_tuple("Invalid").field(why).finish(),
            Rule::Any => f.write_str("AllowAll"),
            Rule::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// Normalises an origin for comparison: scheme and host in lower case, no default port (RFC 6454 §4). `None` if the
/// text is not an origin.
fn normalised(origin: &str) -> Option<String> {
    if origin == "null" {
        return Some(origin.to_owned());
    }
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
    // Apps and extensions have schemes and origins, too. Their hosts may have any form.
    let is_web = matches!(scheme.as_str(), "http" | "https");
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let (name, port) = split_port(&authority);
    let is_authority = is_host(&authority) && !name.is_empty() && !authority.ends_with(':') && !name.contains('*');
    if !is_scheme || !is_authority || (is_web && port.is_some_and(|port| port.parse::<u16>().is_err())) {
        return None;
    }
    let port = port.filter(|port| default_port(&scheme) != Some(port));
    Some(match port {
        Some(port) => format!("{scheme}://{name}:{port}"),
        None => format!("{scheme}://{name}"),
    })
}

fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    }
}

fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let Some(default_port) = default_port(&scheme.to_ascii_lowercase()) else { return false };
    let (name, port) = split_port(authority);
    let (host_name, host_port) = split_port(host);
    // `Host` omits the default port of a scheme that the request does not name.
    name.eq_ignore_ascii_case(host_name) && port.unwrap_or(default_port) == host_port.unwrap_or(default_port)
}

/// Splits host and port. An IPv6 address keeps its brackets.
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

    #[test]
    fn origins_are_compared_as_what_they_mean() {
        let same = ["https://a.org", "https://a.org/", "https://a.org:443", "HTTPS://A.ORG:443/"];
        for given in same {
            let policy = OriginPolicy::allow([given]);
            assert_eq!(policy.fault(), None, "{given}");
            for origin in same {
                assert!(allows(&policy, "x", Some(origin)), "{given} {origin}");
            }
            for origin in ["http://a.org", "https://a.org:444", "https://b.a.org", "null", "https://a.org.evil.org"] {
                assert!(!allows(&policy, "x", Some(origin)), "{given} {origin}");
            }
        }
        let others =
            OriginPolicy::allow(["http://[::1]:8080", "null", "app://x", "http://a_b:80", "http://a.org:8080"]);
        for origin in ["http://[::1]:8080", "null", "app://x", "http://a_b", "http://A.org:8080"] {
            assert!(allows(&others, "x", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn what_can_never_match_is_named() {
        for bad in [
            "a.org",
            "https://*.a.org",
            "*",
            "",
            "https://",
            "https:///",
            "https://a.org/path",
            "https://a.org?q",
            "https://user@a.org",
            "//a.org",
            "://a.org",
            "https://a.org:",
            "https://a.org:x",
            "https://a.org:99999",
            "https://a b",
            "https://[::1",
            "Null",
            "ht tp://a",
            "https://a.org//",
            " https://a.org",
        ] {
            let policy = OriginPolicy::allow(["https://good.org", bad]);
            let why = policy.fault().unwrap_or_else(|| panic!("{bad:?} is taken"));
            assert!(why.contains(&format!("{bad:?}")), "{why}");
            assert!(!allows(&policy, "x", Some("https://good.org")));
        }
        assert_eq!(OriginPolicy::allow([""; 0]).fault(), None, "nobody at all is a rule");
    }
}
