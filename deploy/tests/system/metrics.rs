//! What services say to Prometheus, what rules and dashboard make of it, and what they say in logs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use switchboard::client::Vsn;
use switchboard_contract::testing::{eventually, free_port};

use crate::harness::{Shape, System, meet, say};
use crate::support::Running;

/// Of the PATH, or where the project's own scripts put tools; `None`: there is none, and the test is skipped.
fn promtool() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.switchboard/tools/promtool");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("promtool"));
    let found = on_path.chain([own]).find(|file| file.is_file());
    if found.is_none() {
        let get = "it is in Debian's and Ubuntu's package prometheus";
        assert!(std::env::var_os("REQUIRE_ALL").is_none(), "promtool is missing: {get}");
        eprintln!("skipped: promtool is missing: {get}");
    }
    found
}

/// Runs promtool beside the rules; gives whether it is content, and what it says.
fn run(promtool: &Path, args: &[&str], input: &str) -> (bool, String) {
    use std::io::Write as _;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring");
    let mut command = Command::new(promtool);
    command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.success(), said.concat())
}

#[test]
fn each_alert_fires_when_it_should_and_not_else() {
    let Some(promtool) = promtool() else { return };
    for args in [["check", "rules", "--lint-fatal", "rules.yml"].as_slice(), &["test", "rules", "rules_test.yml"]] {
        let (content, said) = run(&promtool, args, "");
        assert!(content, "{args:?}:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_measure_is_what_happened_and_as_prometheus_wants_it() {
    let Some(system) = System::of(Shape { gateways: 1, ..Shape::default() }).await else { return };
    let (mut teacher, mut student) = (system.teacher_on(0, "tom").await, system.student("ada").await);
    let topic = meet(&mut teacher, &mut student).await;
    say(&mut student.client, &mut teacher.client, &topic, "student", "hello").await;
    let mut member = system.client(0, Vsn::V2).await;
    let joined = member.join("room:physics", json!({ "userId": "bob", "session_id": 1 })).await.expect("a reply");
    assert!(joined.ok, "{joined:?}");

    let gateway = &system.gateways[0].1;
    // Of the session's own task, and so counted before it answered.
    let metric = async |name: &str| gateway.metric(name).await;
    for (name, is) in [
        ("switchboard_ready{component=\"gateway\"}", 1),
        ("switchboard_gateway_connections", 3),
        ("switchboard_gateway_connections_opened_total", 3),
        ("switchboard_gateway_join_seconds_count{kind=\"chat\"}", 2),
        ("switchboard_gateway_join_seconds_count{kind=\"room\"}", 1),
        ("switchboard_gateway_join_seconds_count{kind=\"student\"}", 1),
        ("switchboard_gateway_messages_total", 1),
        ("switchboard_nats_connected", 1),
        ("switchboard_nats_reconnects_total", 0),
        ("switchboard_gateway_gaps_total{how=\"shown\"}", 0),
    ] {
        assert_eq!(metric(name).await, Some(is), "{name}");
    }
    for (name, least) in [
        ("switchboard_gateway_claim_seconds_count", 1),
        ("switchboard_gateway_push_seconds_count{kind=\"chat\"}", 3),
        ("switchboard_gateway_push_seconds_bucket{kind=\"chat\",le=\"5\"}", 3),
        ("switchboard_gateway_deliveries_total", 3),
        ("switchboard_gateway_frames_sent_total", 10),
        ("process_open_fds", 10),
        ("process_resident_memory_bytes", 1_000_000),
    ] {
        assert!(metric(name).await.is_some_and(|is| is >= least), "{name}: {:?}", metric(name).await);
    }
    let matcher = &system.matchers[0];
    assert_eq!(matcher.metric("switchboard_matcher_waited_seconds_count").await, Some(1));
    assert_eq!(matcher.metric("switchboard_matcher_waited_seconds_bucket{le=\"60\"}").await, Some(1));
    let history = &system.histories[0];
    assert_eq!(history.metric("switchboard_history_kept_bytes_max").await, Some(256 * 1024 * 1024));
    assert_eq!(history.metric("switchboard_history_behind_entries").await, Some(0));
    let _late = system.student("eve").await;
    eventually("one waits", async || {
        let waits = matcher.metric("switchboard_matcher_students{state=\"waiting\"}").await == Some(1);
        let lines = matcher.metrics().await.unwrap_or_default();
        let longest = lines.lines().find_map(|line| line.strip_prefix("switchboard_matcher_longest_wait_seconds "));
        waits && longest.and_then(|longest| longest.parse::<f64>().ok()).is_some_and(|longest| longest > 0.0)
    })
    .await;

    let Some(promtool) = promtool() else { return };
    for service in system.services() {
        let metrics = service.metrics().await.expect("an answer");
        let (content, said) = run(&promtool, &["check", "metrics"], &metrics);
        assert!(content && said.is_empty(), "{said}\n{metrics}");
    }
}

/// The fields of one line of a log, beside those of every line; `None`: another message.
fn fields(line: &str, message: &str) -> Option<BTreeMap<String, String>> {
    if let Ok(Value::Object(object)) = serde_json::from_str(line) {
        let always = ["timestamp", "level", "message", "target"];
        let said = object.get("message")?.as_str()? == message;
        let own = object.iter().filter(|(name, _)| !always.contains(&name.as_str()));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return said.then(|| own.map(|(name, value)| (name.clone(), text(value))).collect());
    }
    let (_, own) = line.split_once(&format!(" {message} "))?;
    let mut quoted = false;
    let pairs = own.split(|c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    Some(pairs.filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_has_the_same_ids_under_the_same_names_as_one_for_people() {
    let Some(mut system) = System::of(Shape { gateways: 1, ..Shape::default() }).await else { return };
    let gateways = ["text", "json"].map(|format| {
        let listen = format!("127.0.0.1:{}", free_port());
        let folder = Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().expect("a folder");
        let mut command = tokio::process::Command::new(folder.join("switchboard-gateway"));
        command.args(["--nats-url", &system.nats.url(), "--listen", &listen, "--auth", "open", "--log-format", format]);
        Running::of(command)
    });
    for gateway in &gateways {
        gateway.says(&["listening"]).await;
        gateway.says(&["ready"]).await;
    }
    // A third one goes: both say which.
    system.gateways[0].1.terminate().await.expect("no panic");
    let gone = "another gateway is gone, with its members of rooms";
    for gateway in &gateways {
        gateway.says(&[gone]).await;
    }
    let [text, json] = gateways.map(|gateway| {
        gateway.id.signal(rustix::process::Signal::TERM);
        gateway.end()
    });
    let [(_, text), (_, json)] = [text.await, json.await];
    for line in json.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for always in ["timestamp", "level", "message"] {
            assert!(object[always].is_string(), "{always} is missing: {line}");
        }
    }
    let of = |log: &str, message: &str| {
        let found: Vec<_> = log.lines().filter_map(|line| fields(line, message)).collect();
        found.first().cloned().unwrap_or_else(|| panic!("no {message:?} in\n{log}"))
    };
    for message in ["starting", "connected to NATS", "admin port open", "listening", "stopping", "draining", gone] {
        let [text, json] = [&text, &json].map(|log| of(log, message));
        assert!(!json.is_empty(), "{message}");
        assert!(text.keys().eq(json.keys()), "{message}: {text:?} {json:?}");
    }
    assert_eq!(of(&text, gone), of(&json, gone));
    assert!(of(&json, "listening").contains_key("gateway") && of(&json, gone).contains_key("gateway"));
}
