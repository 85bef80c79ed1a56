//! The gateway's metrics. Those that change with each frame are looked up once: a look-up costs more than a count.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::topic::How;

/// Frames that clients sent.
pub(crate) static FRAMES: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_frames_total"));
/// Frames sent to clients.
pub(crate) static FRAMES_SENT: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_frames_sent_total"));
/// Events of chats and rooms for members' sockets.
pub(crate) static DELIVERIES: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_deliveries_total"));
/// How long joins, pushes and claims waited for their answer: the kinds as [`Answered`] counts them.
static JOIN_SECONDS: LazyLock<[Histogram; 5]> =
    LazyLock::new(|| KINDS.map(|kind| histogram!("switchboard_gateway_join_seconds", "kind" => kind)));
static PUSH_SECONDS: LazyLock<[Histogram; 5]> =
    LazyLock::new(|| KINDS.map(|kind| histogram!("switchboard_gateway_push_seconds", "kind" => kind)));
static CLAIM_SECONDS: LazyLock<Histogram> = LazyLock::new(|| histogram!("switchboard_gateway_claim_seconds"));
/// Messages written to logs.
pub(crate) static MESSAGES: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_messages_total"));
/// Rows in this gateway's lobby table.
pub(crate) static LOBBY_ROWS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_lobby_rows"));

/// Rooms whose presence this gateway follows.
pub(crate) static PRESENCE_ROOMS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_presence_rooms"));

/// Feeds whose value may be old, as members were told.
pub(crate) static FEEDS_STALE: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_feeds_stale"));
/// Feeds with members here, or that had some a moment ago.
pub(crate) static FEEDS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_feeds"));
/// Members of feeds.
pub(crate) static FEED_MEMBERS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_feed_members"));
/// Questions to history about feeds.
pub(crate) static FEED_WANTS: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_feed_wants_total"));
/// What members of feeds were sent.
pub(crate) static FEED_EVENTS: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_feed_events_total"));

/// The kinds of topics.
const KINDS: [&str; 5] = ["teachers", "student", "chat", "room", "feed"];

/// Something that a client waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered {
    /// A join of a topic of this kind.
    Join(usize),
    /// A push on one.
    Push(usize),
    /// A claim.
    Claim,
}

/// A client has its answer, whatever it says. From when its frame came, so with the time that it waited behind others.
pub(crate) fn answered(what: Answered, took: Duration) {
    let histogram = match what {
        Answered::Join(kind) => JOIN_SECONDS.get(kind),
        Answered::Push(kind) => PUSH_SECONDS.get(kind),
        Answered::Claim => Some(&*CLAIM_SECONDS),
    };
    if let Some(histogram) = histogram {
        histogram.record(took.as_secs_f64());
    }
}

/// The sockets are being closed, because the process stops.
pub(crate) fn draining() {
    gauge!("switchboard_gateway_draining").set(1.0);
}

/// A bound was reached: something was dropped, refused, closed, or had to wait. Counted only then.
pub(crate) fn full(what: &'static str) {
    counter!("switchboard_gateway_full_total", "what" => what).increment(1);
}

/// Something is about to be put into the queue of a task: whether that has to wait is counted.
pub(crate) fn queue<T>(queue: &tokio::sync::mpsc::Sender<T>, what: &'static str) {
    if queue.capacity() == 0 {
        full(what);
    }
}

/// Users of whom something counts for their limits.
pub(crate) fn limited_users(users: usize) {
    gauge!("switchboard_gateway_limited_users").set(users as f64);
}

/// Other gateways were asked for their members of rooms.
pub(crate) fn presence_asks(rooms: usize) {
    counter!("switchboard_gateway_presence_asks_total").increment(rooms as u64);
}

/// Another gateway is gone.
pub(crate) fn gateway_gone() {
    counter!("switchboard_gateway_presence_gone_total").increment(1);
}

/// A gap in a log has come to its end.
pub(crate) fn gap(how: How) {
    let how = match how {
        How::History => "history",
        How::Stream => "stream",
        How::Shown => "shown",
    };
    counter!("switchboard_gateway_gaps_total", "how" => how).increment(1);
}

/// Shows what is looked for before anything has happened: of what comes into being with its first count, that one is
/// no increase. `connections_max`: as configured.
pub(crate) fn start(connections_max: usize) {
    gauge!("switchboard_gateway_connections").set(0.0);
    gauge!("switchboard_gateway_connections_max").set(connections_max as f64);
    gauge!("switchboard_gateway_draining").set(0.0);
    gauge!("switchboard_gateway_cut_off").set(0.0);
    counter!("switchboard_gateway_cut_offs_total").increment(0);
    counter!("switchboard_gateway_connections_refused_total").increment(0);
    for how in ["history", "stream", "shown"] {
        counter!("switchboard_gateway_gaps_total", "how" => how).increment(0);
    }
    for what in ["mailbox", "write_time", "write_buffer"] {
        counter!("switchboard_gateway_full_total", "what" => what).increment(0);
    }
    for counter in [&FRAMES, &FRAMES_SENT, &MESSAGES, &DELIVERIES] {
        counter.increment(0);
    }
}

