//! What the entries of a room's log say, and what clients see of them. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use switchboard_contract::log::{Entry, Message, Sender};
use switchboard_contract::names::{SessionKey, UserId};
use switchboard_contract::room::{Change, Rank, RoomEvent, RoomView};

use crate::mailbox::Event;
use crate::object::{self, Object};

/// What an entry says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fact {
    pub(super) what: What,
    /// How the room is behind this entry, as history has it.
    pub(super) view: Option<Box<RoomView>>,
}

/// Who wrote an entry, with the rank of its token.
pub(super) type Author = Option<(UserId, Rank)>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum What {
    /// Nothing that members see.
    #[default]
    Nothing,
    /// A message. Whether it is void is still to be decided.
    Said(Author, Said),
    /// A message that history has found to count.
    Counted(Said),
    /// A change of the state. Whether it is void is still to be decided.
    Change(Author, Change<'static>),
    /// The whole state, as clients see it, behind a change that history has found to count.
    State(Box<str>),
    /// The room's life is over.
    Over,
}

/// A message, as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) event: Box<str>,
    pub(super) payload: Box<str>,
    /// Who does not see it: the socket that sent it.
    pub(super) own: Option<Own>,
}

/// How a socket knows its own message: its session, and the message's id.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    pub(super) session: SessionKey,
    pub(super) id: Box<str>,
}

/// What members see.
#[derive(Clone, Debug)]
pub enum Live {
    /// All of them.
    All(Arc<Event>),
    /// All but the socket that sent it.
    Others(Arc<Own>, Arc<Event>),
    /// It is over: they join again.
    Over,
}

impl Fact {
    /// What an entry of the log says.
    pub(super) fn of(seq: u64, entry: &Entry<'_>) -> Fact {
        let author = entry.author().map(|(user, rank)| (user.clone(), rank));
        let what = match RoomEvent::parse(&entry.event) {
            Some(RoomEvent::Tombstone) => What::Over,
            Some(RoomEvent::State) => {
                change(entry.payload).map_or(What::Nothing, |change| What::Change(author, change))
            }
            None => {
                What::Said(author, said(seq, &entry.event, entry.payload, entry.from.as_ref(), &entry.id, &entry.at))
            }
        };
        Fact { what, view: None }
    }

    /// What an entry says that history has kept: what is void is not among them.
    pub(crate) fn kept(message: &Message<'_>) -> Fact {
        let Message { seq, id, at, event, payload, from } = message;
        let what = match RoomEvent::parse(event) {
            Some(RoomEvent::Tombstone) => What::Over,
            Some(RoomEvent::State) => What::State(payload.get().into()),
            None => What::Counted(said(*seq, event, payload, from.as_ref(), id, at)),
        };
        Fact { what, view: None }
    }
}

fn change(payload: &RawValue) -> Option<Change<'static>> {
    let Change { title, quiet, quiet_rank, grant, until, expired } = serde_json::from_str(payload.get())
        .inspect_err(|error| tracing::warn!(%error, "a change of a room was not understood"))
        .ok()?;
    let title = title.map(|title: Cow<'_, str>| title.into_owned().into());
    Some(Change { title, quiet, quiet_rank, grant, until, expired })
}

fn said(seq: u64, event: &str, payload: &RawValue, from: Option<&Sender>, id: &str, at: &str) -> Said {
    let object = Object::read(payload.get()).ok();
    let own_id = object.is_some_and(|object| object.get("id").is_some());
    let json = |text: &str| serde_json::json!(text);
    // The client's own id comes back in the type in which it was sent.
    let id_field = if own_id { String::new() } else { format!(",\"id\":{}", json(id)) };
    let fields = match from {
        Some(from) if event == "new_message" => {
            let user = serde_json::json!(from.user_id);
            format!("\"user\":{user},\"timestamp\":{},\"seq\":{seq}{id_field}", json(at))
        }
        Some(from) => format!("{},\"seq\":{seq}{id_field},\"at\":{}", from_field(from), json(at)),
        None => format!("\"seq\":{seq}{id_field},\"at\":{}", json(at)),
    };
    let session = from.and_then(|from| from.session.clone()).filter(|_| event != "new_message");
    Said {
        event: event.into(),
        payload: object::with(payload.get(), &fields).into(),
        own: session.map(|session| Own { session, id: id.into() }),
    }
}

/// A sender as receivers see it.
pub(super) fn from_field(from: &Sender) -> String {
    format!("\"from\":{}", serde_json::json!({"user_id": from.user_id, "session": from.session}))
}
