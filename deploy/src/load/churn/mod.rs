//! `switchboard load churn`: rooms are born, used once and left, round after round; nothing of them may stay.
//!
//! After each round it waits until all that the system holds for rooms is what it was before the first one, and notes
//! the memory of each process. What is held after the first round may have grown for good (buffers, allocators); what
//! grows from the second to the third is a leak.

mod traces;

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::json;
use switchboard_contract::process::UsageError;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use super::end::End;
use super::guest::{Broken, Door};
use super::measure::{Cost, Meter};
use super::progress::{Bar, Progress};
use super::report::{ChurnReport, Round};
use super::target::Target;
use super::{ChurnArgs, interrupted};
use crate::client::Vsn;
pub(super) use traces::{Look, Traces, sum};

/// How often it is looked whether all is gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the progress of a round is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);
/// A service's memory may grow by one part in so many from the second round to the third.
const GROWTH_PART: u64 = 10;

/// What all visits of a run share.
struct Hall {
    vsn: Vsn,
    door: Door,
    prefix: String,
    done: Cell<u64>,
}

/// Runs it.
///
/// # Errors
/// If there is nothing to put load on, or it keeps its log for too long to see it go.
pub(super) async fn run(args: &ChurnArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.target)?;
    let look = Look::new(&args.target.folder).await?;
    let settle = Duration::from_secs(args.settle);
    let age = look.log_max_age().await?;
    if age > settle {
        let (age, settle) = (age.as_secs(), settle.as_secs());
        let hint = "start it with SWITCHBOARD_LOG_MAX_AGE_MS=60000 SWITCHBOARD_ROOM_LINGER_MS=5000";
        bail!(UsageError(format!("the log keeps entries for {age} s, which is longer than --settle {settle}: {hint}")));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let hall = Hall {
        vsn: args.vsn,
        door: Door::new(&args.target.folder)?,
        prefix: format!("churn-{now}"),
        done: Cell::new(0),
    };
    let mut run = Run {
        args,
        hall: Rc::new(hall),
        gateways: target.gateways(),
        meter: Meter::start(&args.target.folder)?,
        before: look.at_rest().await?,
        look,
        settle,
        rounds: Vec::new(),
    };
    let mut progress = Progress::new();
    let played = tokio::select! {
        played = run.play(&mut progress) => played.map(|()| false),
        interrupted = interrupted() => interrupted.context("cannot listen to signals").map(|()| true),
    };
    progress.end();
    let End { code, violation, interrupted } = End::of::<Broken>(played)?;
    let Run { before, rounds, meter, .. } = run;
    let report = ChurnReport {
        command: "churn",
        vsn: if args.vsn == Vsn::V1 { 1 } else { 2 },
        per_minute: args.per_minute,
        before,
        rounds,
        costs: meter.read()?,
        violation,
        interrupted,
    };
    report.print(args.target.json)?;
    Ok(code)
}

struct Run<'a> {
    args: &'a ChurnArgs,
    hall: Rc<Hall>,
    gateways: &'a [Rc<str>],
    meter: Meter,
    look: Look,
    /// Before the first round.
    before: Traces,
    settle: Duration,
    rounds: Vec<Round>,
}

