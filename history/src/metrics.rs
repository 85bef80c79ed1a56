//! What this service counts: names, descriptions, and one function for each place that counts.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::keeper::{Act, Came};
use crate::log::Logs;

const APPLIED: &str = "switchboard_history_messages_applied_total";
const MALFORMED: &str = "switchboard_history_entries_malformed_total";
const READS: &str = "switchboard_history_reads_total";
const FRESH_WAITS: &str = "switchboard_history_fresh_waits_total";
const UNANSWERED: &str = "switchboard_history_reads_unanswered_total";
const EVICTED: &str = "switchboard_history_messages_evicted_total";
const BYTES: &str = "switchboard_history_kept_bytes";
const BYTES_MAX: &str = "switchboard_history_kept_bytes_max";
const BEHIND: &str = "switchboard_history_behind_entries";
const LEADING: &str = "switchboard_history_leading";
const FENCED: &str = "switchboard_history_fenced_total";
const ACTS: &str = "switchboard_history_room_acts_total";
const FULL: &str = "switchboard_history_full_total";
const ROOMS: &str = "switchboard_history_rooms";
const LOGS: &str = "switchboard_history_logs_kept";

/// Why a read got no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unanswered {
    /// As many as may work on at once did already.
    Busy,
    /// The stream did not say in time what a fresh answer needs, or did not deliver it.
    Late,
    /// The request was not understood: it got an error.
    Malformed,
}

/// Describes all of them; called once, after the recorder is installed.
pub(crate) fn describe() {
    describe_counter!(APPLIED, "Messages of clients applied from the stream.");
    describe_counter!(MALFORMED, "Entries of the stream that were not understood, or too large, and skipped.");
    describe_counter!(READS, "Reads answered.");
    describe_counter!(FRESH_WAITS, "Reads that had to wait until the replica had caught up with the stream.");
    describe_counter!(UNANSWERED, "Reads left without an answer, by reason.");
    describe_counter!(EVICTED, "Messages dropped early, for want of memory.");
    describe_gauge!(BYTES, Unit::Bytes, "Memory of all logs, estimated.");
    describe_gauge!(BYTES_MAX, Unit::Bytes, "Memory of all logs at most: --memory-bytes.");
    describe_gauge!(BEHIND, "Entries that the stream had a second ago and that have not come here.");
    describe_gauge!(LEADING, "1 while this replica looks after the lives of rooms, 0 while it stands by.");
    describe_counter!(FENCED, "Late writes of the lease refused because another replica has it.");
    describe_counter!(ACTS, "What was done for rooms (probes, snapshots, wipes and so on), by what came of it.");
    gauge!(LEADING).set(0.0);
    gauge!(BEHIND).set(0.0);
    counter!(EVICTED).increment(0);
    for why in ["busy", "late"] {
        counter!(UNANSWERED, "reason" => why).increment(0);
    }
    describe_gauge!(LOGS, "Logs kept.");
    describe_counter!(FULL, "How often a bound was reached, by which one.");
    describe_gauge!(ROOMS, "Rooms that this replica looks after while it leads.");
}

/// The memory that all logs may have.
pub(crate) fn observe_limit(memory_bytes: usize) {
    gauge!(BYTES_MAX).set(memory_bytes as f64);
}

/// So many entries should have come from the stream by now.
pub(crate) fn observe_behind(entries: u64) {
    gauge!(BEHIND).set(entries as f64);
}

/// A bound was reached, and something was left out.
pub(crate) fn full(what: &'static str) {
    counter!(FULL, "what" => what).increment(1);
}

/// Rooms that the leading replica looks after.
pub(crate) fn observe_rooms(rooms: usize) {
    gauge!(ROOMS).set(rooms as f64);
}

/// After entries were applied or dropped.
pub(crate) fn observe_logs(logs: &Logs, messages: u64, malformed: u64, evicted: u64) {
    counter!(APPLIED).increment(messages);
    counter!(MALFORMED).increment(malformed);
    counter!(EVICTED).increment(evicted);
    gauge!(BYTES).set(logs.bytes() as f64);
    gauge!(LOGS).set(logs.count() as f64);
}

/// Whether this replica leads from now on.
pub(crate) fn observe_leading(leads: bool) {
    gauge!(LEADING).set(f64::from(u8::from(leads)));
}

/// A late write of the lease was refused.
pub(crate) fn observe_fenced() {
    counter!(FENCED).increment(1);
}

/// Something was done for a room.
pub(crate) fn observe_act(act: Act, came: Came) {
    let act = match act {
        Act::Snapshot => "snapshot",
        Act::Expire { .. } => "expire",
        Act::Probe => "probe",
        Act::Close => "close",
        Act::Wipe { .. } => "wipe",
        Act::Delete => "delete",
    };
    let came = match came {
        Came::Done => "done",
        Came::Somebody => "somebody",
        Came::Refused => "refused",
        Came::Failed => "failed",
    };
    counter!(ACTS, "act" => act, "came" => came).increment(1);
}

/// A read was answered.
pub(crate) fn observe_read() {
    counter!(READS).increment(1);
}

/// A read waits for the stream.
pub(crate) fn observe_fresh_wait() {
    counter!(FRESH_WAITS).increment(1);
}

/// Reads were not answered.
pub(crate) fn observe_unanswered(why: Unanswered, count: usize) {
    let why = match why {
        Unanswered::Busy => "busy",
        Unanswered::Late => "late",
        Unanswered::Malformed => "malformed",
    };
    counter!(UNANSWERED, "reason" => why).increment(count as u64);
}
