//! What members of one feed may see, and what they saw. Pure; times are counted from the start of the run.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use serde::Serialize;

use super::super::guest::Broken;

/// The feed's interval, as `deploy/load-feeds.toml` has it.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// What is lost inside the system is made good within this time: rule E4 of the protocol.
const MADE_GOOD_WITHIN: Duration = Duration::from_secs(4);
/// Beside an interval, nobody waits for longer than this for a fresh value after the owner was killed or paused.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(6);
/// The same after an owner that says goodbye.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(1);

/// Which value it is: the owner's epoch, and a number.
pub(super) type Version = (u64, u64);

/// What is done to the feed's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::load) enum Strike {
    /// SIGKILL; the runner starts it again.
    Kill,
    /// SIGSTOP, and after --pause SIGCONT.
    Pause,
    /// SIGTERM: it hands its feeds over; the runner starts it again.
    Drain,
}

impl Strike {
    /// As on the command line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Strike::Kill => "kill",
            Strike::Pause => "pause",
            Strike::Drain => "drain",
        }
    }

    /// The longest that a member may be without a fresh value.
    fn silence_max(self) -> Duration {
        match self {
            Strike::Kill | Strike::Pause => INTERVAL + TAKEN_OVER_WITHIN,
            Strike::Drain => INTERVAL + HANDED_OVER_WITHIN,
        }
    }
}

/// A strike, and what is owed to it: everything until the next one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Struck {
    pub(super) strike: Strike,
    pub(super) at: Duration,
    /// The longest that a member was without a fresh value.
    pub(super) silence: Duration,
    /// Epochs that began.
    pub(super) take_overs: u32,
}

/// What is counted from [`Judge::begin`] on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Values that members were shown.
    pub(super) deliveries: u64,
    /// Values that a member was not shown, because a newer one came right after: one for each member.
    pub(super) left_out: u64,
    /// Events `stale`, one for each member.
    pub(super) stale: u64,
    /// The longest that a member was without a fresh value.
    pub(super) silence: Duration,
    /// Epochs that began.
    pub(super) take_overs: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    last: Option<Version>,
    /// When it was last shown a value that was new to it.
    fresh: Option<Duration>,
    stale: bool,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    n: i64,
    /// When the first member was shown it.
    at: Duration,
}

/// Judges what the members of a run see.
#[derive(Debug)]
pub(super) struct Judge {
    members: Vec<Member>,
    values: BTreeMap<Version, Value>,
    strikes: Vec<Struck>,
    /// The newest value when judging began.
    first: Option<Version>,
    tally: Tally,
}

impl Judge {
    pub(super) fn new(members: usize) -> Judge {
        Judge {
            members: vec![Member::default(); members],
            values: BTreeMap::new(),
            strikes: Vec::new(),
            first: None,
            tally: Tally::default(),
        }
    }

    /// A member has joined, and its reply says this; `None`: there is no value yet.
    ///
    /// # Errors
    /// If it cannot be.
    pub(super) fn joined(&mut self, at: Duration, member: usize, value: Option<(Version, i64)>) -> Result<(), Broken> {
        if let Some((version, n)) = value {
            self.note(at, version, n)?;
            self.members[member].last = Some(version);
        }
        Ok(())
    }

    /// A member is shown an `update`.
    ///
    /// # Errors
    /// If it cannot be, or comes too late.
    pub(super) fn updated(&mut self, at: Duration, member: usize, version: Version, n: i64) -> Result<(), Broken> {
        self.note(at, version, n)?;
        let Member { last, fresh, stale } = self.members[member];
        if let Some(last) = last {
            if version == last && stale {
                self.members[member].stale = false;
                return Ok(());
            }
            if version <= last {
                return Err(Broken(format!("member {member} was shown version {version:?} after {last:?}")));
            }
            self.overdue(at, member, last)?;
            let between = self.values.range((Excluded(last), Excluded(version))).count();
            self.tally.left_out += u64::try_from(between).unwrap_or(0);
        }
        self.silent(at, member, fresh)?;
        self.members[member] = Member { last: Some(version), fresh: Some(at), stale: false };
        self.tally.deliveries += 1;
        Ok(())
    }

    /// A member is told that the value is stale.
    pub(super) fn stale(&mut self, member: usize) {
        self.members[member].stale = true;
        self.tally.stale += 1;
    }

    /// Whether every member has joined, and has been shown a value since.
    pub(super) fn is_fresh(&self) -> bool {
        self.members.iter().all(|member| member.fresh.is_some())
    }

    /// From now on silence is judged, and everything is counted.
    pub(super) fn begin(&mut self) {
        self.tally = Tally::default();
        self.first = self.values.last_key_value().map(|(version, _)| *version);
    }

    /// The owner is about to be struck.
    pub(super) fn struck(&mut self, at: Duration, strike: Strike) {
        self.strikes.push(Struck { strike, at, silence: Duration::ZERO, take_overs: 0 });
    }

