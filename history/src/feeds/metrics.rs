//! What is counted of feeds.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::source::Fault;

const POLLS: &str = "switchboard_history_feed_polls_total";
const SECONDS: &str = "switchboard_history_feed_poll_seconds";
const SKIPPED: &str = "switchboard_history_feed_polls_skipped_total";
const VALUES: &str = "switchboard_history_feed_values_total";
const PANICS: &str = "switchboard_history_feed_panics_total";
const TAKEN: &str = "switchboard_history_feed_take_overs_total";
const OWNED: &str = "switchboard_history_feeds_owned";
const KNOWN: &str = "switchboard_history_feeds_known";
const WANTS: &str = "switchboard_history_feed_requests_total";

/// Describes all of them; called once, after the recorder is installed.
pub(crate) fn describe() {
    describe_counter!(POLLS, "Polls of sources, by outcome: ok, or why there was no value.");
    describe_histogram!(
        SECONDS,
        Unit::Seconds,
        "Seconds from asking a source to its answer, waiting for a turn included."
    );
    describe_counter!(
        SKIPPED,
        "Polls left out: busy, the source had no turn in time; unheard, NATS or gateways were silent."
    );
    describe_counter!(VALUES, "Values of feeds that were new.");
    describe_counter!(PANICS, "Tasks of feeds that panicked, each begun again after a while.");
    describe_counter!(TAKEN, "Feeds taken over from other replicas.");
    describe_gauge!(OWNED, "Feeds polled by this replica.");
    describe_gauge!(KNOWN, "Feeds that somebody listens to.");
    describe_counter!(WANTS, "Requests of gateways for feeds, by answer.");
}

pub(crate) fn observe_poll(took: Duration, fault: Option<Fault>) {
    counter!(POLLS, "outcome" => fault.map_or("ok", Fault::label)).increment(1);
    histogram!(SECONDS).record(took.as_secs_f64());
}

pub(crate) fn observe_skipped(why: &'static str) {
    counter!(SKIPPED, "reason" => why).increment(1);
}

pub(crate) fn observe_value() {
    counter!(VALUES).increment(1);
}

pub(crate) fn observe_panic() {
    counter!(PANICS).increment(1);
}

pub(crate) fn observe_take_over() {
    counter!(TAKEN).increment(1);
}

pub(crate) fn observe_feeds(owned: usize, known: usize) {
    gauge!(OWNED).set(owned as f64);
    gauge!(KNOWN).set(known as f64);
}

pub(crate) fn observe_want(answer: &'static str) {
    counter!(WANTS, "answer" => answer).increment(1);
}
