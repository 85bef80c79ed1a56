//! Each option of each service is a flag and an environment variable, is listed by `--help`, and says so where its value
//! cannot be.

use std::path::Path;
use std::process::{Command, Output, Stdio};

const SERVICES: [&str; 3] = ["switchboard-gateway", "switchboard-matcher", "switchboard-history"];
/// Commands rather than settings.
const NO_SETTINGS: [&str; 3] = ["--help", "--version", "--check-feeds"];
/// What any text is a value of.
const ANY_TEXT: [&str; 13] = [
    "--allowed-origin",
    "--api-secret",
    "--cors-origin",
    "--jwt-audience",
    "--jwt-claim-feeds",
    "--jwt-claim-rank",
    "--jwt-claim-role",
    "--jwt-claim-room",
    "--jwt-claim-user",
    "--jwt-jwks",
    "--jwt-public-key-file",
    "--jwt-secret-file",
    "--log-level",
];

fn service(name: &str) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().expect("a folder");
    let mut command = Command::new(folder.join(name));
    command.stdin(Stdio::null()).env_clear();
    command
}

fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// The flags that `--help` lists, each with what it says of it.
fn options(help: &str) -> Vec<(String, String)> {
    let mut options: Vec<(String, String)> = Vec::new();
    for line in help.lines() {
        let flag = line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, ");
        if flag.starts_with("--") {
            let name = flag.split(' ').next().unwrap_or_default();
            options.push((name.to_owned(), line.to_owned()));
        } else if let Some((_, text)) = options.last_mut() {
            *text += line;
        }
    }
    options
}

/// The settings of all services: the service, the flag, and what `--help` says of it.
fn settings() -> Vec<(&'static str, String, String)> {
    let mut settings = Vec::new();
    for name in SERVICES {
        let mut command = service(name);
        command.arg("--help");
        let (code, help) = run(command);
        assert_eq!(code, Some(0), "{help}");
        let own = options(&help).into_iter().filter(|(flag, _)| !NO_SETTINGS.contains(&&**flag));
        let before = settings.len();
        settings.extend(own.map(|(flag, text)| (name, flag, text)));
        assert!(settings.len() >= before + 12, "{name}: {help}");
    }
    settings
}

fn variable(flag: &str) -> String {
    format!("SWITCHBOARD_{}", flag[2..].to_uppercase().replace('-', "_"))
}

#[test]
fn each_option_is_an_environment_variable_of_its_name_and_help_says_so() {
    for (name, flag, text) in settings() {
        let shown = format!("[env: {}", variable(&flag));
        assert!(text.contains(&format!("{shown}=")) || text.contains(&format!("{shown}]")), "{name}: {text}");
    }
}

#[test]
fn a_value_that_cannot_be_ends_the_start_with_2_and_names_the_flag() {
    for (name, flag, text) in settings().iter().filter(|(_, flag, _)| !ANY_TEXT.contains(&&**flag)) {
        let mut command = service(name);
        command.env(variable(flag), "what://?");
        let others = if *name == SERVICES[0] { &[("--auth", "open"), ("--listen", "127.0.0.1:0")][..] } else { &[] };
        for (other, value) in others.iter().filter(|(other, _)| other != flag) {
            command.args([other, value]);
        }
        let (code, said) = run(command);
        assert_eq!(code, Some(2), "{name} {flag}: {said}\n{text}");
        assert!(said.contains(flag), "{name} {flag}: {said}");
    }
}

#[test]
fn a_key_that_is_none_and_a_level_that_is_none_are_named_as_well() {
    for (flag, value) in
        [("--jwt-secret-file", "/nowhere"), ("--jwt-public-key-file", "/nowhere"), ("--log-level", "=?=")]
    {
        let mut command = service(SERVICES[0]);
        command.args([flag, value]);
        let (code, said) = run(command);
        assert_eq!(code, Some(2), "{flag}: {said}");
        assert!(said.contains(flag), "{flag}: {said}");
    }
}
