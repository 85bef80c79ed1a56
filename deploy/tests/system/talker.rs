//! A member of a room whose socket may break or be closed at any time: it comes back on any gateway, says again what
//! was not answered, and remembers all that it heard.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::client::{Client, ClientError, Vsn};
use tokio::time::{Instant, sleep};

use crate::harness::{A_WHILE, System};

pub(crate) const ROOM: &str = "room:r";
/// Whatever is insisted on is done within this time: a cluster may choose leaders meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// From one message to the next: below what one user may say.
const PACE: Duration = Duration::from_millis(120);

/// Its messages are numbered from 0.
pub(crate) struct Talker {
    pub(crate) client: Client,
    name: &'static str,
    /// Where it connects, in turns.
    gateways: Vec<String>,
    /// What the room had before it came.
    before: u64,
    /// The last sequence that the server gave it; 0 before the first.
    pub(crate) stored: Arc<AtomicU64>,
    /// The sequences that the server gave its messages.
    said: Vec<u64>,
    /// Sequence, name and number of what others said, in the order in which it came.
    heard: Vec<(u64, String, u64)>,
    /// It was shown a gap, and has not read what that left out.
    gap: bool,
    /// How often it had to come back.
    pub(crate) returns: usize,
}

impl Talker {
    /// One that has joined, on the first of these gateways.
    pub(crate) async fn join(name: &'static str, gateways: &[String]) -> Talker {
        let client = Client::connect(&gateways[0], Vsn::V2).await.expect("a connection");
        let gateways = gateways.to_vec();
        let (said, heard, stored) = (Vec::new(), Vec::new(), Arc::default());
        let mut talker = Talker { client, name, gateways, before: 0, stored, said, heard, gap: false, returns: 0 };
        let reply = talker.client.join(ROOM, talker.user()).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        talker.before = reply.response["last_seq"].as_u64().expect("a sequence");
        talker
    }

    fn user(&self) -> Value {
        json!({"userId": self.name, "session_id": "s"})
    }

    /// Says that many things, each again until it is `ok`, on whichever socket.
    pub(crate) async fn talk(&mut self, messages: usize) {
        let all = self.said.len() + messages;
        let deadline = Instant::now() + PATIENCE;
        while self.said.len() < all {
            assert!(Instant::now() < deadline, "{} cannot say anything", self.name);
            if self.try_to_talk().await.is_err() {
                self.come_back().await;
            }
            sleep(PACE).await;
        }
    }

    async fn try_to_talk(&mut self) -> Result<(), ClientError> {
        self.note().await?;
        let n = self.said.len();
        let message =
            json!({"broadcast": true, "text": format!("{} {n}", self.name), "id": format!("{}-{n}", self.name)});
        let reply = self.client.push(ROOM, "new_msg", message).await?;
        if reply.ok {
            let seq = reply.response["seq"].as_u64().expect("a sequence");
            self.stored.store(seq, Ordering::Relaxed);
            self.said.push(seq);
        } else {
            assert!(matches!(reply.reason(), Some("unavailable" | "rate_limited")), "{reply:?}");
        }
        Ok(())
    }

