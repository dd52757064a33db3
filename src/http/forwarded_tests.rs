use proptest::prelude::*;

use super::*;

fn proxies(list: &[&str], header: ForwardedHeader) -> TrustedProxies {
    let mut proxies = TrustedProxies { header, ..TrustedProxies::default() };
    list.iter().for_each(|text| assert!(proxies.add(text), "{text}"));
    proxies
}

fn head(name: &str, lines: &[&str]) -> RequestHead {
    let lines = lines.iter().map(|line| (name, *line));
    RequestHead::from_parts("GET", "/", [("Host", "a")].into_iter().chain(lines)).expect("valid")
}

/// Whose request it is, asked of a server that trusts these proxies.
fn client(trusted: &[&str], peer: &str, lines: &[&str]) -> String {
    let proxies = proxies(trusted, ForwardedHeader::XForwardedFor);
    let addr = proxies.client_addr(&head("X-Forwarded-For", lines), peer.parse().ok());
    addr.map_or_else(|| "unix".to_owned(), |addr| addr.to_string())
}

#[test]
fn the_last_untrusted_hop_is_the_client() {
    let local = ["127.0.0.1", "10.0.0.0/8"];
    for (peer, lines, expected) in [
        // A peer that is not trusted says what it likes.
        ("9.9.9.9:1", &["1.2.3.4"][..], "9.9.9.9:1"),
        ("127.0.0.1:1", &[], "127.0.0.1:1"),
        ("127.0.0.1:1", &["1.2.3.4"], "1.2.3.4:0"),
        ("127.0.0.1:1", &["1.2.3.4:567"], "1.2.3.4:567"),
        ("127.0.0.1:1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4:0"),
        ("127.0.0.1:1", &["6.6.6.6", "1.2.3.4"], "1.2.3.4:0"),
        ("127.0.0.1:1", &["6.6.6.6, 1.2.3.4, 10.1.1.1", "10.2.2.2"], "1.2.3.4:0"),
        // All of them trusted: the one that is farthest away.
        ("127.0.0.1:1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1:0"),
        // What is no address ends the way.
        ("127.0.0.1:1", &["1.2.3.4, unknown"], "127.0.0.1:1"),
        ("127.0.0.1:1", &["1.2.3.4, , 10.1.1.1"], "10.1.1.1:0"),
        ("127.0.0.1:1", &["6.6.6.6", ""], "127.0.0.1:1"),
        ("127.0.0.1:1", &["1.2.3.4.5"], "127.0.0.1:1"),
        ("127.0.0.1:1", &["::1, 2001:db8::7"], "[2001:db8::7]:0"),
        ("127.0.0.1:1", &["[2001:db8::7]:80"], "[2001:db8::7]:80"),
        // IPv4 over an IPv6 socket.
        ("[::ffff:127.0.0.1]:1", &["1.2.3.4, ::ffff:10.1.1.1"], "1.2.3.4:0"),
    ] {
        assert_eq!(client(&local, peer, lines), expected, "{peer} {lines:?}");
    }
    assert_eq!(client(&["unix"], "", &["1.2.3.4"]), "1.2.3.4:0");
    assert_eq!(client(&local, "", &["1.2.3.4"]), "unix", "a Unix socket must be named");
    assert_eq!(client(&["unix"], "127.0.0.1:1", &["1.2.3.4"]), "127.0.0.1:1");
    assert_eq!(client(&["0.0.0.0/0", "::/0"], "9.9.9.9:1", &["1.2.3.4, 5.6.7.8"]), "1.2.3.4:0");
}

#[test]
fn a_line_that_is_not_utf_8_ends_the_way() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: \xff\r\n\r\n";
    let (head, _) = RequestHead::parse(bytes).expect("good").expect("whole");
    let proxies = proxies(&["127.0.0.1"], ForwardedHeader::XForwardedFor);
    let peer = "127.0.0.1:1".parse().ok();
    assert_eq!(proxies.client_addr(&head, peer), peer);
}

