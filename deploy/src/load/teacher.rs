//! A teacher: claims while it has a free place, and talks in all its chats at once on one socket.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use switchboard_contract::lobby::Role;
use tokio::time::{MissedTickBehavior, interval};

use super::chat::{Chat, Turn, UserOut};
use super::checker::{Counts, Event, Push, Who};
use super::link::{Channel, Empty, Link, Seen};
use super::world::{Halt, Id, World};
use crate::client::Frame;

const TOPIC: &str = "presence:teachers";

struct Teacher {
    link: Link,
    id: Id,
    new_chat: String,
    lobby: Channel,
    chats: Vec<Chat>,
    /// Chats that take a place; those that are over but not left yet take none.
    active: u32,
    /// Claims that are not answered yet.
    claims: BTreeSet<u64>,
    leave_ref: Option<u64>,
}

#[derive(Serialize)]
struct ClaimOut<'a> {
    #[serde(rename = "teacherId")]
    teacher_id: &'a Id,
}

#[derive(Deserialize)]
struct StatusIn {
    teachers: TeachersIn,
    students: StudentsIn,
}

#[derive(Deserialize)]
struct TeachersIn {
    total: u64,
}

#[derive(Deserialize)]
struct StudentsIn {
    total: u64,
    waiting: u64,
    chatting: u64,
    finished: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    On,
    Joined,
    Gone,
}

/// A teacher's whole life.
pub(super) async fn play(world: Rc<World>, n: u32, url: Rc<str>) -> Result<(), Halt> {
    let over = world.over.clone();
    let over = over.cancelled();
    tokio::pin!(over);
    let mut claims = interval(world.claim_every);
    claims.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut teacher = Teacher::arrive(Rc::clone(&world), n, &url).await?;
    loop {
        tokio::select! {
            step = teacher.step() => match step? {
                Step::On => {}
                Step::Joined => world.count(|tally| tally.teachers += 1),
                Step::Gone => break,
            },
            _ = claims.tick(), if teacher.may_claim() => {
                if world.claims_open.get() {
                    teacher.claim()?;
                }
            }
            // A claim on its way would be lost with the channel, and answered so.
            () = &mut over, if teacher.leave_ref.is_none() && teacher.claims.is_empty() => teacher.leave()?,
        }
    }
    teacher.link.close().await;
    Ok(())
}

impl Teacher {
    async fn arrive(world: Rc<World>, n: u32, url: &str) -> Result<Teacher, Halt> {
        let id = world.ids.id(n);
        let capacity = Some(world.plan.capacity);
        let mut link = Link::open(world, Who::teacher(n), url).await?;
        let user = UserOut { user_id: &id, role: Role::Teacher, capacity };
        let lobby = link.join(TOPIC.to_owned(), user, Push::Join)?;
        let new_chat = format!("new:chat:{id}");
        Ok(Teacher {
            link,
            id,
            new_chat,
            lobby,
            chats: Vec::new(),
            active: 0,
            claims: BTreeSet::new(),
            leave_ref: None,
        })
    }

    fn may_claim(&self) -> bool {
        let over = self.link.world.over.is_cancelled();
        self.active < self.link.world.plan.capacity && self.leave_ref.is_none() && !over
    }

    fn claim(&mut self) -> Result<(), Halt> {
        let claim = ClaimOut { teacher_id: &self.id };
        self.claims.insert(self.link.push(&self.lobby, "claim:student", claim, Push::Claim)?);
        self.link.world.count(|tally| tally.claims += 1);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Halt> {
        self.leave_ref = Some(self.link.push(&self.lobby, "phx_leave", Empty {}, Push::Leave)?);
        Ok(())
    }

    async fn step(&mut self) -> Result<Step, Halt> {
        let incoming = self.link.next().await?;
        let frame = incoming.frame().map_err(|error| self.link.unexpected(error))?;
        if *frame.topic == *self.lobby.topic {
            return self.on_lobby(&frame);
        }
        let Some(at) = self.chats.iter().position(|chat| *chat.channel.topic == *frame.topic) else {
            // Behind the reply to a leave comes the channel's close.
            if frame.event == "phx_close" {
                return Ok(Step::On);
            }
            let what = format_args!("{} came on {}, which is not joined", frame.event, frame.topic);
            return Err(self.link.unexpected(what));
        };
        match self.chats[at].on_frame(&mut self.link, &frame)? {
            Turn::On => {}
            Turn::Over => self.active -= 1,
            Turn::Left => {
                self.chats.swap_remove(at);
            }
        }
        Ok(Step::On)
    }

    fn on_lobby(&mut self, frame: &Frame<'_>) -> Result<Step, Halt> {
        let link = &mut self.link;
        match link.seen(frame)? {
            Seen::Reply(reference) if reference == self.lobby.join_ref => Ok(Step::Joined),
            Seen::Reply(reference) if self.leave_ref == Some(reference) => Ok(Step::Gone),
            Seen::Reply(reference) => {
                self.claims.remove(&reference);
                Ok(Step::On)
            }
            Seen::Event(event, payload) if event == self.new_chat => {
                self.chats.push(Chat::open(link, &self.id, payload)?);
                self.active += 1;
                Ok(Step::On)
            }
            Seen::Event("user:status", payload) => {
                let status: StatusIn = serde_json::from_str(payload)
                    .map_err(|error| link.unexpected(format_args!("user:status is not understood: {error}")))?;
                let StudentsIn { total, waiting, chatting, finished } = status.students;
                let teachers = status.teachers.total;
                link.see(Event::Status(Counts { teachers, students: total, waiting, chatting, finished }))?;
                Ok(Step::On)
            }
            Seen::Event(event, payload) => Err(link.unexpected(format_args!("{event} {payload} came in the lobby"))),
        }
    }
}
