//! The rules of a feed as its members see it: who joins, what is lost, who is silent.

use serde_json::value::RawValue;
use switchboard_contract::wire::V1;

use super::*;
use crate::frame::Vsn;

const SECOND: Duration = Duration::from_secs(1);
/// How often the feed of these tests is polled.
const INTERVAL: Duration = Duration::from_secs(2);
/// No time at all.
const NOW: Duration = Duration::ZERO;

/// A feed `news` whose members are reached under their names, at a time that only the test moves.
struct World {
    feed: Feed<&'static str>,
    now: Instant,
    begin: Instant,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        World { feed: Feed::new(&FeedId::new("news").expect("a feed"), now), now, begin: now }
    }

    /// `ada` on channel 1 has joined a feed whose last value has this number.
    fn joined(last: u64) -> World {
        let mut world = World::new();
        assert_eq!(world.join("ada", 1), ["open"]);
        assert_eq!(world.opened(true), ["ask"]);
        let frames = world.answered(fed(Some(last), None));
        assert_eq!(frames, [format!("ada ok value {last} of 1,{last}")]);
        world
    }

    /// Does something, and then what is due, as the task does.
    fn act(
        &mut self,
        act: impl FnOnce(&mut Feed<&'static str>, Instant, &mut Vec<Effect<&'static str>>),
    ) -> Vec<String> {
        let mut out = Vec::new();
        act(&mut self.feed, self.now, &mut out);
        let clock = SystemTime::UNIX_EPOCH + (self.now - self.begin);
        self.feed.tick(self.now, clock, &mut out);
        out.into_iter().map(|effect| shown(&effect)).collect()
    }

    fn join(&mut self, who: &'static str, chan: ChannelId) -> Vec<String> {
        self.act(|feed, now, out| feed.join(who, chan, 7, Pass::Token, now, out))
    }

    fn join_with(&mut self, who: &'static str, chan: ChannelId, pass: Pass) -> Vec<String> {
        self.act(|feed, now, out| feed.join(who, chan, 7, pass, now, out))
    }

    fn leave(&mut self, chan: ChannelId) -> Vec<String> {
        self.act(|feed, now, _| feed.leave(chan, now))
    }

    fn opened(&mut self, open: bool) -> Vec<String> {
        self.act(|feed, now, _| feed.opened(open, now))
    }

    fn answered(&mut self, answer: Option<Wanted>) -> Vec<String> {
        self.act(|feed, now, out| feed.answered(answer, now, out))
    }

    fn told(&mut self, n: u64, value: bool, stale: Option<&str>) -> Vec<String> {
        let last = value.then(|| self::value(n));
        let told = Told { v: V1, version: version(n), last, stale: stale.map(self::stale) };
        self.act(|feed, now, out| feed.told(told, now, out))
    }

    fn after(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.act(|_, _, _| {})
    }

    /// What comes of it when the feed next wants to be called, and after how long that is.
    fn next(&mut self) -> (Duration, Vec<String>) {
        let wait = self.feed.wake().expect("a time") - self.now;
        assert!(self.after(wait.saturating_sub(Duration::from_millis(1))).is_empty(), "too early");
        (wait, self.after(Duration::from_millis(1).min(wait)))
    }
}

fn version(n: u64) -> Version {
    if n == 0 { (0, 0) } else { (1, n) }
}

fn value(n: u64) -> Value {
    let value = RawValue::from_string(n.to_string()).expect("JSON");
    Value { value, version: version(n), at: "then".into() }
}

fn stale(reason: &str) -> Stale {
    Stale { since: "before".into(), reason: reason.into() }
}

fn fed(last: Option<u64>, stale: Option<&str>) -> Option<Wanted> {
    let interval_ms = 2_000;
    let fed = Fed { interval_ms, token: false, secret: false, last: last.map(value), stale: stale.map(self::stale) };
    Some(Wanted { v: V1, feed: Some(fed), refused: None })
}

fn refused(reason: Reason) -> Option<Wanted> {
    Some(Wanted { v: V1, feed: None, refused: Some(reason) })
}

