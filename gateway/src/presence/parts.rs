//! Who is in a room, as the parts of its gateways say. A part of a larger version wins over a smaller one, so it does
//! not matter in which order, how often, and through whom parts come: a room that was split agrees again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::{Incarnation, SessionKey, UserId};
use switchboard_contract::presence::{Delta, Member};

/// One socket of a presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its channel.
    pub chan: ChannelId,
    /// Since when. Unix seconds.
    pub online_at: u64,
}

/// One gateway's members of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    version: u64,
    metas: BTreeMap<SessionKey, Vec<Meta>>,
}

/// A socket came, or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// On which gateway.
    pub gateway: Incarnation,
    /// Which socket.
    pub member: Member,
    /// It came.
    pub joined: bool,
}

/// How a delta fits to what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It was taken.
    Taken,
    /// All of it is here already.
    Old,
    /// Something before it is missing: nothing was taken.
    Misses,
}

/// The parts of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    parts: BTreeMap<Incarnation, Part>,
    count: usize,
}

impl Parts {
    /// How many sockets there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// As of which version a gateway's part is; 0: there is none.
    pub fn version(&self, gateway: &Incarnation) -> u64 {
        self.parts.get(gateway).map_or(0, |part| part.version)
    }

    /// A socket came.
    pub fn add(&mut self, gateway: &Incarnation, member: Member, out: &mut Vec<Change>) {
        let part = match self.parts.get_mut(gateway) {
            Some(part) => part,
            None => self.parts.entry(gateway.clone()).or_default(),
        };
        let metas = part.metas.entry(member.key.clone()).or_default();
        if metas.iter().all(|meta| meta.chan != member.chan) {
            metas.reserve_exact(1);
            metas.push(Meta { chan: member.chan, online_at: member.online_at });
            self.count += 1;
            out.push(Change { gateway: gateway.clone(), member, joined: true });
        }
    }

    /// A socket left.
    pub fn remove(&mut self, gateway: &Incarnation, key: &SessionKey, chan: ChannelId, out: &mut Vec<Change>) {
        let Some(part) = self.parts.get_mut(gateway) else { return };
        let Entry::Occupied(mut metas) = part.metas.entry(key.clone()) else { return };
        let Some(at) = metas.get().iter().position(|meta| meta.chan == chan) else { return };
        let meta = metas.get_mut().remove(at);
        if metas.get().is_empty() {
            metas.remove();
        }
        self.count -= 1;
        let member = Member { key: key.clone(), chan, online_at: meta.online_at };
        out.push(Change { gateway: gateway.clone(), member, joined: false });
    }

    /// The part is now as of this version.
    pub fn set_version(&mut self, gateway: &Incarnation, version: u64) {
        if let Some(part) = self.parts.get_mut(gateway) {
            part.version = version;
        }
    }

    /// A gateway says what has changed in its part.
    pub fn take_delta(&mut self, delta: &Delta, out: &mut Vec<Change>) -> Fit {
        let have = self.version(&delta.gateway);
        if delta.to <= have {
            return Fit::Old;
        }
        if delta.from == 0 {
            self.take_part(&delta.gateway, delta.to, delta.joins.clone(), out);
            return Fit::Taken;
        }
        if delta.from != have {
            return Fit::Misses;
        }
        for (key, chan) in &delta.leaves {
            self.remove(&delta.gateway, key, *chan, out);
        }
        for member in &delta.joins {
            self.add(&delta.gateway, member.clone(), out);
        }
        self.set_version(&delta.gateway, delta.to);
        Fit::Taken
    }

    /// A gateway's whole part, unless what is here is as new.
    pub fn take_part(&mut self, gateway: &Incarnation, version: u64, mut members: Vec<Member>, out: &mut Vec<Change>) {
        if version <= self.version(gateway) {
            return;
        }
        members.sort_unstable();
        let gone: Vec<Member> = self.members(gateway).filter(|member| members.binary_search(member).is_err()).collect();
        for member in gone {
            self.remove(gateway, &member.key, member.chan, out);
        }
        for member in members {
            self.add(gateway, member, out);
        }
        self.parts.entry(gateway.clone()).or_default().version = version;
    }

