//! The flags of what one user may do.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use switchboard_contract::process::millis;

use super::{Rates, Within};

/// Flags of what one user may do over all its sockets on this gateway. 0 is no limit.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits of one user on this gateway")]
pub struct LimitArgs {
    /// Logged messages in rooms, per second; moderators have no limit. 0: no limit.
    #[arg(long, env = "SWITCHBOARD_BROADCAST_RATE", default_value_t = 10)]
    pub broadcast_rate: u32,
    /// So many of them at once.
    #[arg(long, env = "SWITCHBOARD_BROADCAST_BURST", default_value_t = 30, value_parser = at_least_one())]
    pub broadcast_burst: u32,
    /// Direct messages, typing and binary data in rooms together, per second; moderators have no limit. 0: no limit.
    #[arg(long, env = "SWITCHBOARD_DIRECT_RATE", default_value_t = 200)]
    pub direct_rate: u32,
    /// So many of them at once.
    #[arg(long, env = "SWITCHBOARD_DIRECT_BURST", default_value_t = 1_000, value_parser = at_least_one())]
    pub direct_burst: u32,
    /// Joins of any topic, per second. 0: no limit.
    #[arg(long, env = "SWITCHBOARD_JOIN_RATE", default_value_t = 50)]
    pub join_rate: u32,
    /// So many of them at once.
    #[arg(long, env = "SWITCHBOARD_JOIN_BURST", default_value_t = 100, value_parser = at_least_one())]
    pub join_burst: u32,
    /// The same text in rooms so many times within --repeat-window-ms is once too often; at most 100. 0: no limit.
    #[arg(long, env = "SWITCHBOARD_REPEATS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=100))]
    pub repeats: u32,
    /// See --repeats, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_REPEAT_WINDOW_MS", default_value_t = 10_000, value_parser = millis(1))]
    pub repeat_window_ms: u64,
    /// So many refusals because of these limits within --refusal-window-ms close the socket; at most 10000. 0: never.
    #[arg(long, env = "SWITCHBOARD_REFUSALS", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub refusals: u32,
    /// See --refusals, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_REFUSAL_WINDOW_MS", default_value_t = 10_000, value_parser = millis(1))]
    pub refusal_window_ms: u64,
    /// For so long the user of a socket that was closed so cannot join anything, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_BAN_MS", default_value_t = 10_000, value_parser = millis(0))]
    pub ban_ms: u64,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

impl LimitArgs {
    /// What they mean.
    pub fn rates(&self) -> Rates {
        let quota = |rate, burst| Some(Quota::per_second(NonZeroU32::new(rate)?).allow_burst(NonZeroU32::new(burst)?));
        let within = |count: u32, ms| {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            (count > 0).then_some(Within { count, window: Duration::from_millis(ms) })
        };
        Rates {
            broadcasts: quota(self.broadcast_rate, self.broadcast_burst),
            directs: quota(self.direct_rate, self.direct_burst),
            joins: quota(self.join_rate, self.join_burst),
            repeats: within(self.repeats, self.repeat_window_ms),
            refusals: within(self.refusals, self.refusal_window_ms),
            ban: Duration::from_millis(self.ban_ms),
        }
    }
}
