//! What members are shown, whatever is lost and whoever dies.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use switchboard_contract::limits::{DEAD_AFTER, HEARTBEAT, PRESENCE_COALESCE, PRESENCE_LIST_MAX, PRESENCE_WAIT};
use switchboard_contract::names::{SessionKey, UserId};
use switchboard_contract::wire::V1;

use super::*;
use world::*;

#[derive(Clone, Debug)]
enum Act {
    Join(usize, u64),
    Leave(usize),
    Lose(usize),
    Kill(usize),
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..3usize, 0..4u64).prop_map(|(at, user)| Act::Join(at, user)),
        4 => (0..12usize).prop_map(Act::Leave),
        2 => (1..4usize).prop_map(Act::Lose),
        1 => (1..3usize).prop_map(Act::Kill),
        3 => (0..3_000u64).prop_map(Act::Pass),
        3 => (0..60u64).prop_map(Act::Pass),
    ];
    proptest::collection::vec(act, 0..40)
}

proptest! {
    /// Whatever is lost and whoever dies: after a while all agree, and meanwhile no client was told nonsense.
    #[test]
    fn all_lists_agree_in_the_end(acts in acts(), list_max in prop_oneof![Just(PRESENCE_LIST_MAX), Just(4usize)]) {
        let mut world = World::new(3, list_max);
        for act in acts {
            match act {
                Act::Join(at, user) => {
                    world.join(at, user);
                }
                Act::Leave(n) => {
                    let chan = world.clients.keys().nth(n).copied();
                    chan.into_iter().for_each(|chan| world.leave(chan));
                }
                Act::Lose(n) => world.lose = n,
                Act::Kill(at) => world.kill(at),
                Act::Pass(ms) => world.pass(Duration::from_millis(ms)),
            }
        }
        world.lose = 0;
        world.pass(Duration::from_secs(8));
        world.check();
    }
}

#[test]
fn a_state_holds_everybody_and_waits_for_the_other_gateways() {
    let mut world = World::new(2, 10);
    let a = world.join(0, 1);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.client(a).keys(), ["1:s"], "the other gateway has said that nobody is there");
    let b = world.join(1, 2);
    assert!(!world.client(b).stated);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.client(b).keys(), ["1:s", "2:s"]);
    world.pass(PRESENCE_COALESCE);
    assert_eq!(world.client(a).keys(), ["1:s", "2:s"]);
    assert_eq!(
        world.client(a).got.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["presence_state", "presence_diff"]
    );
}

#[test]
fn it_waits_only_so_long() {
    let mut world = World::new(2, 10);
    let a = world.join(0, 1);
    world.pass(PRESENCE_COALESCE);
    world.lose = 2;
    let b = world.join(1, 2);
    world.pass(PRESENCE_WAIT - Duration::from_millis(1));
    assert!(!world.client(b).stated);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.client(b).keys(), ["2:s"]);
    world.pass(HEARTBEAT + PRESENCE_GRACE);
    assert_eq!((world.client(a).keys().len(), world.client(b).keys().len()), (2, 2), "it was asked again");
}

#[test]
fn who_comes_and_goes_at_once_is_told_to_nobody() {
    let mut world = World::new(2, 10);
    let (a, b) = (world.join(0, 1), world.join(1, 2));
    world.pass(PRESENCE_WAIT);
    let before = (world.client(a).got.len(), world.client(b).got.len());
    let c = world.join(0, 3);
    world.leave(c);
    world.pass(Duration::from_millis(500));
    assert_eq!((world.client(a).got.len(), world.client(b).got.len()), before);
}

