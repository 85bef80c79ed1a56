//! All series of a run as one SVG: small panels, two in a row, each with its own scale. Pure.

use std::fmt::Write as _;

use super::growth::Point;
use super::series::{Panel, Samples};

const COLUMNS: usize = 2;
/// A panel. Pixels.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 230.0;
/// Around a panel's lines: the labels of its axes, title and legend. Pixels.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 26.0;
/// Points that are drawn of a line, at most: more would stand within two pixels of each other.
const POINTS: usize = 260;
/// Lines of the legend have so many names.
const NAMES: usize = 5;
/// Colours that are told apart by nearly everybody, on white and on black.
const COLOURS: [&str; 9] =
    ["#4477aa", "#ee6677", "#228833", "#bb9922", "#33aadd", "#aa3377", "#888888", "#ee8833", "#44bb99"];
/// Light, and dark where the reader prefers that.
const STYLE: &str = "text{font:11px sans-serif;fill:#222}.t{font-weight:bold;font-size:13px}\
    .b{fill:#fff}.p{fill:#f6f6f6}.a{stroke:#999}.g{stroke:#ccc}.w{stroke:#999;stroke-dasharray:4 3}\
    polyline{fill:none;stroke-width:1.5}\
    @media (prefers-color-scheme:dark){text{fill:#ddd}.b{fill:#111}.p{fill:#1c1c1c}.a{stroke:#777}.g{stroke:#333}}";

/// Draws them, up to so many seconds; a dashed line stands at the end of the warm-up.
pub(super) fn svg(title: &str, samples: &Samples, warm_up: f64, until: f64) -> String {
    let panels = samples.panels();
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * number(COLUMNS), HEIGHT.mul_add(number(rows), 34.0));
    let mut svg = String::new();
    // Writing into a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect class=\"b\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"t\" x=\"12\" y=\"22\">{}</text>\n",
        escaped(title)
    );
    for (at, (panel, lines)) in panels.iter().enumerate() {
        let (x, y) = (WIDTH * number(at % COLUMNS), HEIGHT.mul_add(number(at / COLUMNS), 34.0));
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        draw(&mut svg, *panel, lines, warm_up, until.max(1.0));
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: Panel, lines: &[(&str, &[Point])], warm_up: f64, until: f64) {
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let most = lines.iter().flat_map(|(_, points)| *points).map(|(_, value)| *value).fold(0.0, f64::max);
    let top = nice(most);
    let x = |at: f64| LEFT + width * (at / until).clamp(0.0, 1.0);
    let y = |value: f64| TOP + height * (1.0 - value / top);
    let about = panel.about();
    let unit = if about.unit.is_empty() { String::new() } else { format!(", {}", about.unit) };
    let _ = writeln!(svg, "<text class=\"t\" x=\"12\" y=\"16\">{}{}</text>", escaped(about.title), escaped(&unit));
    let _ = writeln!(svg, "<rect class=\"p\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\"/>");
    for part in [0.0, 0.5, 1.0] {
        let (value, time) = (top * part, until * part);
        let (across, down) = (x(time), y(value));
        let class = if part == 0.0 { "a" } else { "g" };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{down:.1}\" y2=\"{down:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text>",
            LEFT + width,
            LEFT - 5.0,
            down + 4.0,
            brief(value),
            TOP + height + 16.0,
            if part == 1.0 { "end" } else { "middle" },
            clock(time),
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"w\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1:.1}\"/>",
        x(warm_up),
        TOP + height
    );
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let drawn = points.iter().filter(|(at, _)| *at <= until).step_by(points.len().div_ceil(POINTS).max(1));
        let points: Vec<String> = drawn.map(|(at, v)| format!("{:.1},{:.1}", x(*at), y(*v))).collect();
        let _ = writeln!(svg, "<polyline stroke=\"{colour}\" points=\"{}\"/>", points.join(" "));
        let (across, down) = (114.0_f64.mul_add(number(at % NAMES), 12.0), 14.0_f64.mul_add(number(at / NAMES), 31.0));
        let _ = writeln!(
            svg,
            "<rect x=\"{across}\" y=\"{}\" width=\"9\" height=\"9\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{down}\">{}</text>",
            down - 8.0,
            across + 12.0,
            escaped(name)
        );
    }
}

/// The next of 1, 2 and 5, times a power of ten.
fn nice(most: f64) -> f64 {
    let power = 10.0_f64.powf(most.max(1e-3).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= most).unwrap_or(most)
}

/// At most four digits, and no more than are needed.
fn brief(value: f64) -> String {
    let text = if value >= 1e6 { format!("{:.1}M", value / 1e6) } else { format!("{value:.3}") };
    if text.contains('.') && !text.ends_with('M') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Minutes and seconds.
fn clock(seconds: f64) -> String {
    format!("{}:{:02}", (seconds / 60.0).floor(), (seconds % 60.0).floor())
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_within_its_panel_and_named() {
        let mut samples = Samples::default();
        for n in 0..1_000 {
            let lines = [(Panel::Memory, "a<b", 10.0 + f64::from(n)), (Panel::Cpu, "nats", f64::from(n % 3))];
            samples.add(f64::from(n), lines.map(|(panel, line, value)| (panel, line.to_owned(), value)).to_vec());
        }
        let svg = svg("a & b", &samples, 10.0, 1_000.0);
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<g ").count()), (2, 2));
        assert!(svg.contains("a &amp; b") && svg.contains("a&lt;b") && svg.contains("resident memory, MiB"));
        let drawn = svg.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for point in drawn.flat_map(|points| {
            let points: Vec<&str> = points.split(' ').collect();
            assert!((POINTS / 2..=POINTS).contains(&points.len()), "{}", points.len());
            points
        }) {
            let (x, y) = point.split_once(',').expect("two numbers");
            let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y), "{point}");
        }
    }

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!(
            [0.0, 0.3, 1.0, 1.1, 34.0, 501.0].map(|most| brief(nice(most))),
            ["0.001", "0.5", "1", "2", "50", "1000"]
        );
        assert_eq!((brief(2_500_000.0), clock(3_725.0)), ("2.5M".to_owned(), "62:05".to_owned()));
    }
}
