//! A student: waits, talks, leaves.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use switchboard_contract::lobby::Role;
use tokio::sync::Semaphore;

use super::chat::{Chat, Turn, UserOut};
use super::checker::{Push, Who};
use super::link::{Channel, Empty, Link, Seen};
use super::world::{Halt, Id, World};
use crate::client::Frame;

/// A student in the lobby, and in its chat once it has one.
pub(super) struct Student {
    link: Link,
    id: Id,
    lobby: Channel,
    chat: Option<Chat>,
    ready_ref: Option<u64>,
    leave_ref: Option<u64>,
}

#[derive(Serialize)]
struct ReadyOut<'a> {
    #[serde(rename = "userId")]
    user_id: &'a Id,
}

#[derive(Deserialize)]
struct PositionIn {
    position: u64,
    of: u64,
    #[serde(rename = "wait_seconds")]
    _wait_seconds: Option<f64>,
}

/// What happened to the student with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing that others need to know.
    On,
    /// It has its place in the queue.
    Waiting,
    /// It has left the lobby.
    Gone,
}

impl Student {
    /// Connects and joins. It becomes ready as soon as the join is answered.
    pub(super) async fn arrive(world: Rc<World>, n: u32, url: &str) -> Result<Student, Halt> {
        let id = world.ids.id(n);
        let mut link = Link::open(world, Who::student(n), url).await?;
        let user = UserOut { user_id: &id, role: Role::Student, capacity: None };
        let lobby = link.join(format!("presence:student:{id}"), user, Push::Join)?;
        Ok(Student { link, id, lobby, chat: None, ready_ref: None, leave_ref: None })
    }

    /// Reads one frame and does what follows from it.
    pub(super) async fn step(&mut self) -> Result<Step, Halt> {
        let incoming = self.link.next().await?;
        let frame = incoming.frame().map_err(|error| self.link.unexpected(error))?;
        match &mut self.chat {
            Some(chat) if *frame.topic == *chat.channel.topic => match chat.on_frame(&mut self.link, &frame)? {
                Turn::On | Turn::Over => Ok(Step::On),
                Turn::Left => self.leave(),
            },
            Some(_) | None if *frame.topic == *self.lobby.topic => self.on_lobby(&frame),
            Some(_) | None => {
                Err(self.link.unexpected(format_args!("{} came on {}, which is not joined", frame.event, frame.topic)))
            }
        }
    }

    fn on_lobby(&mut self, frame: &Frame<'_>) -> Result<Step, Halt> {
        let link = &mut self.link;
        match link.seen(frame)? {
            Seen::Reply(reference) if reference == self.lobby.join_ref => {
                let ready = ReadyOut { user_id: &self.id };
                self.ready_ref = Some(link.push(&self.lobby, "student:ready", ready, Push::Ready)?);
                Ok(Step::On)
            }
            Seen::Reply(reference) if self.ready_ref == Some(reference) => Ok(Step::Waiting),
            Seen::Reply(reference) if self.leave_ref == Some(reference) => Ok(Step::Gone),
            Seen::Reply(_) => Ok(Step::On),
            Seen::Event("new:chat", payload) => {
                let chat = Chat::open(link, &self.id, payload)?;
                link.world.count(|tally| tally.chats += 1);
                self.chat = Some(chat);
                Ok(Step::On)
            }
            Seen::Event("queue:position", payload) => match serde_json::from_str::<PositionIn>(payload) {
                Ok(PositionIn { position, of, .. }) if (1..=of).contains(&position) => Ok(Step::On),
                Ok(_) | Err(_) => Err(link.unexpected(format_args!("queue:position {payload} is none"))),
            },
            Seen::Event(event, payload) => Err(link.unexpected(format_args!("{event} {payload} came in the lobby"))),
        }
    }

    /// Leaves the lobby; the reply to it is the last thing read.
    pub(super) fn leave(&mut self) -> Result<Step, Halt> {
        self.leave_ref = Some(self.link.push(&self.lobby, "phx_leave", Empty {}, Push::Leave)?);
        Ok(Step::On)
    }

    /// Closes the socket.
    pub(super) async fn close(self) {
        self.link.close().await;
    }
}

/// A student's whole life. `arrivals` bounds how many connect at once.
pub(super) async fn play(world: Rc<World>, n: u32, url: Rc<str>, arrivals: Rc<Semaphore>) -> Result<(), Halt> {
    let arrival = arrivals.acquire().await;
    let mut student = Student::arrive(Rc::clone(&world), n, &url).await?;
    while student.step().await? != Step::Waiting {}
    drop(arrival);
    world.count(|tally| tally.ready += 1);
    while student.step().await? != Step::Gone {}
    student.close().await;
    world.count(|tally| tally.served += 1);
    Ok(())
}
