//! NATS as in production: three servers, TLS, and users that may do what their service does. Started as
//! `switchboard up --secure` does, with the very files of `deploy/nats/`.

use std::time::Duration;

use async_nats::{Client as Nats, Event, jetstream};
use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};
use switchboard::credentials::Folder;
use switchboard_contract::admin;
use switchboard_contract::credentials::Files;
use switchboard_contract::names::{LOBBY_BUCKET, ROOMS_STREAM, bucket_stream};
use switchboard_contract::testing::{DEADLINE, eventually, nats_server_binary};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::support::{Place, Running};

const VIOLATIONS: &str = "switchboard_nats_permission_violations_total";

/// What each user must not do, of what would hurt most.
const DENIED: [(&str, &[&str], &[&str]); 4] = [
    (
        "gateway",
        &[
            "$KV.lobby.epoch",
            "$KV.lobby.queue.000000000001",
            "$KV.leases.matcher",
            "$KV.feeds.lobby",
            "sb.out.feed.lobby",
            "sb.out.lobby.status",
            "$JS.API.STREAM.PURGE.ROOMS",
            "$JS.API.STREAM.UPDATE.KV_lobby",
            "$JS.API.STREAM.MSG.DELETE.ROOMS",
            "$JS.API.CONSUMER.CREATE.ROOMS",
            "sb.history.operator",
            "sb.matcher.look",
            "sb.gateways.look",
            "anything.else",
        ],
        &[
            "sb.matcher.claim",
            "sb.matcher.look",
            "sb.history.read",
            "sb.history.operator",
            "$KV.lobby.>",
            "sb.log.>",
            "_INBOX.>",
            "_INBOX.matcher.>",
            ">",
        ],
    ),
    (
        "matcher",
        &[
            "sb.log.room.r",
            "$KV.rooms.r",
            "$KV.gateways.g",
            "$JS.API.STREAM.DELETE.KV_lobby",
            "sb.out.room.r",
            "sb.history.operator",
            "sb.matcher.look",
            "sb.gateways.look",
            "$SRV.PING.matcher-standby",
        ],
        &["sb.log.>", "sb.out.>", "sb.history.read", "sb.history.operator", "sb.gateways.look", "_INBOX.gateway.>"],
    ),
    (
        "history",
        &[
            "$KV.lobby.epoch",
            "$KV.leases.matcher",
            "sb.gateway.g",
            "$JS.API.STREAM.DELETE.ROOMS",
            "sb.matcher.claim",
            "$SRV.PING.matcher",
            "$JS.API.DIRECT.GET.KV_lobby",
        ],
        &["sb.gateway.*", "sb.gateways.look", "sb.matcher.claim", "sb.matcher.look", "_INBOX.gateway.>"],
    ),
    (
        "operator",
        &[
            "$KV.lobby.epoch",
            "sb.log.room.r",
            "sb.out.room.r",
            "sb.gateways.disconnect",
            "sb.matcher.claim",
            "sb.matcher.look",
            "sb.gateways.look",
            "$JS.API.STREAM.PURGE.ROOMS",
            "$JS.API.STREAM.MSG.DELETE.ROOMS",
            "$JS.API.STREAM.CREATE.OTHER",
        ],
        // A subscription there keeps rooms and feeds alive.
        &["sb.out.>", "sb.out.room.r", "sb.gateway.>", "sb.gateways.look", "sb.history.operator", ">"],
    ),
];

struct Secured {
    place: Place,
    up: Running,
}

impl Secured {
    async fn up() -> Option<Secured> {
        let place = Place::new()?;
        let up = place.up(&["--secure", "--limits", "off"]);
        up.says(&[" ready: ", "tls://"]).await;
        Some(Secured { place, up })
    }

    fn users(&self) -> Folder {
        Folder(self.place.folder().join("nats/users"))
    }

    fn url(&self) -> String {
        self.place.run_file().expect("it runs").nats_url
    }

