//! The operator's guide does as it says: each of its commands is run as printed, with the real `nats`, while people
//! wait, chat and are in a room; and it prints what stands there, but for what is another each time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use regex::Regex;
use rustix::process::Signal;
use serde_json::json;
use switchboard::client::{Client, Vsn};
use switchboard_contract::names::{LOBBY_BUCKET, bucket_stream};
use switchboard_contract::testing::{DEADLINE, NatsServer, eventually, skipped};
use tokio::process::Command;

use crate::support::Place;

/// A command, and the lines that the guide says it prints.
#[derive(Debug)]
struct Example {
    command: String,
    lines: Vec<String>,
}

fn examples() -> Vec<Example> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let guide = std::fs::read_to_string(guide).expect("the guide");
    let blocks = guide.split("```console\n").skip(1).filter_map(|block| block.split("```").next());
    let mut examples: Vec<Example> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => examples.push(Example { command: command.to_owned(), lines: Vec::new() }),
            None => examples.last_mut().expect("a command comes first").lines.push(line.to_owned()),
        }
    }
    examples
}

/// What stays of a line: without names of processes, ids, numbers, times and the width of columns.
fn lasting(line: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let rules = [
        (format!(r"\b(vm|{})-[a-z0-9]{{6}}\b", regex::escape(&host)), "#"),
        (r#""id":"[^"]*""#.to_owned(), "#"),
        (r"\b(ann|bob):[a-z0-9]{12}\b".to_owned(), "$1:#"),
        (r"\b([A-Za-z0-9]{8}|[A-Za-z0-9]{22})\b".to_owned(), "#"),
        (r"[A-Za-z0-9_.:,*-]*[0-9][A-Za-z0-9_.:,*-]*".to_owned(), "#"),
        (r"# (B|KiB|MiB)\b".to_owned(), "#"),
        (r"\s+".to_owned(), " "),
    ];
    let mut line = line.to_owned();
    for (pattern, with) in rules {
        line = Regex::new(&pattern).expect("a pattern").replace_all(&line, with).into_owned();
    }
    // Of a table's row what is a word: a cell may be left out where it is that of the row above.
    let cells = line.split('│').map(str::trim).filter(|cell| cell.chars().any(char::is_alphabetic));
    cells.collect::<Vec<_>>().join(" | ")
}

fn prints(said: &[String], line: &str) -> bool {
    match line.trim_end().strip_suffix('…') {
        Some(start) => said.iter().any(|said| said.starts_with(lasting(start).trim_end_matches(" |"))),
        None => said.contains(&lasting(line)),
    }
}

/// Where the commands are run.
struct Desk {
    folder: tempfile::TempDir,
    place: Place,
    tools: PathBuf,
}

impl Desk {
    fn new(place: Place, nats: &Path) -> Desk {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(place.folder(), folder.path().join(".switchboard")).expect("a link");
        let tools = nats.parent().expect("a folder").to_owned();
        Desk { folder, place, tools }
    }

    async fn run(&self, command: &str) -> (bool, String) {
        let binaries = Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().expect("a folder");
        let tools = self.place.folder().join("tools");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.tools.clone(), tools, binaries.to_owned()];
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path))).expect("a path");
        let ports = [("4222", self.place.nats_port), ("4000", self.place.gateway_port)];
        let command = ports.iter().fold(command.to_owned(), |text, (port, own)| text.replace(port, &own.to_string()));
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(&command).current_dir(&self.folder).env("PATH", path).env("HOME", self.folder.path());
        bash.env("XDG_CONFIG_HOME", self.folder.path().join("config")).kill_on_drop(true);
        let ran = tokio::time::timeout(DEADLINE, bash.output()).await;
        let ran = ran.unwrap_or_else(|_| panic!("it does not end: {command}")).expect("it runs");
        (ran.status.success(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    }
}

/// What may be run again until it prints what it should: a feed may have just got another owner, and a gateway be
/// connecting with its new key.
fn only_asks(command: &str) -> bool {
    ["nats kv get ", "curl "].iter().any(|start| command.starts_with(start))
}

