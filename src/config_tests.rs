//! The bounds of settings and limits.

use super::*;

fn offending(config: &Config) -> Option<&'static str> {
    config.validate().err().map(|e| e.field())
}

#[test]
fn defaults_are_valid_and_errors_name_the_field() {
    assert_eq!(offending(&Config::default()), None);
    assert_eq!(offending(&Config::default().max_message_size(isize::MAX.unsigned_abs())), None);
    assert_eq!(offending(&Config::default().max_message_size(isize::MAX.unsigned_abs() + 1)), Some("max_message_size"));
    assert_eq!(offending(&Config::default().queue_messages(0)), Some("queue_messages"));
    assert_eq!(offending(&Config::default().violation_code(999)), Some("violation_code"));
    assert_eq!(offending(&Config::default().violation_code(3501)), None);
    assert_eq!(offending(&Config::default().rate_limit_code(0)), Some("rate_limit_code"));
    assert_eq!(offending(&Config::default().queue_bytes(0)), Some("queue_bytes"));
    assert_eq!(offending(&Config::default().read_buffer(1)), Some("read_buffer"));
    assert_eq!(offending(&Config::default().write_timeout(Duration::ZERO)), Some("write_timeout"));
    assert_eq!(offending(&Config::default().close_timeout(Duration::ZERO)), Some("close_timeout"));
    assert_eq!(offending(&Config::default().writer_stack(1)), Some("writer_stack"));
    assert_eq!(offending(&Config::default().reader_stack(1)), Some("reader_stack"));
    assert_eq!(offending(&Config::default().subprotocols(["a b"])), Some("subprotocols"));
    for bad in [1, 4095, (1 << 30) + 1] {
        assert_eq!(offending(&Config::default().send_buffer(bad)), Some("send_buffer"));
    }
    assert_eq!(offending(&Config::default().send_buffer(4096).unsent_low_water(1 << 30)), None);
    assert_eq!(offending(&Config::default().unsent_low_water(1023)), Some("unsent_low_water"));
}

#[test]
fn every_setting_has_an_upper_and_a_lower_bound() {
    type Change = fn(Config, Duration) -> Config;
    type Set = fn(Config, usize) -> Config;
    let nano = Duration::from_nanos(1);
    let most = Duration::MAX.saturating_sub(nano);
    let times: [(&str, Change); 7] = [
        ("write_timeout", Config::write_timeout),
        ("close_timeout", Config::close_timeout),
        ("pong_timeout", Config::pong_timeout),
        ("heartbeat", Config::heartbeat),
        ("lame_duck", Config::lame_duck),
        ("drain_timeout", Config::drain_timeout),
        ("drain_spread", Config::drain_spread),
    ];
    for (name, set) in times {
        assert_eq!(offending(&set(Config::default(), nano)), Some(name));
        assert_eq!(offending(&set(Config::default(), most)), Some(name));
        assert_eq!(offending(&set(Config::default(), Duration::MAX)), None, "{name}: for ever");
    }
    let sizes: [(&str, Set); 8] = [
        ("read_buffer", Config::read_buffer),
        ("max_message_size", Config::max_message_size),
        ("queue_messages", Config::queue_messages),
        ("queue_bytes", Config::queue_bytes),
        ("send_buffer", Config::send_buffer),
        ("unsent_low_water", Config::unsent_low_water),
        ("reader_stack", Config::reader_stack),
        ("writer_stack", Config::writer_stack),
    ];
    for (name, set) in sizes {
        let too_large = match name {
            // Messages may be as large as memory allows.
            "max_message_size" => usize::MAX / 2 + 1,
            "reader_stack" | "writer_stack" => MAX_STACK + 1,
            _ => GIB + 1,
        };
        for value in [usize::MAX, too_large] {
            let error = set(Config::default(), value).validate().unwrap_err();
            assert_eq!((error.field(), error.value()), (name, &*value.to_string()));
        }
    }
    let error = Config::default().queue_messages(usize::MAX / 4).validate().unwrap_err();
    assert_eq!(error.to_string(), format!("queue_messages {} must be 1 to 1048576", usize::MAX / 4));
    let long = "x".repeat(129);
    assert_eq!(offending(&Config::default().subprotocols([long])), Some("subprotocols"));
    assert_eq!(offending(&Config::default().subprotocols(vec!["x"; 65])), Some("subprotocols"));
}

#[test]
fn every_limit_has_an_upper_bound() {
    type Set = fn(Limits, usize) -> Limits;
    let limits: [(&str, Set, usize); 7] = [
        ("max_connections", Limits::max_connections, COUNT),
        ("max_connections_per_user", Limits::max_connections_per_user, COUNT),
        ("max_connections_per_address", Limits::max_connections_per_address, COUNT),
        ("max_rooms_per_client", Limits::max_rooms_per_client, COUNT),
        ("max_clients_per_room", Limits::max_clients_per_room, COUNT),
        ("max_message_rate", |l, n| l.max_message_rate(u32::try_from(n).unwrap_or(u32::MAX)), 1_000_000),
        ("history_bytes", Limits::history_bytes, ALL_MEMORY),
    ];
    for (name, set, most) in limits {
        for value in [0, 1, most] {
            assert_eq!(set(Limits::default(), value).validate(), Ok(()), "{name} {value}");
        }
        let error = set(Limits::default(), most + 1).validate().unwrap_err();
        assert_eq!(error.to_string(), format!("{name} {} must be 0 to {most}", most + 1));
    }
    assert_eq!(Limits::default().validate(), Ok(()));
}

#[test]
fn pings_must_come_before_the_pong_deadline() {
    let config = Config::default().ping_period(Duration::from_secs(60));
    assert_eq!(offending(&config), Some("ping_period"));
    assert_eq!(offending(&config.pong_timeout(Duration::ZERO)), None);
}
