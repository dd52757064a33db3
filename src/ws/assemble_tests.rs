//! The decoder against hand-made client frames, cut in every way.

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked client frame with `first` as its first byte (FIN, reserved bits, opcode).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | u8::try_from(n).unwrap()),
        n @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// Feeds `bytes` in steps of `step`, as a reader does, and collects the events.
fn feed(decoder: &mut Decoder, bytes: &[u8], step: usize, events: &mut Vec<Event>) -> Result<(), u16> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut chunk = Vec::new();
        if let Some(space) = decoder.space() {
            let n = step.min(rest.len()).min(space.len());
            space[..n].copy_from_slice(&rest[..n]);
            decoder.filled(n).map_err(|v| v.code)?;
            rest = &rest[n..];
        } else {
            let n = step.min(rest.len());
            chunk.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
        }
        let mut input = chunk.as_mut_slice();
        while let Some(event) = decoder.next(&mut input).map_err(|v| v.code)? {
            events.push(event);
        }
        assert!(input.is_empty(), "all is used up");
    }
    Ok(())
}

/// The events of `bytes`, or the first violation's code.
fn decode(bytes: &[u8], step: usize, max: usize) -> Result<Vec<Event>, u16> {
    let mut events = Vec::new();
    feed(&mut Decoder::new(max, false), bytes, step, &mut events)?;
    Ok(events)
}

fn text(s: &str) -> Event {
    Event::Message(MessageKind::Text, s.as_bytes().to_vec())
}