/// A teacher who talks with one student while two others wait, and two in a room. They stay for as long as this.
async fn people(place: &Place) -> Vec<Client> {
    let gateways = [0, 1].map(|n| format!("http://127.0.0.1:{}", place.gateway_port + n));
    let [mut tom, mut students] =
        [Client::connect(&gateways[0], Vsn::V2).await, Client::connect(&gateways[1], Vsn::V2).await]
            .map(|client| client.expect("a socket"));
    let lobby = json!({ "userId": "tom", "role": "teacher", "capacity": 1 });
    assert!(tom.join("presence:teachers", lobby).await.expect("a reply").ok);
    for id in ["ada", "ben", "cleo"] {
        let topic = format!("presence:student:{id}");
        assert!(students.join(&topic, json!({ "userId": id, "role": "student" })).await.expect("a reply").ok);
        assert!(students.push(&topic, "student:ready", json!({ "userId": id })).await.expect("a reply").ok);
    }
    assert!(tom.push("presence:teachers", "claim:student", json!({ "teacherId": "tom" })).await.expect("a reply").ok);
    let chat = tom.expect("new:chat:tom", DEADLINE).await.expect("a chat").payload["id"].clone();
    let topic = format!("chats:{}", chat.as_str().expect("an id"));
    for (client, id, role) in [(&mut tom, "tom", "teacher"), (&mut students, "ada", "student")] {
        assert!(client.join(&topic, json!({ "userId": id, "role": role })).await.expect("a reply").ok);
        assert!(client.push(&topic, &format!("{role}:joined"), json!({})).await.expect("a reply").ok);
    }
    tom.expect("chat:ready", DEADLINE).await.expect("both are there");
    let message = json!({ "message": "hello ada" });
    assert!(tom.push(&topic, "teacher:send", message).await.expect("a reply").ok);
    for (client, id, text) in [(&mut tom, "ann", "who has a pen?"), (&mut students, "bob", "here")] {
        assert!(client.join("room:physics", json!({ "userId": id })).await.expect("a reply").ok);
        let message = json!({ "broadcast": true, "text": text });
        assert!(client.push("room:physics", "new_msg", message).await.expect("a reply").ok);
    }
    assert!(tom.join("feed:lobby", json!({})).await.expect("a reply").ok);
    tom.expect_on("feed:lobby", "update", DEADLINE).await.expect("a value");
    vec![tom, students]
}

#[tokio::test]
async fn each_command_of_the_guide_prints_what_the_guide_says() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.switchboard/tools/nats");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("nats")).chain([own]).find(|file| file.is_file());
    let Some(nats) = found else { return skipped("nats (run `cargo run -p switchboard -- tools --cli`)") };
    let Some(place) = Place::new() else { return };
    let up = place.up(&["--secure"]);
    up.says(&[" ready: ", "tls://"]).await;
    let mut people = people(&place).await;
    let desk = Desk::new(place, &nats);

    let examples = examples();
    assert!(examples.len() > 20, "only {} commands", examples.len());
    let mut wrong = Vec::new();
    for Example { command, lines } in &examples {
        let until = Instant::now() + DEADLINE;
        let (well, said, missing) = loop {
            let (well, said) = desk.run(command).await;
            let lasts: Vec<String> = said.lines().map(lasting).collect();
            let missing: Vec<&String> = lines.iter().filter(|line| !prints(&lasts, line)).collect();
            if well && missing.is_empty() || !only_asks(command) || Instant::now() > until {
                break (well, said, missing);
            }
        };
        if !well || !missing.is_empty() {
            wrong.push(format!("$ {command}\n{said}\nended well: {well}; it does not print {missing:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));

    // The keys were changed under ann's socket, and it lives.
    let message = json!({ "broadcast": true, "text": "still there" });
    let pushed = tokio::time::timeout(DEADLINE, async {
        while !people[0].push("room:physics", "new_msg", &message).await.expect("the socket lives").ok {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    pushed.await.expect("a message is stored");

    // History is rolled, as the guide says: then what bob said is nowhere, and what others said is.
    let histories = ["history-1", "history-2"].map(|name| desk.place.process(name).expect("it runs"));
    for history in histories {
        history.id.signal(Signal::TERM);
        eventually("it is another one, and ready", async || {
            let now = desk.place.process(&history.name).expect("it is known");
            let health = switchboard_contract::admin::ask(now.admin.expect("a port"), "/health/ready", DEADLINE).await;
            now.id != history.id && health.is_ok_and(|(code, _)| code == 200)
        })
        .await;
    }
    let (_, said) =
        desk.run("curl -s -H 'secret: local-secret' http://127.0.0.1:4000/api/v1/rooms/physics/history").await;
    assert!(said.contains("who has a pen?") && said.contains("still there") && !said.contains("bob"), "{said}");

    // The backup goes into an empty cluster.
    let Some(other) = NatsServer::start_cluster(3).await else { return };
    let restore = format!("nats --no-context --server {} account restore backup", other.url());
    let (well, said) = desk.run(&restore).await;
    assert!(well, "{said}");
    let lobby = jetstream::new(other.client().await).get_stream(bucket_stream(LOBBY_BUCKET)).await;
    assert!(lobby.expect("it is back").cached_info().state.messages >= 8);
}

#[test]
fn what_is_another_each_time_is_not_compared_and_the_rest_is() {
    let same = [
        (
            "│ history │         │ DhvWz6ObrbyQ1nV1wk2oiB │ The last │",
            "│ history │ 0.1.0   │ abcdefghijklmnopqrstuv │ The last │",
        ),
        ("{\"at\":\"2026-11-22T11:04:42.891Z\"}", "{\"at\":\"2027-01-02T01:02:03.004Z\"}"),
        ("matcher   vm-y5ei0a (matcher-1) leads", "matcher vm-abcdef (matcher-2) leads"),
    ];
    for (one, other) in same {
        assert_eq!(lasting(one), lasting(other));
    }
    assert_ne!(lasting("{\"student\":\"ben\"}"), lasting("{\"student\":\"cleo\"}"));
    let said = ["OK JetStream | memory=# storage=#".to_owned()];
    assert!(prints(&said, "OK JetStream | memory=0B …") && !prints(&said, "CRITICAL JetStream …"));
}
