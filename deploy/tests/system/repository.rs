//! What must hold of the repository itself.

use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files of the workspace, with their text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> =
        ["contract", "gateway", "matcher", "history", "deploy"].map(|name| root().join(name)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 50, "only {} files", files.len());
    files
}

#[test]
fn each_test_that_the_protocol_names_exists() {
    let protocol = std::fs::read_to_string(root().join("contract/PROTOCOL.md")).expect("the protocol");
    let (_, table) = protocol.split_once("## The test of each rule").expect("the table");
    let named: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix('|')?.split('`').nth(1)?.rsplit("::").next()).collect();
    assert!(named.len() > 50, "only {} tests are named", named.len());
    let sources = sources();
    for name in named {
        let function = format!("fn {name}(");
        assert!(sources.iter().any(|(_, text)| text.contains(&function)), "there is no test {name}");
    }
}

#[test]
fn names_of_subjects_are_made_in_one_module() {
    for (path, text) in sources() {
        let tests = path.components().any(|part| part.as_os_str().to_string_lossy().contains("test"));
        let names = ["contract/src/names.rs", "contract/src/names/feed.rs"].iter().any(|names| path.ends_with(names));
        if tests || names {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for name in ["\"sb.", "\"$KV", "\"$JS", "\"KV_"] {
            assert!(!code.contains(name), "{} makes the name of a subject: {name}", path.display());
        }
    }
}

/// The tables of limits: each row's cells, and how the names of its metrics begin.
fn limits() -> Vec<(&'static str, Vec<String>)> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page");
    let (_, rest) = page.split_once("\n## Limits\n").expect("the tables");
    let (tables, _) = rest.split_once("\n## ").expect("an end");
    let mut prefix = "switchboard_gateway_";
    let mut rows = Vec::new();
    for line in tables.lines() {
        match line {
            "### The matcher" => prefix = "switchboard_matcher_",
            "### History, streams, starting" => prefix = "switchboard_history_",
            _ => {}
        }
        if let Some(row) =
            line.strip_prefix("| ").and_then(|row| row.strip_suffix('|')).filter(|row| !row.starts_with("---"))
        {
            rows.push((prefix, row.split(" |").map(|cell| cell.trim().to_owned()).collect()));
        }
    }
    assert!(rows.len() > 150, "only {} rows", rows.len());
    rows
}

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_limit_stands_in_a_table() {
    let limits_rs = std::fs::read_to_string(root().join("contract/src/limits.rs")).expect("the limits");
    let rows = limits();
    let named: Vec<&str> = rows.iter().flat_map(|(_, row)| row.iter().take(3)).flat_map(|cell| code(cell)).collect();
    let constants: Vec<&str> =
        limits_rs.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    assert!(constants.len() > 100, "only {} limits", constants.len());
    let missing: Vec<&&str> = constants.iter().filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "in no table: {missing:?}");
    // And no row is left of a limit that is gone.
    for name in rows.iter().filter_map(|(_, row)| row.first()).flat_map(|cell| code(cell)) {
        let is_constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        assert!(!is_constant || constants.contains(&name), "{name} is no limit");
    }
}

/// What services are made of, without tests.
pub(crate) fn services() -> Vec<String> {
    let services = ["contract", "gateway", "matcher", "history"].map(|service| root().join(service).join("src"));
    let own = |path: &Path| services.iter().any(|service| path.starts_with(service));
    let code = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    sources().into_iter().filter(|(path, _)| own(path)).map(|(_, text)| code(text)).collect()
}

/// Where in the code a metric is named: those that describe it, and those that count or set it. What only shows that it
/// has not happened yet counts nothing.
pub(crate) fn uses(code: &str, name: &str) -> (usize, usize) {
    let literal = format!("\"{name}\"");
    // A constant's name stands for it in its file.
    let constant = code
        .lines()
        .find(|line| line.contains(&literal) && line.contains("const "))
        .and_then(|line| line.split("const ").nth(1)?.split(':').next());
    let needle = constant.unwrap_or(&literal);
    let mut found = (0, 0);
    let whole = |at: usize| !code[at + needle.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    for (at, _) in code.match_indices(needle).filter(|(at, _)| whole(*at)) {
        let before = code[..at].trim_end();
        let call = before.rsplit(['\n', ' ', ':']).next().unwrap_or_default();
        let statement = code[at..].split(';').next().unwrap_or_default();
        let shows = [".increment(0)", ".set(0.0)"].iter().any(|nothing| statement.ends_with(nothing));
        if call.starts_with("describe_") {
            found.0 += 1;
        } else if (call.ends_with("!(") || constant.is_none()) && !shows {
            found.1 += 1;
        }
    }
    found
}

#[test]
fn each_metric_of_a_limit_is_described_and_counted() {
    let sources = services();
    let mut seen = 0;
    for (prefix, row) in limits() {
        let Some(metrics) = row.get(3) else { continue };
        for metric in code(metrics) {
            let (name, label) = metric.split_once('{').unwrap_or((metric, ""));
            let name = if name.starts_with("switchboard_") { name.to_owned() } else { format!("{prefix}{name}") };
            let (described, counted) = sources
                .iter()
                .map(|code| uses(code, &name))
                .fold((0, 0), |(described, counted), (d, c)| (described + d, counted + c));
            assert!(described == 1 && counted > 0, "{name} is described {described} times, counted {counted} times");
            let label = label.trim_end_matches('}');
            // A word, or a number that becomes one.
            let known =
                |code: &String| [format!("\"{label}\""), format!("({label}, ")].iter().any(|l| code.contains(l));
            assert!(label.is_empty() || sources.iter().any(known), "{metric}: nothing has that label");
            seen += 1;
        }
    }
    assert!(seen > 80, "only {seen} metrics are named");
}
