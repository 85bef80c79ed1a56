//! The gateways' tables: which channels there are, and what each one is.

use std::collections::{BTreeMap, BTreeSet};

use switchboard_contract::lobby::{ChannelId, Role, Whole};
use switchboard_contract::names::{ChatId, Incarnation, UserId};

/// A gateway's number, given in the order in which they show up: two words instead of a name in each row's address.
pub(super) type GatewayNo = u32;

/// A channel of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Addr {
    pub(super) gateway: GatewayNo,
    pub(super) chan: ChannelId,
}

/// Of whom a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Teacher(UserId),
    Student(UserId),
    Chat(ChatId, Role),
}

/// A row as it was last seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) n: u64,
    pub(super) member: Member,
}

/// One gateway's table.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) name: Incarnation,
    pub(super) rows: BTreeMap<ChannelId, Seen>,
    /// While the whole table is being sent: the rows that have come so far.
    pub(super) whole: Option<BTreeSet<ChannelId>>,
}

/// All gateways.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    by_no: BTreeMap<GatewayNo, Gateway>,
    by_name: BTreeMap<Incarnation, GatewayNo>,
    last: GatewayNo,
}

impl Gateways {
    /// Its number, if it is known.
    pub(super) fn no(&self, name: &Incarnation) -> Option<GatewayNo> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, no: GatewayNo) -> Option<&Gateway> {
        self.by_no.get(&no)
    }

    pub(super) fn get_mut(&mut self, no: GatewayNo) -> Option<&mut Gateway> {
        self.by_no.get_mut(&no)
    }

    pub(super) fn row(&self, addr: Addr) -> Option<&Seen> {
        self.get(addr.gateway)?.rows.get(&addr.chan)
    }

    /// Rows of all of them.
    pub(super) fn rows(&self) -> usize {
        self.by_no.values().map(|gateway| gateway.rows.len()).sum()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Incarnation> {
        self.by_name.keys()
    }

    /// Begins a message with rows. `None`: the gateway has to send its whole table first.
    pub(super) fn open(&mut self, name: &Incarnation, whole: Option<Whole>) -> Option<GatewayNo> {
        let first = whole.is_some_and(|w| w.first);
        let no = match self.no(name) {
            Some(no) => no,
            None if first => self.add(name),
            None => return None,
        };
        let gateway = self.by_no.get_mut(&no)?;
        if first {
            gateway.whole = Some(BTreeSet::new());
        } else if whole.is_some() && gateway.whole.is_none() {
            return None;
        }
        Some(no)
    }

    /// The whole table is complete: the rows that it did not have.
    pub(super) fn close(&mut self, no: GatewayNo) -> Vec<ChannelId> {
        let Some(gateway) = self.by_no.get_mut(&no) else { return Vec::new() };
        let Some(seen) = gateway.whole.take() else { return Vec::new() };
        gateway.rows.keys().filter(|chan| !seen.contains(chan)).copied().collect()
    }

    /// Forgets a gateway without rows.
    pub(super) fn remove(&mut self, no: GatewayNo) {
        if let Some(gateway) = self.by_no.remove(&no) {
            self.by_name.remove(&gateway.name);
        }
    }

    fn add(&mut self, name: &Incarnation) -> GatewayNo {
        self.last += 1;
        self.by_name.insert(name.clone(), self.last);
        self.by_no.insert(self.last, Gateway { name: name.clone(), rows: BTreeMap::new(), whole: None });
        self.last
    }
}
