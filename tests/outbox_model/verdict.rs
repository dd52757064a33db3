//! What must hold when every thread has finished.

use super::machine::Act;

/// Frames that are not messages; a message is its sender's number times ten, plus its place.
pub(crate) const PING: u8 = 1;
pub(crate) const CLOSE: u8 = 2;

/// The first thing that is wrong with what has reached the wire, when every thread has finished.
pub(crate) fn verdict(wire: &[u8], threads: &[&'static [Act]]) -> Result<(), &'static str> {
    let frames: Vec<u8> = wire.chunks(2).map(|halves| halves[0]).collect();
    if wire.chunks(2).any(|halves| halves != [halves[0]; 2]) {
        return Err("torn");
    }
    let count = |frame: u8| frames.iter().map(|f| usize::from(*f == frame)).sum::<usize>();
    if (1..100).any(|frame| frame != PING && count(frame) > 1) {
        return Err("doubled");
    }
    let has = |act: Act| threads.iter().any(|acts| acts.contains(&act));
    let closes = has(Act::Close);
    if closes && frames.last() != Some(&CLOSE) {
        return Err(if count(CLOSE) == 0 { "lost" } else { "after the close frame" });
    }
    if has(Act::Ping) && !closes && count(PING) == 0 {
        return Err("lost");
    }
    for (number, acts) in (1..).zip(threads) {
        let mine: Vec<u8> = frames.iter().copied().filter(|frame| frame / 10 == number).collect();
        let sends = (1..).zip(*acts).filter(|(_, act)| matches!(act, Act::Send | Act::Push));
        let expected: Vec<u8> = sends.map(|(place, _)| number * 10 + place).collect();
        // What races with another thread's close may be refused or come too late.
        if mine.len() < expected.len() && (!closes || acts.contains(&Act::Close)) && !has_two_closes(threads) {
            return Err("lost");
        }
        if !expected.starts_with(&mine) {
            return Err("out of order");
        }
    }
    Ok(())
}

fn has_two_closes(threads: &[&'static [Act]]) -> bool {
    threads.iter().filter(|acts| acts.contains(&Act::Close)).count() > 1
}
