//! The gateway's metrics. Those that change with each frame are looked up once: a look-up costs more than a count.

use std::sync::LazyLock;

use metrics::{Counter, Gauge, counter, gauge};

use crate::topic::How;

/// Frames that clients sent.
pub(crate) static FRAMES: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_frames_total"));
/// Messages written to logs.
pub(crate) static MESSAGES: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_messages_total"));
/// Rows in this gateway's lobby table.
pub(crate) static LOBBY_ROWS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_lobby_rows"));

/// Rooms whose presence this gateway follows.
pub(crate) static PRESENCE_ROOMS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_presence_rooms"));

/// Feeds with members here, or that had some a moment ago.
pub(crate) static FEEDS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_feeds"));
/// Members of feeds.
pub(crate) static FEED_MEMBERS: LazyLock<Gauge> = LazyLock::new(|| gauge!("switchboard_gateway_feed_members"));
/// Questions to history about feeds.
pub(crate) static FEED_WANTS: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_feed_wants_total"));
/// What members of feeds were sent.
pub(crate) static FEED_EVENTS: LazyLock<Counter> = LazyLock::new(|| counter!("switchboard_gateway_feed_events_total"));

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

/// Says what each metric of this service means.
pub(crate) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge};
    describe_gauge!("switchboard_gateway_connections", Unit::Count, "Open sockets.");
    describe_counter!("switchboard_gateway_connections_refused_total", "Connections refused at --max-connections.");
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
