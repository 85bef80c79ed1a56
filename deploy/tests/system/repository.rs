//! What must hold of the repository itself.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
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