    /// Whether members were shown a value of a new epoch since the last strike.
    pub(super) fn is_taken_over(&self) -> bool {
        self.strikes.last().is_some_and(|struck| struck.take_overs > 0)
    }

    /// Whether a value was shown that nobody had been shown before this time.
    pub(super) fn has_value_since(&self, at: Duration) -> bool {
        self.values.last_key_value().is_some_and(|(_, value)| value.at >= at)
    }

    /// Judges what does not come. To be called often.
    ///
    /// # Errors
    /// If a member waits for too long.
    pub(super) fn look(&mut self, now: Duration) -> Result<(), Broken> {
        for member in 0..self.members.len() {
            let Member { last, fresh, .. } = self.members[member];
            last.map_or(Ok(()), |last| self.overdue(now, member, last))?;
            self.silent(now, member, fresh)?;
        }
        Ok(())
    }

    /// Whether all members have been shown the newest value.
    pub(super) fn is_settled(&self) -> bool {
        let newest = self.values.last_key_value().map(|(version, _)| *version);
        self.members.iter().all(|member| member.last == newest)
    }

    /// The values between which polls are counted: the newest when judging began, and the last that all were shown, or
    /// something newer.
    pub(super) fn ends(&self) -> Option<(i64, i64)> {
        let last = self.members.iter().map(|member| member.last).min()??;
        let n = |version| self.values.get(&version).map(|value| value.n);
        Some((n(self.first?)?, n(last)?))
    }

