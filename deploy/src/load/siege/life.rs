//! A user's life over all its sockets: connects as phoenix.js does, sends what the player asks for, tells it what came.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use switchboard_contract::lobby::Role;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::super::checker::{Counts, Push, Violation, Who};
use super::super::rooms::draw;
use super::super::world::{Halt, Id};
use super::Siege;
use super::backoff;
use super::judge::{End, Event};
use super::player::{Answer, Ask, Player};
use super::wire::{HeardIn, NewChatIn, Out, ReplyFields, StatusIn, StudentsIn, WORDS};
use crate::client::{Frame, Outgoing, ReplyIn, Socket, SocketError, Vsn};

/// An attempt to connect may take this long, as in phoenix.js.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a socket may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Who was cut off comes back after up to this time, the square of chance: mostly within the grace time.
const AWAY_MAX: Duration = Duration::from_secs(15);
/// Of those that go, so many students leave for good, and the others are cut off. Percent.
const LEAVES: u32 = 25;

/// Why a socket is no longer served.
enum Parted {
    /// It is lost; the user comes back.
    Lost,
    /// It was cut; the user comes back after this time.
    Cut(Duration),
    /// The user has left.
    Left,
}

struct Life {
    siege: Rc<Siege>,
    who: Who,
    id: Id,
    lobby: String,
    new_chat: String,
    player: Player,
    rng: StdRng,
    open: HashMap<u64, Ask>,
    /// The ref of the present join of each topic.
    joins: HashMap<String, u64>,
    connected: Duration,
    arrival: Option<OwnedSemaphorePermit>,
}

