use super::*;

const GOOD: &str = "GET /ws?a=1&b=x%20y HTTP/1.1\r\nHost: example.org\r\nX-List: a, B\r\nx-list: c\r\n\r\n";

fn parse(text: &str) -> Result<Option<(RequestHead, usize)>, u16> {
    RequestHead::parse(text.as_bytes()).map_err(|e| e.status())
}

#[test]
fn what_is_logged_is_printable() {
    // A control sequence, a line end, and text that runs backwards: all of them may stand in a target.
    let head =
        parse("GET /a\u{9b}31m\u{85}\u{202e}é?secret HTTP/1.1\r\nHost: x\r\n\r\n").expect("good").expect("whole").0;
    assert_eq!(format!("{head:?}"), "RequestHead(GET /a\\u{9b}31m\\u{85}\\u{202e}é)");
}

fn status(text: &str) -> u16 {
    parse(text).map_or_else(|s| s, |head| if head.is_some() { 200 } else { 100 })
}

#[test]
fn parts_of_a_head() {
    let (head, length) = parse(&format!("{GOOD}rest")).expect("valid").expect("whole");
    assert_eq!(length, GOOD.len());
    assert_eq!((head.method(), head.path(), head.query()), ("GET", "/ws", Some("a=1&b=x%20y")));
    assert_eq!(head.query_param("b").as_deref(), Some("x y"));
    assert_eq!(head.query_param("c"), None);
    assert_eq!(head.header("HOST"), Some("example.org"));
    assert!(head.has_token("x-list", "b") && head.has_token("X-List", "c") && !head.has_token("x-list", "d"));
    assert_eq!(format!("{head:?}"), "RequestHead(GET /ws)");
}

#[test]
fn every_prefix_is_incomplete() {
    for n in 0..GOOD.len() {
        assert_eq!(status(&GOOD[..n]), 100, "{n}");
    }
}

