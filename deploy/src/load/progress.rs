//! How far a run is: bars on a terminal, else a line now and then.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Without a terminal: a line this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Of what was `unavailable` so many are named.
const UNAVAILABLE_NAMED: u64 = 10;

/// Says what was answered with `unavailable`, if it is one of the first: the `nth` of them.
pub(super) fn unavailable(nth: u64, at: Duration, what: impl Display) {
    if nth <= UNAVAILABLE_NAMED {
        eprintln!("{:.1} s: unavailable: {what}", at.as_secs_f64());
    }
}

/// One thing that is counted up to its end.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// What is counted.
    pub(super) what: &'static str,
    /// How far it is.
    pub(super) now: u64,
    /// Its end.
    pub(super) of: u64,
    /// What else there is to say.
    pub(super) beside: String,
}

/// Shows how far a run is.
pub(super) struct Progress {
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
    next_line: Instant,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let bars = std::io::stderr().is_terminal().then(|| (MultiProgress::new(), Vec::new()));
        Progress { bars, next_line: Instant::now() + LINE_EVERY }
    }

    /// Shows these, always the same ones in the same order.
    pub(super) fn show(&mut self, now: &[Bar]) {
        match &mut self.bars {
            Some((all, bars)) => {
                for (at, bar) in now.iter().enumerate() {
                    if at == bars.len() {
                        bars.push(all.add(ProgressBar::new(bar.of).with_style(style())));
                    }
                    let shown = &bars[at];
                    shown.set_length(bar.of);
                    shown.set_position(bar.now);
                    shown.set_prefix(bar.what);
                    shown.set_message(bar.beside.clone());
                }
            }
            None => {
                if Instant::now() >= self.next_line {
                    self.next_line = Instant::now() + LINE_EVERY;
                    let parts: Vec<_> =
                        now.iter().map(|b| format!("{} {}/{} {}", b.what, b.now, b.of, b.beside)).collect();
                    eprintln!("{}", parts.join("  "));
                }
            }
        }
    }

    /// Takes the bars away.
    pub(super) fn end(self) {
        if let Some((all, bars)) = self.bars {
            bars.iter().for_each(ProgressBar::finish);
            drop(all);
        }
    }
}

fn style() -> ProgressStyle {
    // A template that does not parse would only look worse.
    ProgressStyle::with_template("{prefix:>9} {bar:40} {pos:>7}/{len:7} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
