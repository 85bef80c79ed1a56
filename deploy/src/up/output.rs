//! Lines on standard output: the runner's own, and those of its processes behind their names.
//!
//! One thread writes, so that a terminal which is held (Ctrl-S) or gone never holds the system: then lines of
//! processes are dropped, and counted.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;
/// A longer line is written in parts. Bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How long the runner itself waits for a terminal that is held.
const PATIENCE: Duration = Duration::from_secs(1);
/// Colours of the names, in turn.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Where lines go. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Output {
    lines: mpsc::Sender<String>,
    dropped: Arc<AtomicU64>,
    coloured: bool,
}

/// The writing thread.
pub(super) struct Written(tokio::task::JoinHandle<()>);

/// Starts the writing thread. It ends when the last [`Output`] is gone.
pub(super) fn start() -> (Output, Written) {
    let (lines, mut waiting) = mpsc::channel::<String>(LINES_MAX);
    let thread = tokio::task::spawn_blocking(move || {
        let mut stdout = std::io::stdout();
        while let Some(line) = waiting.blocking_recv() {
            // A terminal that is gone must not end the system before it has been stopped.
            let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
        }
    });
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    (Output { lines, dropped: Arc::default(), coloured }, Written(thread))
}

impl Written {
    /// Waits until all lines are written, not for ever.
    pub(super) async fn wait(self) {
        let _ = tokio::time::timeout(PATIENCE, self.0).await;
    }
}

impl Output {
    /// A line of the runner itself.
    pub(super) async fn say(&self, line: &str) {
        let _ = self.lines.send_timeout(format!("{}{line}\n", self.prefix("switchboard", None)), PATIENCE).await;
    }

    /// Passes on everything that a process writes, each line behind its name, until it closes its end.
    pub(super) async fn relay(&self, name: &str, index: usize, from: impl AsyncRead + Unpin) {
        let prefix = self.prefix(name, Some(index));
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            let note = if dropped > 0 { format!("{prefix}({dropped} lines dropped)\n") } else { String::new() };
            if self.lines.try_send(format!("{note}{prefix}{}\n", text.trim_end())).is_err() {
                self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
            }
        }
    }

    fn prefix(&self, name: &str, index: Option<usize>) -> String {
        match (self.coloured, index) {
            (true, Some(index)) => format!("\x1b[{}m{name:<11}\x1b[0m ", COLOURS[index % COLOURS.len()]),
            (true, None) => format!("\x1b[1m{name}\x1b[0m "),
            (false, _) => format!("{name:<11} "),
        }
    }
}
