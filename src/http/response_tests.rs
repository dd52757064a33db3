use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn wire(response: &Response, is_head: bool) -> String {
    assert_eq!(response.check(), Ok(()));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    String::from_utf8(response.to_bytes(is_head, now)).expect("UTF-8")
}

/// All values of a header.
fn values<'a>(wire: &'a str, name: &str) -> Vec<&'a str> {
    let (head, _) = wire.split_once("\r\n\r\n").expect("a whole head");
    let pairs = head.lines().skip(1).map(|line| line.split_once(": ").expect("a header"));
    pairs.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[test]
fn a_response_is_framed_dated_and_closed() {
    assert_eq!(
        wire(&Response::text(404, "no\n").header("X", "a").header("X", " b\t"), false),
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nX: a\r\nX: b\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n"
    );
    assert!(wire(&Response::json(200, &[1, 2]), false).ends_with("[1,2]"));
    assert!(wire(&Response::html("<p>"), true).ends_with("\r\n\r\n"));
}

#[test]
fn a_clock_before_1970_gives_no_date() {
    let bytes = Response::new(200).to_bytes(false, SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    assert!(!String::from_utf8(bytes).expect("UTF-8").contains("Date"));
}

#[test]
fn no_header_of_the_framing_stands_twice() {
    let response = Response::text(200, "four")
        .header("content-length", "99")
        .header("CONNECTION", "keep-alive")
        .header("Transfer-Encoding", "chunked")
        .header("content-TYPE", "text/csv")
        .header("date", "Sun, 06 Nov 1994 08:49:00 GMT")
        .header("Set-Cookie", "a=1")
        .header("Set-Cookie", "b=2");
    let wire = wire(&response, false);
    assert_eq!(values(&wire, "Content-Length"), ["4"]);
    assert_eq!(values(&wire, "Connection"), ["close"]);
    assert_eq!(values(&wire, "Transfer-Encoding"), [""; 0]);
    assert_eq!(values(&wire, "Content-Type"), ["text/csv"]);
    assert_eq!(values(&wire, "Date"), ["Sun, 06 Nov 1994 08:49:00 GMT"]);
    assert_eq!(values(&wire, "Set-Cookie"), ["a=1", "b=2"]);
}

#[test]
fn some_statuses_have_no_body() {
    for (status, length) in [(204, &[][..]), (304, &[]), (205, &["0"])] {
        let wire = wire(&Response::text(status, "body").header("Content-Length", "4"), false);
        assert_eq!(values(&wire, "Content-Length"), length, "{status}");
        assert!(wire.ends_with("\r\n\r\n"), "{wire}");
    }
}

#[test]
fn an_answer_to_head_may_tell_the_length_of_what_it_does_not_send() {
    let promised = Response::new(200).header("Content-Length", "123456789012");
    assert_eq!(values(&wire(&promised, true), "Content-Length"), ["123456789012"]);
    assert_eq!(values(&wire(&promised, false), "Content-Length"), ["0"], "GET sends what there is");
    for odd in ["", "-1", "x", "1, 1"] {
        let response = Response::new(200).header("Content-Length", odd);
        assert_eq!(values(&wire(&response, true), "Content-Length"), ["0"], "{odd:?}");
    }
    let with_body = Response::text(200, "four").header("Content-Length", "99");
    assert_eq!(values(&wire(&with_body, true), "Content-Length"), ["4"], "it knows its body");
}

#[test]
fn an_upgrade_is_named_by_connection() {
    let wire = wire(&Response::text(426, "no\n").header("upgrade", "websocket"), false);
    assert_eq!((values(&wire, "Upgrade"), values(&wire, "Connection")), (vec!["websocket"], vec!["Upgrade, close"]));
}

#[test]
fn an_invalid_response_becomes_500() {
    let text = |status| Response::text(status, "secret");
    let bad = [0, 42, 100, 101, 199, 600, 999, 65535].map(text).into_iter();
    let names = ["", "X Y", "X:", "X\r\nY", "ä", "(X)", "X\0"].map(|name| text(200).header(name, "v"));
    let values = ["a\r\nY: b", "a\nb", "a\0", "\u{1}", "\u{7f}"].map(|value| text(200).header("X", value));
    for response in bad.chain(names).chain(values) {
        let WireResponse { status, bytes } = response.encode(false);
        let answer = String::from_utf8(bytes).expect("UTF-8");
        assert_eq!(status, 500, "{response:?}");
        assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\ninternal error\n"), "{answer}");
    }
    for status in [200, 299, 418, 451, 599] {
        assert_eq!(text(status).encode(false).status, status);
    }
}

proptest! {
    /// Whatever an application sets: what leaves is one well-formed response, read by somebody else's parser.
    #[test]
    fn what_leaves_is_well_formed(
        status: u16,
        headers in prop::collection::vec((".{0,12}|content-length|Connection|Date|X-[a-z]{1,8}", ".{0,20}"), 0..6),
        body in prop::collection::vec(any::<u8>(), 0..40),
        is_head: bool,
    ) {
        let mut response = Response::new(status).body(body.clone());
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let WireResponse { status: sent, bytes } = response.encode(is_head);
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut fields);
        let length = parsed.parse(&bytes).expect("a response").unwrap();
        prop_assert_eq!(parsed.code, Some(sent));
        prop_assert!((200..600).contains(&sent));
        let count = |name: &str| parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
        prop_assert_eq!((count("connection"), count("transfer-encoding"), count("date")), (1, 0, 1));
        let has_no_length = sent == 204 || sent == 304;
        prop_assert_eq!(count("content-length"), usize::from(!has_no_length));
        let sent_body = &bytes[length..];
        if is_head || has_no_length || sent == 205 {
            prop_assert!(sent_body.is_empty());
        } else if sent == status {
            prop_assert_eq!(sent_body, &body[..]);
        }
    }
}