/// A user's whole life, on these gateways in turn from the `at`th. `arrivals` bounds how many come at once.
pub(in crate::load) async fn play(
    siege: Rc<Siege>,
    who: Who,
    gateways: Rc<[Rc<str>]>,
    at: usize,
    arrivals: Arc<Semaphore>,
) -> Result<(), Halt> {
    let arrival = arrivals.acquire_owned().await.ok();
    let id = siege.world.ids.id(who.n);
    let (lobby, new_chat) = match who.role {
        Role::Teacher => ("presence:teachers".to_owned(), format!("new:chat:{id}")),
        Role::Student => (format!("presence:student:{id}"), "new:chat".to_owned()),
    };
    let (open, joins, connected) = (HashMap::new(), HashMap::new(), Duration::ZERO);
    let number = u64::from(who.n) << 1 | u64::from(who.role == Role::Teacher);
    let mut rng = StdRng::seed_from_u64(siege.seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    // Of a long run, not all are equally fast, so that chats do not end in waves.
    let pace = if siege.churn.is_zero() { siege.pace } else { siege.pace.mul_f64(rng.random_range(0.5..1.5)) };
    let player = Player::new(who.role, siege.world.plan.messages, pace);
    let mut life = Life { siege, who, id, lobby, new_chat, player, rng, open, joins, connected, arrival };
    life.play(&gateways, at).await?;
    let repeated = &life.siege.repeated;
    repeated.set(repeated.get() + life.player.repeated);
    match who.role {
        Role::Teacher => {}
        Role::Student => life.siege.world.count(|tally| tally.served += 1),
    }
    Ok(())
}

impl Life {
    async fn play(&mut self, gateways: &[Rc<str>], mut at: usize) -> Result<(), Halt> {
        let mut tries = 0;
        let mut first = true;
        loop {
            let url = &gateways[at % gateways.len()];
            at += 1;
            let connecting = timeout(CONNECT_TIMEOUT, self.siege.world.connect(self.who, url)).await;
            let mut socket = match connecting {
                Ok(Ok(socket)) => socket,
                Ok(Err(error)) if self.siege.strikes.is_none() => return Err(Halt::Connect(self.who, error)),
                Ok(Err(_)) | Err(_) => {
                    sleep(backoff::socket(tries)).await;
                    tries += 1;
                    continue;
                }
            };
            tries = 0;
            self.connected = self.siege.world.now();
            if !std::mem::take(&mut first) {
                self.siege.reconnects.set(self.siege.reconnects.get() + 1);
                if let Some(strikes) = &self.siege.strikes {
                    strikes.reconnected();
                }
            }
            self.player.opened();
            let away = match self.serve(&mut socket).await? {
                Parted::Left => {
                    let _answered = timeout(CLOSE_TIMEOUT, socket.close()).await;
                    return Ok(());
                }
                Parted::Lost => {
                    tries = 1;
                    backoff::socket(0)
                }
                Parted::Cut(away) => away,
            };
            drop(socket);
            self.see(Event::Lost)?;
            self.player.lost();
            self.open.clear();
            self.joins.clear();
            if self.player.has_left() {
                return Ok(());
            }
            sleep(away).await;
        }
    }
    /// Plays on one socket.
    async fn serve(&mut self, socket: &mut Socket) -> Result<Parted, Halt> {
        let over = match self.who.role {
            Role::Teacher => self.siege.world.over.clone(),
            Role::Student => self.siege.closing.clone(),
        };
        let over = over.cancelled();
        tokio::pin!(over);
        let mut claims: Interval = interval(self.siege.world.claim_every);
        claims.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let capacity = self.siege.world.plan.capacity;
        let mut goes = draw(self.siege.churn, &mut self.rng).map(|after| Instant::now() + after);
        loop {
            for ask in std::mem::take(&mut self.player.asks) {
                match self.send(socket, ask)? {
                    Ok(()) => {}
                    Err(error) => return self.parted(&error),
                }
            }
            // What is still open on other topics is answered too, before the socket is closed.
            if self.player.has_left() && self.open.is_empty() {
                return Ok(Parted::Left);
            }
            let now = self.siege.world.now();
            let timer = self.player.next_timer().map(|at| Instant::now() + at.saturating_sub(now));
            let teaches = self.who.role == Role::Teacher;
            tokio::select! {
                incoming = socket.next() => match incoming {
                    Ok(incoming) => {
                        let frame = incoming.frame().map_err(|error| self.unexpected(error))?;
                        self.on_frame(&frame)?;
                    }
                    Err(error) => return self.parted(&error),
                },
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.player.tick(self.siege.world.now());
                }
                _ = claims.tick(), if teaches && self.player.may_claim(capacity) => {
                    if self.siege.world.claims_open.get() {
                        self.siege.world.count(|tally| tally.claims += 1);
                        self.player.asks.push(Ask::Claim);
                    }
                }
                () = sleep_until(goes.unwrap_or_else(Instant::now)),
                    if goes.is_some() && !self.siege.closing.is_cancelled() =>
                {
                    if teaches || self.rng.random_range(0..100) >= LEAVES {
                        let chance: f64 = self.rng.random();
                        return Ok(Parted::Cut(AWAY_MAX.mul_f64(chance * chance)));
                    }
                    goes = None;
                    self.player.leave();
                }
                () = &mut over, if !self.player.is_leaving() => self.player.leave(),
            }
        }
    }

    /// A socket may be lost to a kill, and only to one, but is never closed for what the client did.
    fn parted(&self, error: &SocketError) -> Result<Parted, Halt> {
        match error {
            SocketError::Closed { code: Some(1002 | 1003 | 1007 | 1009) } | SocketError::Encode(_) => {
                Err(self.unexpected(error))
            }
            SocketError::Closed { .. } | SocketError::HeartbeatLost | SocketError::Ws(_)
                if self.siege.strikes.is_none() =>
            {
                Err(self.unexpected(format_args!("its socket was lost: {error}")))
            }
            SocketError::Closed { .. } | SocketError::HeartbeatLost | SocketError::Ws(_) => Ok(Parted::Lost),
        }
    }

    fn see(&self, event: Event<'_>) -> Result<(), Halt> {
        Ok(self.siege.observe(self.who, self.connected, event)?)
    }

    fn unexpected(&self, what: impl std::fmt::Display) -> Halt {
        Violation::Unexpected { who: self.who, what: what.to_string() }.into()
    }

    fn send(&mut self, socket: &mut Socket, ask: Ask) -> Result<Result<(), SocketError>, Halt> {
        let user = Out { user_id: Some(&self.id), role: Some(self.who.role), ..Out::default() };
        let (entered, sends) = match self.who.role {
            Role::Teacher => ("teacher:joined", "teacher:send"),
            Role::Student => ("student:joined", "student:send"),
        };
        let capacity = (self.who.role == Role::Teacher).then_some(self.siege.world.plan.capacity);
        let none = Out::default;
        let (chat, event, push, payload) = match &ask {
            Ask::Join => (None, "phx_join", Push::Join, Out { capacity, ..user }),
            Ask::Ready => (None, "student:ready", Push::Ready, Out { user_id: Some(&self.id), ..none() }),
            Ask::Claim => (None, "claim:student", Push::Claim, Out { teacher_id: Some(&self.id), ..none() }),
            Ask::Leave => (None, "phx_leave", Push::Leave, none()),
            Ask::JoinChat(id, last_seq) => {
                (Some(id), "phx_join", Push::JoinChat(id), Out { last_seq: *last_seq, ..user })
            }
            Ask::Enter(id) => (Some(id), entered, Push::Enter(id), none()),
            Ask::Say(id, n) => {
                let words = Out { message: Some(WORDS), chat: Some(id), n: Some(*n), id: Some(*n), ..none() };
                (Some(id), sends, Push::Say(id, *n), words)
            }
            Ask::Terminate(id) => (Some(id), "chat:terminate", Push::Terminate(id), none()),
            Ask::LeaveChat(id) => (Some(id), "phx_leave", Push::LeaveChat(id), none()),
        };
        let topic = chat.map_or_else(|| self.lobby.clone(), |id| format!("chats:{id}"));
        let reference = socket.next_ref();
        self.siege.observe(self.who, self.connected, Event::Pushed(reference, push))?;
        if event == "phx_join" {
            self.joins.insert(topic.clone(), reference);
        }
        // Clients of V1 did not know join_ref.
        let join_ref = match self.siege.world.vsn {
            Vsn::V1 => None,
            Vsn::V2 => self.joins.get(&topic).copied(),
        };
        let sent = socket.send(&Outgoing { join_ref, reference: Some(reference), topic: &topic, event, payload });
        self.open.insert(reference, ask);
        Ok(sent)
    }

    fn on_frame(&mut self, frame: &Frame<'_>) -> Result<(), Halt> {
        let json = frame.payload.json().ok_or_else(|| self.unexpected("binary data came"))?;
        let now = self.siege.world.now();
        let chat = frame.topic.strip_prefix("chats:");
        match (&*frame.event, chat) {
            ("phx_reply", _) => self.on_reply(frame, json, now),
            ("phx_close", _) => Ok(()),
            ("phx_error", chat) => {
                self.player.channel_failed(chat, now);
                Ok(())
            }
            ("user:status", None) => {
                let status: StatusIn = serde_json::from_str(json).map_err(|error| self.unexpected(error))?;
                let StudentsIn { total, waiting, chatting, finished } = status.students;
                let counts = Counts { teachers: status.teachers.total, students: total, waiting, chatting, finished };
                self.siege.counts.set(Some(counts));
                self.see(Event::Status(counts))
            }
            ("queue:position", None) => Ok(()),
            (event, None) if *event == *self.new_chat => self.on_new_chat(json),
            ("chat:ready", Some(chat)) => {
                self.see(Event::ChatReady(chat))?;
                self.player.ready(chat, now);
                Ok(())
            }
            ("teacher:receive", Some(chat)) => self.on_message(chat, Role::Teacher, json, now),
            ("student:receive", Some(chat)) => self.on_message(chat, Role::Student, json, now),
            ("chat:terminated", Some(chat)) => self.on_end(chat, End::Terminated),
            ("chat:requeued", Some(chat)) => self.on_end(chat, End::Requeued),
            ("gap", Some(chat)) => self.see(Event::Gap(chat)),
            (event, _) => Err(self.unexpected(format_args!("{event} {json} came on {}", frame.topic))),
        }
    }

    fn on_end(&mut self, chat: &str, how: End) -> Result<(), Halt> {
        self.see(Event::Ended(chat, how))?;
        self.player.over(chat, how);
        Ok(())
    }

    fn on_message(&mut self, chat: &str, to: Role, json: &str, now: Duration) -> Result<(), Halt> {
        let HeardIn { message, chat: about, n, seq } =
            serde_json::from_str(json).map_err(|error| self.unexpected(format_args!("{error}: {json}")))?;
        if message != WORDS {
            return Err(self.unexpected(format_args!("a message was changed on the way: {json}")));
        }
        self.see(Event::Heard { chat, to, about: &about, n, seq })?;
        self.player.heard(chat, n, seq, now);
        Ok(())
    }

    fn on_new_chat(&mut self, json: &str) -> Result<(), Halt> {
        let NewChatIn { id, status, teacher_id, student_id } =
            serde_json::from_str(json).map_err(|error| self.unexpected(format_args!("{error}: {json}")))?;
        if status != "active" {
            return Err(self.unexpected(format_args!("new:chat of a chat that is not active: {json}")));
        }
        let ids = &self.siege.world.ids;
        let (teacher, student) = (ids.who(teacher_id.get()), ids.who(student_id.get()));
        self.see(Event::NewChat { chat: &id, teacher, student })?;
        if self.player.shown(&id) {
            self.siege.saw(None, self.connected);
            match self.who.role {
                Role::Teacher => {}
                Role::Student => self.siege.world.count(|tally| tally.chats += 1),
            }
        }
        Ok(())
    }

    fn on_reply(&mut self, frame: &Frame<'_>, json: &str, now: Duration) -> Result<(), Halt> {
        let reference = frame.reference.as_deref().and_then(|r| r.parse().ok());
        let reference = reference.ok_or_else(|| self.unexpected("a reply without a ref of this client"))?;
        let reply = ReplyIn::read(json).map_err(|error| self.unexpected(error))?;
        let (Ok(response) | Err(response)) = reply;
        let fields: ReplyFields<'_> = serde_json::from_str(response).unwrap_or_default();
        let reason = fields.reason.as_deref().unwrap_or(response);
        self.see(Event::Replied(reference, reply.map(|_| fields.seq).map_err(|_| reason)))?;
        let Some(ask) = self.open.remove(&reference) else { return Ok(()) };
        if let (Ask::Join, Role::Teacher, Some(students)) = (&ask, self.who.role, &fields.students) {
            self.see(Event::Students(students.total))?;
        }
        let answer = match reply {
            Ok(_) => Answer::Ok(fields.seq.unwrap_or(0)),
            // What is still unanswered when a channel is left is not done: nobody had to wait for it.
            Err(_) if reason == "unavailable" && self.player.is_leaving() => Answer::Unavailable,
            Err(_) if reason == "unavailable" && self.siege.strikes.is_none() => {
                return Err(self.unexpected(format_args!("{ask:?} was unavailable, and nothing had been killed")));
            }
            Err(_) if reason == "unavailable" => {
                self.siege.unavailable(now, self.who, &ask);
                Answer::Unavailable
            }
            // The judge lets no other reason pass.
            Err(_) => Answer::Gone,
        };
        let had_arrived = self.player.arrived;
        self.player.answered(ask, answer, now);
        if self.player.arrived && !had_arrived {
            self.arrival = None;
            self.siege.world.count(|tally| match self.who.role {
                Role::Teacher => tally.teachers += 1,
                Role::Student => tally.ready += 1,
            });
        }
        Ok(())
    }
}
