//! A member's life over all its sockets: connects as phoenix.js does, pushes what its voice asks for. `frames` tells the
//! judge what came.

mod frames;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::siege::backoff;
use super::hall::{Hall, Phase};
use super::judge::{Broken, Event, Violation};
use super::voice::{Go, Push, Voice};
use super::wire::{self, Envelope, Out, To, WORDS};
use crate::client::{Outgoing, Socket, SocketError, Vsn};

/// An attempt to connect may take this long, as in phoenix.js.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a socket may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The protocol's bound, as clients see it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a reply answers.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Join,
    Leave,
    Push(Push),
}

impl Asked {
    fn text(self) -> &'static str {
        match self {
            Asked::Join => "the join",
            Asked::Leave => "the leave",
            Asked::Push(Push::Message { event: Event::Broadcast, .. }) => "a new_msg",
            Asked::Push(Push::Message { event: Event::Say, .. }) => "a new_message",
            Asked::Push(Push::Direct { .. }) => "a direct message",
            Asked::Push(Push::Typing) => "typing",
        }
    }
}

/// How its channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    /// Joined again at this time.
    Away(Duration),
    Joining,
    Joined,
    Leaving,
}

/// Why a socket is no longer served.
enum Parted {
    /// It is lost; the member comes back.
    Lost,
    /// It was cut; the member comes back after this time.
    Cut(Duration),
    /// The run is over.
    Over,
}

/// A member.
pub(super) struct Life {
    hall: Rc<Hall>,
    room: usize,
    me: u16,
    vsn: Vsn,
    topic: String,
    envelope: Envelope,
    voice: Voice,
    channel: Channel,
    join_ref: u64,
    /// Joins that were refused since the last one that was not.
    refused: usize,
    open: BTreeMap<u64, (Duration, Asked)>,
    connected: Duration,
    arrival: Option<OwnedSemaphorePermit>,
    phase: watch::Receiver<Phase>,
    /// It has left, and has not joined since.
    left: bool,
    /// A leave was answered, and `phx_close` follows, perhaps behind the next join.
    closes: bool,
}

