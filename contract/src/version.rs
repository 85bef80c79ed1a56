//! Which Switchboard this is.

use std::sync::LazyLock;

/// The commit that this was built from, whole: what `SWITCHBOARD_COMMIT` said in the environment of the build. Else
/// `unknown`. It is not asked of git: then each commit would make everything be built anew.
pub const COMMIT: &str = match option_env!("SWITCHBOARD_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => UNKNOWN,
};
const UNKNOWN: &str = "unknown";
/// So much of the commit stands in the version. Bytes.
const COMMIT_BYTES: usize = 12;

// What stands behind the `+` of a semantic version, so that no service refuses its own name once it runs.
const _: () = assert!(is_build(COMMIT), "SWITCHBOARD_COMMIT may have letters, digits and hyphens only");

const fn is_build(text: &str) -> bool {
    let (bytes, mut at) = (text.as_bytes(), 0);
    while at < bytes.len() {
        if !(bytes[at].is_ascii_alphanumeric() || bytes[at] == b'-') {
            return false;
        }
        at += 1;
    }
    !text.is_empty()
}

/// The version for people and for micro-services, a semantic one: `0.1.0`, or `0.1.0+9854c7cd5f0e` where the commit is
/// known.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| with_commit(env!("CARGO_PKG_VERSION"), COMMIT));
    &VERSION
}

fn with_commit(version: &str, commit: &str) -> String {
    match commit {
        UNKNOWN => version.to_owned(),
        // Only ASCII, so that it can be cut anywhere.
        commit => format!("{version}+{}", &commit[..commit.len().min(COMMIT_BYTES)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_stands_behind_the_version() {
        assert_eq!(with_commit("0.1.0", UNKNOWN), "0.1.0");
        assert_eq!(with_commit("0.1.0", "9854c7c"), "0.1.0+9854c7c");
        assert_eq!(with_commit("0.1.0", "9854c7cd5f0e8a1bfe0ab5ec2a0d3a2bb7a0b0a1"), "0.1.0+9854c7cd5f0e");
        for (commit, allowed) in [("9854c7c-dirty", true), ("", false), ("a b", false), ("a+b", false), ("é", false)] {
            assert_eq!(is_build(commit), allowed, "{commit}");
        }
    }
}
