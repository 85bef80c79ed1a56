//! What clients are shown of a room's presence, in the form that Phoenix.Presence has.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::{Incarnation, SessionKey};

use super::parts::{Change, Parts};

/// What has changed since clients were told last. Who came and went in between was never there: nobody is told.
#[derive(Debug, Default)]
pub(super) struct Diff(BTreeMap<(SessionKey, String), (u64, bool)>);

impl Diff {
    /// Somebody came, or left.
    pub(super) fn note(&mut self, change: &Change) {
        let member = &change.member;
        match self.0.entry((member.key.clone(), phx_ref(&change.gateway, member.chan))) {
            Entry::Occupied(noted) if noted.get().1 != change.joined => {
                noted.remove();
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert((member.online_at, change.joined));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The payload of `presence_diff`.
    pub(super) fn to_json(&self) -> String {
        let of = |joined| {
            let noted = self.0.iter().filter(move |(_, noted)| noted.1 == joined);
            lists(noted.map(|((key, phx_ref), (online_at, _))| (key, phx_ref.as_str(), *online_at)))
        };
        format!(r#"{{"joins":{},"leaves":{}}}"#, of(true), of(false))
    }
}

/// The payload of `presence_state`.
pub(super) fn state_json(parts: &Parts) -> String {
    lists(parts.all().into_iter().map(|(key, gateway, meta)| (key, phx_ref(gateway, meta.chan), meta.online_at)))
}

/// The payload of `presence_count`.
pub(super) fn count_json(count: usize) -> String {
    format!(r#"{{"count":{count}}}"#)
}

/// What tells metas apart, the same on every gateway: the random part of the gateway's name, and the channel.
fn phx_ref(gateway: &Incarnation, chan: ChannelId) -> String {
    let name = gateway.as_str();
    format!("{}-{chan}", name.rsplit_once('-').map_or(name, |(_, random)| random))
}

/// `{"<key>":{"metas":[…]},…}`; the metas of a key come together.
fn lists<'a, R: AsRef<str>>(metas: impl Iterator<Item = (&'a SessionKey, R, u64)>) -> String {
    let mut json = String::from("{");
    let mut last: Option<&SessionKey> = None;
    for (key, phx_ref, online_at) in metas {
        let same = last == Some(key);
        json.push_str(match (same, last) {
            (true, _) => ",",
            (false, Some(_)) => "]},",
            (false, None) => "",
        });
        if !same {
            json.push_str(&quoted(key.as_str()));
            json.push_str(":{\"metas\":[");
        }
        // Writing to a string does not fail.
        let _ = write!(json, r#"{{"phx_ref":{},"online_at":"{online_at}"}}"#, quoted(phx_ref.as_ref()));
        last = Some(key);
    }
    json.push_str(if last.is_some() { "]}}" } else { "}" });
    json
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_contract::names::UserId;
    use switchboard_contract::presence::Member;

    fn change(user: &str, chan: ChannelId, joined: bool) -> Change {
        let key = SessionKey::new(&UserId::text(user).expect("an id"), "s").expect("a key");
        let gateway = Incarnation::named("host-1-x7").expect("a name");
        Change { gateway, member: Member { key, chan, online_at: 1_700_000_000 }, joined }
    }

    #[test]
    fn sockets_of_one_session_are_metas_of_one_key() {
        let mut parts = Parts::default();
        for (user, chan) in [("b\"", 3), ("a", 1), ("a", 2)] {
            let Change { gateway, member, .. } = change(user, chan, true);
            parts.add(&gateway, member, &mut Vec::new());
        }
        assert_eq!(
            state_json(&parts),
            r#"{"a:s":{"metas":[{"phx_ref":"x7-1","online_at":"1700000000"},{"phx_ref":"x7-2","online_at":"1700000000"}]},"b\":s":{"metas":[{"phx_ref":"x7-3","online_at":"1700000000"}]}}"#
        );
        assert_eq!(state_json(&Parts::default()), "{}");
    }

    #[test]
    fn who_came_and_went_meanwhile_is_in_no_diff() {
        let mut diff = Diff::default();
        for (user, chan, joined) in [("a", 1, true), ("b", 2, false), ("a", 1, false), ("c", 3, true), ("c", 4, false)]
        {
            diff.note(&change(user, chan, joined));
        }
        assert_eq!(
            diff.to_json(),
            r#"{"joins":{"c:s":{"metas":[{"phx_ref":"x7-3","online_at":"1700000000"}]}},"leaves":{"b:s":{"metas":[{"phx_ref":"x7-2","online_at":"1700000000"}]},"c:s":{"metas":[{"phx_ref":"x7-4","online_at":"1700000000"}]}}}"#
        );
        diff.note(&change("b", 2, true));
        diff.note(&change("c", 3, false));
        diff.note(&change("c", 4, true));
        assert!(diff.is_empty());
    }
}
