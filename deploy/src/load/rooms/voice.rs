//! What a member of a room does next. Pure: time and chance are told.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::judge::Event;
use super::wire::has_id;

/// After `unavailable`, a message is sent again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Members stay away for up to this time, the square of chance: mostly for a moment.
const AWAY_MAX: Duration = Duration::from_secs(4);

/// How members behave.
#[derive(Clone, Copy, Debug)]
pub(in crate::load) struct Plan {
    /// Between a reply and the next push.
    pub(in crate::load) pace: Duration,
    /// Mean time between a member's leaves and cuts; zero: it stays.
    pub(in crate::load) churn: Duration,
}

/// What a member pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// Its `n`th message.
    Message {
        n: u32,
        event: Event,
        again: bool,
    },
    /// To another member alone.
    Direct {
        to: u16,
    },
    Typing,
}

/// How a push was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    /// Unknown whether it happened.
    Unavailable,
    /// Not before this time.
    Later(Duration),
}

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// With `phx_leave`; comes back on the same socket.
    Leave,
    /// Its socket goes without a word; comes back on another gateway.
    Cut,
}

/// A member's mind.
#[derive(Debug)]
pub(super) struct Voice {
    plan: Plan,
    rng: StdRng,
    me: u16,
    members: u16,
    /// The next new message.
    next: u32,
    open: Option<Push>,
    /// What has to be sent again, and when at the earliest.
    again: Option<(Duration, Push)>,
    /// When it talks next.
    talk_at: Duration,
    /// When it goes next.
    go_at: Option<Duration>,
}

impl Voice {
    pub(super) fn new(plan: Plan, me: u16, members: u16, mut rng: StdRng) -> Voice {
        let go_at = draw(plan.churn, &mut rng);
        Voice { plan, rng, me, members, next: 0, open: None, again: None, talk_at: Duration::ZERO, go_at }
    }

    /// Begins: its time until it goes is counted from now. All begin at the same time, and do not talk at the same time.
    pub(super) fn begin(&mut self, now: Duration) {
        self.go_at = draw(self.plan.churn, &mut self.rng).map(|after| now + after);
        self.talk_at = now + self.plan.pace.mul_f64(self.rng.random());
    }

    /// What it pushes now, having joined; `new`: not only what has to be sent again.
    pub(super) fn talk(&mut self, now: Duration, new: bool) -> Option<Push> {
        if self.open.is_some() {
            return None;
        }
        let push = match self.again {
            Some((at, push)) if at <= now => push,
            None if new && self.talk_at <= now => self.invent(),
            Some(_) | None => return None,
        };
        self.again = None;
        self.open = Some(push);
        Some(push)
    }

    fn invent(&mut self) -> Push {
        let others = self.members.saturating_sub(1);
        match self.rng.random_range(0..100) {
            0..2 => Push::Typing,
            2..4 if others > 0 => {
                let other = self.rng.random_range(0..others);
                Push::Direct { to: if other >= self.me { other + 1 } else { other } }
            }
            chance => {
                let event = if chance < 10 { Event::Say } else { Event::Broadcast };
                self.next += 1;
                Push::Message { n: self.next - 1, event, again: false }
            }
        }
    }

    /// When it has something to push, if nothing comes before.
    pub(super) fn wakes(&self, new: bool) -> Option<Duration> {
        match (&self.open, &self.again) {
            (Some(_), _) => None,
            (None, Some((at, _))) => Some(*at),
            (None, None) => new.then_some(self.talk_at),
        }
    }

    /// Its push was answered.
    pub(super) fn answered(&mut self, answer: Answer, now: Duration) {
        let Some(push) = self.open.take() else { return };
        self.talk_at = now + self.plan.pace;
        self.again = match answer {
            Answer::Ok => None,
            Answer::Unavailable => repeat(push).map(|push| (now + AGAIN_AFTER, push)),
            // It was not taken: the first time is still to come.
            Answer::Later(after) => Some((now + after, push)),
        };
    }

