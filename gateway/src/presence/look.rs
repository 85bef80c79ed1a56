//! Who is in a room, for somebody who is not in it and asks once. Where the room has no members here, the other
//! gateways are asked as for a first member, and nothing is left behind.

use std::time::Instant;

use switchboard_contract::limits::PRESENCE_LOOKS_MAX;
use switchboard_contract::names::{Incarnation, RoomId};
use switchboard_contract::presence::Part;

use super::room::{Context, Room, Step};
use super::shown::state_json;
use super::{Effect, Presence};
use crate::observe;

impl<M: Clone> Presence<M> {
    /// Who is in a room? [`Effect::Seen`] with this ticket follows, within
    /// [`switchboard_contract::limits::PRESENCE_WAIT`]. `false`: too many have asked.
    pub fn look(&mut self, id: &RoomId, ticket: u64, now: Instant) -> bool {
        if self.looks.len() >= PRESENCE_LOOKS_MAX {
            observe::full("looks");
            return false;
        }
        // Apart from the rooms with members: what this gateway says of the room to others is still that it has none.
        let room = Room::new(id, self.others(), now);
        self.looks.insert(ticket, (id.clone(), room));
        true
    }

    /// Another gateway has answered.
    pub(super) fn take_looked_for(&mut self, gateway: &Incarnation, part: &Part, now: Instant) {
        for (_, room) in self.looks.values_mut().filter(|(id, _)| *id == part.room) {
            room.take_part(gateway, part.clone(), now);
        }
    }

    /// Asks what is to be asked, and answers what is known.
    pub(super) fn tick_looks(&mut self, now: Instant, out: &mut Vec<Effect<M>>) {
        let mut steps = Vec::new();
        for (id, room) in self.looks.values_mut() {
            let mut context = Context {
                own: &self.own,
                version: &mut self.version,
                shown: &mut self.shown,
                list_max: self.list_max,
                now,
            };
            room.tick(&mut context, &mut steps);
            for step in steps.drain(..) {
                // Without members there is nobody to send to, and nothing to publish.
                if let Step::Ask(gateway, have) = step {
                    self.asks.entry(gateway).or_default().push((id.clone(), have));
                }
            }
        }
        let rooms = &self.rooms;
        // Who has members follows the room, and knows more.
        let member = |id: &RoomId| rooms.get(id).filter(|room| room.is_settled());
        self.looks.retain(|ticket, (id, room)| {
            let known = member(id).or_else(|| Some(&*room).filter(|room| room.is_settled()));
            out.extend(known.map(|known| Effect::Seen(*ticket, state_json(known.parts()))));
            known.is_none()
        });
    }
}
