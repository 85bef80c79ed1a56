//! What the task of a topic needs to know of its kind: names, and how what a join needs is had.

use std::fmt::Display;
use std::hash::Hash;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use switchboard_contract::names::{ChatId, LogName, RoomId};
use switchboard_contract::nats::Nats;

use super::{Shared, Topics};
use crate::chat::{Chat, ChatKind, ChatMember, Loaded};
use crate::commands::{ChatJoin, ChatPush, RoomJoin, RoomPush};
use crate::mailbox::Mailbox;
use crate::payload::Refusal;
use crate::room::{self, Room, RoomKind, RoomMember};
use crate::topic::{Effect, Kind, Topic};
use crate::{life, log};

/// A kind of topic that is served by a task for each topic.
#[allow(private_interfaces)]
pub trait Served:
    Kind<Member: Send, Fact: Send, Live: Send + Sync, Push: Send, Loaded: Send> + Send + Sync + 'static
{
    /// What names a topic.
    type Id: Clone + Display + Eq + Hash + Send + Sync + 'static;
    /// Who joins.
    type Join: Send;
    /// For metrics.
    const NAME: &'static str;

    /// Where topics of this kind are.
    fn topics(shared: &Shared) -> &Topics<Self>;
    /// The topic's log.
    fn log(id: &Self::Id) -> LogName;
    /// A topic without members.
    fn topic(id: Self::Id, shared: &Shared) -> Topic<Mailbox, Self>;
    /// A new member.
    fn member(join: Self::Join) -> Self::Member;
    /// Reads what a join needs; tried again until the caller's deadline.
    fn load(nats: Nats, id: Self::Id, last_seq: Option<u64>) -> BoxFuture<'static, Result<Self::Loaded, Refusal>>;
    /// What a push is called in a trace.
    fn name_of(push: &Self::Push) -> &'static str;
    /// Takes what came on the topic's subject and is not logged.
    fn told(topic: &mut Topic<Mailbox, Self>, body: &Bytes, gateway: &str, out: &mut Vec<Effect<Mailbox>>);
}

#[allow(private_interfaces)]
impl Served for ChatKind {
    type Id = ChatId;
    type Join = ChatJoin;
    const NAME: &'static str = "chat";

    fn topics(shared: &Shared) -> &Topics<Self> {
        &shared.chats
    }

    fn log(id: &ChatId) -> LogName {
        LogName::Chat(id.clone())
    }

    fn topic(id: ChatId, _: &Shared) -> Topic<Mailbox, Self> {
        Chat::new(id)
    }

    fn member(join: ChatJoin) -> ChatMember {
        ChatMember::new(join.role, join.user)
    }

    fn load(nats: Nats, id: ChatId, last_seq: Option<u64>) -> BoxFuture<'static, Result<Loaded, Refusal>> {
        Box::pin(async move { log::load(&nats, id, last_seq).await })
    }

    fn name_of(push: &ChatPush) -> &'static str {
        match push {
            ChatPush::Enter => "enter",
            ChatPush::Send(_) => "send",
            ChatPush::History(_) => "history",
            ChatPush::Terminate => "chat:terminate",
        }
    }

    fn told(_: &mut Topic<Mailbox, Self>, _: &Bytes, _: &str, _: &mut Vec<Effect<Mailbox>>) {}
}

#[allow(private_interfaces)]
impl Served for RoomKind {
    type Id = RoomId;
    type Join = RoomJoin;
    const NAME: &'static str = "room";

    fn topics(shared: &Shared) -> &Topics<Self> {
        &shared.rooms
    }

    fn log(id: &RoomId) -> LogName {
        LogName::Room(id.clone())
    }

    fn topic(id: RoomId, shared: &Shared) -> Topic<Mailbox, Self> {
        Room::new(id, shared.limiter.clone())
    }

    fn member(join: RoomJoin) -> RoomMember {
        RoomMember::new(join)
    }

    fn load(nats: Nats, id: RoomId, last_seq: Option<u64>) -> BoxFuture<'static, Result<room::Loaded, Refusal>> {
        Box::pin(async move { life::load(&nats, &id, last_seq).await })
    }

    fn name_of(push: &RoomPush) -> &'static str {
        match push {
            RoomPush::Broadcast(_) | RoomPush::Direct(..) => "new_msg",
            RoomPush::Say(_) => "new_message",
            RoomPush::Typing(_) => "typing",
            RoomPush::Binary { .. } => "binary",
            RoomPush::Change { .. } => "change",
            RoomPush::History(_) => "history",
        }
    }

    fn told(topic: &mut Topic<Mailbox, Self>, body: &Bytes, gateway: &str, out: &mut Vec<Effect<Mailbox>>) {
        topic.told(body, gateway, out);
    }
}
