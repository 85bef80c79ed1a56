//! Standing by: everything is there to lead, and the lease is somebody else's.

use std::collections::HashMap;

use anyhow::Context as _;
use async_nats::Message;
use async_nats::service::{Service, ServiceExt as _};
use futures_util::future::FutureExt as _;
use futures_util::stream::StreamExt as _;
use switchboard_contract::admin::Readiness;
use switchboard_contract::lease::{Attempt, Lease, LeaseKey};
use switchboard_contract::limits::LEASE_POLL;
use switchboard_contract::lobby::Status;
use switchboard_contract::names::{self, Incarnation};
use switchboard_contract::nats::Nats;
use switchboard_contract::version::version;
use switchboard_contract::wire::decode;
use tokio::time::MissedTickBehavior;

use crate::observe;

/// The matcher's lease.
const LEASE: LeaseKey = LeaseKey { subject: names::MATCHER_LEASE, fenced: observe::fenced };

/// What a matcher has while it does not lead.
pub(crate) struct Standby {
    nats: Nats,
    me: Incarnation,
    heard: Option<Status>,
}

/// Shows this matcher as one that stands by, until it is dropped: a micro-service that can be asked nothing but who it
/// is.
struct Shown(Option<Service>);

impl Shown {
    async fn start(nats: &Nats, me: &Incarnation) -> anyhow::Result<Shown> {
        let service = nats.client.service_builder().description("Stands by to lead the lobby");
        let name = HashMap::from([(names::MATCHER_STANDBY_NAME.to_owned(), me.to_string())]);
        let service = service.metadata(name).start(names::MATCHER_STANDBY, version()).await;
        Ok(Shown(Some(service.map_err(anyhow::Error::from_boxed).context("cannot be shown to stand by")?)))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // A service that is only dropped goes on. To stop it waits for nothing.
        let stopped = self.0.take().map(|service| service.stop().now_or_never());
        debug_assert!(stopped.flatten().is_some(), "it has waited");
    }
}

impl Standby {
    pub(crate) fn new(nats: &Nats, me: &Incarnation) -> Standby {
        Standby { nats: nats.clone(), me: me.clone(), heard: None }
    }

    /// The status that some leader published last, as far as is known.
    pub(crate) fn heard(&self) -> Option<Status> {
        self.heard
    }

    /// Takes note of a status.
    pub(crate) fn hear(&mut self, status: Status) {
        self.heard = newest(self.heard, status);
    }

    /// Waits until the lease is ours. Meanwhile this matcher is ready: it would take over.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(crate) async fn wait(&mut self, readiness: &Readiness) -> anyhow::Result<Lease> {
        observe::stands_by();
        let statuses = self.nats.client.subscribe(names::LOBBY_STATUS).await;
        let mut statuses = statuses.context("cannot hear the lobby's status")?;
        let mut poll = tokio::time::interval(LEASE_POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leader = None;
        let mut shown = None;
        loop {
            tokio::select! {
                message = statuses.next() => self.take(&message.context("the connection to NATS has ended")?),
                _ = poll.tick() => {
                    let up = self.nats.is_up();
                    readiness.set(if up { Ok(()) } else { Err("NATS is away") });
                    if !up {
                        continue;
                    }
                    match Lease::attempt(&self.nats, LEASE, &self.me).await {
                        Attempt::Held(lease) => {
                            while let Some(Some(message)) = statuses.next().now_or_never() {
                                self.take(&message);
                            }
                            return Ok(*lease);
                        }
                        Attempt::Taken(holder) => {
                            if shown.is_none() {
                                shown = Some(Shown::start(&self.nats, &self.me).await?);
                            }
                            if leader.as_ref() != Some(&holder) {
                                tracing::info!(matcher = %holder, "standing by for the one that leads");
                                leader = Some(holder);
                            }
                        }
                        Attempt::Lost => {}
                    }
                }
            }
        }
    }

    fn take(&mut self, message: &Message) {
        match decode::<Status>("status", &message.payload) {
            Ok(status) => self.hear(status),
            Err(error) => tracing::warn!(%error, "a status was refused"),
        }
    }
}

/// A later leader's counts, or a later version; of equal ones the one that came last.
fn newest(before: Option<Status>, status: Status) -> Option<Status> {
    Some(before.filter(|old| (old.epoch, old.version) > (status.epoch, status.version)).unwrap_or(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_status_is_remembered() {
        let status = |epoch, version, teachers| Status { epoch, version, teachers, ..Status::default() };
        let first = newest(None, status(2, 5, 1));
        assert_eq!(first, Some(status(2, 5, 1)));
        assert_eq!(newest(first, status(2, 5, 3)), Some(status(2, 5, 3)), "teachers have no version");
        assert_eq!(newest(first, status(1, 9, 1)), first, "of a leader that was deposed");
        assert_eq!(newest(first, status(2, 4, 1)), first);
        assert_eq!(newest(first, status(3, 4, 1)), Some(status(3, 4, 1)));
    }
}
