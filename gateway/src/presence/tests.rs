//! Several gateways with a network between them that loses what it is told to lose, and clients that believe what they
//! are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use switchboard_contract::limits::{DEAD_AFTER, HEARTBEAT, PRESENCE_COALESCE, PRESENCE_LIST_MAX, PRESENCE_WAIT};
use switchboard_contract::names::{SessionKey, UserId};
use switchboard_contract::wire::V1;

use super::*;

/// Keeps a list as phoenix.js does, and is stricter: whatever does not fit is an error.
#[derive(Debug, Default)]
struct Client {
    key: String,
    stated: bool,
    /// phx_ref → key.
    list: BTreeMap<String, String>,
    count: Option<u64>,
    got: Vec<(String, serde_json::Value)>,
}

fn metas(lists: &serde_json::Value) -> Vec<(String, String)> {
    let keys = lists.as_object().expect("an object").iter();
    keys.flat_map(|(key, presence)| {
        let metas = presence["metas"].as_array().expect("metas");
        metas.iter().map(move |meta| (meta["phx_ref"].as_str().expect("a ref").to_owned(), key.clone()))
    })
    .collect()
}

impl Client {
    fn take(&mut self, event: &Event) {
        let (name, payload) = match event {
            Event::PresenceState { payload, .. } => {
                assert!(!std::mem::replace(&mut self.stated, true), "a second state");
                ("presence_state".to_owned(), payload.to_string())
            }
            Event::Presence { broadcast, .. } => {
                assert!(self.stated, "a diff before the state");
                let frame: serde_json::Value =
                    serde_json::from_str(broadcast.frame(crate::frame::Vsn::V2).as_str()).expect("JSON");
                (frame[3].as_str().expect("a name").to_owned(), frame[4].to_string())
            }
            Event::Push { event, payload, .. } => (event.to_string(), payload.to_string()),
            other @ (Event::Done { .. }
            | Event::Broadcast(_)
            | Event::Binary { .. }
            | Event::Status { .. }
            | Event::NewChat { .. }
            | Event::Failed { .. }
            | Event::Close(_)) => panic!("{other:?}"),
        };
        let payload: serde_json::Value = serde_json::from_str(&payload).expect("JSON");
        match name.as_str() {
            "presence_state" => {
                self.list = metas(&payload).into_iter().collect();
                self.count = None;
            }
            "presence_diff" => {
                for (phx_ref, key) in metas(&payload["joins"]) {
                    assert!(self.list.insert(phx_ref.clone(), key).is_none(), "{phx_ref} told twice");
                }
                for (phx_ref, _) in metas(&payload["leaves"]) {
                    assert!(self.list.remove(&phx_ref).is_some(), "{phx_ref} was not there");
                }
            }
            "presence_count" => self.count = payload["count"].as_u64(),
            _ => {}
        }
        self.got.push((name, payload));
    }

    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.list.values().cloned().collect();
        keys.sort_unstable();
        keys
    }
}

enum Packet {
    Delta(RoomId, Delta),
    Peer(Incarnation, Peer),
}

struct World {
    now: Instant,
    gateways: BTreeMap<Incarnation, (Presence<ChannelId>, Digest, u64)>,
    /// By channel; channels are numbered over all gateways.
    clients: BTreeMap<ChannelId, (Incarnation, Client)>,
    last: ChannelId,
    next_beat: Instant,
    /// How many packets are lost from now on.
    lose: usize,
    list_max: usize,
}

fn room() -> RoomId {
    RoomId::new("r").expect("an id")
}

fn gateway(n: usize) -> Incarnation {
    Incarnation::named(&format!("host-{n}")).expect("a name")
}

impl World {
    fn new(gateways: usize, list_max: usize) -> Self {
        let now = Instant::now();
        let all = (0..gateways).map(|n| (gateway(n), (Presence::new(gateway(n), list_max, now), Digest::default(), 0)));
        let mut world = World {
            now,
            gateways: all.collect(),
            clients: BTreeMap::new(),
            last: 0,
            next_beat: now + HEARTBEAT,
            lose: 0,
            list_max,
        };
        world.beat();
        world
    }

