//! The matcher's metrics, one function for each thing that happens.

use std::time::{Duration, SystemTime};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use switchboard_contract::ack::Outcome;
use switchboard_contract::lobby::Status;
use switchboard_contract::names::MatcherVerb;
use switchboard_contract::wire;

use crate::core::{Counters, Held};

/// Says what each metric means, and shows those that are looked for before anything has happened.
pub(crate) fn describe() {
    counter!("switchboard_matcher_fenced_total").increment(0);
    counter!("switchboard_matcher_takeovers_total").increment(0);
    counter!("switchboard_matcher_queue_full_total").increment(0);
    counter!("switchboard_matcher_gateways_gone_total").increment(0);
    stands_by();
    describe_histogram!(
        "switchboard_matcher_waited_seconds",
        Unit::Seconds,
        "Seconds that a student waited in the queue before it was assigned to a teacher."
    );
    describe_gauge!(
        "switchboard_matcher_longest_wait_seconds",
        Unit::Seconds,
        "Seconds that the first of the queue has waited; 0: nobody waits, or another one leads."
    );
    describe_counter!("switchboard_matcher_requests_total", "Requests of gateways, by verb.");
    describe_counter!(
        "switchboard_matcher_replies_dropped_total",
        "Replies and pushes dropped because NATS took none."
    );
    describe_counter!("switchboard_matcher_batches_total", "Batches written, by outcome.");
    describe_counter!("switchboard_matcher_records_total", "Records written or purged.");
    describe_histogram!(
        "switchboard_matcher_commit_seconds",
        Unit::Seconds,
        "Seconds from sending a batch to its acknowledgement."
    );
    describe_counter!("switchboard_matcher_matched_total", "Students assigned to a teacher.");
    describe_counter!("switchboard_matcher_terminated_total", "Chats that were terminated.");
    describe_counter!("switchboard_matcher_requeued_total", "Chats whose student went back into the queue.");
    describe_counter!("switchboard_matcher_expired_total", "Users removed at the end of their grace time.");
    describe_counter!("switchboard_matcher_queue_full_total", "Students refused because the queue was full.");
    describe_counter!("switchboard_matcher_retold_total", "Times that new:chat was told again to a channel.");
    describe_counter!("switchboard_matcher_repaired_total", "Records that did not fit together when loaded.");
    describe_counter!("switchboard_matcher_log_entries_total", "Entries written to the logs of chats.");
    describe_counter!("switchboard_matcher_pushes_total", "Pushes to gateways, by kind.");
    describe_counter!("switchboard_matcher_gateways_gone_total", "Gateways that died or said goodbye.");
    describe_counter!(
        "switchboard_matcher_stepdowns_total",
        "Epochs that ended because a batch failed or the lease was lost."
    );
    describe_counter!("switchboard_matcher_takeovers_total", "Epochs that this matcher has begun to lead.");
    describe_counter!("switchboard_matcher_fenced_total", "Late writes refused because another matcher leads.");
    describe_gauge!("switchboard_matcher_leading", "1 while this matcher leads, 0 while it stands by.");
    describe_gauge!("switchboard_matcher_teachers", "Teachers on the roster.");
    describe_gauge!("switchboard_matcher_students", "Students on the roster, by state.");
    describe_gauge!("switchboard_matcher_inbox", "Rows that wait for room in a batch.");
    describe_counter!("switchboard_matcher_full_total", "How often a bound was reached, by which one.");
    describe_gauge!("switchboard_matcher_chats", "Chats that are known, ended ones included.");
    describe_gauge!("switchboard_matcher_gateways", "Gateways whose table is known.");
    describe_gauge!("switchboard_matcher_rows", "Rows of all gateways' tables.");
    describe_gauge!("switchboard_matcher_epoch", "The epoch that this matcher leads.");
}

pub(crate) fn request(verb: MatcherVerb) {
    counter!("switchboard_matcher_requests_total", "verb" => verb.as_str()).increment(1);
}

pub(crate) fn dropped() {
    counter!("switchboard_matcher_replies_dropped_total").increment(1);
}

