//! Several gateways with a network between them that loses what it is told to lose, and clients that believe what they
//! are shown.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_contract::limits::HEARTBEAT;
use switchboard_contract::names::{SessionKey, UserId};
use switchboard_contract::wire::V1;

use super::super::*;

/// Keeps a list as phoenix.js does, and is stricter: whatever does not fit is an error.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) key: String,
    pub(super) stated: bool,
    /// phx_ref → key.
    pub(super) list: BTreeMap<String, String>,
    pub(super) count: Option<u64>,
    pub(super) got: Vec<(String, serde_json::Value)>,
}

pub(super) fn metas(lists: &serde_json::Value) -> Vec<(String, String)> {
    let keys = lists.as_object().expect("an object").iter();
    keys.flat_map(|(key, presence)| {
        let metas = presence["metas"].as_array().expect("metas");
        metas.iter().map(move |meta| (meta["phx_ref"].as_str().expect("a ref").to_owned(), key.clone()))
    })
    .collect()
}

impl Client {
    pub(super) fn take(&mut self, event: &Event) {
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
            | Event::Renewed { .. }
            | Event::Once { .. }
            | Event::NewChat { .. }
            | Event::Failed { .. }
            | Event::Close(_)
            | Event::Disconnect(_)) => panic!("{other:?}"),
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

    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.list.values().cloned().collect();
        keys.sort_unstable();
        keys
    }
}

pub(super) enum Packet {
    Delta(RoomId, Delta),
    Peer(Incarnation, Peer),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) gateways: BTreeMap<Incarnation, (Presence<ChannelId>, Digest, u64)>,
    /// By channel; channels are numbered over all gateways.
    pub(super) clients: BTreeMap<ChannelId, (Incarnation, Client)>,
    pub(super) last: ChannelId,
    pub(super) next_beat: Instant,
    /// What gateways have told each other so far.
    pub(super) told: usize,
    /// How many packets are lost from now on.
    pub(super) lose: usize,
    pub(super) list_max: usize,
    /// What was answered to who only asked, by ticket.
    pub(super) seen: BTreeMap<u64, Vec<(String, String)>>,
}

pub(super) fn room() -> RoomId {
    RoomId::new("r").expect("an id")
}

pub(super) fn gateway(n: usize) -> Incarnation {
    Incarnation::named(&format!("host-{n}")).expect("a name")
}

impl World {
    pub(super) fn new(gateways: usize, list_max: usize) -> Self {
        let now = Instant::now();
        let all = (0..gateways).map(|n| (gateway(n), (Presence::new(gateway(n), list_max, now), Digest::default(), 0)));
        let mut world = World {
            now,
            gateways: all.collect(),
            clients: BTreeMap::new(),
            last: 0,
            told: 0,
            next_beat: now + HEARTBEAT,
            lose: 0,
            list_max,
            seen: BTreeMap::new(),
        };
        world.beat();
        world
    }

    /// Lets one gateway do something, and carries what it wants told until nobody says anything more.
    pub(super) fn with(
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

    pub(super) fn perform(&mut self, from: &Incarnation, out: Vec<Effect<ChannelId>>) -> Vec<(Incarnation, Packet)> {
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
                Effect::Tell(to, peer) => {
                    self.told += 1;
                    packets.push((from.clone(), Packet::Peer(to, peer)));
                }
                Effect::Seen(ticket, state) => {
                    self.seen.insert(ticket, metas(&serde_json::from_str(&state).expect("JSON")));
                }
                Effect::Gone(..) => {}
            }
        }
        packets
    }

    pub(super) fn beat(&mut self) {
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

    pub(super) fn hear(&mut self, beat: &Heartbeat) {
        for to in self.gateways.keys().cloned().collect::<Vec<_>>() {
            self.with(&to, |presence, now, out| presence.heartbeat(beat, now, out));
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
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

    pub(super) fn join(&mut self, at: usize, user: u64) -> ChannelId {
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

    pub(super) fn leave(&mut self, chan: ChannelId) {
        if let Some((name, _)) = self.clients.remove(&chan) {
            self.with(&name, |presence, now, out| presence.leave(&room(), chan, now, out));
        }
    }

    pub(super) fn kill(&mut self, at: usize) {
        self.gateways.remove(&gateway(at));
        self.clients.retain(|_, (name, _)| *name != gateway(at));
    }

    pub(super) fn client(&self, chan: ChannelId) -> &Client {
        &self.clients[&chan].1
    }

    /// Every client knows all clients, or how many there are.
    pub(super) fn check(&self) {
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
