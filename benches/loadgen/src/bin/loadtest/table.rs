//! The report for people.

use std::fmt::Write as _;

use super::outcome::Outcome;

const HEAD: [&str; 16] = [
    "scenario", "clients", "sent", "received", "per s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "CPU us",
    "KiB/conn", "threads", "busy", "lost", "notes",
];
/// These stand to the left of their columns, the numbers to the right.
const TEXTS: [usize; 2] = [0, HEAD.len() - 1];
const FOOT: &str = "\
per s, CPU us: deliveries a second, and the server's CPU time for each; in connect, of connections.
Latencies: from sending to receiving; in connect, of handshakes. KiB/conn: the server's memory for each idle connection.
busy: the generator's thread, in percent. lost: messages that must have come and did not.
";

/// The table of these measurements, with what its columns are.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain(outcomes.iter().map(row)).collect();
    let widths: Vec<usize> =
        (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let result = if TEXTS.contains(&column) {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
            result.unwrap_or_else(|_| unreachable!("a string takes everything"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text + FOOT
}

fn row(outcome: &Outcome) -> [String; HEAD.len()] {
    let latency = outcome.main_latency().map(|latency| latency.named().map(|(_, ms)| format!("{ms:.3}")));
    let [p50, p90, p99, p999, max] = latency.unwrap_or_else(|| std::array::from_fn(|_| "-".into()));
    let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".into());
    [
        outcome.scenario.to_owned(),
        outcome.clients.to_string(),
        outcome.sent.to_string(),
        outcome.received.to_string(),
        format!("{:.0}", outcome.per_second()),
        p50,
        p90,
        p99,
        p999,
        max,
        or_dash(outcome.cpu_micros().map(|micros| format!("{micros:.2}"))),
        or_dash(outcome.kib_per_connection.map(|kib| format!("{kib:.1}"))),
        or_dash(outcome.threads.map(|threads| threads.to_string())),
        or_dash(outcome.busy.map(|busy| format!("{:.0}", busy * 100.0))),
        outcome.lost().to_string(),
        notes(outcome),
    ]
}

fn notes(outcome: &Outcome) -> String {
    let mut notes = outcome.faults();
    notes.extend(outcome.generator_bound().map(|_| "GENERATOR BOUND".to_owned()));
    if outcome.rooms > 0 {
        notes.push(format!("{} rooms", outcome.rooms));
    }
    if outcome.scenario == "churn" {
        notes.push(format!("{} came, {:.0} a second", outcome.connects, outcome.connects_per_second.unwrap_or(0.0)));
    }
    if outcome.stalled > 0 {
        notes.push(format!("{} stalled", outcome.stalled));
    }
    if let Some(dropped) = outcome.dropped {
        notes.push(format!("{dropped} dropped for them"));
    }
    if outcome.is_interrupted {
        notes.push("interrupted".into());
    }
    notes.extend(outcome.notes.iter().cloned());
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_measurement_and_says_what_was_lost() {
        let outcome = Outcome { scenario: "fanout", expected: 9, received: 7, busy: Some(0.99), ..Outcome::default() };
        let text = table(&[outcome.clone(), Outcome { scenario: "echo", stalled: 3, ..outcome }]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("scenario  clients"));
        assert!(lines[1].starts_with("fanout") && lines[1].contains("2 messages lost; GENERATOR BOUND"), "{text}");
        assert!(lines[2].starts_with("echo") && lines[2].contains("3 stalled"), "{text}");
        assert!(text.ends_with(FOOT));
    }
}
