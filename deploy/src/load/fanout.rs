//! `switchboard load fanout`: one room, few who speak, many who hear it, and what a delivery costs.
//!
//! Members come first; what is measured begins once all have joined and presence is quiet. Every member hears every
//! message but its own, once, in the order of the log; what it hears is not parsed, only searched.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::guest::{Broken, Door, Guest, first_failure, reply};
use super::lobby::ARRIVALS;
use super::measure::Meter;
use super::progress::{Bar, Progress};
use super::report::FanoutReport;
use super::target::Target;
use super::world::{Times, histogram};
use super::{FanoutArgs, interrupted};
use crate::client::{Incoming, Vsn};

/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Presence is quiet once nobody has heard of it for this long: it collects for 50 ms, and counts go each second.
const QUIET: Duration = Duration::from_millis(1500);
/// The longest that joins and presence may take.
const JOINED_WITHIN: Duration = Duration::from_secs(120);
/// The last message has to be heard so long after it was due; above it, something is lost.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
/// One delivery in so many is timed.
const TIMED_EACH: u64 = 16;
/// Messages a second of one speaker, unless it is told otherwise: below what a member may say.
const SPEAKS_PER_SECOND: f64 = 8.0;

/// Who says what, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    members: u32,
    /// Members 0 to this one speak, in turns.
    speakers: u32,
    /// So many speak in the same moment.
    burst: u32,
    /// Such moments a second.
    rate: f64,
    /// All of them together.
    messages: u32,
}

impl Plan {
    fn new(args: &FanoutArgs) -> anyhow::Result<Plan> {
        let FanoutArgs { members, burst, rate, messages, .. } = *args;
        let groups = |speakers: u32| speakers.div_ceil(burst).max(1);
        let (mut chosen, least) = (1, rate / SPEAKS_PER_SECOND);
        while f64::from(chosen) < least {
            chosen += 1;
        }
        let speakers = args.senders.map_or(chosen, groups).saturating_mul(burst);
        if speakers > members {
            bail!(switchboard_contract::process::UsageError(format!("{members} members cannot be {speakers} senders")));
        }
        Ok(Plan { members, speakers, burst, rate, messages: messages.div_ceil(burst) * burst })
    }

    /// What a member says: the numbers of its messages, each with its time from the start.
    fn says(self, member: u32) -> impl Iterator<Item = (u32, Duration)> {
        let (group, groups) = (member / self.burst, self.speakers / self.burst);
        let turns = if member < self.speakers { self.messages / self.burst } else { 0 };
        (group..turns).step_by(groups.max(1) as usize).map(move |turn| {
            (turn * self.burst + member % self.burst, Duration::from_secs_f64(f64::from(turn) / self.rate))
        })
    }

    /// How many messages a member hears.
    fn hears(self, member: u32) -> u64 {
        u64::from(self.messages) - self.says(member).count() as u64
    }

    fn deliveries(self) -> u64 {
        u64::from(self.messages) * u64::from(self.members.saturating_sub(1))
    }

    fn last_turn(self) -> Duration {
        Duration::from_secs_f64(f64::from(self.messages / self.burst) / self.rate)
    }
}

/// What all members share.
struct Hall {
    plan: Plan,
    vsn: Vsn,
    door: Door,
    room: String,
    fill: String,
    joined: Cell<u32>,
    presence_at: Cell<Instant>,
    /// When the talk begins, once that is known.
    begins: Cell<Option<Instant>>,
    begun: CancellationToken,
    over: CancellationToken,
    /// When each message was said.
    said: RefCell<Vec<Option<Instant>>>,
    answered: Cell<u32>,
    limited: Cell<u32>,
    deliveries: Cell<u64>,
    delivery: RefCell<Histogram<u64>>,
    ack: RefCell<Histogram<u64>>,
}

/// One member, and what it has heard.
struct Member {
    n: u32,
    guest: Guest,
    heard: u64,
    last_seq: u64,
}

