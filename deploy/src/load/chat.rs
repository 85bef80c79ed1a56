//! One side of a chat: joins it, enters, plays its half of the ping-pong, and leaves when it is over.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use switchboard_contract::lobby::Role;

use super::checker::{Event, Push, Who};
use super::link::{Channel, Empty, Link, Seen};
use super::world::{Halt, Id};
use crate::client::Frame;

/// What users say: as long as people's sentences are.
const WORDS: &str = "How do I get from the second line of the proof to the third?";

/// A join's payload, in the lobby and in chats.
#[derive(Serialize)]
pub(super) struct UserOut<'a> {
    #[serde(rename = "userId")]
    pub(super) user_id: &'a Id,
    pub(super) role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capacity: Option<u32>,
}

#[derive(Serialize)]
struct SayOut<'a> {
    message: &'static str,
    chat: &'a str,
    n: u32,
}

/// What the other side said. That nothing was added or lost on the way shows in these.
#[derive(Deserialize)]
struct HeardIn<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    chat: Cow<'a, str>,
    n: u32,
    seq: u64,
}

/// `new:chat`: every field must be there.
#[derive(Deserialize)]
struct NewChatIn<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    teacher_id: &'a RawValue,
    #[serde(borrow)]
    student_id: &'a RawValue,
    #[serde(rename = "teacher_entered")]
    _teacher_entered: bool,
    #[serde(rename = "student_entered")]
    _student_entered: bool,
    #[serde(borrow)]
    messages: &'a RawValue,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It goes on.
    On,
    /// It has just been terminated.
    Over,
    /// This side has left the topic.
    Left,
}

/// One side of a chat.
pub(super) struct Chat {
    id: Box<str>,
    pub(super) channel: Channel,
    leave_ref: Option<u64>,
}

impl Chat {
    /// Takes a `new:chat` and joins the chat's topic.
    pub(super) fn open(link: &mut Link, own_id: &Id, payload: &str) -> Result<Chat, Halt> {
        let told: NewChatIn<'_> = serde_json::from_str(payload)
            .map_err(|error| link.unexpected(format_args!("new:chat is not understood: {error}")))?;
        if told.status != "active" || told.messages.get() != "[]" {
            return Err(link.unexpected(format_args!("new:chat of a chat that is not new: {payload}")));
        }
        let ids = &link.world.ids;
        let (teacher, student) = (ids.who(told.teacher_id.get()), ids.who(told.student_id.get()));
        link.see(Event::NewChat { chat: &told.id, teacher, student })?;
        let user = UserOut { user_id: own_id, role: link.who.role, capacity: None };
        let channel = link.join(format!("chats:{}", told.id), user, Push::JoinChat(&told.id))?;
        Ok(Chat { id: told.id.into(), channel, leave_ref: None })
    }

    /// Takes a frame of the chat's topic.
    pub(super) fn on_frame(&mut self, link: &mut Link, frame: &Frame<'_>) -> Result<Turn, Halt> {
        match link.seen(frame)? {
            Seen::Reply(reference) if reference == self.channel.join_ref => {
                let event = match link.who.role {
                    Role::Teacher => "teacher:joined",
                    Role::Student => "student:joined",
                };
                link.push(&self.channel, event, Empty {}, Push::Enter(&self.id))?;
                Ok(Turn::On)
            }
            Seen::Reply(reference) if self.leave_ref == Some(reference) => Ok(Turn::Left),
            Seen::Reply(_) => Ok(Turn::On),
            Seen::Event("chat:ready", _) => {
                link.see(Event::ChatReady(&self.id))?;
                match link.who.role {
                    Role::Teacher => self.say(link, 1)?,
                    Role::Student => {}
                }
                Ok(Turn::On)
            }
            Seen::Event("teacher:receive", payload) => self.heard(link, Role::Teacher, payload),
            Seen::Event("student:receive", payload) => self.heard(link, Role::Student, payload),
            Seen::Event("chat:terminated", _) => {
                link.see(Event::Terminated(&self.id))?;
                self.leave_ref = Some(link.push(&self.channel, "phx_leave", Empty {}, Push::LeaveChat(&self.id))?);
                Ok(Turn::Over)
            }
            // The server's answer to the leave, behind its reply.
            Seen::Event("phx_close", _) if self.leave_ref.is_some() => Ok(Turn::On),
            Seen::Event(event, payload) => {
                Err(link.unexpected(format_args!("{event} {payload} came in chat {}", self.id)))
            }
        }
    }

    fn heard(&mut self, link: &mut Link, to: Role, payload: &str) -> Result<Turn, Halt> {
        let HeardIn { message, chat, n, seq } = serde_json::from_str(payload)
            .map_err(|error| link.unexpected(format_args!("a message is not understood: {error}: {payload}")))?;
        if message != WORDS {
            return Err(link.unexpected(format_args!("a message was changed on the way: {payload}")));
        }
        link.see(Event::Heard { chat: &self.id, to, about: &chat, n, seq })?;
        match link.who.role {
            Role::Student => self.say(link, n)?,
            Role::Teacher if n < link.world.plan.messages => self.say(link, n + 1)?,
            Role::Teacher => {
                link.push(&self.channel, "chat:terminate", Empty {}, Push::Terminate(&self.id))?;
            }
        }
        Ok(Turn::On)
    }

    fn say(&mut self, link: &mut Link, n: u32) -> Result<(), Halt> {
        let event = match link.who {
            Who { role: Role::Teacher, .. } => "teacher:send",
            Who { role: Role::Student, .. } => "student:send",
        };
        let words = SayOut { message: WORDS, chat: &self.id, n };
        link.push(&self.channel, event, words, Push::Say(&self.id, n))?;
        Ok(())
    }
}
