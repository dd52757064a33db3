//! The report as a drawing: latencies on a logarithmic axis, and below them what was done in a second. Its greys and
//! colours read on light and on dark pages.

use std::fmt::{self, Write as _};

use super::outcome::Outcome;

/// Of one percentile each, from the least to the greatest; seen apart by the colour-blind too.
const COLOURS: [&str; 5] = ["#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7"];
const BAR: &str = "#3b8bba";
/// All in pixels.
const LEFT: f64 = 80.0;
const COLUMN: f64 = 112.0;
const LEGEND: f64 = 90.0;
const UPPER: (f64, f64) = (50.0, 290.0);
const LOWER: (f64, f64) = (360.0, 500.0);
const HEIGHT: f64 = 540.0;

/// The drawing of these measurements, as a whole file.
pub(crate) fn draw(title: &str, outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    // A string takes everything.
    let _ = draw_to(&mut out, title, outcomes);
    out
}

fn draw_to(out: &mut String, title: &str, outcomes: &[Outcome]) -> fmt::Result {
    let right = LEFT + COLUMN * outcomes.len().max(4) as f64;
    let width = right + LEGEND;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{HEIGHT}\" viewBox=\"0 0 {width} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#808080\">"
    )?;
    writeln!(out, "<title>{}</title>", escaped(title))?;
    text(out, LEFT, 20.0, "start", title)?;
    latencies(out, right, outcomes)?;
    throughput(out, right, outcomes)?;
    writeln!(out, "</svg>")
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, what: &str) -> fmt::Result {
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(what))
}

fn line(out: &mut String, [x1, y1, x2, y2]: [f64; 4], opacity: f64) -> fmt::Result {
    let stroke = format!("stroke=\"#808080\" stroke-opacity=\"{opacity}\"");
    writeln!(out, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {stroke}/>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The middle of the column of a measurement.
fn middle(index: usize) -> f64 {
    LEFT + COLUMN * (index as f64 + 0.5)
}

/// The upper part: a dot for each percentile, on whole powers of ten.
fn latencies(out: &mut String, right: f64, outcomes: &[Outcome]) -> fmt::Result {
    let (top, bottom) = UPPER;
    let of = |outcome: &Outcome| outcome.main_latency().map(|latency| latency.named());
    let all = || outcomes.iter().filter_map(of).flatten().map(|(_, ms)| ms.max(0.001).log10());
    let low = all().fold(f64::INFINITY, f64::min).floor();
    let (low, high) = if low.is_finite() { (low, all().fold(low + 1.0, f64::max).ceil()) } else { (-2.0, 1.0) };
    let y = |power: f64| bottom - (power - low) / (high - low) * (bottom - top);
    text(out, LEFT, top - 8.0, "start", "latency (connect: of handshakes), logarithmic")?;
    for power in low as i32..=high as i32 {
        let at = y(f64::from(power));
        line(out, [LEFT, at, right, at], 0.4)?;
        text(out, LEFT - 8.0, at + 4.0, "end", &duration(power))?;
    }
    for (index, outcome) in outcomes.iter().enumerate() {
        let x = middle(index);
        text(out, x, bottom + 18.0, "middle", outcome.scenario)?;
        let Some(named) = of(outcome) else { continue };
        let at = named.map(|(_, ms)| y(ms.max(0.001).log10()));
        line(out, [x, at[0], x, at[4]], 1.0)?;
        for (((name, ms), at), colour) in named.iter().zip(at).zip(COLOURS) {
            let dot = format!("cx=\"{x:.1}\" cy=\"{at:.1}\" r=\"5\" fill=\"{colour}\"");
            writeln!(out, "<circle {dot}><title>{} {name}: {ms:.3} ms</title></circle>", outcome.scenario)?;
        }
    }
    for (index, (name, colour)) in ["p50", "p90", "p99", "p99.9", "max"].iter().zip(COLOURS).enumerate() {
        let at = top + 20.0 * (5 - index) as f64;
        writeln!(out, "<circle cx=\"{:.1}\" cy=\"{at:.1}\" r=\"5\" fill=\"{colour}\"/>", right + 16.0)?;
        text(out, right + 26.0, at + 4.0, "start", name)?;
    }
    Ok(())
}

/// A power of ten of milliseconds.
fn duration(power: i32) -> String {
    let (unit, zero) = match power {
        3.. => ("s", 3),
        0..3 => ("ms", 0),
        _ => ("us", -3),
    };
    format!("{} {unit}", 10_f64.powi(power - zero))
}

/// The lower part: a bar for each measurement, its number above it.
fn throughput(out: &mut String, right: f64, outcomes: &[Outcome]) -> fmt::Result {
    let (top, bottom) = LOWER;
    let most = outcomes.iter().map(Outcome::per_second).fold(1.0, f64::max);
    let step = step(most);
    let high = (most / step).ceil() * step;
    let y = |value: f64| bottom - value / high * (bottom - top);
    text(out, LEFT, top - 22.0, "start", "deliveries a second (connect: connections)")?;
    for tick in 0..=(high / step).round() as u32 {
        let value = f64::from(tick) * step;
        line(out, [LEFT, y(value), right, y(value)], 0.4)?;
        text(out, LEFT - 8.0, y(value) + 4.0, "end", &format!("{value}"))?;
    }
    for (index, outcome) in outcomes.iter().enumerate() {
        let (x, at) = (middle(index), y(outcome.per_second()));
        let place = format!("x=\"{:.1}\" y=\"{at:.1}\" width=\"48\" height=\"{:.1}\"", x - 24.0, bottom - at);
        writeln!(out, "<rect {place} fill=\"{BAR}\"/>")?;
        text(out, x, at - 5.0, "middle", &format!("{:.0}", outcome.per_second()))?;
        let bound = if outcome.generator_bound().is_some() { " *" } else { "" };
        text(out, x, bottom + 18.0, "middle", &format!("{}{bound}", outcome.scenario))?;
    }
    if outcomes.iter().any(|outcome| outcome.generator_bound().is_some()) {
        text(out, LEFT, HEIGHT - 6.0, "start", "* bound by the load generator, not by the server")?;
    }
    Ok(())
}

/// 1, 2 or 5 times a power of ten, so that there are two to five steps up to `most`.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 5.0).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        for (most, expected) in [(1.0, 0.2), (5.0, 1.0), (9.0, 2.0), (23_456.0, 5000.0), (100_000.0, 20_000.0)] {
            let found = step(most);
            assert!((found / expected - 1.0).abs() < 1e-9, "{most}: {found}");
        }
        assert_eq!([-3, -2, 0, 2, 3, 4].map(duration), ["1 us", "10 us", "1 ms", "100 ms", "1 s", "10 s"]);
    }

    #[test]
    fn nothing_measured_is_still_a_drawing() {
        let text = draw("a < b & c", &[]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.contains("a &lt; b &amp; c") && !text.contains("NaN") && !text.contains("inf"));
    }
}
