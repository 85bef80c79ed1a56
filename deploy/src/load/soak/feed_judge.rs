//! What members of feeds may see over a long time. Pure; times are counted from the start of the run.
//!
//! Nobody counts the polls here. What is judged: a channel's versions grow, a version is one value for all, what one
//! member is shown all are shown, nothing stays stale, and `feed:lobby` says what teachers are told by `user:status`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::checker::Counts;
use super::super::guest::Broken;

/// The feeds' interval of a second, and what a take-over may take beside it.
const SILENCE_MAX: Duration = Duration::from_secs(7);
/// After this time a source that is there answers again.
const STALE_MAX: Duration = Duration::from_secs(30);
/// Versions that are remembered of a feed; members lack no older ones.
const VERSIONS_MAX: usize = 1_000;

/// Which value it is: the owner's epoch, and a number.
pub(super) type Version = (u64, u64);

/// What a reply to a join and an `update` say; null before the first poll.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    pub(super) value: Value,
    pub(super) version: Option<Version>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    joined: Option<Duration>,
    last: Option<Version>,
    stale: Option<Duration>,
}

/// One feed.
#[derive(Debug)]
pub(super) struct Judge {
    topic: &'static str,
    members: Vec<Member>,
    /// When each was shown first, and a digest of its value.
    versions: BTreeMap<Version, (Duration, u64)>,
    /// What the newest value says of students, if it does: total, waiting, chatting, finished.
    says: Option<[u64; 4]>,
    /// When that was so last, or became the newest value.
    agreed: Duration,
    /// Values that were shown, and times that a member was told of one, or of a stale one.
    pub(super) values: u64,
    pub(super) updates: u64,
    pub(super) stales: u64,
}

impl Judge {
    pub(super) fn new(topic: &'static str, members: usize) -> Judge {
        Judge {
            topic,
            members: vec![Member::default(); members],
            versions: BTreeMap::new(),
            says: None,
            agreed: Duration::ZERO,
            values: 0,
            updates: 0,
            stales: 0,
        }
    }

    fn broken<T>(&self, member: usize, what: impl std::fmt::Display) -> Result<T, Broken> {
        Err(Broken(format!("{}, member {member}: {what}", self.topic)))
    }

    /// A member has joined.
    ///
    /// # Errors
    /// If its version is another value for others.
    pub(super) fn joined(&mut self, at: Duration, member: usize, shown: &Shown) -> Result<(), Broken> {
        self.members[member] = Member { joined: Some(at), last: shown.version, stale: None };
        shown.version.map_or(Ok(()), |version| self.note(at, member, version, &shown.value))
    }

    /// A member's channel is gone.
    pub(super) fn lost(&mut self, member: usize) {
        self.members[member] = Member::default();
    }

    /// Whether all members have joined.
    pub(super) fn all_are_here(&self) -> bool {
        self.members.iter().all(|member| member.joined.is_some())
    }

    /// A member is told that the value is stale.
    pub(super) fn stale(&mut self, at: Duration, member: usize) {
        self.members[member].stale.get_or_insert(at);
        self.stales += 1;
    }

    /// A member is shown an `update`.
    ///
    /// # Errors
    /// If it is no newer one, without having been stale, or another value than others were shown.
    pub(super) fn updated(&mut self, at: Duration, member: usize, shown: &Shown) -> Result<(), Broken> {
        let Some(version) = shown.version else { return self.broken(member, "an update without a version") };
        let Member { last, stale, .. } = self.members[member];
        let again = stale.is_some() && last == Some(version);
        if last.is_some_and(|last| version <= last) && !again {
            return self.broken(member, format_args!("version {version:?} came after {last:?}"));
        }
        self.members[member].last = Some(version);
        self.members[member].stale = None;
        self.updates += 1;
        self.note(at, member, version, &shown.value)
    }

    fn note(&mut self, at: Duration, member: usize, version: Version, value: &Value) -> Result<(), Broken> {
        let mut hasher = DefaultHasher::new();
        value.to_string().hash(&mut hasher);
        let digest = hasher.finish();
        match self.versions.get(&version) {
            Some((_, known)) if *known == digest => return Ok(()),
            Some(_) => return self.broken(member, format_args!("version {version:?} is {value}, and was another")),
            None => {}
        }
        self.versions.insert(version, (at, digest));
        self.values += 1;
        if self.versions.len() > VERSIONS_MAX {
            self.versions.pop_first();
        }
        if self.versions.last_key_value().is_some_and(|(newest, _)| *newest == version) {
            let student = |name: &str| value.get("students")?.get(name)?.as_u64();
            let says = ["total", "waiting", "chatting", "finished"].map(student);
            self.says = says.iter().all(Option::is_some).then(|| says.map(Option::unwrap_or_default));
            self.agreed = at;
        }
        Ok(())
    }