fn shown(effect: &Effect<&'static str>) -> String {
    let (to, event) = match effect {
        Effect::Open => return "open".into(),
        Effect::Ask => return "ask".into(),
        Effect::End => return "end".into(),
        Effect::Send(to, event) => (to, &**event),
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "a feed sends no other events")]
    match event {
        Event::Done { outcome: Outcome::Ok(response), .. } => format!("{to} ok {}", brief(response)),
        Event::Done { outcome: Outcome::Refused(refusal), .. } => format!("{to} {}", refusal.reason),
        Event::Push { event, payload, .. } => format!("{to} {event} {}", brief(payload)),
        Event::Once { broadcast, .. } => {
            let frame = broadcast.frame(Vsn::V2);
            let (_, _, topic, event, payload): ((), (), &str, &str, &RawValue) =
                serde_json::from_str(&frame).expect("a broadcast");
            assert_eq!(topic, "feed:news");
            format!("{to} {event} {}", brief(payload.get()))
        }
        other => panic!("{other:?}"),
    }
}

fn brief(payload: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(payload).expect("JSON");
    match (&json["version"], &json["reason"]) {
        (serde_json::Value::Array(version), _) => format!("value {} of {},{}", json["value"], version[0], version[1]),
        (_, serde_json::Value::String(reason)) => format!("{reason} since {}", json["since"]),
        (_, _) => payload.to_owned(),
    }
}

#[test]
fn the_first_member_asks_history_and_others_join_from_what_is_known() {
    let mut world = World::new();
    assert_eq!(world.join("ada", 1), ["open"]);
    assert!(world.join("bob", 2).is_empty());
    assert_eq!(world.opened(true), ["ask"], "only what is asked behind the subscription misses nothing");
    assert!(world.join("cy", 3).is_empty());
    let frames = world.answered(fed(Some(4), None));
    assert_eq!(frames, ["ada ok value 4 of 1,4", "bob ok value 4 of 1,4", "cy ok value 4 of 1,4"]);
    assert_eq!(world.join("di", 4), ["di ok value 4 of 1,4"]);
    assert_eq!(world.feed.members(), 4);
}

