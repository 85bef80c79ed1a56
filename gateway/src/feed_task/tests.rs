//! Feeds through a real nats-server. History is played by the test.

use async_nats::RequestErrorKind;
use serde_json::value::RawValue;
use switchboard_contract::feed::{Fed, Value};
use switchboard_contract::names::Incarnation;
use switchboard_contract::testing::{NatsServer, eventually};

use super::*;
use crate::auth::Pass;
use crate::frame::Vsn;
use crate::mailbox::Events;

struct World {
    server: NatsServer,
    history: async_nats::Client,
    wants: Subscriber,
    feeds: FeedHandle,
    id: FeedId,
}

impl World {
    /// `None`: there is no nats-server, the test is skipped.
    async fn start() -> Option<World> {
        let server = NatsServer::start().await?;
        let history = server.client().await;
        let wants = history.subscribe(names::HISTORY_FEED).await.expect("a subscription");
        history.flush().await.expect("NATS");
        let nats = Nats::connect(&server.common_args(), "gateway", &Incarnation::new()).await.expect("a connection");
        let (feeds, _) = start(nats);
        let id = FeedId::new("news:a.b *").expect("a feed");
        Some(World { server, history, wants, feeds, id })
    }

    async fn join(&self, chan: u64) -> Events {
        let (mailbox, events) = Mailbox::new();
        self.feeds.send(self.id.clone(), FeedCommand::Join { chan, serial: 1, pass: Pass::Token }, &mailbox).await;
        events
    }

    async fn leave(&self, chan: u64) {
        let (mailbox, _) = Mailbox::new();
        self.feeds.send(self.id.clone(), FeedCommand::Leave { chan }, &mailbox).await;
    }

    /// The next question of the gateway.
    async fn want(&mut self) -> Message {
        let want = tokio::time::timeout(Duration::from_secs(30), self.wants.next()).await;
        let message = want.expect("in time").expect("a question");
        let want: Want = wire::decode("want", &message.payload).expect("understood");
        assert!(want.feed == self.id && want.keeps_secrets);
        message
    }

    async fn answer(&self, want: Message, n: u64) {
        let fed = Fed { interval_ms: 60_000, token: false, secret: false, last: Some(value(n)), stale: None };
        let wanted = Wanted { v: V1, feed: Some(fed), refused: None };
        let reply = want.reply.expect("a request");
        self.history.publish(reply, wire::encode(&wanted)).await.expect("NATS");
    }

    /// As a feed's owner does before it polls, or behind it. What crosses the end of a subscription is not answered.
    async fn tell(&self, n: u64, last: Option<Value>) -> Result<(), RequestErrorKind> {
        let told = Told { v: V1, version: (1, n), last, stale: None };
        let answer = self.history.request(self.id.out_subject(), wire::encode(&told)).await;
        answer.map(|answer| assert!(answer.payload.is_empty())).map_err(|error| error.kind())
    }
}

fn value(n: u64) -> Value {
    let value = RawValue::from_string(n.to_string()).expect("JSON");
    Value { value, version: (1, n), at: "then".into() }
}

/// The next event, as a client would see it.
async fn next(events: &Events) -> String {
    let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
    let event = event.expect("in time").expect("an event");
    #[expect(clippy::wildcard_enum_match_arm, reason = "a feed sends no other events")]
    match &*event {
        Event::Done { outcome: Outcome::Ok(response), .. } => response.to_string(),
        Event::Once { broadcast, .. } => broadcast.frame(Vsn::V2).to_string(),
        other => panic!("{other:?}"),
    }
}

fn update(n: u64) -> String {
    format!(r#"[null,null,"feed:news:a.b *","update",{{"value":{n},"version":[1,{n}],"at":"then"}}]"#)
}

#[tokio::test]
async fn a_feed_from_the_first_join_to_the_last_leave() {
    let Some(mut world) = World::start().await else { return };
    assert_eq!(world.tell(1, None).await, Err(RequestErrorKind::NoResponders));
    let ada = world.join(1).await;
    let swallowed = world.want().await;
    let want = world.want().await;
    assert_eq!(world.tell(1, None).await, Ok(()), "a join that waits is interest");
    world.answer(want, 1).await;
    assert_eq!(next(&ada).await, r#"{"value":1,"version":[1,1],"at":"then"}"#);
    let bob = world.join(2).await;
    assert_eq!(next(&bob).await, r#"{"value":1,"version":[1,1],"at":"then"}"#);
    world.answer(swallowed, 9).await;

    assert_eq!(world.tell(2, Some(value(2))).await, Ok(()));
    assert_eq!((next(&ada).await, next(&bob).await), (update(2), update(2)));
    assert_eq!(world.tell(3, None).await, Ok(()));
    let want = world.want().await;
    world.answer(want, 3).await;
    assert_eq!((next(&ada).await, next(&bob).await), (update(3), update(3)), "what was lost was asked for");

    world.leave(1).await;
    world.leave(2).await;
    let nobody = Err(RequestErrorKind::NoResponders);
    eventually("the gateway has unsubscribed", async || world.tell(3, None).await == nobody).await;
    let cy = world.join(3).await;
    let want = world.want().await;
    world.answer(want, 3).await;
    assert_eq!(next(&cy).await, r#"{"value":3,"version":[1,3],"at":"then"}"#);
}

#[tokio::test]
async fn what_was_told_while_nats_was_away_is_asked_for() {
    let Some(mut world) = World::start().await else { return };
    let ada = world.join(1).await;
    let want = world.want().await;
    world.answer(want, 1).await;
    next(&ada).await;
    world.server.restart().await;
    // Polled once a minute: nobody says that there is a new one.
    let want = world.want().await;
    world.answer(want, 2).await;
    assert_eq!(next(&ada).await, update(2));
    eventually("it hears again", async || world.tell(2, None).await.is_ok()).await;
}