#[test]
fn a_silent_gateway_is_gone_and_one_that_says_goodbye_at_once() {
    let mut world = World::new(3, 10);
    let a = world.join(0, 1);
    world.join(1, 2);
    world.join(2, 3);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.client(a).keys().len(), 3);
    world.kill(1);
    world.pass(DEAD_AFTER - HEARTBEAT - Duration::from_millis(100));
    assert_eq!(world.client(a).keys().len(), 3, "it may be heard again");
    world.pass(Duration::from_millis(1_900));
    assert_eq!(world.client(a).keys(), ["1:s", "3:s"]);
    world.kill(2);
    world.hear(&Heartbeat { v: V1, gateway: gateway(2), n: u64::MAX, bye: true, rooms: vec![] });
    world.pass(Duration::from_millis(100));
    assert_eq!(world.client(a).keys(), ["1:s"]);
    let late = Member { key: SessionKey::new(&UserId::from(9), "s").expect("a key"), chan: 99, online_at: 1 };
    let delta = Delta { joins: vec![late], ..Delta::new(gateway(2), 0, 99) };
    world.with(&gateway(0), |presence, now, out| presence.delta(&room(), &delta, now, out));
    world.pass(Duration::from_millis(100));
    assert_eq!(world.client(a).keys(), ["1:s"], "what was on its way brings nobody back");
}

#[test]
fn nobody_is_dead_while_nats_carries_nothing() {
    let mut world = World::new(2, 10);
    let a = world.join(0, 1);
    world.join(1, 2);
    world.pass(Duration::from_secs(2));
    for _ in 0..100 {
        world.now += Duration::from_millis(250);
        world.with(&gateway(0), Presence::tick);
    }
    assert_eq!(world.client(a).keys().len(), 2);
}

#[test]
fn after_a_loss_everything_is_asked_for_once() {
    let mut world = World::new(2, 10);
    let (a, b) = (world.join(0, 1), world.join(1, 2));
    world.pass(Duration::from_secs(1));
    world.lose = 1;
    world.leave(b);
    for _ in 0..1_000 {
        world.with(&gateway(0), |presence, now, _| presence.resync(now));
    }
    assert_eq!(world.client(a).keys().len(), 2, "it does not know yet");
    let asked = world.told;
    world.pass(PRESENCE_GRACE);
    assert_eq!((world.client(a).keys().len(), world.told - asked), (1, 2), "a question and its answer");
}

#[test]
fn a_crowd_is_counted() {
    let mut world = World::new(2, 5);
    let chans: Vec<ChannelId> = (0..5).map(|n| world.join((n % 2) as usize, n)).collect();
    world.pass(Duration::from_secs(1));
    world.check();
    assert_eq!(world.client(chans[0]).count, None);
    let sixth = world.join(0, 6);
    world.pass(Duration::from_secs(2));
    world.check();
    let last: Vec<_> = world.client(chans[1]).got.iter().rev().take(2).cloned().collect();
    assert_eq!(last[1], ("presence_state".to_owned(), serde_json::json!({})));
    assert_eq!(last[0], ("presence_count".to_owned(), serde_json::json!({"count": 6})));
    assert_eq!(world.client(sixth).count, Some(6));
    world.leave(sixth);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.client(chans[0]).count, Some(5), "not turned back at once");
    world.leave(chans[4]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.client(chans[0]).count, None);
    world.check();
}

#[test]
fn a_large_part_comes_in_pieces() {
    let mut world = World::new(2, PRESENCE_LIST_MAX);
    let crowd = PRESENCE_MEMBERS_MAX as u64 * 2 + 7;
    for n in 0..crowd {
        world.join(0, n);
    }
    world.pass(Duration::from_secs(1));
    let late = world.join(1, 5_000);
    world.pass(PRESENCE_WAIT);
    assert_eq!(world.client(late).keys().len() as u64, crowd + 1);
    world.pass(Duration::from_secs(1));
    world.check();
}

