//! The lease: who may lead. One key with a time to live, which its holder renews; when it is gone, a standby takes it.
//!
//! It says who *should* lead, so that two do not take turns; what only one *may* do needs a guard of its own (the
//! matcher's epoch, a compare and set of history). Each write of the lease expects the revision that was seen before;
//! losing that race is a normal outcome.

use std::time::Instant;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ack::Outcome;
use crate::limits::{LEASE_MARGIN, LEASE_POLL, LEASE_RENEW, LEASE_TTL, MARKER_TTL};
use crate::lobby::LeaseRecord;
use crate::names::{self, Incarnation};
use crate::nats::Nats;
use crate::wire::{V1, decode, encode};

/// How often a release is tried, where a renewal was still on its way.
const RELEASE_ATTEMPTS: usize = 3;

/// What the own clock may believe: the lease is ours until a while before NATS lets it expire. It lives from when it
/// was stored, which is never before it was sent.
#[derive(Clone, Copy, Debug)]
struct Held {
    revision: u64,
    sent: Instant,
}

impl Held {
    fn until(&self) -> Instant {
        self.sent + (LEASE_TTL - LEASE_MARGIN)
    }

    fn holds(&self, now: Instant) -> bool {
        now < self.until()
    }
}

/// Which lease, and who counts its losses.
#[derive(Clone, Copy, Debug)]
pub struct LeaseKey {
    /// Where it is written: a key of [`names::LEASES_BUCKET`].
    pub subject: &'static str,
    /// Called when a write of ours was refused because another one has the lease.
    pub fenced: fn(),
}

/// What a try for the lease came to.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Held(Box<Lease>),
    /// It is somebody else's.
    Taken(Incarnation),
    /// Somebody else was first, or nobody knows: look again.
    Lost,
}