/// A member's whole life, on these gateways in turn. `arrivals` bounds how many come at once.
pub(super) async fn play(
    hall: Rc<Hall>,
    room: usize,
    me: u16,
    gateways: Rc<[Rc<str>]>,
    arrivals: Arc<Semaphore>,
) -> Result<(), Violation> {
    let arrival = arrivals.acquire_owned().await.ok();
    let vsn = hall.speaks.vsn(me.into());
    let topic = format!("room:{}", hall.id(room));
    let number = u64::try_from(room).unwrap_or(0) << 16 | u64::from(me);
    let rng = StdRng::seed_from_u64(hall.seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let mut life = Life {
        room,
        me,
        vsn,
        envelope: Envelope::new(vsn, &topic),
        topic,
        voice: Voice::new(hall.plan, me, hall.members(), rng),
        channel: Channel::Away(Duration::ZERO),
        join_ref: 0,
        refused: 0,
        open: BTreeMap::new(),
        connected: Duration::ZERO,
        arrival,
        phase: hall.phase.subscribe(),
        left: false,
        closes: false,
        hall,
    };
    life.play(&gateways, room + usize::from(me)).await
}

impl Life {
    async fn play(&mut self, gateways: &[Rc<str>], mut at: usize) -> Result<(), Violation> {
        let mut tries = 0;
        let mut first = true;
        loop {
            let url = &gateways[at % gateways.len()];
            at += 1;
            let user = self.own_key().split(':').next().unwrap_or_default().to_owned();
            let mut socket = match timeout(CONNECT_TIMEOUT, self.hall.connect(&user, self.vsn, url)).await {
                Ok(Ok(socket)) => socket,
                failed if !self.hall.may_lose_sockets() => {
                    let why = failed
                        .map_or("no answer".to_owned(), |failed| failed.err().map_or(String::new(), |e| e.to_string()));
                    return Err(self.unexpected(format_args!("cannot connect to {url}: {why}")));
                }
                Ok(Err(_)) | Err(_) => {
                    sleep(backoff::socket(tries)).await;
                    tries += 1;
                    continue;
                }
            };
            tries = 0;
            self.connected = self.now();
            if !std::mem::take(&mut first) {
                self.hall.count(|tally| tally.reconnects += 1);
                if let Some(strikes) = &self.hall.strikes {
                    strikes.reconnected();
                }
            }
            self.channel = Channel::Away(self.connected);
            let parted = self.serve(&mut socket).await?;
            let now = self.now();
            self.hall.room(self.room, |room| room.gone(self.me, now));
            self.voice.lost(now);
            self.open.clear();
            self.closes = false;
            match parted {
                Parted::Over => {
                    let _answered = timeout(CLOSE_TIMEOUT, socket.close()).await;
                    return Ok(());
                }
                Parted::Cut(away) => {
                    drop(socket);
                    sleep(backoff::socket(0).max(away)).await;
                }
                Parted::Lost => {
                    sleep(backoff::socket(tries)).await;
                    tries += 1;
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.hall.now()
    }

    fn own_key(&self) -> &str {
        self.hall.key(self.me).unwrap_or_default()
    }

    fn broken(&self, what: Broken) -> Violation {
        self.hall.broken(self.room, self.me, what)
    }

    fn unexpected(&self, what: impl std::fmt::Display) -> Violation {
        self.broken(Broken::Unexpected(what.to_string()))
    }

    /// Plays on one socket.
    async fn serve(&mut self, socket: &mut Socket) -> Result<Parted, Violation> {
        loop {
            let phase = *self.phase.borrow_and_update();
            let now = self.now();
            if phase == Phase::Leaving {
                return Ok(Parted::Over);
            }
            let goes = self.voice.goes_at().filter(|_| phase == Phase::Talking && self.channel == Channel::Joined);
            if goes.is_some_and(|at| at <= now) {
                match self.voice.go(now) {
                    Go::Cut => return Ok(Parted::Cut(self.voice.away())),
                    Go::Leave => {
                        self.channel = Channel::Leaving;
                        if let Err(error) = self.send(socket, "phx_leave", Out::default(), Asked::Leave) {
                            return self.parted(&error);
                        }
                    }
                }
            }
            if let Err(error) = self.ask(socket, phase, now) {
                return self.parted(&error);
            }
            let wake = self.wakes(phase, goes).map(|at| Instant::now() + at.saturating_sub(now));
            tokio::select! {
                biased;
                incoming = socket.next() => match incoming {
                    Ok(incoming) => self.on_message(&incoming)?,
                    Err(error) => return self.parted(&error),
                },
                _ = self.phase.changed() => {
                    if *self.phase.borrow() == Phase::Talking {
                        let now = self.now();
                        self.voice.begin(now);
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.overdue()?,
            }
        }
    }

    /// Joins, or talks.
    fn ask(&mut self, socket: &mut Socket, phase: Phase, now: Duration) -> Result<(), SocketError> {
        match self.channel {
            Channel::Away(until) if until <= now => self.join(socket),
            Channel::Joined => match self.voice.talk(now, phase == Phase::Talking) {
                Some(push) => self.push(socket, push, now),
                None => Ok(()),
            },
            Channel::Away(_) | Channel::Joining | Channel::Leaving => Ok(()),
        }
    }

    fn join(&mut self, socket: &mut Socket) -> Result<(), SocketError> {
        self.channel = Channel::Joining;
        let hall = Rc::clone(&self.hall);
        let (user, session) = hall.key(self.me).and_then(|key| key.split_once(':')).unwrap_or_default();
        let token = hall.room_token(self.room, user);
        let last_seq = hall.room(self.room, |room| room.last_seq(self.me));
        let join = Out {
            user_id: Some(user),
            session_id: Some(session),
            room_token: token.as_deref(),
            last_seq,
            ..Out::default()
        };
        self.send(socket, "phx_join", join, Asked::Join)
    }

    fn push(&mut self, socket: &mut Socket, push: Push, now: Duration) -> Result<(), SocketError> {
        let hall = Rc::clone(&self.hall);
        let m = Some(self.me);
        match push {
            Push::Message { n, event, again } => {
                let id = wire::has_id(n).then(|| wire::own_id(self.me, n));
                let new = hall.room(self.room, |room| room.sends(self.me, n, id.is_some(), now));
                hall.count(|tally| {
                    tally.said += u64::from(new);
                    tally.resends += u64::from(again);
                });
                let out = Out { m, n: Some(n), id: id.as_deref(), ..Out::default() };
                let (name, out) = match event {
                    Event::Broadcast => ("new_msg", Out { broadcast: Some(true), text: Some(WORDS), ..out }),
                    Event::Say => ("new_message", Out { body: Some(WORDS), ..out }),
                };
                self.send(socket, name, out, Asked::Push(push))
            }
            Push::Direct { to } => {
                let to = Some([To { session: hall.key(to).unwrap_or_default() }]);
                self.send(socket, "new_msg", Out { m, to, text: Some(WORDS), ..Out::default() }, Asked::Push(push))
            }
            Push::Typing => self.send(socket, "typing", Out { m, ..Out::default() }, Asked::Push(push)),
        }
    }

    fn send(&mut self, socket: &mut Socket, event: &str, payload: Out<'_>, asked: Asked) -> Result<(), SocketError> {
        let reference = socket.next_ref();
        if matches!(asked, Asked::Join) {
            self.join_ref = reference;
        }
        // Clients of V1 did not know join_ref.
        let join_ref = match self.vsn {
            Vsn::V1 => None,
            Vsn::V2 => Some(self.join_ref),
        };
        self.open.insert(reference, (self.now(), asked));
        socket.send(&Outgoing { join_ref, reference: Some(reference), topic: &self.topic, event, payload })
    }

    /// When there is something to do, if nothing comes before.
    fn wakes(&self, phase: Phase, goes: Option<Duration>) -> Option<Duration> {
        let overdue = self.open.values().next().map(|(at, _)| *at + ANSWER_WITHIN);
        let own = match self.channel {
            Channel::Away(until) => Some(until),
            Channel::Joined => self.voice.wakes(phase == Phase::Talking),
            Channel::Joining | Channel::Leaving => None,
        };
        [overdue, own, goes].into_iter().flatten().min()
    }

    /// Whether the oldest push is still unanswered though its time is over.
    fn overdue(&self) -> Result<(), Violation> {
        match self.open.first_key_value() {
            Some((reference, (at, asked))) if *at + ANSWER_WITHIN <= self.now() => {
                Err(self.unanswered(*reference, *asked))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn unanswered(&self, reference: u64, asked: Asked) -> Violation {
        self.broken(Broken::Unanswered { what: asked.text(), reference, seconds: ANSWER_WITHIN.as_secs() })
    }

    /// A socket may be lost to a kill, but is never closed for what the client did.
    fn parted(&self, error: &SocketError) -> Result<Parted, Violation> {
        match error {
            SocketError::Closed { code: None | Some(1012) } | SocketError::HeartbeatLost | SocketError::Ws(_)
                if self.hall.may_lose_sockets() =>
            {
                Ok(Parted::Lost)
            }
            SocketError::Closed { .. } | SocketError::HeartbeatLost | SocketError::Ws(_) | SocketError::Encode(_) => {
                Err(self.unexpected(format_args!("its socket was lost: {error}")))
            }
        }
    }
}
