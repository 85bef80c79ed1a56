//! What is allowed and refused, with a clock that is given.

use std::num::NonZeroU32;

use super::*;

/// A limiter at a time that moves when it is told to.
struct At {
    limiter: Limiter,
    now: Instant,
}

fn quota(rate: u32, burst: u32) -> Option<Quota> {
    let number = |n| NonZeroU32::new(n).expect("not 0");
    Some(Quota::per_second(number(rate)).allow_burst(number(burst)))
}

fn within(count: usize, seconds: u64) -> Option<Within> {
    Some(Within { count, window: Duration::from_secs(seconds) })
}

fn user(name: &str) -> UserId {
    UserId::text(name).expect("an id")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl At {
    fn new(rates: Rates) -> At {
        let now = Instant::now();
        At { limiter: Limiter::new(rates, now), now }
    }

    fn after(&mut self, time: Duration) -> &mut At {
        self.now += time;
        self
    }

    fn join(&self, name: &str) -> Result<(), Refused> {
        self.limiter.join(&user(name), self.now)
    }

    fn direct(&self, name: &str) -> Result<(), Refused> {
        self.limiter.direct(&user(name), self.now)
    }

    fn say(&self, text: &str, id: Option<&str>) -> Result<(), Refused> {
        self.limiter.say(&user("ada"), Some(text), id, self.now)
    }

    fn wordless(&self) -> Result<(), Refused> {
        self.limiter.say(&user("ada"), None, None, self.now)
    }
}

fn refused(after: Duration) -> Result<(), Refused> {
    Err(Refused { after, out: false })
}

#[test]
fn each_rate_has_its_burst_and_says_truly_when_there_is_more() {
    let rates =
        Rates { broadcasts: quota(10, 30), directs: quota(200, 1_000), joins: quota(50, 100), ..Rates::default() };
    let mut at = At::new(rates);
    type Do = fn(&At) -> Result<(), Refused>;
    let all: [(Do, usize, Duration); 3] =
        [(At::wordless, 30, ms(100)), (|at| at.direct("ada"), 1_000, ms(5)), (|at| at.join("ada"), 100, ms(20))];
    for (act, burst, interval) in all {
        for _ in 0..burst {
            assert_eq!(act(&at), Ok(()));
        }
        for _ in 0..100 {
            assert_eq!(act(&at), refused(interval), "and what is refused uses up nothing");
        }
        at.after(interval - Duration::from_nanos(1));
        assert_eq!(act(&at), refused(Duration::from_nanos(1)));
        at.after(Duration::from_nanos(1));
        assert_eq!((act(&at), act(&at)), (Ok(()), refused(interval)));
        let early = Refused { after: interval - Duration::from_nanos(1), out: false };
        let ms = u64::try_from(interval.as_millis()).expect("a number");
        assert_eq!(early.refusal(), Refusal::rate_limited(ms), "rounded up");
    }
    assert_eq!(at.direct("bob"), Ok(()), "others have their own");
}

#[test]
fn without_limits_nothing_is_refused() {
    let at = At::new(Rates::default());
    assert!((0..2_000).all(|_| at.say("x", None).is_ok() && at.join("ada").is_ok() && at.direct("ada").is_ok()));
    assert!(!at.limiter.hears());
}

#[test]
fn the_fifth_time_the_same_text_is_refused_until_the_first_was_long_ago() {
    let mut at = At::new(Rates { repeats: within(5, 10), ..Rates::default() });
    for n in 0..4 {
        assert_eq!(at.say("buy", None), Ok(()), "{n}");
        at.after(ms(1_000));
    }
    assert_eq!(at.say("buy", None), refused(ms(6_000)));
    assert_eq!(at.say("buy", Some("k")), refused(ms(6_000)), "an id makes no difference");
    assert!((0..9).all(|n| at.say(&n.to_string(), None).is_ok() && at.wordless().is_ok()), "other texts, or none");
    assert_eq!(at.after(ms(5_999)).say("buy", None), refused(ms(1)));
    assert_eq!(at.after(ms(1)).say("buy", None), Ok(()), "what was refused does not count");
    assert_eq!(at.say("buy", None), refused(ms(1_000)));
    assert_eq!(at.limiter.say(&user("bob"), Some("buy"), None, at.now), Ok(()), "somebody else");
}

#[test]
fn the_same_message_sent_again_counts_once() {
    let mut at = At::new(Rates { repeats: within(5, 10), ..Rates::default() });
    assert!((0..20).all(|_| at.say("hi", Some("k")).is_ok()));
    assert!((0..3).all(|_| at.say("hi", None).is_ok()));
    assert!(at.say("hi", None).is_err());
    assert!(at.say("hi", Some("other")).is_err());
    assert!(at.say("hi", Some("k")).is_ok(), "it is stored already");
    assert!(at.say("ho", Some("k")).is_ok());
    assert!(at.after(ms(10_000)).say("hi", Some("other")).is_ok());
}

#[test]
fn what_one_limit_refuses_uses_up_nothing_of_another() {
    let mut at = At::new(Rates { broadcasts: quota(10, 4), repeats: within(3, 10), ..Rates::default() });
    assert!(at.say("a", None).is_ok() && at.say("a", None).is_ok());
    assert!((0..10).all(|_| at.say("a", None).is_err()), "a repetition takes nothing of the rate");
    assert!(at.say("b", None).is_ok() && at.say("c", None).is_ok());
    assert!((0..10).all(|_| at.say("d", None) == refused(ms(100))));
    assert!(at.after(ms(200)).say("d", None).is_ok() && at.say("d", None).is_ok(), "nor the rate of repetitions");
}

#[test]
fn who_goes_on_is_out_and_waits() {
    let rates = Rates {
        directs: quota(1, 1),
        joins: quota(1, 2),
        refusals: within(100, 10),
        ban: ms(10_000),
        ..Rates::default()
    };
    let mut at = At::new(rates);
    at.direct("eve").expect("the first");
    let outs = |at: &At, n| (0..n).filter(|_| at.direct("eve").is_err_and(|refused| refused.out)).count();
    assert_eq!(outs(&at, 99), 0);
    at.after(ms(10_000));
    at.direct("eve").expect("one more");
    assert_eq!(outs(&at, 99), 0, "the others are too long ago");
    assert_eq!(at.limiter.banned(&user("eve"), at.now), None);
    assert_eq!(at.join("eve"), Ok(()));
    assert_eq!(outs(&at, 1), 1);
    assert_eq!(at.limiter.banned(&user("eve"), at.now), Some(ms(10_000)));
    assert_eq!(at.after(ms(4_000)).join("eve"), refused(ms(6_000)), "a new socket lives on, without a join");
    at.direct("eve").expect("another socket of hers, as it may");
    assert_eq!(outs(&at, 1), 1, "and if it goes on, it is out too");
    assert_eq!(at.limiter.banned(&user("eve"), at.now), Some(ms(6_000)), "no longer for that");
    assert_eq!((at.join("bob"), at.limiter.banned(&user("bob"), at.now)), (Ok(()), None));
    assert_eq!(at.after(ms(6_000)).join("eve"), Ok(()));
    assert_eq!(outs(&at, 50), 0, "it begins anew");
}

#[test]
fn wrong_secrets_count_as_refusals_and_the_right_one_waits_as_long() {
    let mut at = At::new(Rates { refusals: within(3, 10), ban: ms(5_000), ..Rates::default() });
    for who in [None, Some(user("ada"))] {
        let guess = |at: &At, right| at.limiter.guess(who.as_ref(), right, at.now);
        assert!((0..20).all(|_| guess(&at, true) == Ok(false)), "the right one does not count");
        assert_eq!([guess(&at, false), guess(&at, false), guess(&at, false)], [Ok(false), Ok(false), Ok(true)]);
        assert_eq!(at.limiter.guess(Some(&user("bob")), true, at.now), Ok(false), "somebody else");
        at.after(ms(1_000));
        let waits = Err(Refused { after: ms(4_000), out: false });
        assert_eq!([guess(&at, false), guess(&at, true)], [waits, waits]);
        assert_eq!(at.join("ada").is_err(), who.is_some());
        at.after(ms(4_000));
        assert_eq!(guess(&at, true), Ok(false));
    }
}

#[test]
fn users_are_forgotten_when_nothing_counts_any_more_and_there_is_a_most() {
    let mut at = At::new(Rates { joins: quota(1, 5), repeats: within(2, 3), ..Rates::default() });
    assert!((0..5).all(|_| at.join("ada").is_ok()));
    at.after(ms(2_000)).join("bob").expect("allowed");
    assert_eq!(at.limiter.sweep(at.now), 2);
    at.after(ms(2_999));
    assert_eq!(at.limiter.sweep(at.now), 2, "ada has not all of her five again");
    at.after(ms(1));
    assert_eq!(at.limiter.sweep(at.now), 1);
    assert_eq!(at.limiter.sweep(at.now + ms(2_000)), 0);

    for n in 0..LIMITED_USERS_MAX as u64 {
        at.limiter.join(&UserId::from(n), at.now).expect("allowed");
    }
    assert!((0..50).all(|_| at.join("late").is_ok()), "one more is not limited");
    assert!((0..50).any(|_| at.limiter.join(&UserId::from(7), at.now).is_err()), "who is known is");
    assert_eq!(at.limiter.sweep(at.now), LIMITED_USERS_MAX);
    assert_eq!(at.limiter.sweep(at.now + ms(5_000)), 0);
}