#[test]
fn before_the_first_poll_there_is_no_value_and_a_stale_one_is_said_to_be_stale() {
    let mut world = World::new();
    world.join("ada", 1);
    world.opened(true);
    assert_eq!(world.answered(fed(None, None)), [r#"ada ok {"value":null,"version":null,"at":null}"#]);
    assert_eq!(world.told(0, false, Some("broken")), [r#"ada stale broken since "before""#]);
    let frames = world.join("bob", 2);
    let nothing = r#"bob ok {"value":null,"version":null,"at":null}"#;
    assert_eq!(frames, [nothing, r#"bob stale broken since "before""#]);
    assert_eq!(world.told(1, true, None), ["ada update value 1 of 1,1", "bob update value 1 of 1,1"]);
}

#[test]
fn a_value_is_shown_as_it_was_polled() {
    let mut world = World::joined(1);
    let mut out = Vec::new();
    world.feed.join("bob", 2, 9, Pass::Token, world.now, &mut out);
    let told = Told { v: V1, version: (1, 2), last: Some(value(2)), stale: None };
    world.feed.told(told, world.now, &mut out);
    let [Effect::Send("bob", done), Effect::Send("ada", first), Effect::Send("bob", second)] = &out[..] else {
        panic!("{out:?}")
    };
    let Event::Done { chan: 2, serial: 9, outcome: Outcome::Ok(response) } = &**done else { panic!("{done:?}") };
    assert_eq!(&**response, r#"{"value":1,"version":[1,1],"at":"then"}"#);
    assert!(Arc::ptr_eq(first, second), "encoded once for all");
    let Event::Once { broadcast, .. } = &**first else { panic!("{first:?}") };
    let frame = broadcast.frame(Vsn::V2);
    assert_eq!(frame.as_str(), r#"[null,null,"feed:news","update",{"value":2,"version":[1,2],"at":"then"}]"#);
}

#[test]
fn the_newest_version_wins_and_is_shown_once() {
    let mut world = World::joined(3);
    assert!(world.told(3, false, None).is_empty());
    assert!(world.told(3, true, None).is_empty(), "it was in the reply");
    assert!(world.told(2, true, None).is_empty(), "an older one");
    assert_eq!(world.told(5, true, None), ["ada update value 5 of 1,5"]);
    assert!(world.told(5, true, None).is_empty(), "twice");
    assert!(world.told(4, true, Some("broken")).is_empty(), "whoever says that is no owner any more");
}

#[test]
fn a_version_whose_value_was_lost_is_asked_for_at_once() {
    let mut world = World::joined(3);
    assert_eq!(world.told(4, false, None), ["ask"]);
    assert!(world.told(4, false, None).is_empty(), "it is being asked");
    assert!(world.told(3, true, None).is_empty());
    assert!(world.answered(fed(Some(3), None)).is_empty(), "a replica that is behind");
    assert_eq!(world.next(), (INTERVAL, vec!["ask".to_owned()]));
    assert_eq!(world.answered(fed(Some(4), None)), ["ada update value 4 of 1,4"]);
    assert_eq!(world.told(5, false, None), ["ask"]);
    assert_eq!(world.told(5, true, None), ["ada update value 5 of 1,5"], "it was only late");
    assert!(world.answered(fed(Some(5), None)).is_empty());
}

#[test]
fn a_source_that_does_not_answer_is_stale_until_it_does() {
    let mut world = World::joined(3);
    assert_eq!(world.told(3, false, Some("broken")), [r#"ada stale broken since "before""#]);
    assert!(world.told(3, false, Some("broken")).is_empty(), "once");
    assert_eq!(world.told(3, false, Some("gone")), [r#"ada stale gone since "before""#]);
    assert_eq!(world.told(3, false, None), ["ada update value 3 of 1,3"], "with the value that it had");
    world.told(3, false, Some("broken"));
    assert_eq!(world.told(4, true, None), ["ada update value 4 of 1,4"]);
    assert_eq!(
        world.told(5, true, Some("slow")),
        ["ada update value 5 of 1,5", r#"ada stale slow since "before""#],
        "an update alone would say that all is well"
    );
    assert_eq!(world.told(6, true, Some("slow")).len(), 2, "still");
}

#[test]
fn what_history_answers_may_be_older_than_what_the_owner_has_said_since() {
    let mut world = World::joined(3);
    world.act(|feed, now, _| feed.resync(now));
    world.told(3, false, Some("broken"));
    assert!(world.answered(fed(Some(3), None)).is_empty());
    assert_eq!(world.join("bob", 2)[1..], [r#"bob stale broken since "before""#]);
    world.act(|feed, now, _| feed.resync(now));
    let frames = world.answered(fed(Some(3), None));
    assert_eq!(frames, ["ada update value 3 of 1,3", "bob update value 3 of 1,3"], "asked after it");
}

#[test]
fn a_silent_owner_is_asked_after_and_members_are_told_in_the_end() {
    let mut world = World::joined(3);
    world.after(SECOND);
    world.told(3, false, None);
    assert_eq!(world.next(), (2 * INTERVAL + SECOND, vec!["ask".to_owned()]));
    assert!(world.answered(None).is_empty());
    assert_eq!(world.next(), (INTERVAL, vec!["ask".to_owned()]));
    assert!(world.after(SECOND).is_empty());
    assert!(world.answered(refused(Reason::Unavailable)).is_empty());
    assert_eq!(world.next(), (INTERVAL, vec!["ask".to_owned()]), "until it answers");
    // It was heard 10 s ago, and may be silent for 11 s.
    let (wait, frames) = world.next();
    assert_eq!((wait, frames), (SECOND, vec![r#"ada stale nobody polls it since "1970-01-01T00:00:01.000Z""#.into()]));
    assert!(world.answered(fed(Some(3), None)).is_empty(), "history is there, but nobody polls");
    let (wait, asked) = world.next();
    assert_eq!((wait, asked), (2 * INTERVAL + SECOND, vec!["ask".to_owned()]));
    assert!(world.answered(refused(Reason::NotFound)).is_empty(), "who is in stays");
    assert_eq!(world.join("bob", 2)[0], "bob ok value 3 of 1,3");
    assert_eq!(world.told(3, false, None), ["ada update value 3 of 1,3", "bob update value 3 of 1,3"]);
}

#[test]
fn a_feed_that_is_stale_already_is_not_said_to_be_polled_by_nobody() {
    let mut world = World::joined(3);
    world.told(3, false, Some("broken"));
    for _ in 0..10 {
        let (_, asked) = world.next();
        assert_eq!(asked, ["ask"]);
        assert!(world.answered(None).is_empty());
    }
}

#[test]
fn a_new_value_from_history_alone_is_a_sign_of_life() {
    let mut world = World::joined(1);
    for n in 2..20 {
        assert_eq!(world.next(), (2 * INTERVAL + SECOND, vec!["ask".to_owned()]));
        assert_eq!(world.answered(fed(Some(n), None)), [format!("ada update value {n} of 1,{n}")]);
    }
}

#[test]
fn a_first_join_waits_until_history_answers() {
    let mut world = World::new();
    world.join("ada", 1);
    assert!(world.opened(false).is_empty());
    assert_eq!(world.next(), (limits::FEED_JOIN_RETRY, vec!["open".to_owned()]));
    assert_eq!(world.opened(true), ["ask"]);
    for answer in [None, refused(Reason::Unavailable)] {
        assert!(world.answered(answer).is_empty());
        assert_eq!(world.next(), (limits::FEED_JOIN_RETRY, vec!["ask".to_owned()]));
    }
    assert_eq!(world.answered(refused(Reason::NotFound)), ["ada not_found"]);
    assert_eq!(world.next(), (limits::TOPIC_LINGER, vec!["end".to_owned()]));
}

#[test]
fn who_left_before_the_answer_gets_none() {
    let mut world = World::new();
    world.join("ada", 1);
    world.opened(true);
    world.join("bob", 2);
    world.leave(1);
    assert_eq!(world.answered(fed(Some(1), None)), ["bob ok value 1 of 1,1"]);
    assert_eq!(world.told(2, true, None), ["bob update value 2 of 1,2"]);
}

#[test]
fn a_feed_without_members_ends_after_a_while_unless_somebody_comes() {
    let mut world = World::joined(3);
    world.join("bob", 2);
    world.leave(2);
    assert_eq!(world.told(4, true, None), ["ada update value 4 of 1,4"]);
    assert!(world.leave(1).is_empty());
    assert!(world.after(limits::TOPIC_LINGER / 2).is_empty());
    assert!(world.told(5, true, None).is_empty());
    assert_eq!(world.join("cy", 3), ["cy ok value 5 of 1,5"]);
    assert!(world.after(limits::TOPIC_LINGER).is_empty());
    world.leave(3);
    assert_eq!(world.next(), (limits::TOPIC_LINGER, vec!["end".to_owned()]));
}

#[test]
fn a_feed_that_is_polled_often_ends_after_one_interval_without_members() {
    let mut world = World::new();
    world.join("ada", 1);
    world.opened(true);
    let mut answer = fed(Some(1), None);
    answer.as_mut().and_then(|wanted| wanted.feed.as_mut()).expect("a feed").interval_ms = 100;
    assert_eq!(world.answered(answer), ["ada ok value 1 of 1,1"]);
    world.leave(1);
    assert_eq!(world.next(), (Duration::from_millis(100), vec!["end".to_owned()]));
}

#[test]
fn a_feed_is_for_those_who_show_what_it_asks_for() {
    for (token, secret, wants) in [
        (false, false, Pass::Nothing),
        (true, false, Pass::Token),
        (false, true, Pass::Secret),
        (true, true, Pass::Secret),
    ] {
        let mut world = World::new();
        let who = [("eve", Pass::Nothing), ("ada", Pass::Token), ("op", Pass::Secret)];
        for (chan, (who, pass)) in (1..).zip(who) {
            world.join_with(who, chan, pass);
        }
        world.opened(true);
        let mut answer = fed(Some(1), None);
        let fed = answer.as_mut().and_then(|wanted| wanted.feed.as_mut()).expect("a feed");
        (fed.token, fed.secret) = (token, secret);
        let said = |who, pass| match pass >= wants {
            true => format!("{who} ok value 1 of 1,1"),
            false => format!("{who} unauthorized"),
        };
        assert_eq!(world.answered(answer), who.map(|(who, pass)| said(who, pass)), "{wants:?}");
        for (chan, (who, pass)) in (4..).zip(who) {
            assert_eq!(world.join_with(who, chan, pass), [said(who, pass)], "later");
        }
        let updates = world.told(2, true, None);
        let shown = |who: &str| updates.iter().any(|update| update.starts_with(who));
        assert!(who.iter().all(|(who, pass)| shown(who) == (*pass >= wants)), "{wants:?} {updates:?}");
    }
}

#[test]
fn after_a_loss_history_is_asked_once_and_when_it_is_this_feeds_turn() {
    let mut world = World::joined(1);
    world.act(|feed, now, _| feed.resync(now + SECOND));
    world.act(|feed, now, _| feed.resync(now + INTERVAL));
    assert_eq!(world.next(), (SECOND, vec!["ask".to_owned()]));
    assert!(world.act(|feed, now, _| feed.resync(now)).is_empty(), "it is being asked");
    assert_eq!(world.answered(fed(Some(2), Some("broken"))).len(), 2);
    assert_eq!(world.feed.wake(), Some(world.now + 2 * INTERVAL + SECOND), "and then as ever");
    assert!(world.after(NOW).is_empty());
}