    /// A gateway is gone, and with it all its sockets.
    pub fn drop_gateway(&mut self, gateway: &Incarnation, out: &mut Vec<Change>) {
        let members = self.members(gateway).map(|member| Change { gateway: gateway.clone(), member, joined: false });
        let before = out.len();
        out.extend(members);
        self.count -= out.len() - before;
        self.parts.remove(gateway);
    }

    /// A gateway's sockets.
    pub fn members(&self, gateway: &Incarnation) -> impl Iterator<Item = Member> {
        let metas = self.parts.get(gateway).into_iter().flat_map(|part| &part.metas);
        metas.flat_map(|(key, metas)| {
            metas.iter().map(|meta| Member { key: key.clone(), chan: meta.chan, online_at: meta.online_at })
        })
    }

    /// Every socket with its gateway, those of one session side by side.
    pub fn all(&self) -> Vec<(&SessionKey, &Incarnation, Meta)> {
        let mut all = Vec::with_capacity(self.count);
        for (gateway, part) in &self.parts {
            all.extend(part.metas.iter().flat_map(|(key, metas)| metas.iter().map(move |meta| (key, gateway, *meta))));
        }
        all.sort_by(|a, b| a.0.cmp(b.0));
        all
    }

    /// Where a session's sockets are.
    pub fn of_session<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (&'a Incarnation, ChannelId)> {
        self.parts.iter().flat_map(move |(gateway, part)| {
            part.metas.get(key).into_iter().flatten().map(move |meta| (gateway, meta.chan))
        })
    }

