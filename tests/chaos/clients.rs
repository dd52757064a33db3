//! Clients as they should be: in a room each, they number what they say, and check that nobody's numbers have gaps.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::stream::SseClient;
use crate::common::{PING, PONG, Random, WsClient};

/// WebSocket clients of a room, who all speak.
pub(crate) const SPEAKERS: usize = 4;

/// Checks what one client hears.
pub(crate) struct Ear {
    room: usize,
    next: [usize; SPEAKERS],
    has_left: [bool; SPEAKERS],
    began: Instant,
    /// Microseconds from speaking to hearing.
    pub(crate) delays: Vec<u32>,
}

impl Ear {
    fn new(room: usize, began: Instant) -> Self {
        Self { room, next: [0; SPEAKERS], has_left: [false; SPEAKERS], began, delays: Vec::new() }
    }

    /// `ROOM SPEAKER NUMBER MICROSECONDS`, and `bye` at the end of a speaker's last.
    fn hear(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!(words[0], self.room.to_string(), "another room's: {text}");
        let speaker: usize = words[1].parse().unwrap();
        assert_eq!(words[2], self.next[speaker].to_string(), "what speaker {speaker} of room {} said", self.room);
        assert!(!self.has_left[speaker], "{text}: after the last");
        self.next[speaker] += 1;
        self.has_left[speaker] = words.len() > 4;
        let said = Duration::from_micros(words[3].parse().unwrap());
        let delay = self.began.elapsed().saturating_sub(said);
        self.delays.push(u32::try_from(delay.as_micros()).unwrap_or(u32::MAX));
    }

    fn has_all(&self) -> bool {
        self.has_left.iter().all(|gone| *gone)
    }
}

/// Speaks until the time is over, each time only when it has heard itself; then listens to the others' last words.
pub(crate) fn speaker(mut socket: WsClient, place: (usize, usize), began: Instant, end: Instant, all: &Barrier) -> Ear {
    let (room, speaker) = place;
    let mut ear = Ear::new(room, began);
    let mut random = Random::new((room * SPEAKERS + speaker) as u64);
    // Whoever speaks is heard by all: they are there.
    all.wait();
    loop {
        let is_last = Instant::now() >= end;
        let number = ear.next[speaker];
        let bye = if is_last { " bye" } else { "" };
        socket.send_text(&format!("{room} {speaker} {number} {}{bye}", began.elapsed().as_micros()));
        while ear.next[speaker] == number || (is_last && !ear.has_all()) {
            let frame = socket.frame();
            match frame.first {
                PING => socket.send_frame(PONG, &frame.payload),
                _ => ear.hear(frame.text()),
            }
        }
        if is_last {
            socket.close();
            return ear;
        }
        thread::sleep(Duration::from_millis(u64::try_from(random.below(60)).unwrap()));
    }
}

/// Listens to the last word of each speaker.
pub(crate) fn listener(mut stream: SseClient, room: usize, began: Instant, all: &Barrier) -> Ear {
    let mut ear = Ear::new(room, began);
    all.wait();
    while !ear.has_all() {
        ear.hear(&stream.data());
    }
    ear
}
