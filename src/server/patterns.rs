//! Paths with parameters and prefixes: `/rooms/{room}`, `/files/*`.

use std::borrow::Cow;

/// The pattern of a route's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Segment>);

/// One segment of a path, in the order in which kinds are tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    /// `{name}`: one segment that is not empty.
    Parameter(String),
    /// `*` at the end: the rest of the path, which may be empty.
    Rest,
}

/// The parameters of a path that matched, by name; the rest of a prefix as `*`.
pub(super) type Parameters = Vec<(Box<str>, Box<str>)>;

impl Pattern {
    /// Parses a path. Returns `None` for a plain path. The error is the reason.
    pub(super) fn parse(path: &str) -> Result<Option<Self>, &'static str> {
        let segments: Vec<Segment> = path.split('/').skip(1).map(segment).collect::<Result<_, _>>()?;
        if segments.iter().all(|segment| matches!(segment, Segment::Literal(_))) {
            return Ok(None);
        }
        if segments.iter().rev().skip(1).any(|segment| *segment == Segment::Rest) {
            return Err("* is allowed only at the end of a path");
        }
        let names: Vec<&String> = segments.iter().filter_map(Segment::name).collect();
        if names.iter().enumerate().any(|(at, name)| names[..at].contains(name)) {
            return Err("duplicate parameter name");
        }
        Ok(Some(Self(segments)))
    }

    /// Returns the decoded parameters if the path matches. A parameter that is not UTF-8 does not match.
    pub(super) fn matches(&self, path: &str) -> Option<Parameters> {
        let mut rest = Some(path.strip_prefix('/')?);
        let mut found = Parameters::new();
        for segment in &self.0 {
            let text = rest?;
            let (first, behind) = match text.split_once('/') {
                Some((first, behind)) => (first, Some(behind)),
                None => (text, None),
            };
            match segment {
                Segment::Literal(literal) if literal == first => {}
                Segment::Parameter(name) if !first.is_empty() => found.push((name.as_str().into(), decoded(first)?)),
                Segment::Literal(_) | Segment::Parameter(_) => return None,
                Segment::Rest => {
                    found.push(("*".into(), decoded(text)?));
                    return Some(found);
                }
            }
            rest = behind;
        }
        rest.is_none().then_some(found)
    }

    /// Whether both patterns match the same paths.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.rank() == b.rank())
    }

    /// Whether this pattern is tried before the other: it is more specific, from the left.
    pub(super) fn goes_before(&self, other: &Self) -> bool {
        let ranks = |pattern: &Self| pattern.0.iter().map(|segment| segment.rank().0).collect::<Vec<_>>();
        ranks(self) < ranks(other)
    }
}

impl Segment {
    fn name(&self) -> Option<&String> {
        match self {
            Self::Parameter(name) => Some(name),
            Self::Literal(_) | Self::Rest => None,
        }
    }

    /// The kind and text by which segments are ordered, without the parameter's name.
    fn rank(&self) -> (u8, &str) {
        match self {
            Self::Literal(text) => (0, text),
            Self::Parameter(_) => (1, ""),
            Self::Rest => (2, ""),
        }
    }
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    if text == "*" {
        return Ok(Segment::Rest);
    }
    let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return if text.contains(['{', '}', '*']) {
            Err("a parameter must be a whole segment, as in /rooms/{room}")
        } else {
            Ok(Segment::Literal(text.to_owned()))
        };
    };
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if is_name {
        Ok(Segment::Parameter(name.to_owned()))
    } else {
        Err("a parameter name must consist of letters and digits")
    }
}

fn decoded(text: &str) -> Option<Box<str>> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned).map(Box::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> Option<String> {
        let pattern = Pattern::parse(pattern).expect("valid").expect("a pattern");
        let found = pattern.matches(path)?;
        Some(found.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn parameters_are_segments() {
        let room = |path| matches("/rooms/{room}", path);
        assert_eq!(room("/rooms/lobby").as_deref(), Some("room=lobby"));
        assert_eq!(room("/rooms/a%20b%2Fc").as_deref(), Some("room=a b/c"));
        for path in ["/rooms", "/rooms/", "/rooms/a/", "/rooms/a/b", "/room/a", "/rooms/%FF", "//rooms/a", "*"] {
            assert_eq!(room(path), None, "{path}");
        }
        assert_eq!(matches("/{a}/x/{b}", "/1/x/2").as_deref(), Some("a=1,b=2"));
        assert_eq!(matches("/{a}/", "/1/").as_deref(), Some("a=1"));
    }

    #[test]
    fn a_star_is_the_rest() {
        let file = |path| matches("/files/*", path);
        assert_eq!(file("/files/a/b.txt").as_deref(), Some("*=a/b.txt"));
        assert_eq!(file("/files/").as_deref(), Some("*="));
        assert_eq!((file("/files"), file("/filesystem/a")), (None, None));
        assert_eq!(matches("/{user}/*", "/ann/x").as_deref(), Some("user=ann,*=x"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!(Pattern::parse("/plain/path"), Ok(None));
        for bad in ["/a{b}", "/{a", "/{}", "/{a b}", "/*/a", "/a*", "/{a}/{a}", "/{a}b/c"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_says_more_goes_first() {
        let pattern = |text: &str| Pattern::parse(text).expect("valid").expect("a pattern");
        assert!(pattern("/a/{b}").goes_before(&pattern("/{a}/b")));
        assert!(pattern("/a/{b}").goes_before(&pattern("/a/*")));
        assert!(!pattern("/a/*").goes_before(&pattern("/a/{b}")));
        assert!(pattern("/a/{b}").is_same(&pattern("/a/{c}")) && !pattern("/a/{b}").is_same(&pattern("/b/{b}")));
    }
}