/// A bound was reached: a request was refused, or something dropped that is told or sent again.
pub(crate) fn full(what: &'static str) {
    counter!("switchboard_matcher_full_total", "what" => what).increment(1);
}

pub(crate) fn batch(outcome: Outcome, records: usize, took: Duration) {
    let outcome = match outcome {
        Outcome::Committed { .. } => "committed",
        Outcome::Fenced => {
            fenced();
            "fenced"
        }
        Outcome::Unknown => "unknown",
    };
    counter!("switchboard_matcher_batches_total", "outcome" => outcome).increment(1);
    counter!("switchboard_matcher_records_total").increment(records as u64);
    histogram!("switchboard_matcher_commit_seconds").record(took.as_secs_f64());
}

pub(crate) fn logged() {
    counter!("switchboard_matcher_log_entries_total").increment(1);
}

pub(crate) fn push(kind: &'static str) {
    counter!("switchboard_matcher_pushes_total", "kind" => kind).increment(1);
}

pub(crate) fn gateway_gone() {
    counter!("switchboard_matcher_gateways_gone_total").increment(1);
}

pub(crate) fn stepdown() {
    counter!("switchboard_matcher_stepdowns_total").increment(1);
}

/// A late write of this process was refused.
pub(crate) fn fenced() {
    counter!("switchboard_matcher_fenced_total").increment(1);
}

pub(crate) fn leads(epoch: u64) {
    counter!("switchboard_matcher_takeovers_total").increment(1);
    gauge!("switchboard_matcher_leading").set(1.0);
    gauge!("switchboard_matcher_epoch").set(epoch as f64);
}

/// What it knew of the lobby is another's now: else both would be added up.
pub(crate) fn stands_by() {
    gauge!("switchboard_matcher_leading").set(0.0);
    lobby(&Status::default(), 0, Held::default(), None);
}

/// A student that had a place in the queue since then, as its record says, has a teacher.
pub(crate) fn waited(since: &str, now: SystemTime) {
    histogram!("switchboard_matcher_waited_seconds").record(seconds(since, now));
}

fn seconds(since: &str, now: SystemTime) -> f64 {
    let since = wire::time_of(since).and_then(|since| now.duration_since(since).ok());
    since.unwrap_or_default().as_secs_f64()
}

/// `first`: since when the first of the queue waits.
pub(crate) fn lobby(status: &Status, inbox: usize, held: Held, first: Option<&str>) {
    let longest = first.map_or(0.0, |since| seconds(since, SystemTime::now()));
    gauge!("switchboard_matcher_longest_wait_seconds").set(longest);
    gauge!("switchboard_matcher_teachers").set(status.teachers as f64);
    for (state, n) in [("waiting", status.waiting), ("chatting", status.chatting), ("finished", status.finished)] {
        gauge!("switchboard_matcher_students", "state" => state).set(n as f64);
    }
    gauge!("switchboard_matcher_inbox").set(inbox as f64);
    gauge!("switchboard_matcher_chats").set(held.chats as f64);
    gauge!("switchboard_matcher_gateways").set(held.gateways as f64);
    gauge!("switchboard_matcher_rows").set(held.rows as f64);
}

/// What the core has counted since it was asked last.
pub(crate) fn counters(before: &mut Counters, now: Counters) {
    let steps = [
        ("switchboard_matcher_matched_total", now.matched - before.matched),
        ("switchboard_matcher_terminated_total", now.terminated - before.terminated),
        ("switchboard_matcher_requeued_total", now.requeued - before.requeued),
        ("switchboard_matcher_expired_total", now.expired - before.expired),
        ("switchboard_matcher_queue_full_total", now.refused - before.refused),
        ("switchboard_matcher_retold_total", now.retold - before.retold),
        ("switchboard_matcher_repaired_total", now.repaired - before.repaired),
    ];
    for (name, by) in steps {
        counter!(name).increment(by);
    }
    counter!("switchboard_matcher_full_total", "what" => "inbox").increment(now.full - before.full);
    *before = now;
}
