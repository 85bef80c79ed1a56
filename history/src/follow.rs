//! Follows a stream: everything in it from the start, in order, over any loss of the connection. The room stream, and
//! the bucket of feeds.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt as _;
use switchboard_contract::limits;
use switchboard_contract::names;
use switchboard_contract::nats::Nats;
use switchboard_contract::streams::{self, Asset};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::metrics;

/// Between attempts to reach the stream.
const RETRY: Duration = Duration::from_millis(200);

/// What the stream says, in order.
#[derive(Debug)]
pub(crate) enum Fed {
    /// The next entries, at most [`limits::HISTORY_CHUNK_MAX`].
    Entries(Vec<Message>),
    /// The stream's first entry has this sequence: those before it are gone.
    First(u64),
    /// All entries that the stream had at the start have been fed.
    CaughtUp,
    /// The stream is another one: everything from before is void.
    Anew,
}

/// What is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// The log of rooms and chats, which is kept for so long: [`streams::ensure_log`].
    Log(Duration),
    /// KV `feeds`: without the bodies of messages, and after each loss of the connection from the start again, said with
    /// [`Fed::Anew`]. Its keys alone matter, and deletes leave nothing behind.
    FeedKeys,
}

impl What {
    fn stream(self) -> String {
        match self {
            What::Log(_) => Asset::Rooms.stream(),
            What::FeedKeys => Asset::Feeds.stream(),
        }
    }

    fn subjects(self) -> String {
        match self {
            What::Log(_) => names::LOG_SUBJECTS.to_owned(),
            What::FeedKeys => names::bucket_subjects(names::FEEDS_BUCKET),
        }
    }

    const fn keys(self) -> bool {
        matches!(self, What::FeedKeys)
    }

    async fn ensure(self, nats: &Nats, replicas: u8) -> anyhow::Result<()> {
        match self {
            What::Log(age) => streams::ensure_log(nats, replicas, age).await,
            What::FeedKeys => streams::ensure(nats, Asset::Feeds, replicas).await,
        }
    }
}

