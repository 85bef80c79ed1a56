//! What a chat's log says beside its messages: when both had entered, and how it ended. Pure.

use switchboard_contract::lobby::{ChatEnd, ChatEvent};

/// The facts of a chat's log.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    pub(crate) ready: Option<u64>,
    pub(crate) end: Option<(u64, ChatEnd)>,
}

impl Chat {
    /// Notes an event. What stands behind the end is void, messages too: ask for `end` first.
    pub(crate) fn note(&mut self, seq: u64, event: ChatEvent) {
        match event {
            ChatEvent::Ready => self.ready = self.ready.or(Some(seq)),
            ChatEvent::Terminated | ChatEvent::Requeued | ChatEvent::Tombstone => {
                self.end = event.end().map(|end| (seq, end));
            }
        }
    }
}