    /// Connects as a user, and gives what NATS says that it may not do.
    async fn connect(&self, user: &str) -> (Nats, mpsc::UnboundedReceiver<String>) {
        let (said, denied) = mpsc::unbounded_channel();
        let users = self.users();
        let options = Files::open(Some(&users.seed(user)), Some(&users.ca())).expect("its files").options();
        let options = options.custom_inbox_prefix(format!("_INBOX.{user}")).event_callback(move |event| {
            if let Event::ServerError(error) = event {
                let _ = said.send(error.to_string());
            }
            std::future::ready(())
        });
        let url = self.url();
        let servers: Vec<&str> = url.split(',').collect();
        (options.connect(servers).await.expect("it is let in"), denied)
    }

    /// How often NATS has refused something to each service so far, as it says itself.
    async fn violations(&self) -> Vec<(String, Option<u64>)> {
        let mut refused = Vec::new();
        for process in self.place.run_file().expect("it runs").processes {
            if process.kind() == "nats" {
                continue;
            }
            let admin = process.admin.expect("a port");
            let (_, metrics) = admin::ask(admin, "/metrics", DEADLINE).await.expect("its metrics");
            let count = metrics.lines().find_map(|line| line.strip_prefix(VIOLATIONS)?.trim().parse().ok());
            refused.push((process.name, count));
        }
        refused
    }

    async fn load(&self, kind: &str, flags: &[&str]) {
        let out = self.place.switchboard(&["load", kind]).args(flags).output().await.expect("it runs");
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{said}");
    }

    async fn credentials(&self, flags: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        let out = command.args(["credentials", "--out"]).arg(self.users().0).args(flags).output().await;
        assert!(out.expect("it runs").status.success());
    }

    /// As an operator does it: each server reads its users again.
    async fn reload(&self) {
        for n in 1..=3 {
            let pid = self.place.folder().join(format!("nats/nats-{n}.pid"));
            let mut signal = Command::new(nats_server_binary().expect("it was there before"));
            let out = signal.arg("--signal").arg(format!("reload={}", pid.display())).output().await.expect("it runs");
            assert!(out.status.success(), "{out:?}");
        }
    }

    fn said(&self, name: &str, text: &str) -> usize {
        self.up.lines().iter().filter(|line| line.starts_with(name) && line.contains(text)).count()
    }
}

