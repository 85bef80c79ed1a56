//! A gateway that NATS does not carry: its sockets are moved away, and it takes no new ones until it is carried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use switchboard_contract::admin::Readiness;
use switchboard_contract::limits::{CARRIED_PATIENCE, CUT_OFF_AFTER};
use switchboard_contract::nats::Nats;

use crate::presence_task::PresenceHandle;
use crate::server::Gateway;

/// How often it is looked whether NATS carries the gateway.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of it at one moment.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The connection to NATS is up.
    up: bool,
    /// When something was sent to NATS that was stored; see [`Nats::stored`].
    stored: Option<Instant>,
    /// When another gateway was last found to be silent.
    silence: Option<Instant>,
}

/// Whether the gateway is cut off from where the streams have their leaders, with others on the other side. Silence of
/// others alone is theirs. If nothing is stored and all are heard, as while two of three NATS servers are gone, nobody
/// has it better, and sockets stay. They stay while the connection is down as well, for NATS may be restarting, and for
/// a moment after somebody fell silent, for a server that was paused brings who was heard again in any order. Once cut
/// off, it is until something is stored.
fn cut_off(was: bool, seen: Seen, now: Instant) -> bool {
    let Seen { up, stored, silence } = seen;
    stored.is_some_and(|stored| {
        let alone = |silence| silence > stored && now.saturating_duration_since(silence) >= CARRIED_PATIENCE;
        now.saturating_duration_since(stored) >= CUT_OFF_AFTER && (was || up && silence.is_some_and(alone))
    })
}

/// Keeps readiness, and moves the sockets away within `spread` each time that the gateway is cut off. Ready means: NATS
/// is there, carries the gateway, and the matcher knows it.
pub(crate) async fn watch(
    nats: &Nats,
    gateway: &Arc<Gateway>,
    presence: &PresenceHandle,
    readiness: &Readiness,
    spread: Duration,
) {
    let (mut link, mut stored, mut view) = (nats.link(), nats.stored(), gateway.lobby.view());
    let mut known = false;
    loop {
        known |= view.borrow_and_update().settled;
        let seen = Seen { up: nats.is_up(), stored: *stored.borrow_and_update(), silence: presence.silence() };
        let was = gateway.is_away();
        let away = cut_off(was, seen, Instant::now());
        if away != was {
            gateway.set_away(away);
            gauge!("switchboard_gateway_cut_off").set(f64::from(u8::from(away)));
            if away {
                counter!("switchboard_gateway_cut_offs_total").increment(1);
                tracing::warn!(sockets = gateway.connections(), "cut off: NATS stores nothing; sockets are moved away");
            }
        }
        readiness.set(match (away, seen.up, known) {
            (true, _, _) => Err("cut off: NATS stores nothing"),
            (false, false, _) => Err("NATS is away"),
            (false, true, false) => Err("the matcher does not answer yet"),
            (false, true, true) => Ok(()),
        });
        let moving = async {
            if away && gateway.connections() > 0 {
                gateway.drain(spread).await;
            }
            tokio::time::sleep(LOOK).await;
        };
        tokio::select! {
            _ = link.changed() => {}
            _ = view.changed(), if !known => {}
            _ = stored.changed(), if away => {}
            () = moving => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_move_only_where_nothing_is_stored_and_others_are_out_of_hearing() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let after = u64::try_from(CUT_OFF_AFTER.as_millis()).expect("a number");
        let alone = Seen { up: true, stored: Some(at(0)), silence: Some(at(5_000)) };
        for (was, seen, now, cut) in [
            (false, alone, after - 1, false),
            (false, alone, after, true),
            (false, Seen { silence: None, ..alone }, after, false),
            (false, Seen { silence: Some(at(after)), ..alone }, after + 2_999, false),
            (false, Seen { silence: Some(at(after)), ..alone }, after + 3_000, true),
            (false, Seen { stored: Some(at(6_000)), ..alone }, 6_000 + after, false),
            (false, Seen { up: false, ..alone }, after, false),
            (true, Seen { up: false, ..alone }, after, true),
            (true, Seen { stored: Some(at(after)), ..alone }, after + 1, false),
        ] {
            assert_eq!(cut_off(was, seen, at(now)), cut, "{seen:?} at {now}");
        }
    }
}