/// The lease, and the task that renews it. Dropped without [`Lease::release`], it expires.
#[derive(Debug)]
pub struct Lease {
    nats: Nats,
    key: LeaseKey,
    me: Incarnation,
    held: watch::Receiver<Held>,
    task: JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lease {
    /// Takes the lease if it is free, or still ours.
    pub async fn attempt(nats: &Nats, key: LeaseKey, me: &Incarnation) -> Attempt {
        let expected = match look(nats, key).await {
            Some(Seen::Free(revision)) => revision,
            // Our own of before, which could not be let go because NATS did not answer.
            Some(Seen::Held(holder, revision)) if holder == *me => revision,
            Some(Seen::Held(holder, _)) => return Attempt::Taken(holder),
            None => return Attempt::Lost,
        };
        let sent = Instant::now();
        match write(nats, key, expected, Some(me)).await {
            Outcome::Committed { seq } => {
                Attempt::Held(Box::new(Lease::keep(nats, key, me, Held { revision: seq, sent })))
            }
            Outcome::Fenced | Outcome::Unknown => Attempt::Lost,
        }
    }

    fn keep(nats: &Nats, key: LeaseKey, me: &Incarnation, held: Held) -> Lease {
        let (sender, held) = watch::channel(held);
        let task = tokio::spawn(renew(nats.clone(), key, me.clone(), sender));
        Lease { nats: nats.clone(), key, me: me.clone(), held, task }
    }

    /// Whether it is ours, as far as the own clock can say.
    pub fn holds(&self) -> bool {
        !self.task.is_finished() && self.held.borrow().holds(Instant::now())
    }

    /// Returns once it is not.
    pub async fn lost(&self) {
        let mut held = self.held.clone();
        loop {
            let until = held.borrow_and_update().until();
            tokio::select! {
                changed = held.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep_until(until.into()) => if !self.holds() {
                    return;
                },
            }
        }
    }

    /// Lets it go where it is still ours, so that nobody has to wait for its end.
    pub async fn release(&self) {
        self.task.abort();
        let mut revision = self.held.borrow().revision;
        for _ in 0..RELEASE_ATTEMPTS {
            match write(&self.nats, self.key, revision, None).await {
                Outcome::Committed { .. } => return,
                // It expires by itself.
                Outcome::Unknown => return,
                Outcome::Fenced => match look(&self.nats, self.key).await {
                    // A renewal that was still on its way.
                    Some(Seen::Held(holder, now)) if holder == self.me => revision = now,
                    Some(Seen::Held(..) | Seen::Free(_)) => return (self.key.fenced)(),
                    None => return,
                },
            }
        }
    }
}

/// Renews until the lease is lost.
async fn renew(nats: Nats, key: LeaseKey, me: Incarnation, held: watch::Sender<Held>) {
    loop {
        let Held { revision, sent } = *held.borrow();
        tokio::time::sleep_until((sent + LEASE_RENEW).into()).await;
        // After a pause this is over: another one leads, and our write would be refused.
        if !held.borrow().holds(Instant::now()) {
            return;
        }
        let now = Instant::now();
        match write(&nats, key, revision, Some(&me)).await {
            Outcome::Committed { seq } => {
                held.send_replace(Held { revision: seq, sent: now });
                continue;
            }
            Outcome::Fenced | Outcome::Unknown => {}
        }
        match look(&nats, key).await {
            // An answer was lost, or comes late: what is stored counts from when the earlier one was sent.
            Some(Seen::Held(holder, revision)) if holder == me => {
                held.send_modify(|held| held.revision = revision);
            }
            Some(Seen::Held(..) | Seen::Free(_)) => return (key.fenced)(),
            None => {}
        }
        tokio::time::sleep(LEASE_POLL / 2).await;
    }
}

enum Seen {
    /// The revision that a write has to expect.
    Free(u64),
    Held(Incarnation, u64),
}

/// Looks through the stream's leader. `None`: not known.
async fn look(nats: &Nats, key: LeaseKey) -> Option<Seen> {
    let stream = names::bucket_stream(names::LEASES_BUCKET);
    let stored = nats.leader_get(&stream, key.subject, LEASE_RENEW).await;
    let stored = stored.inspect_err(|error| tracing::debug!(%error, "the lease cannot be read")).ok()?;
    let Some(stored) = stored else { return Some(Seen::Free(0)) };
    // The marker of a lease that expired or was let go.
    let Some(body) = stored.body else { return Some(Seen::Free(stored.seq)) };
    match decode::<LeaseRecord>("lease", &body) {
        Ok(record) => Some(Seen::Held(record.holder, stored.seq)),
        Err(error) => {
            tracing::warn!(%error, "the lease is not understood");
            None
        }
    }
}

/// Writes the lease, or purges it, if it is still as expected.
async fn write(nats: &Nats, key: LeaseKey, expected: u64, holder: Option<&Incarnation>) -> Outcome {
    let mut headers = HeaderMap::new();
    let body = match holder {
        Some(holder) => {
            headers.insert("Nats-TTL", format!("{}s", LEASE_TTL.as_secs()));
            encode(&LeaseRecord { v: V1, holder: holder.clone() })
        }
        None => {
            headers.insert("KV-Operation", "PURGE");
            headers.insert("Nats-Rollup", "sub");
            headers.insert("Nats-TTL", format!("{}s", MARKER_TTL.as_secs()));
            Bytes::new()
        }
    };
    nats.write(key.subject.to_owned(), expected, headers, body, LEASE_RENEW).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_own_clock_gives_up_before_nats_does() {
        let sent = Instant::now();
        let held = Held { revision: 1, sent };
        assert!(held.holds(sent + Duration::from_millis(1_499)));
        assert!(!held.holds(sent + Duration::from_millis(1_500)));
        assert!(!held.holds(sent + Duration::from_secs(10)), "paused");
        // Two renewals may fail before it is lost.
        assert!(held.holds(sent + 2 * LEASE_RENEW));
    }
}