/// Says what each metric of this service means.
pub(crate) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("switchboard_gateway_connections", Unit::Count, "Open sockets.");
    describe_gauge!("switchboard_gateway_connections_max", Unit::Count, "Open sockets at most: --max-connections.");
    describe_counter!("switchboard_gateway_connections_opened_total", "Sockets that were opened.");
    describe_counter!("switchboard_gateway_connections_refused_total", "Connections refused at --max-connections.");
    describe_gauge!(
        "switchboard_gateway_draining",
        "1 while the sockets are closed because the process stops, else 0."
    );
    describe_counter!("switchboard_gateway_frames_sent_total", "Frames sent to clients.");
    describe_counter!(
        "switchboard_gateway_deliveries_total",
        "Events of chats and rooms for members' sockets: a message is as many as it has listeners here."
    );
    describe_histogram!(
        "switchboard_gateway_join_seconds",
        Unit::Seconds,
        "Seconds from a join to its answer, by kind of topic."
    );
    describe_histogram!(
        "switchboard_gateway_push_seconds",
        Unit::Seconds,
        "Seconds from a push that the system has to do something for to its answer, by kind of topic."
    );
    describe_histogram!(
        "switchboard_gateway_claim_seconds",
        Unit::Seconds,
        "Seconds from a claim that is passed on to its answer."
    );
    describe_gauge!(
        "switchboard_gateway_feeds_stale",
        Unit::Count,
        "Feeds whose members here were told that the value may be old."
    );
    describe_gauge!(
        "switchboard_gateway_cut_off",
        "1 while NATS stores nothing and the sockets are moved away, else 0."
    );
    describe_counter!("switchboard_gateway_cut_offs_total", "Times that the sockets were moved away for that.");
    describe_gauge!("switchboard_gateway_topics", Unit::Count, "Chats and rooms with members on this gateway.");
    describe_gauge!("switchboard_gateway_lobby_rows", Unit::Count, "Rows in this gateway's lobby table.");
    describe_counter!("switchboard_gateway_frames_total", "Frames that clients sent.");
    describe_counter!("switchboard_gateway_joins_total", "Joins that clients asked for.");
    describe_counter!("switchboard_gateway_claims_total", "Claims passed on to the matcher.");
    describe_counter!("switchboard_gateway_messages_total", "Messages written to logs.");
    describe_counter!("switchboard_gateway_gaps_total", "Gaps in logs: repaired by history or stream, or shown.");
    describe_gauge!("switchboard_gateway_presence_rooms", Unit::Count, "Rooms whose presence this gateway follows.");
    describe_counter!("switchboard_gateway_presence_asks_total", "Rooms that other gateways were asked about.");
    describe_counter!("switchboard_gateway_presence_gone_total", "Other gateways that died or said goodbye.");
    describe_counter!("switchboard_gateway_presence_strangers_total", "Words of gateways beyond those known at most.");
    describe_gauge!("switchboard_gateway_feeds", Unit::Count, "Feeds with members on this gateway.");
    describe_gauge!("switchboard_gateway_feed_members", Unit::Count, "Channels that are joined to feeds, or joining.");
    describe_counter!("switchboard_gateway_feed_wants_total", "Times that history was asked for a feed.");
    describe_counter!("switchboard_gateway_feed_events_total", "Events of feeds sent to members of this gateway.");
    describe_counter!("switchboard_gateway_refusals_total", "Joins and pushes refused, by reason.");
    describe_gauge!(
        "switchboard_gateway_limited_users",
        Unit::Count,
        "Users of whom something counts for their limits."
    );
    describe_counter!(
        "switchboard_gateway_bans_total",
        "Users that were closed and have to wait, after many refusals."
    );
    describe_counter!("switchboard_gateway_unlimited_total", "Joins and pushes of users beyond those known at most.");
    describe_counter!("switchboard_gateway_closes_total", "Sockets closed by this gateway, by close code.");
    describe_counter!("switchboard_gateway_api_requests_total", "Requests of the HTTP API, by route and status.");
    describe_counter!("switchboard_gateway_tokens_refused_total", "Tokens that did not count, by reason.");
    describe_counter!("switchboard_gateway_jwks_reads_total", "Readings of the JWKS after the first, by outcome.");
    describe_counter!("switchboard_gateway_full_total", "How often a bound was reached, by which one.");
}
