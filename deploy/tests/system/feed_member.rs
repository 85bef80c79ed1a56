//! Members of feeds that remember all that they are shown, and what tests of feeds look up.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};
use switchboard_contract::feed::FeedRecord;
use switchboard_contract::testing::eventually;
use switchboard_contract::wire::decode;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{SOON, System};

/// A file with feeds; it is there as long as the folder.
pub(crate) fn file(feeds: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("feeds.toml");
    std::fs::write(&file, feeds).expect("a file");
    let file = file.to_str().expect("text").to_owned();
    (folder, file)
}

/// Flags of a history service with the feeds that the runner brings with it.
pub(crate) const WITH_FEEDS: [&str; 2] = ["--feeds", concat!(env!("CARGO_MANIFEST_DIR"), "/feeds.toml")];

/// Which value.
pub(crate) type Version = (u64, u64);

/// A client in feeds; its socket is read all the time. Whoever drops it breaks its connection.
pub(crate) struct Member {
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    stop: CancellationToken,
    task: JoinHandle<Client>,
}

impl Member {
    /// Joins one feed.
    pub(crate) async fn join(system: &System, gateway: usize, vsn: Vsn, topic: &str) -> Member {
        let mut client = system.client(gateway, vsn).await;
        let reply = client.join(topic, json!({})).await.expect("a reply");
        assert!(reply.ok, "{topic}: {reply:?}");
        let member = Member::of(client);
        // What stands behind the reply may have been heard already.
        member.heard.lock().expect("no panic").insert(0, ("joined".to_owned(), reply.response));
        member
    }

    /// Reads a socket that has joined already.
    pub(crate) fn of(mut client: Client) -> Member {
        let (heard, stop) = (Arc::<Mutex<Vec<_>>>::default(), CancellationToken::new());
        let (hears, stopped) = (heard.clone(), stop.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return client,
                    message = client.expect_where(|_| true, "anything", 20 * SOON) => {
                        let message = message.expect("an open socket");
                        hears.lock().expect("no panic").push((message.event, message.payload));
                    }
                }
            }
        });
        Member { heard, stop, task }
    }

    /// Stops to remember.
    pub(crate) async fn client(mut self) -> Client {
        self.stop.cancel();
        (&mut self.task).await.expect("an open socket")
    }

    /// How much it has heard.
    pub(crate) fn mark(&self) -> usize {
        self.heard.lock().expect("no panic").len()
    }

    /// All values that it has been shown, in order.
    pub(crate) fn values(&self) -> Vec<(Version, Value)> {
        let heard = self.heard.lock().expect("no panic");
        let values = heard.iter().filter(|(event, payload)| event != "stale" && !payload["value"].is_null());
        let version = |payload: &Value| {
            let number = |at: usize| payload["version"][at].as_u64().expect("a version");
            (number(0), number(1))
        };
        values.map(|(_, payload)| (version(payload), payload["value"].clone())).collect()
    }

    /// How many events of this name it has heard.
    pub(crate) fn heard(&self, what: &str) -> usize {
        self.heard.lock().expect("no panic").iter().filter(|(event, _)| event == what).count()
    }

    /// Waits for an event behind a mark.
    pub(crate) async fn hears(&self, mark: usize, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = Mutex::new(None);
        eventually(&format!("{what} is heard"), async || {
            let heard = self.heard.lock().expect("no panic");
            let event = heard.iter().skip(mark).find(|(event, payload)| event == what && is(payload));
            *found.lock().expect("no panic") = event.map(|(_, payload)| payload.clone());
            event.is_some()
        })
        .await;
        found.into_inner().expect("no panic").expect("just found")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl System {
    /// The records of all feeds.
    pub(crate) async fn feeds(&self) -> Vec<FeedRecord> {
        let records = self.records("feeds").await;
        records.iter().map(|record| decode("record", &record.payload).expect("a record")).collect()
    }

    /// Which history service polls the one feed that there is, counted from 0; waits until one does, and no other.
    pub(crate) async fn feed_owner(&self) -> usize {
        let owner = Mutex::new(None);
        eventually("one history service polls the feed", async || {
            let mut owners = Vec::new();
            for (at, history) in self.histories.iter().enumerate() {
                match history.metric("switchboard_history_feeds_owned").await {
                    Some(0) | None => {}
                    Some(_) => owners.push(at),
                }
            }
            *owner.lock().expect("no panic") = owners.first().copied();
            owners.len() == 1
        })
        .await;
        owner.into_inner().expect("no panic").expect("just found")
    }
}