    /// Its channel is gone before the answer came.
    pub(super) fn lost(&mut self, now: Duration) {
        if let Some(push) = self.open.take() {
            self.again = repeat(push).map(|push| (now, push));
        }
    }

    /// When it goes next.
    pub(super) fn goes_at(&self) -> Option<Duration> {
        self.go_at
    }

    /// It goes: how.
    pub(super) fn go(&mut self, now: Duration) -> Go {
        self.go_at = draw(self.plan.churn, &mut self.rng).map(|after| now + after);
        if self.rng.random() { Go::Leave } else { Go::Cut }
    }

    /// How long it stays away.
    pub(super) fn away(&mut self) -> Duration {
        let chance: f64 = self.rng.random();
        AWAY_MAX.mul_f64(chance * chance)
    }
}

/// What is sent again where nobody knows whether it happened: what has an id.
fn repeat(push: Push) -> Option<Push> {
    match push {
        Push::Message { n, event, .. } if has_id(n) => Some(Push::Message { n, event, again: true }),
        Push::Message { .. } | Push::Direct { .. } | Push::Typing => None,
    }
}

/// A time until something happens, of this mean; zero: never.
pub(in crate::load) fn draw(mean: Duration, rng: &mut StdRng) -> Option<Duration> {
    (!mean.is_zero()).then(|| mean.mul_f64(rng.random_range(0.0..2.0)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn voice() -> Voice {
        let plan = Plan { pace: Duration::ZERO, churn: SECOND };
        Voice::new(plan, 1, 3, StdRng::seed_from_u64(1))
    }

    /// Talks until it says such a message.
    fn say(voice: &mut Voice, now: Duration, wanted: impl Fn(u32) -> bool) -> Push {
        loop {
            let push = voice.talk(now, true).expect("it has something to say");
            if matches!(push, Push::Message { n, .. } if wanted(n)) {
                return push;
            }
            voice.answered(Answer::Ok, now);
        }
    }

    #[test]
    fn what_has_an_id_is_sent_again_until_it_is_answered_and_what_has_none_is_not() {
        let mut voice = voice();
        let Push::Message { n, event, .. } = say(&mut voice, Duration::ZERO, has_id) else { panic!("a message") };
        assert_eq!(voice.talk(SECOND, true), None, "one at a time");
        let again = Some(Push::Message { n, event, again: true });
        voice.answered(Answer::Unavailable, Duration::ZERO);
        assert_eq!((voice.talk(Duration::ZERO, true), voice.talk(SECOND, false)), (None, again));
        voice.lost(2 * SECOND);
        assert_eq!((voice.wakes(false), voice.talk(2 * SECOND, false)), (Some(2 * SECOND), again));
        voice.answered(Answer::Ok, 2 * SECOND);
        assert_eq!((voice.wakes(false), voice.talk(2 * SECOND, false)), (None, None));
        say(&mut voice, 2 * SECOND, |n| !has_id(n));
        voice.lost(2 * SECOND);
        assert_eq!(voice.wakes(false), None);
    }

    #[test]
    fn what_was_not_taken_is_sent_later_as_if_for_the_first_time() {
        let mut voice = voice();
        let push = say(&mut voice, Duration::ZERO, |_| true);
        voice.answered(Answer::Later(SECOND), Duration::ZERO);
        assert_eq!((voice.talk(Duration::ZERO, true), voice.talk(SECOND, true)), (None, Some(push)));
    }

    #[test]
    fn messages_are_numbered_and_nobody_writes_to_itself() {
        let mut voice = voice();
        let mut numbers = Vec::new();
        for _ in 0..2_000 {
            match voice.talk(Duration::ZERO, true).expect("it talks") {
                Push::Message { n, .. } => numbers.push(n),
                Push::Direct { to } => assert!(to == 0 || to == 2),
                Push::Typing => {}
            }
            voice.answered(Answer::Ok, Duration::ZERO);
        }
        assert!(numbers.iter().copied().eq(0..u32::try_from(numbers.len()).unwrap()));
    }
}