#[test]
fn heads_that_could_be_read_in_two_ways() {
    let with = |line: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
    let bad = [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        with("Host: a"),
        with("Content-Length: 1\r\nContent-Length: 1"),
        with("Content-Length: +1"),
        with("Content-Length: 1, 1"),
        with("Content-Length: 99999999999999999999"),
        with("Upgrade: websocket\r\nUpgrade: websocket"),
        with("Authorization: Basic YTpi\r\nauthorization: Basic YTpi"),
        with("User-Agent: a\r\nUser-Agent: b"),
        with("Last-Event-ID: 1\r\nLast-Event-ID: 2"),
        with("Content-Length: 0\r\nTransfer-Encoding: chunked"),
        with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: exa mple\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nHost: a:b\r\n\r\n".to_owned(),
        "GET http:///x HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
        with("X: a\r\n folded"),
        with("X: a\nY: b"),
        with("X: a\rY: b"),
        with("X: a\0b"),
        with("X : a"),
        with(": a"),
        "GET / HTTP/1.1\nHost: a\n\n".to_owned(),
        "\r\n\r\nGET / HTTP/1.1\nHost: a\n\n".to_owned(),
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".to_owned(),
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n".to_owned(),
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}".to_owned(),
    ];
    for text in bad {
        assert_eq!(status(&text), 400, "{text:?}");
    }
    for name in SINGULAR.into_iter().take(TEXTUAL) {
        let head = [b"GET / HTTP/1.0\r\n", name.as_bytes(), b": \xff\r\n\r\n"].concat();
        assert_eq!(RequestHead::parse(&head).map_err(|e| e.status()).err(), Some(400), "{name} is there, not missing");
    }
    assert_eq!(status("GET http://a/x?y HTTP/1.1\r\nHost: A\r\n\r\n"), 200);
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(status("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
}

#[test]
fn absolute_targets_give_their_path() {
    let (head, _) = parse("GET ws://a?q=1 HTTP/1.1\r\nHost: a\r\n\r\n").expect("valid").expect("whole");
    assert_eq!((head.path(), head.query()), ("/", None));
    let (head, _) = parse("GET http://a/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n").expect("valid").expect("whole");
    assert_eq!((head.path(), head.query()), ("/x", Some("q=1")));
}

#[test]
fn size_limits() {
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    assert_eq!(status(&long), 431);
    assert_eq!(status(&long[..MAX_HEAD - 1]), 100);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
    assert_eq!(status(&many), 431);
}

#[test]
fn from_parts_follows_the_same_rules() {
    let head = RequestHead::from_parts("GET", "/ws", [("Host", "a")]).expect("valid");
    assert_eq!(head.path(), "/ws");
    assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a\r\nX: y")]).is_err(), "two headers in one");
    assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a\r\n\r\nGET")]).is_err());
    assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a"), ("Host", "b")]).is_err());
    assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a"), ("X: y\r\nCookie", "z")]).is_err());
    assert!(RequestHead::from_parts("GET", "/ws", [("Host: a", "b")]).is_err(), "another name");
    assert!(RequestHead::from_parts("GET /admin HTTP/1.1\r\nX:", "/ws", [("Host", "a")]).is_err());
    assert!(RequestHead::from_parts("GET", "/ws HTTP/1.1\r\nX: y", [("Host", "a")]).is_err(), "two lines in one");
    assert!(RequestHead::from_parts("\r\nGET", "/ws", [("Host", "a")]).is_err(), "skipped when parsed");
}

fn head(lines: &str) -> RequestHead {
    let text = format!("GET /ws?a=1&a=2&b=x%20y+z&c&=d&&%FF=e&f=%FE HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    parse(&text).expect("good").expect("whole").0
}

#[test]
fn query_parameters_are_decoded_and_must_be_text() {
    let head = head("");
    let all: Vec<_> = head.query_params().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(all, ["a=1", "a=2", "b=x y z", "c=", "=d"]);
    assert_eq!(head.query_param("a").as_deref(), Some("1"));
    assert_eq!(head.query_param("f"), None, "two users must not become one by replacement characters");
    let none = parse("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n").expect("good").expect("whole").0;
    assert_eq!((none.query_params().count(), none.query()), (0, None));
}

#[test]
fn cookies_are_found_on_all_lines() {
    let head = head("Cookie: a=1; session=x=y ;b\r\ncookie: c=\"3\";a=2\r\n");
    assert_eq!((head.cookie("a"), head.cookie("session"), head.cookie("c")), (Some("1"), Some("x=y"), Some("\"3\"")));
    assert_eq!((head.cookie("b"), head.cookie("A"), head.cookie("")), (None, None, None));
}

#[test]
fn bearer_tokens() {
    for (line, token) in [
        ("Authorization: Bearer abc.def", Some("abc.def")),
        ("Authorization: bEARER   abc ", Some("abc")),
        ("Authorization: Bearer", None),
        ("Authorization: Bearer  ", None),
        ("Authorization: Basic YTpi", None),
        ("X: y", None),
    ] {
        assert_eq!(head(&format!("{line}\r\n")).bearer(), token, "{line}");
    }
}

#[test]
fn every_line_of_a_header_is_there() {
    let head = head("X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2, 3.3.3.3\r\n");
    assert_eq!(head.headers("X-FORWARDED-FOR").collect::<Vec<_>>(), ["1.1.1.1", "2.2.2.2, 3.3.3.3"]);
    assert_eq!(head.header_lines().count(), 3);
}

#[test]
fn bodies_are_framed_one_way() {
    for (lines, framing) in [
        ("", Framing::Length(0)),
        ("Content-Length: 007\r\n", Framing::Length(7)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
        ("Transfer-Encoding: gzip, chunked\r\n", Framing::Unknown),
        ("Transfer-Encoding: chunked, chunked\r\n", Framing::Unknown),
        ("Transfer-Encoding: \r\n", Framing::Unknown),
    ] {
        assert_eq!(head(lines).framing(), Ok(framing), "{lines:?}");
    }
}

#[test]
fn only_http_1_1_knows_100_continue() {
    let head = |version| {
        let text = format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n");
        parse(&text).expect("good").expect("whole").0
    };
    assert!(head("1.1").expects_continue() && !head("1.0").expects_continue());
}
