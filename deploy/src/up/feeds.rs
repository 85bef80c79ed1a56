//! The file of feeds that the history services get: checked before anything is started, because a wrong one would kill
//! each of them again and again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use switchboard_contract::process::{EXIT_USAGE, UsageError};
use tokio::process::Command;

/// The feeds that there are without a file.
const DEFAULT: &str = include_str!("../../feeds.toml");
/// Reading a file takes no time; what takes longer hangs.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the file is: the one that was named, or below `folder`.
pub(super) fn path(named: Option<&Path>, folder: &Path) -> PathBuf {
    named.map_or_else(|| folder.join("feeds.toml"), Path::to_owned)
}

/// Writes the default file, unless another one was named.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(named: Option<&Path>, folder: &Path) -> anyhow::Result<()> {
    if named.is_some() {
        return Ok(());
    }
    let path = path(None, folder);
    std::fs::write(&path, DEFAULT).with_context(|| format!("cannot write {}", path.display()))
}

/// Asks the history service what it thinks of a file.
///
/// # Errors
/// In its words, with the line: a [`UsageError`]. Or if it cannot be asked.
pub(super) async fn check(history: &Path, file: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(history);
    command.args(["--log-level", "error", "--log-format", "json", "--check-feeds", "--feeds"]).arg(file);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let asked = tokio::time::timeout(CHECK_TIMEOUT, command.output()).await;
    let output = asked
        .with_context(|| format!("{} does not end", history.display()))?
        .with_context(|| format!("cannot run {}", history.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = words(&String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(i32::from(EXIT_USAGE)) {
        bail!(UsageError(words));
    }
    bail!("{} cannot check the feeds ({}): {words}", history.display(), output.status)
}

/// What a service says was wrong: the last message of its log, or all of it where that is none.
fn words(log: &str) -> String {
    #[derive(Deserialize)]
    struct Line {
        message: String,
    }
    let last = log.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    last.map_or_else(|| log.trim().to_owned(), |Line { message }| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_log_line_or_what_there_is() {
        let line = r#"{"timestamp":"…","level":"ERROR","message":"f.toml:3: no","target":"t"}"#;
        assert_eq!(words(&format!("{{}}\n{line}\n")), "f.toml:3: no");
        assert_eq!(words(" error: unexpected argument\n"), "error: unexpected argument");
    }
}
