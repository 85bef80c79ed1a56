//! What reaches a room's members beside its log.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use switchboard_contract::presence::{Delta, PRESENCE};
use switchboard_contract::room::Live;
use switchboard_contract::unlogged::{BINARY, EVENT, Head, KEYWORDS, UnloggedEvent};
use switchboard_contract::wire;

use super::Room;
use super::fact::from_field;
use crate::commands::PresenceCommand;
use crate::mailbox::Event;
use crate::object;
use crate::topic::Effect;

impl<M: Clone> Room<M> {
    /// Something came that is not logged; `gateway` is this one's own name.
    pub fn told(&mut self, body: &Bytes, gateway: &str, out: &mut Vec<Effect<M>>) {
        let (kind, members) = self.parts();
        let live = members.iter().filter(|member| member.is_live());
        if body.first() == Some(&BINARY) {
            let event = Arc::new(Event::Binary { topic: kind.topic.as_str().into(), frame: body.clone() });
            return out.extend(live.map(|member| Effect::Send(member.mailbox.clone(), event.clone())));
        }
        match understood::<Head<'_>>(body).as_ref().map(|head| head.kind.as_ref()) {
            Some(EVENT) => {
                let Some(told) = understood::<UnloggedEvent<'_>>(body) else { return };
                let payload = object::with(told.payload.get(), &from_field(&told.from));
                let event = kind.event(&told.event, payload);
                let others = live.filter(|member| told.gateway != gateway || told.chan != member.chan);
                out.extend(others.map(|member| Effect::Send(member.mailbox.clone(), event.clone())));
            }
            Some(KEYWORDS) => {
                let Some(Live::Keywords { keywords, .. }) = understood(body) else { return };
                let event = kind.event("keywords", serde_json::json!({ "keywords": keywords }).to_string());
                kind.view.keywords = keywords;
                out.extend(live.map(|member| Effect::Send(member.mailbox.clone(), event.clone())));
            }
            Some(PRESENCE) => {
                if let Ok(delta) = wire::decode::<Delta>(PRESENCE, body) {
                    out.push(Effect::Presence(kind.id.clone(), PresenceCommand::Delta(Box::new(delta))));
                }
            }
            Some(other) => tracing::debug!(kind = other, "an unlogged message of a newer service"),
            None => {}
        }
    }
}

fn understood<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    wire::decode("unlogged", body).inspect_err(|error| tracing::warn!(%error, "beside a log")).ok()
}