    /// Lets one gateway do something, and carries what it wants told until nobody says anything more.
    fn with(
        &mut self,
        name: &Incarnation,
        act: impl FnOnce(&mut Presence<ChannelId>, Instant, &mut Vec<Effect<ChannelId>>),
    ) {
        let Some((presence, _, _)) = self.gateways.get_mut(name) else { return };
        let mut out = Vec::new();
        act(presence, self.now, &mut out);
        let mut packets = self.perform(name, out);
        while !packets.is_empty() {
            let mut next = Vec::new();
            for (from, packet) in packets {
                if self.lose > 0 {
                    self.lose -= 1;
                    continue;
                }
                let names: Vec<Incarnation> = self.gateways.keys().filter(|to| **to != from).cloned().collect();
                for to in names {
                    let (presence, _, _) = self.gateways.get_mut(&to).expect("a gateway");
                    let mut out = Vec::new();
                    match &packet {
                        Packet::Delta(id, delta) => presence.delta(id, delta, self.now, &mut out),
                        Packet::Peer(name, peer) if *name == to => presence.peer(peer.clone(), self.now, &mut out),
                        Packet::Peer(..) => {}
                    }
                    next.extend(self.perform(&to, out));
                }
            }
            packets = next;
        }
    }

    fn perform(&mut self, from: &Incarnation, out: Vec<Effect<ChannelId>>) -> Vec<(Incarnation, Packet)> {
        let mut packets = Vec::new();
        for effect in out {
            match effect {
                Effect::Send(chan, event) => {
                    if let Some((_, client)) = self.clients.get_mut(&chan) {
                        client.take(&event);
                    }
                }
                Effect::Publish(id, delta) => {
                    self.gateways[from].1.note(id.clone(), delta.to);
                    packets.push((from.clone(), Packet::Delta(id, delta)));
                }
                Effect::Tell(to, peer) => packets.push((from.clone(), Packet::Peer(to, peer))),
                Effect::Gone(..) => {}
            }
        }
        packets
    }

    fn beat(&mut self) {
        for name in self.gateways.keys().cloned().collect::<Vec<_>>() {
            let (_, digest, n) = self.gateways.get_mut(&name).expect("a gateway");
            *n += 1;
            let beat = Heartbeat { v: V1, gateway: name, n: *n, bye: false, rooms: digest.take().expect("a digest") };
            if self.lose > 0 {
                self.lose -= 1;
                continue;
            }
            self.hear(&beat);
        }
    }

    fn hear(&mut self, beat: &Heartbeat) {
        for to in self.gateways.keys().cloned().collect::<Vec<_>>() {
            self.with(&to, |presence, now, out| presence.heartbeat(beat, now, out));
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wake = self.gateways.values().map(|(presence, _, _)| presence.wake()).min().unwrap_or(end);
            let next = wake.min(self.next_beat).max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            for name in self.gateways.keys().cloned().collect::<Vec<_>>() {
                self.with(&name, Presence::tick);
            }
            if self.next_beat <= self.now {
                self.next_beat += HEARTBEAT;
                self.beat();
            }
        }
        self.now = end;
    }

    fn join(&mut self, at: usize, user: u64) -> ChannelId {
        self.last += 1;
        let (chan, name) = (self.last, gateway(at));
        if !self.gateways.contains_key(&name) {
            return chan;
        }
        let key = SessionKey::new(&UserId::from(user), "s").expect("a key");
        self.clients.insert(chan, (name.clone(), Client { key: key.to_string(), ..Client::default() }));
        let member = Member { key, chan, online_at: 1 };
        self.with(&name, |presence, now, out| presence.join(&room(), member, chan, now, out));
        chan
    }

    fn leave(&mut self, chan: ChannelId) {
        if let Some((name, _)) = self.clients.remove(&chan) {
            self.with(&name, |presence, now, out| presence.leave(&room(), chan, now, out));
        }
    }

    fn kill(&mut self, at: usize) {
        self.gateways.remove(&gateway(at));
        self.clients.retain(|_, (name, _)| *name != gateway(at));
    }

    fn client(&self, chan: ChannelId) -> &Client {
        &self.clients[&chan].1
    }

    /// Every client knows all clients, or how many there are.
    fn check(&self) {
        let mut keys: Vec<String> = self.clients.values().map(|(_, client)| client.key.clone()).collect();
        keys.sort_unstable();
        for (chan, (name, client)) in &self.clients {
            match client.count {
                None => assert_eq!(client.keys(), keys, "client {chan} on {name}"),
                Some(count) => {
                    assert_eq!((count, client.keys().len()), (keys.len() as u64, 0), "client {chan} on {name}");
                    assert!(keys.len() * 5 > self.list_max * 4);
                }
            }
        }
    }
}

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