#[test]
fn a_direct_message_reaches_its_sockets_and_no_other() {
    let mut world = World::new(2, 10);
    let [me, mine, one, two, other] = [(0, 1), (0, 1), (0, 2), (1, 2), (1, 3)].map(|(at, user)| world.join(at, user));
    world.pass(Duration::from_secs(1));
    let send = |world: &mut World, to: &[Recipient]| {
        let payload = RawValue::from_string(r#"{"body":"hi"}"#.to_owned()).expect("JSON");
        let mut recipients = 0;
        world.with(&gateway(0), |presence, _, out| recipients = presence.direct(&room(), me, to, &payload, out));
        recipients
    };
    let direct = |world: &World, chan| world.client(chan).got.iter().filter(|(name, _)| name == "new_msg").count();
    let user = |n: u64| Recipient::User(UserId::from(n));
    let session = |n: u64| Recipient::Session(SessionKey::new(&UserId::from(n), "s").expect("a key"));
    assert_eq!(send(&mut world, &[user(2), session(2)]), 2, "each once");
    assert_eq!(send(&mut world, &[user(1)]), 1, "never back to the sender");
    assert_eq!(send(&mut world, &[session(7), user(7)]), 0);
    assert_eq!([me, mine, one, two, other].map(|chan| direct(&world, chan)), [0, 1, 1, 1, 0]);
}

#[test]
fn rooms_and_members_are_forgotten_with_the_last_one() {
    let mut world = World::new(2, 10);
    let (a, b) = (world.join(0, 1), world.join(1, 2));
    world.pass(Duration::from_secs(1));
    world.leave(b);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.client(a).keys(), ["1:s"]);
    let here = |world: &World, n: usize| {
        let presence = &world.gateways[&gateway(n)].0;
        (presence.len(), presence.timers.len(), presence.scheduled.len())
    };
    assert_eq!(here(&world, 1), (0, 0, 0));
    world.leave(a);
    assert_eq!(here(&world, 0), (0, 0, 0));
    let known: BTreeSet<_> = world.gateways[&gateway(0)].0.alive.gateways().cloned().collect();
    assert_eq!(known, BTreeSet::from([gateway(0), gateway(1)]));
}

/// Asks on a gateway who is in the room.
fn look(world: &mut World, at: usize, ticket: u64) {
    world.with(&gateway(at), |presence, now, _| assert!(presence.look(&room(), ticket, now)));
}

fn seen(world: &World, ticket: u64) -> Option<Vec<&str>> {
    let mut keys: Vec<&str> = world.seen.get(&ticket)?.iter().map(|(_, key)| key.as_str()).collect();
    keys.sort_unstable();
    Some(keys)
}

#[test]
fn who_only_asks_is_told_who_is_there_and_leaves_nothing_behind() {
    // More than are listed for members.
    let mut world = World::new(3, 1);
    look(&mut world, 2, 1);
    world.pass(Duration::from_millis(1));
    assert_eq!(seen(&world, 1), Some(vec![]), "nobody is there");
    let (a, b) = (world.join(0, 1), world.join(1, 2));
    look(&mut world, 2, 2);
    look(&mut world, 2, 3);
    world.pass(Duration::from_millis(1));
    let both = Some(vec!["1:s", "2:s"]);
    assert_eq!((seen(&world, 2), seen(&world, 3)), (both.clone(), both.clone()), "on a gateway without members");
    look(&mut world, 0, 4);
    world.pass(Duration::from_millis(1));
    assert_eq!(seen(&world, 4), both, "on one with members");
    let (third, _, _) = &world.gateways[&gateway(2)];
    assert!(third.is_empty() && third.looks.is_empty());
    // Whoever joins there later is told the same, and whoever has left is not seen.
    world.leave(b);
    let c = world.join(2, 3);
    look(&mut world, 1, 5);
    world.pass(PRESENCE_WAIT);
    assert_eq!(seen(&world, 5), Some(vec!["1:s", "3:s"]));
    world.leave(a);
    world.leave(c);
    look(&mut world, 0, 6);
    world.pass(Duration::from_millis(1));
    assert_eq!(seen(&world, 6), Some(vec![]));
}

#[test]
fn who_only_asks_waits_for_a_silent_gateway_only_so_long() {
    let mut world = World::new(3, 10);
    world.join(0, 1);
    world.pass(PRESENCE_COALESCE);
    world.kill(1);
    look(&mut world, 2, 1);
    world.pass(PRESENCE_WAIT - Duration::from_millis(1));
    assert_eq!(seen(&world, 1), None);
    world.pass(Duration::from_millis(1));
    assert_eq!(seen(&world, 1), Some(vec!["1:s"]));
    let (presence, _, _) = world.gateways.get_mut(&gateway(2)).expect("a gateway");
    let now = world.now;
    for ticket in 2.. {
        if !presence.look(&room(), ticket, now) {
            assert_eq!(ticket, 2 + switchboard_contract::limits::PRESENCE_LOOKS_MAX as u64, "there is a limit");
            break;
        }
    }
}