/// Runs it.
///
/// # Errors
/// If there is nothing to put load on.
pub(super) async fn run(args: &FanoutArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args)?;
    let target = Target::find(&args.target)?;
    let gateways = args.gateways_used.map_or(target.gateways().len(), usize::from).max(1);
    let mut meter = Meter::start(&args.target.folder)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let began = Instant::now();
    let hall = Rc::new(Hall {
        plan,
        vsn: args.vsn,
        door: Door::new(&args.target.folder)?,
        room: format!("fanout-{now}"),
        fill: "x".repeat(usize::from(args.bytes)),
        joined: Cell::new(0),
        presence_at: Cell::new(began),
        begins: Cell::new(None),
        begun: CancellationToken::new(),
        over: CancellationToken::new(),
        said: RefCell::new(vec![None; plan.messages as usize]),
        answered: Cell::new(0),
        limited: Cell::new(0),
        deliveries: Cell::new(0),
        delivery: RefCell::new(histogram()?),
        ack: RefCell::new(histogram()?),
    });
    let (mut members, arrivals) = (JoinSet::new(), Rc::new(Semaphore::new(ARRIVALS)));
    for (n, url) in (0..plan.members).zip(target.gateways().iter().take(gateways).cycle()) {
        members.spawn_local(play(Rc::clone(&hall), n, Rc::clone(url), Rc::clone(&arrivals)));
    }
    let mut progress = Progress::new();
    let talked = tokio::select! {
        talked = hall.talk(&mut meter, &mut progress) => talked.map(|()| false),
        failed = first_failure(&mut members) => failed.map(|()| false),
        interrupted = interrupted() => interrupted.context("cannot listen to signals").map(|()| true),
    };
    let costs = meter.read()?;
    let ended = Instant::now();
    hall.over.cancel();
    let outcome = match talked {
        Ok(false) => first_failure(&mut members).await.map(|()| false),
        other => other,
    };
    progress.end();
    let End { code, violation, interrupted } = End::of::<Broken>(outcome)?;
    let begun = hall.begins.get().unwrap_or(ended);
    let deliveries = hall.deliveries.get();
    let per_delivery = |seconds: f64| {
        // Below four thousand million deliveries, so that a float holds them.
        1e6 * seconds / f64::from(u32::try_from(deliveries.max(1)).unwrap_or(u32::MAX))
    };
    let report = FanoutReport {
        command: "fanout",
        vsn: if args.vsn == Vsn::V1 { 1 } else { 2 },
        members: plan.members,
        senders: plan.speakers,
        gateways: gateways.min(target.gateways().len()),
        burst: plan.burst,
        rate: plan.rate,
        messages: plan.messages,
        deliveries,
        rate_limited: hall.limited.get(),
        join_seconds: (begun - began).as_secs_f64(),
        talk_seconds: ended.saturating_duration_since(begun).as_secs_f64(),
        gateway_us_per_delivery: per_delivery(costs.of("gateway")),
        us_per_delivery: per_delivery(costs.cpu_seconds),
        delivery_ms: Times::of(&hall.delivery.borrow()),
        ack_ms: Times::of(&hall.ack.borrow()),
        costs,
        violation,
        interrupted,
    };
    report.print(args.target.json)?;
    Ok(code)
}

impl Hall {
    /// Waits until all are there and presence is quiet, has them talk, and waits until all is heard.
    async fn talk(&self, meter: &mut Meter, progress: &mut Progress) -> anyhow::Result<()> {
        let (mut looks, arrived_by) = (interval(LOOK_EVERY), Instant::now() + JOINED_WITHIN);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let bar = |what, now, of| Bar { what, now, of, beside: String::new() };
        loop {
            looks.tick().await;
            let (joined, heard) = (self.joined.get(), self.deliveries.get());
            let (members, deliveries) = (self.plan.members, self.plan.deliveries());
            progress.show(&[bar("joined", joined.into(), members.into()), bar("delivered", heard, deliveries)]);
            let now = Instant::now();
            match self.begins.get() {
                None if joined == members && now > self.presence_at.get() + QUIET => {
                    meter.restart()?;
                    self.begins.set(Some(Instant::now()));
                    self.begun.cancel();
                }
                None if now > arrived_by => bail!("{joined} of {members} members have joined, or presence never rests"),
                Some(_) if heard == deliveries && self.answered.get() == self.plan.messages => return Ok(()),
                // Who is missing something says so at the end.
                Some(begun) if now > begun + self.plan.last_turn() + HEARD_WITHIN => return Ok(()),
                None | Some(_) => {}
            }
        }
    }
}

/// One member: joins, hears, says what it has to say, and is judged at the end.
async fn play(hall: Rc<Hall>, n: u32, url: Rc<str>, arrivals: Rc<Semaphore>) -> anyhow::Result<()> {
    let arrival = arrivals.acquire().await;
    let guest = hall.door.enter(hall.vsn, &url, &hall.room, &format!("member-{n}")).await?;
    drop(arrival);
    hall.joined.set(hall.joined.get() + 1);
    let mut member = Member { n, guest, heard: 0, last_seq: 0 };
    let talked = member.talk(&hall).await;
    member.guest.close().await;
    talked?;
    if member.heard != hall.plan.hears(n) {
        let (heard, of) = (member.heard, hall.plan.hears(n));
        return Err(Broken(format!("member {n} has heard {heard} messages of {of}")).into());
    }
    Ok(())
}