    /// Notes what has come.
    async fn note(&mut self) -> Result<(), ClientError> {
        loop {
            let message = |message: &switchboard::client::Message| matches!(&*message.event, "new_msg" | "gap");
            match self.client.expect_where(message, "a message", Duration::ZERO).await {
                Ok(message) if message.event == "gap" => {
                    eprintln!("{} was shown a gap: {}", self.name, message.payload);
                    self.gap = true;
                }
                // A new socket is told what an earlier one said, too.
                Ok(message) => self.heard.extend(heard(&message.payload).filter(|(_, from, _)| from != self.name)),
                Err(ClientError::Late { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// On a new socket, from what it had seen last. Gateways that refuse are asked in turns.
    pub(crate) async fn come_back(&mut self) {
        // What its old socket still had.
        let _ = self.note().await;
        let deadline = Instant::now() + PATIENCE;
        for at in 0.. {
            assert!(Instant::now() < deadline, "{} cannot come back", self.name);
            if let Ok(client) = Client::connect(&self.gateways[at % self.gateways.len()], Vsn::V2).await {
                self.client = client;
                let last =
                    self.heard.last().map(|(seq, ..)| *seq).max(self.said.last().copied()).unwrap_or(self.before);
                let mut user = self.user();
                user["last_seq"] = last.into();
                match self.client.join(ROOM, user).await {
                    Ok(reply) if reply.ok => {
                        self.returns += 1;
                        return;
                    }
                    Ok(reply) => assert_eq!(reply.reason(), Some("unavailable")),
                    Err(_) => {}
                }
            }
            sleep(PACE).await;
        }
    }

    /// Waits for all that the others said. Whoever lost its socket meanwhile comes back first.
    async fn has_heard(&mut self, others: &[(u64, String, u64)]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.note().await.is_err() {
                self.come_back().await;
            }
            if self.gap {
                self.read_history().await;
            }
            if self.heard.len() >= others.len() {
                break;
            }
            assert!(Instant::now() < deadline, "{} heard {:?} of {others:?}", self.name, self.heard);
            sleep(Duration::from_millis(10)).await;
        }
        self.client.expect_none("new_msg", A_WHILE).await.expect("nothing twice");
        assert_eq!(self.heard, others, "what {} heard", self.name);
    }

    /// Takes from the room's history what a gap has left out, as clients do.
    async fn read_history(&mut self) {
        if let Ok(reply) = self.client.push(ROOM, "history", json!({})).await
            && reply.ok
        {
            let messages = reply.response["messages"].as_array().expect("messages");
            let all = messages.iter().filter_map(heard);
            let known = std::mem::take(&mut self.heard);
            let missing = all.filter(|(_, from, _)| from != self.name);
            let both: BTreeSet<_> = known.iter().cloned().chain(missing).collect();
            self.heard = both.into_iter().collect();
            self.gap = false;
        }
    }

    fn all_said(&self) -> impl Iterator<Item = (u64, String, u64)> {
        self.said.iter().zip(0..).map(|(seq, n)| (*seq, self.name.to_owned(), n))
    }
}

/// Sequence, name and number of a message, in the form in which it is sent live or in that of the history.
fn heard(message: &Value) -> Option<(u64, String, u64)> {
    let payload = if message["payload"].is_object() { &message["payload"] } else { message };
    let (from, n) = payload["text"].as_str()?.split_once(' ')?;
    Some((message["seq"].as_u64()?, from.to_owned(), n.parse().ok()?))
}

/// Each has heard what the others said, once, in one order; and that is what the room's history has.
pub(crate) async fn agree(talkers: &mut [Talker]) {
    let mut all: Vec<_> = talkers.iter().flat_map(Talker::all_said).collect();
    all.sort_unstable();
    for talker in talkers.iter_mut() {
        let others: Vec<_> = all.iter().filter(|(_, name, _)| name != talker.name).cloned().collect();
        talker.has_heard(&others).await;
    }
    for talker in talkers {
        let reply = talker.client.push(ROOM, "history", json!({})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        let messages = reply.response["messages"].as_array().expect("messages");
        let texts: Vec<&str> = messages.iter().filter_map(|message| message["payload"]["text"].as_str()).collect();
        let said: Vec<String> = all.iter().map(|(_, name, n)| format!("{name} {n}")).collect();
        assert_eq!(texts, said, "history as {} sees it", talker.name);
    }
}

/// Two in the room, on gateways 0 and 1, each of which goes to the other one where its own fails.
pub(crate) async fn talkers(system: &System) -> [Talker; 2] {
    let (zero, one) = (system.gateway(0), system.gateway(1));
    let ada = Talker::join("ada", &[zero.clone(), one.clone()]).await;
    [ada, Talker::join("bob", &[one, zero]).await]
}