#[test]
fn whole_and_fragmented_messages_in_every_cut() {
    let stream = [
        frame(0x81, b"hello"),
        frame(0x01, "κόσ".as_bytes()),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, "με".as_bytes()),
        frame(0x8a, b""),
        frame(0x82, &[9; 300]),
        frame(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    for step in 1..=stream.len() {
        let expected = vec![
            text("hello"),
            Event::Ping(b"ping".to_vec()),
            text("κόσμε"),
            Event::Pong,
            Event::Message(MessageKind::Binary, vec![9; 300]),
            Event::Close(CloseFrame { code: Some(1000), reason: "bye".into() }),
        ];
        assert_eq!(decode(&stream, step, 1000), Ok(expected), "step {step}");
    }
}

#[test]
fn violations_and_their_codes() {
    let unmasked = vec![0x81, 0x00];
    let huge = [vec![0x82, 0x80 | 127], u64::MAX.to_be_bytes().to_vec(), MASK.to_vec()].concat();
    let cases: [(&str, Vec<u8>, u16); 15] = [
        ("no mask", unmasked, 1002),
        ("rsv1", frame(0xc1, b""), 1002),
        ("rsv2", frame(0xa1, b""), 1002),
        ("rsv3", frame(0x91, b""), 1002),
        ("opcode 3", frame(0x83, b""), 1002),
        ("opcode 11", frame(0x8b, b""), 1002),
        ("fragmented ping", frame(0x09, b""), 1002),
        ("long ping", frame(0x89, &[0; 126]), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("text inside text", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        ("bad close", frame(0x88, b"x"), 1002),
        ("64-bit length", huge, 1002),
        ("bad text", frame(0x81, b"\xff"), 1007),
        ("text that ends early", frame(0x81, "é".as_bytes()[..1].as_ref()), 1007),
        ("too big over fragments", [frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat(), 1009),
    ];
    for (name, bytes, code) in cases {
        for step in [1, 7, bytes.len()] {
            assert_eq!(decode(&bytes, step, 1000), Err(code), "{name}, step {step}");
        }
    }
}

#[test]
fn bad_text_fails_before_its_frame_ends() {
    let whole = frame(0x81, b"fine \xff then much more");
    let head = &whole[..6 + 6];
    assert_eq!(decode(head, 1, 1000), Err(1007));
}

#[test]
fn large_messages_are_read_to_their_place_in_every_step() {
    // Every read prepares its place, so reads of three bytes get shorter messages.
    for (step, size) in [(3, 20_000), (4096, 600_000), (5000, 600_000), (65_537, 600_000), (1 << 20, 600_000)] {
        let (first, second) = (vec![5; size], "é".repeat(size / 15));
        let frames = [frame(0x82, &first), frame(0x01, second.as_bytes()), frame(0x89, b"?"), frame(0x80, b"x")];
        let expected = [
            Event::Message(MessageKind::Binary, first),
            Event::Ping(b"?".to_vec()),
            Event::Message(MessageKind::Text, format!("{second}x").into_bytes()),
        ];
        assert_eq!(decode(&frames.concat(), step, 1 << 20).as_deref(), Ok(&expected[..]), "step {step}");
    }
    let mut bad = "é".repeat(40_000).into_bytes();
    bad[70_001] = b'a';
    assert_eq!(decode(&frame(0x81, &bad), 4096, 1 << 20), Err(1007));
}

#[test]
fn memory_follows_what_has_arrived() {
    let mut decoder = Decoder::new(1 << 30, false);
    let head = [vec![0x82, 0x80 | 127], (1_u64 << 30).to_be_bytes().to_vec(), MASK.to_vec()].concat();
    let capacity = |decoder: &Decoder| decoder.message.as_ref().map_or(0, |m| m.payload.capacity());
    let mut arrived = 0;
    feed(&mut decoder, &head, 14, &mut Vec::new()).unwrap();
    assert_eq!(capacity(&decoder), 0);
    for step in [1, 10, 5000, 100_000, 1_000_000] {
        feed(&mut decoder, &vec![1; step], step, &mut Vec::new()).unwrap();
        arrived += step;
        assert!(capacity(&decoder) <= 4 * arrived + 2 * MIN_STEP, "{} for {arrived}", capacity(&decoder));
        // A read that brings nothing changes nothing.
        assert!(decoder.space().is_some_and(|space| space.len() <= arrived.max(MIN_STEP)));
        decoder.filled(0).unwrap();
        assert_eq!(decoder.arrived, Some(arrived));
        assert!(capacity(&decoder) <= 4 * arrived + 2 * MIN_STEP, "{} for {arrived}", capacity(&decoder));
    }
    assert!(decoder.is_mid_message());
}

#[test]
fn nothing_is_kept_between_messages() {
    let mut decoder = Decoder::new(1 << 20, false);
    let mut events = Vec::new();
    feed(&mut decoder, &[frame(0x82, &vec![1; 100_000]), frame(0x81, b"x")].concat(), 4096, &mut events).unwrap();
    assert_eq!(events.len(), 2);
    assert!(!decoder.is_mid_message() && decoder.space().is_none());
    assert!(size_of::<Decoder>() <= 320, "{} bytes", size_of::<Decoder>());
}

#[test]
fn unmasking_agrees_with_the_simple_loop_at_every_offset() {
    for at in 0..4 {
        for len in 0..40 {
            let mut bytes: Vec<u8> = (0..len).collect();
            unmask(&mut bytes, MASK, at);
            let simple: Vec<u8> = (0..len).map(|i| i ^ MASK[(at + i as usize) % 4]).collect();
            assert_eq!(bytes, simple);
        }
    }
}

#[test]
fn what_a_read_has_not_filled_is_not_zeroed_again() {
    let len = 4 * MAX_STEP;
    let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
    let wire = frame(0x82, &payload);
    let (head, mut rest) = wire.split_at(wire.len() - len);
    let mut decoder = Decoder::new(len, false);
    assert_eq!(decoder.next(&mut &mut head.to_vec()[..]).unwrap(), None);
    let (mut marked, mut reads) = (0, 0);
    while let Some(space) = decoder.space() {
        // What an earlier read has left behind is still there: as much as the space has not grown by.
        marked += space.iter().map(|byte| usize::from(*byte == 0xee)).sum::<usize>();
        space.fill(0xee);
        let n = (1000 + reads * 37).min(space.len()).min(rest.len());
        space[..n].copy_from_slice(&rest[..n]);
        decoder.filled(n).unwrap();
        rest = &rest[n..];
        reads += 1;
    }
    assert!(reads > 100 && marked > reads * MAX_STEP / 4, "{marked} of {reads} reads");
    let event = decoder.next(&mut &mut rest.to_vec()[..]).unwrap();
    assert_eq!(event, Some(Event::Message(MessageKind::Binary, payload)));
}
