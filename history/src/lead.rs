//! Leading: one replica holds the lease, looks after the lives of rooms and tells keywords. The others stand by.
//!
//! Nothing here must happen only once: each write is a compare and set or has a message id. So the lease is only asked
//! for, and no epoch guards what its holder does.

use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use switchboard_contract::lease::{Attempt, Lease, LeaseKey};
use switchboard_contract::limits::{KEYWORD_ROOMS_PER_TURN, LEASE_POLL, REQUEST_TIMEOUT, ROOM_REQUESTS_MAX};
use switchboard_contract::names::{HISTORY_LEASE, Incarnation, LogName, RoomId};
use switchboard_contract::nats::Nats;
use switchboard_contract::room::{Keyword, Live, RoomRecord};
use switchboard_contract::wire::{V1, encode};

use crate::errands::Errand;
use crate::herald::Herald;
use crate::keeper::{Act, Came, Keeper, Life};
use crate::log::Logs;
use crate::{metrics, records};

/// The lease of the history replicas.
const LEASE: LeaseKey = LeaseKey { subject: HISTORY_LEASE, fenced: metrics::observe_fenced };
/// Keywords on their way to NATS; above it the next ones wait.
const TELLING_MAX: usize = 4 * KEYWORD_ROOMS_PER_TURN;

/// What a new holder begins with.
type Begun = (Lease, Vec<(RoomId, RoomRecord)>);

/// A replica's part in leading.
pub(crate) struct Lead {
    nats: Nats,
    me: Incarnation,
    linger: Duration,
    window: Duration,
    part: Part,
}

enum Part {
    StandsBy(BoxFuture<'static, Begun>),
    Leads(Box<Leader>),
}

struct Leader {
    lease: Lease,
    keeper: Keeper,
    herald: Herald,
    doing: FuturesUnordered<BoxFuture<'static, Done>>,
    telling: FuturesUnordered<BoxFuture<'static, ()>>,
}

/// An errand that has been run. A snapshot says of which life and state it was.
pub(crate) struct Done {
    name: Arc<LogName>,
    act: Act,
    came: Came,
    stored: Option<(u64, u64)>,
}

/// Something to do.
pub(crate) enum Turn {
    Begun(Box<Begun>),
    Lost,
    Done(Done),
    Due,
}

impl Lead {
    pub(crate) fn new(nats: &Nats, me: &Incarnation, linger: Duration, window: Duration) -> Lead {
        let part = Part::StandsBy(Box::pin(stand_by(nats.clone(), me.clone())));
        Lead { nats: nats.clone(), me: me.clone(), linger, window, part }
    }

    /// Waits until there is something to do: [`Lead::take`]. Nothing is lost if it is not waited for to the end.
    pub(crate) async fn next(&mut self) -> Turn {
        match &mut self.part {
            Part::StandsBy(begun) => Turn::Begun(Box::new(begun.await)),
            Part::Leads(leader) => leader.next().await,
        }
    }

    /// Does it.
    pub(crate) fn take(&mut self, turn: Turn, logs: &mut Logs) {
        let (now, unix) = (Instant::now(), unix_ms());
        match (turn, &mut self.part) {
            (Turn::Begun(begun), _) => {
                let (lease, records) = *begun;
                self.part = Part::Leads(Box::new(Leader::begin(lease, records, self.linger, logs)));
                metrics::observe_leading(true);
                tracing::info!("this replica leads");
            }
            (Turn::Lost, _) => {
                tracing::warn!("the lease is lost");
                self.stand_by_again();
            }
            (Turn::Done(done), Part::Leads(leader)) => {
                if let (Came::Done, Some((since, seq))) = (done.came, done.stored) {
                    leader.keeper.stored(&done.name, since, seq);
                }
                metrics::observe_act(done.act, done.came);
                leader.keeper.done(&done.name, done.act, done.came, now, unix);
            }
            (Turn::Due, Part::Leads(leader)) => leader.work(&self.nats, self.window, logs),
            (Turn::Done(_) | Turn::Due, Part::StandsBy(_)) => {}
        }
    }

    /// Notes what the logs say of the rooms that something has happened to.
    pub(crate) fn note(&mut self, logs: &mut Logs) {
        let touched = logs.take_touched();
        let Part::Leads(leader) = &mut self.part else { return };
        let (now, unix) = (Instant::now(), unix_ms());
        for name in touched {
            leader.note(&name, logs, now, unix);
        }
    }

    /// Another stream is followed: what was known of rooms is void.
    pub(crate) async fn anew(&mut self) {
        self.release().await;
        if matches!(self.part, Part::Leads(_)) {
            self.stand_by_again();
        }
    }

    /// Lets the lease go, so that nobody has to wait for its end.
    pub(crate) async fn release(&mut self) {
        if let Part::Leads(leader) = &mut self.part {
            leader.lease.release().await;
        }
    }

