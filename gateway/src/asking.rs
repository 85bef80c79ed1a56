//! Requests to the matcher: which are asked again, and when.
//!
//! Between two leaders nobody listens, and a new one does not know this gateway's table at first. What was not done, or
//! may not have been, is asked again then, until the time for one answer is over: a second time does no harm. Nothing of
//! this costs anything while a leader answers.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use switchboard_contract::limits::COMMIT_TIMEOUT;
use switchboard_contract::lobby::Done;
use switchboard_contract::names::MatcherVerb;
use switchboard_contract::nats::{Nats, RequestError};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire;
use tokio::sync::watch;

use crate::lobby::RETRY_AFTER;
use crate::lobby_task::{View, understood};
use crate::mailbox::Outcome;

/// A claim, or the end of a chat: its outcome, within [`COMMIT_TIMEOUT`]. How many wait is bounded by who asks.
pub(crate) async fn ask(nats: Nats, verb: MatcherVerb, body: Bytes, mut view: watch::Receiver<View>) -> Outcome {
    let asking = async {
        loop {
            let asked = *view.borrow();
            let answer = once(&nats, verb, body.clone(), asked.era, view.clone()).await;
            if let Some(outcome) = judge(&answer) {
                return outcome;
            }
            tracing::debug!(verb = verb.as_str(), ?answer, "the matcher is asked again");
            leader(&mut view, asked).await;
        }
    };
    tokio::time::timeout(COMMIT_TIMEOUT, asking).await.unwrap_or_else(|_| Outcome::Refused(Reason::Unavailable.into()))
}

/// Asks once. It is not waited for once another `era` has begun: who was asked is gone, most likely, and the answer with
/// it. `Ok(None)`: an answer that is not understood.
pub(crate) async fn once<T: DeserializeOwned>(
    nats: &Nats,
    verb: MatcherVerb,
    body: Bytes,
    era: u64,
    mut view: watch::Receiver<View>,
) -> Result<Option<T>, RequestError> {
    let request = nats.request(verb.subject(), body, COMMIT_TIMEOUT);
    let reply = tokio::select! {
        biased;
        reply = request => reply?,
        _ = view.wait_for(|view| view.era != era) => return Err(RequestError::Timeout),
    };
    Ok(understood(wire::decode(verb.as_str(), &reply.payload)))
}

/// How a request ended. `None`: it is to be asked again.
fn judge(answer: &Result<Option<Done>, RequestError>) -> Option<Outcome> {
    match answer {
        Ok(Some(Done { refused: None, .. })) => Some(Outcome::Ok("{}".into())),
        // The leader does not know this gateway's table, stops, or has too much to do.
        Ok(Some(Done { refused: Some(Reason::Unavailable), .. })) => None,
        Ok(Some(Done { refused: Some(reason), .. })) => Some(Outcome::Refused((*reason).into())),
        Ok(None) => Some(Outcome::Refused(Reason::Unavailable.into())),
        Err(RequestError::NoResponders | RequestError::Down | RequestError::Timeout) => None,
    }
}

/// Waits until a leader knows this gateway's table that did not when the request was `asked`; but for a moment only,
/// for there may be another cause. The moment differs, so that not all who wait ask at the same time.
async fn leader(view: &mut watch::Receiver<View>, asked: View) {
    let pause = rand::random_range(RETRY_AFTER / 2..=RETRY_AFTER);
    let known = view.wait_for(|view| view.settled && (view.era != asked.era || !asked.settled));
    // Either way it is asked again.
    let _ = tokio::time::timeout(pause, known).await;
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use switchboard_contract::wire::V1;

    use super::*;

    #[test]
    fn what_may_not_have_been_done_is_asked_again() {
        let done = |refused| Ok(Some(Done { v: V1, epoch: 1, refused }));
        let refused = |reason: Reason| Some(Outcome::Refused(reason.into()));
        for (answer, outcome) in [
            (done(None), Some(Outcome::Ok("{}".into()))),
            (done(Some(Reason::Unavailable)), None),
            (done(Some(Reason::NotFound)), refused(Reason::NotFound)),
            (Ok(None), refused(Reason::Unavailable)),
            (Err(RequestError::NoResponders), None),
            (Err(RequestError::Down), None),
            (Err(RequestError::Timeout), None),
        ] {
            assert_eq!(judge(&answer), outcome, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_asks_when_the_table_is_known_and_else_after_a_moment() {
        let view = |settled, era| View { settled, era, ..View::default() };
        for (asked, now, at_once) in [
            (view(true, 1), view(true, 1), false),
            (view(true, 1), view(false, 2), false),
            (view(true, 1), view(true, 2), true),
            (view(false, 1), view(true, 1), true),
        ] {
            let (sender, mut seen) = watch::channel(asked);
            sender.send_replace(now);
            assert_eq!(leader(&mut seen, asked).now_or_never().is_some(), at_once, "{asked:?} {now:?}");
            leader(&mut seen, asked).await;
        }
    }
}
