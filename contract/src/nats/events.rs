//! What the connection to NATS tells of itself: losses and returns, overflows, and what is not permitted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Event, ServerError};
use tokio::sync::watch;

const SLOW_CONSUMER: &str = "switchboard_nats_slow_consumer_total";
const DENIED: &str = "switchboard_nats_permission_violations_total";
const CONNECTED: &str = "switchboard_nats_connected";
const RECONNECTS: &str = "switchboard_nats_reconnects_total";

/// So nats-server begins to say that a user may not do something.
const DENIED_WORDS: &str = "Permissions Violation";
/// From one such line in the log to the next.
const DENIED_INTERVAL: Duration = Duration::from_secs(10);

/// What the connection tells of itself.
#[derive(Debug)]
pub(super) struct Teller {
    up: watch::Sender<u64>,
    overflowed: watch::Sender<u64>,
    /// When the log last had that something is not permitted.
    denied: Mutex<Option<Instant>>,
}

impl Teller {
    /// And what it tells: losses and returns of the connection, odd while it is up; subscriptions that overflowed.
    pub(super) fn new() -> (Arc<Teller>, watch::Receiver<u64>, watch::Receiver<u64>) {
        let ((up, link), (overflowed, overflows)) = (watch::channel(0), watch::channel(0));
        (Arc::new(Teller { up, overflowed, denied: Mutex::default() }), link, overflows)
    }

    pub(super) fn note(&self, event: &Event) {
        let connected = match event {
            Event::Connected => true,
            Event::Disconnected | Event::Closed => false,
            Event::SlowConsumer(subscription) => {
                metrics::counter!(SLOW_CONSUMER).increment(1);
                tracing::warn!(subscription, "a subscription overflowed");
                self.overflowed.send_modify(|n| *n += 1);
                return;
            }
            Event::ServerError(ServerError::Other(error)) if error.contains(DENIED_WORDS) => {
                metrics::counter!(DENIED).increment(1);
                self.denied(error, Instant::now());
                return;
            }
            other @ (Event::LameDuckMode | Event::Draining | Event::ServerError(_) | Event::ClientError(_)) => {
                tracing::debug!(event = %other, "NATS");
                return;
            }
        };
        self.up.send_if_modified(|n| {
            let was = *n % 2 == 1;
            if was != connected {
                *n += 1;
                metrics::gauge!(CONNECTED).set(f64::from(u8::from(connected)));
                metrics::counter!(RECONNECTS).increment(u64::from(connected && *n > 1));
                tracing::info!(up = connected, "NATS connection");
            }
            was != connected
        });
    }

    /// Where permissions are wrong that is each message: the log has it now and then.
    fn denied(&self, error: &str, now: Instant) {
        let mut last = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= DENIED_INTERVAL) {
            *last = Some(now);
            tracing::warn!(error, "NATS does not permit it to this service's user");
        } else {
            tracing::debug!(error, "NATS does not permit it to this service's user");
        }
    }
}

/// Says what is counted here, and shows what is looked for before anything has happened.
pub(super) fn describe() {
    metrics::describe_counter!(SLOW_CONSUMER, "Subscriptions that overflowed, once for each message lost.");
    metrics::describe_counter!(DENIED, "What NATS did not permit to this service's user: a wrong configuration.");
    metrics::describe_gauge!(CONNECTED, "1 while the connection to NATS is up, else 0.");
    metrics::describe_counter!(RECONNECTS, "Times that the connection to NATS was up again after it was lost.");
    metrics::gauge!(CONNECTED).set(0.0);
    for counter in [DENIED, RECONNECTS] {
        metrics::counter!(counter).increment(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_returns_and_overflows_are_counted() {
        let (teller, link, overflows) = Teller::new();
        for (event, seen) in [
            (Event::Connected, (1, 0)),
            (Event::Connected, (1, 0)),
            (Event::SlowConsumer(7), (1, 1)),
            (Event::SlowConsumer(7), (1, 2)),
            (Event::LameDuckMode, (1, 2)),
            (Event::Disconnected, (2, 2)),
            (Event::Connected, (3, 2)),
        ] {
            teller.note(&event);
            assert_eq!((*link.borrow(), *overflows.borrow()), seen, "{event}");
        }
    }
}