    /// Values shown since judging began.
    pub(super) fn values(&self) -> usize {
        self.first.map_or(0, |first| self.values.range((Excluded(first), Unbounded)).count())
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn strikes(&self) -> &[Struck] {
        &self.strikes
    }

    /// A version is one value, and a newer version a later one.
    fn note(&mut self, at: Duration, version: Version, n: i64) -> Result<(), Broken> {
        if let Some(known) = self.values.get(&version) {
            let same = known.n == n;
            return if same { Ok(()) } else { Err(Broken(format!("version {version:?} is {} and {n}", known.n))) };
        }
        let before = self.values.range(..version).next_back();
        let after = self.values.range((Excluded(version), Unbounded)).next();
        if let Some((other, value)) =
            before.filter(|(_, value)| value.n >= n).or(after.filter(|(_, value)| value.n <= n))
        {
            let known = value.n;
            return Err(Broken(format!("version {version:?} is poll {n}, and version {other:?} is poll {known}")));
        }
        if after.is_none() && before.is_some_and(|((epoch, _), _)| *epoch < version.0) {
            self.tally.take_overs += 1;
            if let Some(struck) = self.strikes.last_mut() {
                struck.take_overs += 1;
            }
        }
        self.values.insert(version, Value { n, at });
        let passed = self.members.iter().filter(|member| member.last > Some(version)).count();
        self.tally.left_out += u64::try_from(passed).unwrap_or(0);
        Ok(())
    }

    /// Who has not been shown a value that another member was, nor a newer one, is shown it soon.
    fn overdue(&self, now: Duration, member: usize, last: Version) -> Result<(), Broken> {
        match self.values.range((Excluded(last), Unbounded)).next() {
            Some((version, value)) if now > value.at + MADE_GOOD_WITHIN => {
                let seconds = (now - value.at).as_secs_f64();
                Err(Broken(format!("member {member} lacks version {version:?}, {seconds:.1} s after others had it")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A member has been without a fresh value until now.
    fn silent(&mut self, now: Duration, member: usize, fresh: Option<Duration>) -> Result<(), Broken> {
        let Some(fresh) = fresh.filter(|_| self.first.is_some()) else { return Ok(()) };
        let silence = now.saturating_sub(fresh);
        self.tally.silence = self.tally.silence.max(silence);
        let (most, behind) = match self.strikes.last_mut() {
            Some(struck) => {
                struck.silence = struck.silence.max(silence);
                let after = now.saturating_sub(struck.at).as_secs_f64();
                (struck.strike.silence_max(), format!(", {after:.1} s after a {}", struck.strike.as_str()))
            }
            None => (MADE_GOOD_WITHIN, String::new()),
        };
        if silence > most {
            let (silence, most) = (silence.as_secs_f64(), most.as_secs_f64());
            return Err(Broken(format!("member {member} had no fresh value for {silence:.2} s (of {most} s){behind}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Two members that have been shown version (1, 1), poll 10, at 0 s.
    fn judge() -> Judge {
        let mut judge = Judge::new(2);
        for member in 0..2 {
            assert!(!judge.is_fresh());
            judge.joined(ms(0), member, None).expect("nothing yet");
            judge.updated(ms(0), member, (1, 1), 10).expect("the first value");
        }
        judge.begin();
        judge
    }

    fn words(outcome: Result<(), Broken>) -> String {
        outcome.expect_err("a violation").to_string()
    }

    #[test]
    fn values_that_all_see_are_counted() {
        let mut judge = judge();
        for member in 0..2 {
            judge.updated(ms(1000), member, (1, 2), 11).expect("the next");
            judge.updated(ms(2000), member, (3, 1), 12).expect("of another owner");
        }
        judge.look(ms(2100)).expect("all is well");
        let tally = Tally { deliveries: 4, left_out: 0, stale: 0, silence: ms(1000), take_overs: 1 };
        assert_eq!((judge.tally(), judge.values(), judge.ends()), (tally, 2, Some((10, 12))));
        assert!(judge.is_settled() && judge.is_fresh());
    }

    #[test]
    fn versions_only_grow() {
        let mut judge = judge();
        judge.updated(ms(1000), 0, (1, 2), 11).expect("the next");
        assert!(words(judge.updated(ms(1100), 0, (1, 1), 10)).contains("member 0 was shown version (1, 1) after"));
        assert!(words(judge.updated(ms(1100), 0, (1, 2), 11)).contains("after"), "twice");
        judge.stale(0);
        judge.updated(ms(1200), 0, (1, 2), 11).expect("no longer stale");
        assert!(words(judge.updated(ms(1200), 0, (1, 2), 11)).contains("after"), "twice");
        assert_eq!((judge.tally().stale, judge.tally().deliveries), (1, 1));
    }

    #[test]
    fn a_version_is_one_value_and_a_newer_one_a_later_poll() {
        let mut judge = judge();
        judge.updated(ms(1000), 0, (1, 2), 12).expect("the next");
        assert!(words(judge.updated(ms(1000), 1, (1, 2), 13)).contains("is 12 and 13"));
        assert!(words(judge.updated(ms(2000), 0, (1, 3), 11)).contains("is poll 11"));
        assert!(words(judge.updated(ms(2000), 1, (1, 1), 11)).contains("is 10 and 11"));
        assert!(words(judge.joined(ms(2000), 1, Some(((0, 9), 10)))).contains("is poll 10"));
    }

    #[test]
    fn a_value_is_left_out_only_where_a_newer_one_comes_soon() {
        let mut judge = judge();
        judge.updated(ms(1000), 0, (1, 2), 11).expect("the next");
        judge.updated(ms(2000), 0, (1, 3), 12).expect("the next");
        assert!(!judge.is_settled());
        judge.look(ms(3900)).expect("not yet");
        judge.updated(ms(3900), 1, (1, 3), 12).expect("in time");
        assert_eq!((judge.tally().left_out, judge.ends()), (1, Some((10, 12))));
        // One that others pass before anybody is shown it.
        judge.updated(ms(4000), 1, (1, 5), 14).expect("the next but one");
        judge.updated(ms(4000), 0, (1, 4), 13).expect("the next");
        assert_eq!((judge.tally().left_out, judge.ends()), (2, Some((10, 13))));
        judge.updated(ms(7900), 1, (1, 6), 15).expect("the next");
        judge.updated(ms(7950), 1, (1, 7), 16).expect("the next");
        assert!(words(judge.look(ms(8001))).contains("member 0 lacks version (1, 5), 4.0 s after"));
        assert!(words(judge.updated(ms(8001), 0, (1, 7), 16)).contains("member 0 lacks version (1, 5)"));
    }

    #[test]
    fn silence_has_a_bound_for_each_strike_and_one_without() {
        for (strike, most) in [(None, 4000), (Some(Strike::Kill), 7000), (Some(Strike::Drain), 2000)] {
            let mut judge = judge();
            if let Some(strike) = strike {
                judge.struck(ms(500), strike);
            }
            judge.look(ms(most)).expect("not yet");
            assert!(words(judge.look(ms(most + 1))).contains("member 0 had no fresh value for"), "{strike:?}");
            assert!(words(judge.updated(ms(most + 1), 1, (2, 1), 11)).contains("member 1 had no"), "{strike:?}");
        }
        assert_eq!(Strike::Pause.silence_max(), Strike::Kill.silence_max());
    }

    #[test]
    fn silence_and_take_overs_are_those_of_the_last_strike() {
        let mut judge = judge();
        judge.struck(ms(500), Strike::Pause);
        assert!(!judge.is_taken_over() && judge.has_value_since(ms(0)) && !judge.has_value_since(ms(1)));
        for member in 0..2 {
            judge.updated(ms(6000), member, (4, 1), 11).expect("in time");
        }
        assert!(judge.is_taken_over() && judge.has_value_since(ms(6000)));
        judge.struck(ms(6100), Strike::Drain);
        judge.updated(ms(7500), 1, (4, 2), 12).expect("in time");
        let strikes: Vec<_> = judge.strikes().iter().map(|s| (s.strike, s.silence, s.take_overs)).collect();
        assert_eq!(strikes, [(Strike::Pause, ms(6000), 1), (Strike::Drain, ms(1500), 0)]);
    }
}