#[test]
fn the_header_of_rfc_7239() {
    let proxies = proxies(&["127.0.0.1", "10.0.0.0/8"], ForwardedHeader::Forwarded);
    let peer = "127.0.0.1:1".parse().ok();
    for (lines, expected) in [
        (&["for=1.2.3.4"][..], "1.2.3.4:0"),
        (&["For=\"1.2.3.4:80\";proto=http;by=203.0.113.43"], "1.2.3.4:80"),
        (&["for=6.6.6.6, proto=https; for=\"[2001:db8:cafe::17]:4711\""], "[2001:db8:cafe::17]:4711"),
        (&["for=6.6.6.6", "for=1.2.3.4,for=10.0.0.1"], "1.2.3.4:0"),
        (&["for=\"1.2\\.3.4\""], "1.2.3.4:0"),
        // A comma inside quotes is none.
        (&["for=1.2.3.4;host=\"a, for=6.6.6.6\""], "1.2.3.4:0"),
        (&["for=6.6.6.6, for=unknown"], "127.0.0.1:1"),
        (&["for=6.6.6.6, for=_hidden"], "127.0.0.1:1"),
        (&["for=6.6.6.6, by=10.0.0.1"], "127.0.0.1:1"),
        (&["for=6.6.6.6, for=\"1.2.3.4"], "127.0.0.1:1"),
        (&["for=6.6.6.6 for=1.2.3.4"], "127.0.0.1:1"),
        (&["nonsense"], "127.0.0.1:1"),
    ] {
        let addr = proxies.client_addr(&head("Forwarded", lines), peer).expect("TCP");
        assert_eq!(addr.to_string(), expected, "{lines:?}");
    }
    let other = proxies.client_addr(&head("X-Forwarded-For", &["6.6.6.6"]), peer);
    assert_eq!(other, peer, "the header that this proxy does not set is the client's own");
}

#[test]
fn networks() {
    let mut proxies = TrustedProxies::default();
    for bad in [
        "",
        "a",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "::/129",
        "10.0.0",
        "1.2.3.4:5",
        "/8",
        "Unix",
    ] {
        assert!(!proxies.add(bad), "{bad:?}");
    }
    let contains = |network: &str, ip: &str| Network::parse(network).expect(network).contains(ip.parse().expect(ip));
    assert!(contains("10.1.2.3/8", "10.255.0.1") && !contains("10.1.2.3/8", "11.0.0.1"));
    assert!(contains("10.1.2.3", "::ffff:10.1.2.3") && !contains("10.1.2.3", "10.1.2.4"));
    assert!(contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe00::1"));
    assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "2001::1"));
}

proptest! {
    /// Whatever a client sends first, the proxy's own hop decides.
    #[test]
    fn nothing_in_front_of_the_proxys_hop_matters(
        before in prop::collection::vec("[ -~]{0,30}", 0..4),
        client: u32,
        in_one_line: bool,
    ) {
        let client = Ipv4Addr::from(client | 0x8000_0000).to_string();
        let mut lines = before;
        match lines.last_mut().filter(|_| in_one_line) {
            Some(last) => last.extend([", ", &client]),
            None => lines.push(client.clone()),
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let proxies = proxies(&["127.0.0.1"], ForwardedHeader::XForwardedFor);
        let addr = proxies.client_addr(&head("X-Forwarded-For", &lines), "127.0.0.1:1".parse().ok()).expect("TCP");
        prop_assert_eq!(addr.ip().to_string(), client);
    }

    #[test]
    fn no_line_panics(line in "[ -~]{0,60}|(for=|[\",;= \\\\]|[0-9.]{1,8}){0,12}") {
        let head = head("Forwarded", &[&line]);
        let proxies = proxies(&["127.0.0.1"], ForwardedHeader::Forwarded);
        prop_assert!(proxies.client_addr(&head, "127.0.0.1:1".parse().ok()).is_some());
    }
}