    /// Where a user's sockets are, with whatever session.
    pub fn of_user(&self, user: &UserId) -> impl Iterator<Item = (&Incarnation, ChannelId)> {
        // Keys are `<user>:<session>`, and no user has a colon: they are those from `<user>:` to `<user>;`.
        let (from, to) = (format!("{user}:"), format!("{user};"));
        self.parts.iter().flat_map(move |(gateway, part)| {
            let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
            part.metas.range::<str, _>(range).flat_map(move |(_, metas)| metas.iter().map(move |m| (gateway, m.chan)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gateway(n: u8) -> Incarnation {
        Incarnation::named(&format!("g-{n}")).expect("a name")
    }

    fn key(user: u64, session: &str) -> SessionKey {
        SessionKey::new(&UserId::from(user), session).expect("a key")
    }

    fn member(user: u64, chan: ChannelId) -> Member {
        Member { key: key(user, "s"), chan, online_at: 7 }
    }

    /// What one gateway has said in its life: for each version, who came and who left.
    type Life = Vec<(bool, u64, ChannelId)>;

    /// All deltas of a gateway, and its part after each of them.
    fn history(n: u8, life: &Life) -> Vec<(Delta, Parts)> {
        let (gateway, mut parts, mut version) = (gateway(n), Parts::default(), 0);
        life.iter()
            .map(|(join, user, chan)| {
                let member = member(*user, *chan);
                let (from, changes) = (version, &mut Vec::new());
                version += 1 + u64::from(n);
                let mut delta = Delta::new(gateway.clone(), from, version);
                if *join {
                    parts.add(&gateway, member.clone(), changes);
                    delta.joins.push(member);
                } else {
                    parts.remove(&gateway, &member.key, *chan, changes);
                    delta.leaves.push((member.key, *chan));
                }
                parts.parts.entry(gateway.clone()).or_default().version = version;
                (delta, parts.clone())
            })
            .collect()
    }

    fn lives() -> impl Strategy<Value = Vec<Life>> {
        let step = (any::<bool>(), 0..3u64, 0..4u64);
        proptest::collection::vec(proptest::collection::vec(step, 1..8), 1..4)
    }

    /// Takes what another one has, as if each of its gateways had said it.
    fn merge(into: &mut Parts, from: &Parts) {
        for (gateway, part) in &from.parts {
            into.take_part(gateway, part.version, from.members(gateway).collect(), &mut Vec::new());
        }
    }

    fn merged(a: &Parts, b: &Parts) -> Parts {
        let mut both = a.clone();
        merge(&mut both, b);
        sorted(both)
    }

    /// Two sockets of a session may have come in any order.
    fn sorted(mut parts: Parts) -> Parts {
        parts.parts.values_mut().flat_map(|part| part.metas.values_mut()).for_each(|m| m.sort_by_key(|m| m.chan));
        parts
    }

    /// A room as somebody sees it who has heard each gateway up to some point.
    fn seen(lives: &[Life], upto: &[usize]) -> Parts {
        let mut parts = Parts::default();
        for (n, life) in lives.iter().enumerate() {
            let said = history(n as u8, life);
            if let Some((_, part)) = said.get(upto[n] % (said.len() + 1)) {
                merge(&mut parts, part);
            }
        }
        sorted(parts)
    }

    proptest! {
        #[test]
        fn merging_commutes_associates_and_repeats(
            lives in lives(), a in any::<[usize; 4]>(), b in any::<[usize; 4]>(), c in any::<[usize; 4]>(),
        ) {
            let (a, b, c) = (seen(&lives, &a), seen(&lives, &b), seen(&lives, &c));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a);
        }

        /// Deltas in any order, some lost, some twice; who misses something asks for the whole part. All agree, what
        /// they were told changed is what has changed, and the count is right.
        #[test]
        fn whoever_hears_the_last_word_of_each_agrees(lives in lives(), order in proptest::collection::vec((0..4usize, 0..9usize), 0..40)) {
            let said: Vec<_> = lives.iter().enumerate().map(|(n, life)| history(n as u8, life)).collect();
            let (mut parts, mut changes) = (Parts::default(), Vec::new());
            let last = said.iter().enumerate().map(|(n, said)| (n, said.len() - 1));
            let order: Vec<_> = order.into_iter().map(|(n, at)| (n % said.len(), at)).chain(last).collect();
            for (n, at) in order {
                let (delta, now) = &said[n][at % said[n].len()];
                if parts.take_delta(delta, &mut changes) == Fit::Misses {
                    let whole = now.members(&gateway(n as u8)).collect();
                    parts.take_part(&gateway(n as u8), delta.to, whole, &mut changes);
                }
            }
            let mut expected = Parts::default();
            said.iter().filter_map(|said| said.last()).for_each(|(_, part)| merge(&mut expected, part));
            prop_assert_eq!(parts.count(), parts.all().len());
            let mut told = std::collections::BTreeSet::new();
            for change in changes {
                let id = (change.gateway, change.member);
                let new = if change.joined { told.insert(id) } else { told.remove(&id) };
                prop_assert!(new);
            }
            let all = parts.all();
            prop_assert_eq!(told.len(), all.len());
            for (key, gateway, meta) in all {
                let member = Member { key: key.clone(), chan: meta.chan, online_at: meta.online_at };
                prop_assert!(told.contains(&(gateway.clone(), member)));
            }
            prop_assert_eq!(sorted(parts), sorted(expected));
        }
    }

    #[test]
    fn two_halves_of_a_split_room_agree_again() {
        let (mut left, mut right) = (Parts::default(), Parts::default());
        let out = &mut Vec::new();
        left.take_part(&gateway(1), 5, vec![member(1, 1), member(2, 2)], out);
        right.take_part(&gateway(1), 3, vec![member(1, 1), member(9, 9)], out);
        right.take_part(&gateway(2), 4, vec![member(3, 1)], out);
        let (mut a, mut b) = (left.clone(), right.clone());
        merge(&mut a, &right);
        merge(&mut b, &left);
        assert_eq!(a, b);
        let keys: Vec<_> = a.all().iter().map(|(key, gateway, _)| format!("{key}@{gateway}")).collect();
        assert_eq!(keys, ["1:s@g-1", "2:s@g-1", "3:s@g-2"]);
        a.drop_gateway(&gateway(1), out);
        assert_eq!((a.count(), a.version(&gateway(1))), (1, 0));
    }

    #[test]
    fn a_user_is_found_with_all_its_sessions_and_no_other_user_is() {
        let mut parts = Parts::default();
        let out = &mut Vec::new();
        for (chan, (user, session)) in [(1, "a"), (1, "b"), (10, "a"), (2, "a")].into_iter().enumerate() {
            let member = Member { key: key(user, session), chan: chan as u64, online_at: 0 };
            parts.add(&gateway((chan % 2) as u8), member, out);
        }
        let mut of_user: Vec<_> = parts.of_user(&UserId::from(1)).map(|(_, chan)| chan).collect();
        of_user.sort_unstable();
        assert_eq!(of_user, [0, 1]);
        assert_eq!(parts.of_session("1:b").map(|(_, chan)| chan).collect::<Vec<_>>(), [1]);
        assert_eq!(parts.of_session("1").count(), 0);
    }
}