/// Feeds the stream into `feed` until nobody takes it any more.
pub(crate) async fn follow(nats: Nats, replicas: u8, what: What, feed: mpsc::Sender<Fed>) {
    let mut follower = Follower::new(nats, replicas, what, feed);
    loop {
        match follower.follow().await {
            Ok(()) if follower.feed.is_closed() => return,
            Ok(()) => tracing::debug!("following the stream afresh"),
            Err(error) if follower.nats.is_up() => tracing::warn!("cannot follow the stream: {error:#}"),
            Err(error) => tracing::debug!("cannot follow the stream: {error:#}"),
        }
        tokio::select! {
            () = follower.feed.closed() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

struct Follower {
    nats: Nats,
    replicas: u8,
    what: What,
    feed: mpsc::Sender<Fed>,
    /// The sequence to go on from; 0: the start.
    next: u64,
    /// The stream's last sequence when it was last asked what it holds.
    last: u64,
    /// It held nothing then.
    empty: bool,
    /// What `next` was when the stream was last asked what it holds.
    next_before: u64,
    /// The stream's last sequence as of the start.
    target: Option<u64>,
    caught_up: bool,
}

impl Follower {
    fn new(nats: Nats, replicas: u8, what: What, feed: mpsc::Sender<Fed>) -> Self {
        let (next, last, next_before) = (0, 0, 0);
        Follower { nats, replicas, what, feed, next, last, empty: false, next_before, target: None, caught_up: false }
    }

    /// Follows the stream for as long as this connection lasts.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut link = self.nats.link();
        if link.wait_for(|n| n % 2 == 1).await.is_err() {
            return Ok(());
        }
        let mut context = jetstream::new(self.nats.client.clone());
        context.set_timeout(limits::REQUEST_TIMEOUT);
        let stream = context.get_stream_no_info(self.what.stream()).await?;
        if self.what.keys() && self.next > 0 {
            self.next = 0;
            self.next_before = 0;
            self.say(Fed::Anew).await;
        }
        self.look(&stream).await?;
        let deliver_policy = match self.next {
            0 => DeliverPolicy::All,
            start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
        };
        let consumer = stream
            .create_consumer(push::OrderedConfig {
                deliver_subject: self.nats.client.new_inbox(),
                deliver_policy,
                headers_only: self.what.keys(),
                ..push::OrderedConfig::default()
            })
            .await
            .context("no consumer")?;
        if consumer.cached_info().num_pending == 0 && self.ends().await? {
            self.next = self.next.max(self.last + 1);
            self.note_caught_up().await;
        }
        let mut entries = consumer.messages().await?.ready_chunks(limits::HISTORY_CHUNK_MAX);
        let mut look = tokio::time::interval(limits::HISTORY_LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        loop {
            tokio::select! {
                biased;
                _ = link.changed() => return Ok(()),
                () = self.feed.closed() => return Ok(()),
                _ = look.tick() => {
                    let silent = self.is_silent();
                    if !self.what.keys() {
                        metrics::observe_behind((self.last + 1).saturating_sub(self.next));
                    }
                    if self.look(&stream).await? {
                        return Ok(());
                    }
                    // The consumer is on a server that is gone or cut off; its silence would be noticed much later.
                    if silent && !self.what.keys() {
                        let (next, last) = (self.next, self.last);
                        tracing::info!(next, last, "the consumer says nothing; another one is made");
                        return Ok(());
                    }
                }
                chunk = entries.next() => {
                    let Some(chunk) = chunk else { return Ok(()) };
                    self.take(chunk).await?;
                }
            }
        }
    }

    async fn take(&mut self, chunk: Vec<Result<Message, push::OrderedError>>) -> anyhow::Result<()> {
        let entries: Vec<Message> = chunk
            .into_iter()
            .filter_map(|entry| {
                // The consumer makes itself anew after any of its errors.
                entry.inspect_err(|error| tracing::debug!(%error, "consumer")).ok()
            })
            .collect();
        let Some(newest) = entries.last() else { return Ok(()) };
        let info = newest.info().map_err(|error| anyhow::anyhow!("an entry without its place: {error}"))?;
        self.next = info.stream_sequence + 1;
        // What was the stream's last at the start may have been deleted since.
        let caught_up = info.pending == 0 || self.target.is_some_and(|target| info.stream_sequence >= target);
        self.say(Fed::Entries(entries)).await;
        if caught_up {
            self.note_caught_up().await;
        }
        Ok(())
    }

    /// Asks the stream what it holds; `true` if it is another one than before.
    async fn look(&mut self, stream: &jetstream::stream::Stream<()>) -> anyhow::Result<bool> {
        let state = match stream.get_info().await {
            Ok(info) => info.state,
            Err(error) => {
                self.what.ensure(&self.nats, self.replicas).await?;
                return Err(error).context("the stream does not say what it holds");
            }
        };
        // A server that lost the end of its disk's cache, or a stream that was put back from a backup.
        let anew = state.last_sequence + 1 < self.next_before;
        if anew {
            tracing::warn!(last = state.last_sequence, seen = self.next_before - 1, "the stream went backwards");
            self.next = 0;
            self.say(Fed::Anew).await;
        }
        self.next_before = self.next;
        (self.last, self.empty) = (state.last_sequence, state.messages == 0);
        self.target.get_or_insert(state.last_sequence);
        self.say(Fed::First(state.first_sequence)).await;
        Ok(anew)
    }

    /// Whether nothing has come since the stream was last asked, though it had more then. What is only slow is left alone:
    /// another consumer would begin with what is on its way already.
    fn is_silent(&self) -> bool {
        self.last >= self.next && self.next == self.next_before
    }

    /// Whether the stream has nothing more: what it had at its end is deleted, if there was something. A consumer that
    /// has nothing to bring says so only of the replica that it is on, which may lag behind.
    async fn ends(&self) -> anyhow::Result<bool> {
        if self.empty || self.last < self.next {
            return Ok(true);
        }
        let (stream, subjects) = (self.what.stream(), self.what.subjects());
        let more = self.nats.leader_next(&stream, &subjects, self.next, limits::REQUEST_TIMEOUT).await;
        Ok(more.context("the stream does not say whether it has more")?.is_none())
    }

    async fn note_caught_up(&mut self) {
        if !self.caught_up {
            self.caught_up = true;
            self.say(Fed::CaughtUp).await;
        }
    }

    /// Waits while the reader is behind: the stream's flow control then holds the stream back.
    async fn say(&self, fed: Fed) {
        // A reader that is gone is noticed by the loop.
        let _ = self.feed.send(fed).await;
    }
}

#[cfg(test)]
mod tests {
    use switchboard_contract::names::{ChatId, Incarnation, LogName};
    use switchboard_contract::testing::NatsServer;

    use super::*;

    #[tokio::test]
    async fn the_stream_ends_where_its_leader_says_so_and_not_where_a_consumer_has_nothing() {
        let Some(server) = NatsServer::start().await else { return };
        let nats = Nats::connect(&server.common_args(), "test", &Incarnation::new()).await.expect("a connection");
        let what = What::Log(limits::LOG_AGE_MAX);
        what.ensure(&nats, 1).await.expect("a stream");
        let context = jetstream::new(nats.client.clone());
        let subject = LogName::Chat(ChatId::new("a-1").expect("an id")).log_subject();
        let mut seqs = Vec::new();
        for _ in 0..2 {
            let stored = context.publish(subject.clone(), "{}".into()).await.expect("sent").await.expect("stored");
            seqs.push(stored.sequence);
        }
        let (feed, _fed) = mpsc::channel(limits::HISTORY_CHUNKS_MAX);
        let mut follower = Follower::new(nats, 1, what, feed);
        let stream = context.get_stream_no_info(what.stream()).await.expect("the stream");
        for (next, ends) in [(0, false), (seqs[0], false), (seqs[1], false), (seqs[1] + 1, true)] {
            follower.next = next;
            assert!(!follower.look(&stream).await.expect("what it holds"));
            assert_eq!(follower.ends().await.expect("an answer"), ends, "{next}");
        }
        // Of the two nothing comes, then one, then both.
        follower.next = seqs[0];
        follower.look(&stream).await.expect("what it holds");
        for (next, silent) in [(seqs[0], true), (seqs[1], false), (seqs[1] + 1, false)] {
            follower.next = next;
            assert_eq!(follower.is_silent(), silent, "{next}");
        }
        // What it had at its end is deleted, and what stands before is there.
        stream.delete_message(seqs[1]).await.expect("deleted");
        for (next, ends) in [(seqs[0], false), (seqs[1], true)] {
            follower.next = next;
            assert_eq!(follower.ends().await.expect("an answer"), ends, "{next}, one deleted");
        }
        stream.purge().await.expect("empty");
        follower.next = 0;
        follower.look(&stream).await.expect("what it holds");
        assert!(follower.ends().await.expect("an answer"), "nothing is there");
    }
}