impl Run<'_> {
    async fn play(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        for number in 0..self.args.rounds {
            let began = Instant::now();
            let rooms = self.visits(number, progress).await?;
            let (used, left) = (began.elapsed(), Instant::now());
            let traces = self.settled(progress).await?;
            let costs = self.meter.read()?;
            let violation = (traces.more_than(&self.before)).map(|what| format!("round {}: {what}", number + 1));
            self.rounds.push(Round {
                rooms,
                seconds: used.as_secs_f64(),
                settle_seconds: left.elapsed().as_secs_f64(),
                traces,
                memory: costs.processes,
            });
            if let Some(violation) = violation {
                return Err(Broken(violation).into());
            }
        }
        if let [_, .., before, last] = &self.rounds[..]
            && let Some(grown) = grown(&before.memory, &last.memory)
        {
            return Err(Broken(grown).into());
        }
        Ok(())
    }

    /// Rooms are used at even intervals; the number of them.
    async fn visits(&self, number: u32, progress: &mut Progress) -> anyhow::Result<u64> {
        let rooms = (u64::from(self.args.per_minute) * self.args.seconds).div_ceil(60);
        let every = Duration::from_secs(60) / self.args.per_minute;
        let (mut visits, mut begun) = (JoinSet::new(), 0);
        let (mut starts, mut shows) = (interval(every), interval(SHOW_EVERY));
        self.hall.done.set(0);
        while begun < rooms || !visits.is_empty() {
            tokio::select! {
                _ = starts.tick(), if begun < rooms => {
                    let url = &self.gateways[usize::try_from(begun).unwrap_or(0) % self.gateways.len()];
                    visits.spawn_local(visit(Rc::clone(&self.hall), Rc::clone(url), number, begun));
                    begun += 1;
                }
                Some(ended) = visits.join_next() => ended.context("a visit's task failed")??,
                _ = shows.tick() => {
                    let beside = format!("round {} of {}", number + 1, self.args.rounds);
                    progress.show(&[Bar { what: "rooms", now: self.hall.done.get(), of: rooms, beside }]);
                }
            }
        }
        Ok(rooms)
    }

    /// Waits until there is no more than before the first round, or has been waited for long enough.
    async fn settled(&self, progress: &mut Progress) -> anyhow::Result<Traces> {
        let until = Instant::now() + self.settle;
        loop {
            let traces = self.look.look().await?;
            if traces.more_than(&self.before).is_none() || Instant::now() > until {
                return Ok(traces);
            }
            let rooms = self.hall.done.get();
            progress.show(&[Bar { what: "rooms", now: rooms, of: rooms, beside: format!("left: {traces}") }]);
            sleep(LOOK_EVERY).await;
        }
    }
}

/// A room's whole life, as far as a user has to do with it.
async fn visit(hall: Rc<Hall>, url: Rc<str>, round: u32, n: u64) -> anyhow::Result<()> {
    let (room, user) = (format!("{}-{round}-{n}", hall.prefix), format!("visitor-{n}"));
    let mut guest = hall.door.enter(hall.vsn, &url, &room, &user).await?;
    let said = guest.push("new_msg", json!({"broadcast": true, "text": "is anybody there?"}))?;
    if let Err(refused) = guest.answer(said).await? {
        return Err(Broken(format!("{user} may not speak in {room}: {refused}")).into());
    }
    if n.is_multiple_of(2) {
        #[derive(Serialize)]
        struct Empty {}
        let left = guest.push("phx_leave", Empty {})?;
        if let Err(refused) = guest.answer(left).await? {
            return Err(Broken(format!("{user} may not leave {room}: {refused}")).into());
        }
    }
    guest.close().await;
    hall.done.set(hall.done.get() + 1);
    Ok(())
}

/// Which service's memory has grown too much, and how; NATS is not judged.
fn grown(before: &[Cost], after: &[Cost]) -> Option<String> {
    let services = after.iter().filter(|cost| !cost.name.starts_with("nats"));
    services
        .filter_map(|now| {
            let then = before.iter().find(|then| then.pid == now.pid)?.rss_bytes;
            let most = then + then / GROWTH_PART;
            (now.rss_bytes > most).then(|| {
                format!("{} has grown from {} to {} KiB in a round", now.name, then / 1024, now.rss_bytes / 1024)
            })
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_may_grow_by_a_tenth_and_nats_as_it_likes() {
        let cost = |name: &str, pid, rss_bytes| Cost {
            name: name.into(),
            pid,
            cpu_seconds: 0.0,
            rss_bytes,
            peak_rss_bytes: rss_bytes,
        };
        let before = [cost("nats", 1, 1000), cost("history", 2, 1000), cost("gateway-1", 3, 1000)];
        let after = |history, gateway| {
            [cost("nats", 1, 9000), cost("history", 2, history), cost("gateway-1", 3, gateway), cost("new", 4, 9000)]
        };
        assert_eq!(grown(&before, &after(1100, 500)), None);
        assert!(grown(&before, &after(1101, 500)).is_some_and(|what| what.contains("history")));
        assert!(grown(&before, &after(1000, 1200)).is_some_and(|what| what.contains("gateway-1")));
    }
}