impl Member {
    async fn talk(&mut self, hall: &Hall) -> anyhow::Result<()> {
        tokio::select! {
            heard = self.hear(hall, None) => return heard.map(drop),
            () = hall.begun.cancelled() => {}
            () = hall.over.cancelled() => return Ok(()),
        }
        let begins = hall.begins.get().unwrap_or_else(Instant::now);
        for (message, at) in hall.plan.says(self.n) {
            let mut at = begins + at;
            loop {
                tokio::select! {
                    heard = self.hear(hall, None) => return heard.map(drop),
                    () = sleep_until(at) => {}
                    () = hall.over.cancelled() => return Ok(()),
                }
                // A name of its own, so that it may be said again.
                let payload = json!({"broadcast": true, "id": format!("m{message}"), "n": message, "text": hall.fill});
                let said = Instant::now();
                let reference = self.guest.push("new_msg", payload)?;
                hall.said.borrow_mut()[message as usize].get_or_insert(said);
                let answer = tokio::select! {
                    answer = self.hear(hall, Some(reference)) => answer?,
                    () = hall.over.cancelled() => return Err(Broken(format!("message {message} got no answer")).into()),
                };
                match answer {
                    Ok(_) => {
                        hall.ack.borrow_mut().saturating_record(micros(said.elapsed()));
                        hall.answered.set(hall.answered.get() + 1);
                        break;
                    }
                    Err(refused) => {
                        let after = refused["retry_after_ms"].as_u64().filter(|_| refused["reason"] == "rate_limited");
                        let Some(after) = after else {
                            return Err(Broken(format!("message {message} was refused: {refused}")).into());
                        };
                        hall.limited.set(hall.limited.get() + 1);
                        at = Instant::now() + Duration::from_millis(after);
                    }
                }
            }
        }
        tokio::select! {
            heard = self.hear(hall, None) => heard.map(drop),
            () = hall.over.cancelled() => Ok(()),
        }
    }

    /// Reads until the answer to this push comes; for ever, if there is none.
    async fn hear(&mut self, hall: &Hall, wanted: Option<u64>) -> anyhow::Result<Result<Value, Value>> {
        loop {
            let incoming = self.guest.next().await?;
            if incoming.text().is_some_and(|text| text.contains("\"new_msg\"")) {
                self.heard(hall, &incoming)?;
            } else if let Some((to, answer)) = reply(&incoming)? {
                if Some(to) == wanted {
                    return Ok(answer);
                }
            } else {
                hall.presence_at.set(Instant::now());
            }
        }
    }

    fn heard(&mut self, hall: &Hall, incoming: &Incoming) -> anyhow::Result<()> {
        let text = incoming.text().unwrap_or_default();
        let seq = number_behind(text, "\"seq\":").ok_or_else(|| Broken(format!("a message without seq: {text}")))?;
        if seq <= self.last_seq {
            let (n, last) = (self.n, self.last_seq);
            return Err(Broken(format!("member {n} has heard seq {seq} behind {last}")).into());
        }
        (self.last_seq, self.heard) = (seq, self.heard + 1);
        hall.deliveries.set(hall.deliveries.get() + 1);
        if (self.heard + u64::from(self.n)).is_multiple_of(TIMED_EACH) {
            let message = number_behind(text, "\"n\":").and_then(|n| usize::try_from(n).ok());
            let said = message.and_then(|n| *hall.said.borrow().get(n)?);
            let said = said.ok_or_else(|| Broken(format!("nobody has said {text}")))?;
            hall.delivery.borrow_mut().saturating_record(micros(said.elapsed()));
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The number that stands behind the last place of this key.
fn number_behind(text: &str, key: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(key)?;
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_without_parsing() {
        let text = r#"[null,null,"room:a","new_msg",{"n":7,"text":"x","from":{},"seq":1795287862000013,"at":"x"}]"#;
        assert_eq!(number_behind(text, "\"seq\":"), Some(1_795_287_862_000_013));
        assert_eq!(number_behind(text, "\"n\":"), Some(7));
        assert_eq!((number_behind(text, "\"m\":"), number_behind("\"n\":x", "\"n\":")), (None, None));
        assert_eq!(number_behind("\"n\":12", "\"n\":"), Some(12));
    }

    #[test]
    fn speakers_take_turns_and_a_burst_is_one_moment() {
        let plan = Plan { members: 10, speakers: 4, burst: 2, rate: 2.0, messages: 6 };
        let says = |member| plan.says(member).map(|(n, at)| (n, at.as_millis())).collect::<Vec<_>>();
        assert_eq!(says(0), [(0, 0), (4, 1000)]);
        assert_eq!(says(1), [(1, 0), (5, 1000)]);
        assert_eq!(says(2), [(2, 500)]);
        assert_eq!(says(3), [(3, 500)]);
        assert_eq!(says(4), []);
        assert_eq!((plan.hears(0), plan.hears(2), plan.hears(9), plan.deliveries()), (4, 5, 6, 54));
        let all: u64 = (0..10).map(|member| plan.hears(member)).sum();
        assert_eq!(all, plan.deliveries());
        assert_eq!(plan.last_turn(), Duration::from_millis(1500));
    }
}