    /// Judges what does not come. `lobby`: what a teacher was told last; `calm`: since when nothing is down.
    ///
    /// # Errors
    /// If a member lacks what others have, or is stale, or the lobby is another than the feed says, for too long.
    pub(super) fn look(&mut self, now: Duration, lobby: Option<Counts>, calm: Duration) -> Result<(), Broken> {
        let late = |since: Duration, most| now.saturating_sub(since.max(calm)) > most;
        for (member, Member { joined, last, stale }) in self.members.iter().enumerate() {
            let Some(joined) = *joined else { continue };
            if stale.is_some_and(|since| late(since, STALE_MAX)) {
                return self.broken(member, format_args!("stale for {} s", STALE_MAX.as_secs()));
            }
            let newer = (last.map_or(Unbounded, Excluded), Unbounded);
            if stale.is_none()
                && let Some((version, (shown, _))) = self.versions.range(newer).next()
                && late(joined.max(*shown), SILENCE_MAX)
            {
                let seconds = SILENCE_MAX.as_secs();
                return self
                    .broken(member, format_args!("it lacks version {version:?} {seconds} s after others had it"));
            }
        }
        let (Some(lobby), Some(says)) = (lobby, self.says) else { return Ok(()) };
        let is = [lobby.students, lobby.waiting, lobby.chatting, lobby.finished];
        if says == is || self.members.iter().all(|member| member.joined.is_none() || member.stale.is_some()) {
            self.agreed = now;
        } else if late(self.agreed, SILENCE_MAX) {
            let seconds = SILENCE_MAX.as_secs();
            let what = format!("for {seconds} s it has said {says:?} of students, and teachers were never told that");
            return Err(Broken(format!("{}: {what}, but {is:?} in the end", self.topic)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn shown(n: u64, total: u64) -> Shown {
        let students = json!({"total": total, "waiting": total, "chatting": 0, "finished": 0});
        Shown { value: json!({"teachers": {"total": 1}, "students": students}), version: Some((1, n)) }
    }

    fn counts(students: u64) -> Option<Counts> {
        Some(Counts { teachers: 1, students, waiting: students, chatting: 0, finished: 0 })
    }

    fn words(outcome: Result<(), Broken>) -> String {
        outcome.expect_err("a violation").to_string()
    }

    /// Two members that have version 1, which says that 5 students are there.
    fn judge() -> Judge {
        let mut judge = Judge::new("feed:lobby", 2);
        for member in 0..2 {
            judge.joined(SECOND, member, &shown(1, 5)).expect("joined");
        }
        judge
    }

    #[test]
    fn versions_grow_and_are_one_value_for_all() {
        let mut judge = judge();
        judge.updated(2 * SECOND, 0, &shown(2, 6)).expect("the next");
        assert!(words(judge.updated(2 * SECOND, 0, &shown(2, 6))).contains("after"), "twice");
        assert!(words(judge.updated(2 * SECOND, 1, &shown(2, 7))).contains("was another"));
        judge.stale(3 * SECOND, 0);
        judge.updated(3 * SECOND, 0, &shown(2, 6)).expect("no longer stale");
        assert!(words(judge.updated(3 * SECOND, 0, &shown(1, 5))).contains("after"), "backwards");
        assert_eq!((judge.values, judge.stales), (2, 1));
    }

    #[test]
    fn what_one_is_shown_all_are_shown_unless_something_was_down() {
        let mut judge = judge();
        judge.updated(2 * SECOND, 0, &shown(2, 6)).expect("the next");
        judge.look(9 * SECOND, None, Duration::ZERO).expect("soon enough");
        assert!(words(judge.look(10 * SECOND, None, Duration::ZERO)).contains("member 1: it lacks version (1, 2)"));
        judge.look(10 * SECOND, None, 4 * SECOND).expect("something was down until then");
        judge.stale(10 * SECOND, 1);
        judge.look(30 * SECOND, None, Duration::ZERO).expect("it was told that it is stale");
        assert!(words(judge.look(41 * SECOND, None, Duration::ZERO)).contains("stale for 30 s"));
        judge.lost(1);
        judge.look(41 * SECOND, None, Duration::ZERO).expect("it is not there");
    }

    #[test]
    fn the_feed_says_what_teachers_are_told() {
        let mut judge = judge();
        judge.look(2 * SECOND, counts(5), Duration::ZERO).expect("it agrees");
        for at in 3..=9 {
            judge.look(at * SECOND, counts(u64::from(at)), Duration::ZERO).expect("an update may be on its way");
        }
        judge.look(9 * SECOND, counts(5), Duration::ZERO).expect("it agrees again");
        judge.look(16 * SECOND, counts(6), Duration::ZERO).expect("not too late yet");
        judge.look(17 * SECOND, counts(6), 11 * SECOND).expect("something was down until then");
        assert!(words(judge.look(17 * SECOND, counts(6), Duration::ZERO)).contains("for 7 s it has said [5, 5, 0, 0]"));
    }
}