#[tokio::test]
async fn each_user_may_do_what_its_service_does_and_nothing_else() {
    let Some(system) = Secured::up().await else { return };
    let mut operator =
        Client::connect(&format!("http://127.0.0.1:{}", system.place.gateway_port), Vsn::V2).await.expect("a socket");
    let joined = operator.join("feed:operator", json!({ "secret": "local-secret" })).await.expect("a reply");
    assert!(joined.ok, "{joined:?}");
    let mut shown = async |what: &str, so: fn(&Value) -> bool| {
        let update = operator.expect_where(|message| so(&message.payload["value"]), what, DEADLINE).await;
        update.unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    shown("all that there is", |value| {
        let two = |part: &str, list: &str| value[part][list].as_array().is_some_and(|all| all.len() == 2);
        let histories = value["histories"].as_array().is_some_and(|all| all.len() == 2);
        let answers = value["gateways"]["all"][1]["joins"].is_u64() && value["gateways"]["all"][0]["joins"].is_u64();
        let standby = value["matcher"]["standbys"].as_array().is_some_and(|all| all.len() == 1);
        let feeds = value["feeds"]["all"][0]["name"] == "operator";
        value["matcher"]["leader"].is_string() && two("gateways", "all") && histories && answers && standby && feeds
    })
    .await;
    system.load("lobby", &["--students", "30", "--teachers", "5", "--messages", "5"]).await;
    system.load("rooms", &["--rooms", "3", "--members", "4", "--seconds", "3", "--churn", "1000"]).await;
    shown("what was said", |value| {
        let said = |at: usize| value["gateways"]["all"][at]["messages"].as_u64().unwrap_or(0);
        said(0) + said(1) > 30 * 5 * 2
    })
    .await;
    let refused = system.violations().await;
    assert!(refused.len() == 6 && refused.iter().all(|(_, count)| *count == Some(0)), "{refused:?}");
    let status = system.place.switchboard(&["status"]).output().await.expect("it runs");
    assert!(status.status.success() && String::from_utf8_lossy(&status.stdout).contains(" leads"), "{status:?}");

    let (admin, _) = system.connect("admin").await;
    let context = jetstream::new(admin);
    let ends = async || {
        let mut ends = Vec::new();
        for stream in [ROOMS_STREAM.to_owned(), bucket_stream(LOBBY_BUCKET)] {
            ends.push(context.get_stream(stream).await.expect("a stream").cached_info().state.last_sequence);
        }
        ends
    };
    let before = ends().await;
    for (user, publish, subscribe) in DENIED {
        let (client, mut denied) = system.connect(user).await;
        let mut refused = async |what: &str, subject: &str| {
            let said = tokio::time::timeout(DEADLINE, denied.recv()).await;
            let said = said.unwrap_or_else(|_| panic!("{user} may {what} {subject}")).expect("the connection");
            assert!(said.to_lowercase().contains(&format!("{what} to \"{subject}\"").to_lowercase()), "{user}: {said}");
        };
        for subject in publish {
            client.publish((*subject).to_owned(), "{}".into()).await.expect("sent");
            refused("publish", subject).await;
        }
        for subject in subscribe {
            let subscription = client.subscribe((*subject).to_owned()).await.expect("sent");
            refused("subscription", subject).await;
            drop(subscription);
        }
    }
    assert_eq!(ends().await, before, "nothing of it was stored");
}

#[tokio::test]
async fn nobody_connects_without_a_key_or_to_a_server_of_another_ca() {
    let Some(system) = Secured::up().await else { return };
    let (users, url) = (system.users(), system.url());
    let connect = async |creds: Option<&Folder>, ca: &Folder| {
        let creds = creds.map(|folder| folder.seed("gateway"));
        let options = Files::open(creds.as_deref(), Some(&ca.ca())).expect("its files").options();
        options.connect(url.split(',').next().expect("a server")).await.map(|_| ())
    };
    let other = tempfile::tempdir().expect("a folder");
    let other = Folder(other.path().to_owned());
    other.make(&["127.0.0.1".to_owned()]).expect("made");
    assert!(connect(Some(&users), &users).await.is_ok());
    assert!(connect(None, &users).await.is_err(), "no key");
    assert!(connect(Some(&other), &users).await.is_err(), "another key");
    assert!(connect(Some(&users), &other).await.is_err(), "another CA");
}

#[tokio::test]
async fn credentials_are_rotated_and_no_socket_is_lost() {
    let Some(system) = Secured::up().await else { return };
    let mut clients = Vec::new();
    for (n, gateway) in [system.place.gateway_port, system.place.gateway_port + 1].into_iter().enumerate() {
        let url = format!("http://127.0.0.1:{gateway}");
        let mut client = Client::connect(&url, Vsn::V2).await.expect("a socket");
        client.join("room:kept", json!({ "userId": format!("user-{n}") })).await.expect("a join");
        clients.push(client);
    }
    for user in ["gateway", "matcher", "history"] {
        let before = ["-1", "-2"].map(|n| system.said(&format!("{user}{n}"), "connecting anew"));
        let old = std::fs::read_to_string(system.users().seed(user)).expect("a seed");
        system.credentials(&["--rotate", user]).await;
        system.reload().await;
        eventually("both use the new key", async || {
            let now = ["-1", "-2"].map(|n| system.said(&format!("{user}{n}"), "connecting anew"));
            now[0] > before[0] && now[1] > before[1]
        })
        .await;
        system.credentials(&["--retire", user]).await;
        system.reload().await;
        let retired = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(retired.path(), old).expect("written");
        eventually("the old key is not let in", async || {
            let files = Files::open(Some(retired.path()), Some(&system.users().ca())).expect("its files");
            files.options().connect(system.url().split(',').next().expect("a server")).await.is_err()
        })
        .await;
        // Sockets of before still carry messages, from one gateway to the other.
        let said = format!("after {user}");
        let message = json!({ "broadcast": true, "text": said });
        let stored = tokio::time::timeout(DEADLINE, async {
            while !clients[0].push("room:kept", "new_msg", &message).await.expect("the socket lives").ok {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        stored.await.expect("a message is stored");
        let heard = clients[1].expect_where(|message| message.payload["text"] == said, &said, DEADLINE).await;
        heard.expect("the socket lives");
    }
    for client in &mut clients {
        client.expect_none("phx_close", Duration::from_millis(1)).await.expect("nothing was closed");
    }
    assert_eq!(system.said("gateway", "died"), 0);
}