    fn stand_by_again(&mut self) {
        metrics::observe_leading(false);
        metrics::observe_rooms(0);
        self.part = Part::StandsBy(Box::pin(stand_by(self.nats.clone(), self.me.clone())));
    }
}

/// Waits until the lease is ours and the records are read.
async fn stand_by(nats: Nats, me: Incarnation) -> Begun {
    loop {
        if nats.is_up()
            && let Attempt::Held(lease) = Lease::attempt(&nats, LEASE, &me).await
        {
            match records::load(&nats).await {
                Ok(records) if lease.holds() => return (*lease, records),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("cannot lead: {error:#}");
                    lease.release().await;
                }
            }
        }
        tokio::time::sleep(LEASE_POLL).await;
    }
}

impl Leader {
    fn begin(lease: Lease, records: Vec<(RoomId, RoomRecord)>, linger: Duration, logs: &mut Logs) -> Leader {
        let (now, unix) = (Instant::now(), unix_ms());
        logs.take_touched();
        let mut leader = Leader {
            lease,
            keeper: Keeper::new(linger),
            herald: Herald::default(),
            doing: FuturesUnordered::new(),
            telling: FuturesUnordered::new(),
        };
        let rooms: Vec<_> = logs.rooms().collect();
        for name in &rooms {
            leader.note(name, logs, now, unix);
        }
        for (room, record) in records {
            let name = Arc::new(LogName::Room(room));
            leader.keeper.recorded(&name, record.since, record.seq, now, unix);
        }
        leader
    }

    async fn next(&mut self) -> Turn {
        let keeper = self.keeper.deadline();
        let herald = self.herald.deadline().filter(|_| self.telling.len() < TELLING_MAX);
        let due = async {
            match keeper.into_iter().chain(herald).min() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = self.lease.lost() => Turn::Lost,
            Some(done) = self.doing.next() => Turn::Done(done),
            Some(()) = self.telling.next() => Turn::Due,
            () = due => Turn::Due,
        }
    }

    fn note(&mut self, name: &Arc<LogName>, logs: &Logs, now: Instant, unix: u64) {
        let room = logs.room(name).filter(|room| room.since > 0);
        let life = room.map(|room| Life {
            since: room.since,
            state_seq: room.state_seq,
            last_seq: logs.last_of(name),
            said_by_user: room.said_by_user,
            next_end: room.state.next_end(),
        });
        self.keeper.note(name, life, now, unix);
        match life {
            Some(_) => self.herald.note(name, now),
            None => self.herald.forget(name),
        }
    }

    fn work(&mut self, nats: &Nats, window: Duration, logs: &mut Logs) {
        // Its own clock ends the lease a while before NATS does.
        if !self.lease.holds() {
            return;
        }
        let (now, unix) = (Instant::now(), unix_ms());
        metrics::observe_rooms(self.keeper.len());
        debug_assert!(self.doing.len() <= ROOM_REQUESTS_MAX, "the keeper bounds them");
        for (name, act) in self.keeper.due(now, unix) {
            let LogName::Room(room) = (*name).clone() else { continue };
            let known = logs.room(&name);
            let errand = match (act, known) {
                (Act::Snapshot, Some(room)) => {
                    let (since, seq, state) = (room.since, room.state_seq, room.state.clone());
                    Some(Errand::Snapshot { since, seq, state, applied: logs.applied() })
                }
                (Act::Expire { at }, Some(room)) => Some(Errand::Expire { since: room.since, at }),
                (Act::Close, Some(room)) => Some(Errand::Close { since: room.since }),
                (Act::Probe, _) => Some(Errand::Probe),
                (Act::Wipe { last_seq }, _) => Some(Errand::Wipe { last_seq }),
                (Act::Delete, _) => Some(Errand::Delete),
                (Act::Snapshot | Act::Expire { .. } | Act::Close, None) => None,
            };
            let stored = match &errand {
                Some(Errand::Snapshot { since, seq, .. }) => Some((*since, *seq)),
                Some(_) | None => None,
            };
            let nats = nats.clone();
            self.doing.push(Box::pin(async move {
                let came = match errand {
                    Some(errand) => errand.run(&nats, &room).await,
                    None => Came::Failed,
                };
                Done { name, act, came, stored }
            }));
        }
        if self.telling.len() < TELLING_MAX {
            for name in self.herald.due(now) {
                self.tell(nats, &name, window, logs, now, unix);
            }
        }
    }

    fn tell(&mut self, nats: &Nats, name: &Arc<LogName>, window: Duration, logs: &mut Logs, now: Instant, unix: u64) {
        logs.listen(name, unix);
        let Some(room) = logs.room(name) else { return self.herald.forget(name) };
        if self.herald.tell(name, room.words(), window, now, unix) {
            let keywords = room.words().0.iter().map(Keyword::from).collect();
            let live = encode(&Live::Keywords { v: V1, keywords });
            let (nats, subject) = (nats.clone(), name.out_subject());
            self.telling.push(Box::pin(async move {
                // A connection that takes nothing for long loses it; it is in the next read.
                let _ = tokio::time::timeout(REQUEST_TIMEOUT, nats.publish(subject, live)).await;
            }));
        }
    }
}

/// The time of keywords and of what ends by itself: unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
