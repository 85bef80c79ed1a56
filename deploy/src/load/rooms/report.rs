//! What a run of rooms found, as a table and as JSON.

use serde::Serialize;

use super::super::Speaks;
use super::super::measure::Costs;
use super::super::report::{line, print_costs, print_end, print_strikes, times};
use super::super::siege::StrikesReport;
use super::super::world::Times;
use super::RoomsArgs;
use super::hall::{Hall, Tally};

/// What a run of rooms found.
#[derive(Debug, Serialize)]
pub(super) struct RoomsReport {
    command: &'static str,
    vsn: Speaks,
    rooms: u32,
    members: u16,
    seed: u64,
    /// Until all had joined.
    connect_seconds: f64,
    /// How long they talked: what everything below is counted in, but for what was answered or came later.
    talk_seconds: f64,
    messages_per_second: f64,
    #[serde(flatten)]
    tally: Tally,
    /// From saying a message to another member's hearing it, live.
    message_ms: Times,
    /// From saying a message to its `ok`.
    ack_ms: Times,
    /// CPU of all processes for each message. Microseconds.
    cpu_us_per_message: f64,
    /// CPU of the gateways for each message that a member received. Microseconds.
    gateway_us_per_delivery: f64,
    /// Of a run with kills.
    #[serde(flatten)]
    strikes: Option<StrikesReport>,
    #[serde(flatten)]
    costs: Costs,
    /// The first broken rule.
    violation: Option<String>,
    /// The run was ended before its time.
    interrupted: bool,
}

impl RoomsReport {
    pub(super) fn new(
        args: &RoomsArgs,
        hall: &Hall,
        (connect_seconds, talk_seconds): (f64, f64),
        costs: Costs,
        violation: Option<String>,
        interrupted: bool,
    ) -> RoomsReport {
        let tally = hall.tally();
        let (message_ms, ack_ms) = hall.times();
        // Less than a float holds.
        let count = |n: u64| f64::from(u32::try_from(n.max(1)).unwrap_or(u32::MAX));
        RoomsReport {
            command: "rooms",
            vsn: args.vsn,
            rooms: args.rooms,
            members: args.members,
            seed: hall.seed,
            connect_seconds,
            talk_seconds,
            messages_per_second: count(tally.messages) / talk_seconds.max(0.001),
            tally,
            message_ms,
            ack_ms,
            cpu_us_per_message: 1e6 * costs.cpu_seconds / count(tally.messages),
            gateway_us_per_delivery: 1e6 * costs.of("gateway") / count(tally.deliveries),
            strikes: hall.strikes.as_ref().map(|strikes| strikes.report()),
            costs,
            violation,
            interrupted,
        }
    }

    /// Says it.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let tally = &self.tally;
        let (messages, deliveries, rate) = (tally.messages, tally.deliveries, self.messages_per_second);
        line("rooms", format_args!("{} of {} members, --seed {}", self.rooms, self.members, self.seed));
        line("messages", format_args!("{messages}, {rate:.0} a second; {deliveries} received"));
        let beside = (tally.directs, tally.directs_received, tally.typings, tally.typings_received);
        line("beside", format_args!("{} direct ({} received), {} typing ({})", beside.0, beside.1, beside.2, beside.3));
        line("seconds", format_args!("{:.1} to connect, {:.1} of talk", self.connect_seconds, self.talk_seconds));
        line("message ms", times(self.message_ms));
        line("ack ms", times(self.ack_ms));
        let (reconnects, rejoins, resends) = (tally.reconnects, tally.rejoins, tally.resends);
        line("coming back", format_args!("{reconnects} reconnects, {rejoins} rejoins, {resends} messages sent again"));
        let (gaps, excused) = (tally.gaps, tally.gaps_excused);
        line("gaps", format_args!("{gaps} shown, {excused} of them while nobody could be asked"));
        let (unavailable, limited) = (tally.unavailable, tally.rate_limited);
        line("refused", format_args!("{unavailable} unavailable, {limited} rate_limited"));
        let (events, compared) = (tally.presence_events, tally.lists_compared);
        line("presence", format_args!("{events} events, {compared} lists compared"));
        let (message, delivery) = (self.cpu_us_per_message, self.gateway_us_per_delivery);
        line("CPU us", format_args!("{message:.1} of all per message, {delivery:.2} of gateways per message received"));
        if let Some(strikes) = &self.strikes {
            print_strikes(strikes);
        }
        print_costs(&self.costs);
        print_end(self.violation.as_deref(), self.interrupted);
        Ok(())
    }
}
