//! Who is in a room, as a member's phoenix.js would have it. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::violation::Broken;

/// A member's list, and how far its join is.
#[derive(Debug, Default)]
pub(super) struct List {
    told: bool,
    /// By `phx_ref`: whose.
    metas: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Deserialize)]
struct MetasIn<'a> {
    #[serde(borrow)]
    metas: Vec<MetaIn<'a>>,
}

#[derive(Deserialize)]
struct MetaIn<'a> {
    #[serde(borrow)]
    phx_ref: Cow<'a, str>,
}

type StateIn<'a> = BTreeMap<Cow<'a, str>, MetasIn<'a>>;

#[derive(Deserialize)]
struct DiffIn<'a> {
    #[serde(borrow)]
    joins: StateIn<'a>,
    #[serde(borrow)]
    leaves: StateIn<'a>,
}

impl List {
    /// A join was answered: its state will follow.
    pub(super) fn joined(&mut self) {
        *self = List::default();
    }

    /// `presence_state`.
    pub(super) fn state(&mut self, json: &str) -> Result<(), Broken> {
        if self.told {
            return Err(Broken::PresenceOrder { what: "presence_state", had: "its state already" });
        }
        self.told = true;
        let state: StateIn<'_> = serde_json::from_str(json).map_err(|error| unexpected(&error, json))?;
        self.add(&state)
    }

    /// `presence_diff`.
    pub(super) fn diff(&mut self, json: &str) -> Result<(), Broken> {
        if !self.told {
            return Err(Broken::PresenceOrder { what: "presence_diff", had: "no state yet" });
        }
        let diff: DiffIn<'_> = serde_json::from_str(json).map_err(|error| unexpected(&error, json))?;
        self.add(&diff.joins)?;
        for (key, metas) in diff.leaves {
            for MetaIn { phx_ref } in metas.metas {
                if self.metas.remove(&*phx_ref).is_none_or(|of| *of != *key) {
                    return Err(meta(&phx_ref, &key, "left, and was not there"));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, state: &StateIn<'_>) -> Result<(), Broken> {
        for (key, metas) in state {
            for MetaIn { phx_ref } in &metas.metas {
                if self.metas.insert((&**phx_ref).into(), (&**key).into()).is_some() {
                    return Err(meta(phx_ref, key, "joined a second time"));
                }
            }
        }
        Ok(())
    }

    /// How many sockets each key has.
    pub(super) fn sockets(&self) -> BTreeMap<&str, u32> {
        count(self.metas.values().map(|key| &**key))
    }

    /// Whether both have the same metas.
    pub(super) fn agrees(&self, other: &List) -> bool {
        self.told && other.told && self.metas == other.metas
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        if self.told { format!("{:?}", self.metas) } else { "nothing yet".to_owned() }
    }
}

/// How often each is there.
pub(super) fn count<'a>(keys: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, u32> {
    let mut counts = BTreeMap::new();
    keys.for_each(|key| *counts.entry(key).or_default() += 1);
    counts
}

fn meta(phx_ref: &str, key: &str, what: &'static str) -> Broken {
    Broken::Meta { phx_ref: phx_ref.into(), key: key.into(), what }
}

fn unexpected(error: &serde_json::Error, json: &str) -> Broken {
    Broken::Unexpected(format!("{error}: {json}"))
}
